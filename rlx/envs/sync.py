"""The backend "sync": single environments stepped one after another in this process."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rlx.base.text import escaped
from rlx.envs.batch import Ends, Envs, not_finite
from rlx.envs.single import EnvConfig, make_env, one_line, reset_options, time_limit
from rlx.envs.spaces import EnvFault
from rlx.envs.wrappers import EpisodicLife, random_action

TRIAL_STEPS, CLOSE_SECONDS = 3, 10.0
PROBE_STEPS, PROBE_SECONDS, PROBE_SEED = 20, 0.2, 0x5EED


class SyncEnvs(Envs):
    """See `Envs`. `replay`: True or False as the user says, None finds out on the first environment. `options`: for
    every reset."""

    def __init__(
        self,
        id: str,
        envs: Sequence[gym.Env],
        *,
        replay: bool | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(id, len(envs), envs[0].observation_space, envs[0].action_space, **kwargs)
        self.envs, self._options = list(envs), options or {}
        self._steps = [env.step for env in envs]
        self._results: list[Any] = []  # of the last step, as the environments gave them
        self._infos: Sequence[dict[str, Any]] = ()
        self._lives = [_episodic_life(env) for env in envs]
        self._seed_actions = any(env is not env.unwrapped for env in envs)  # a wrapper may sample actions
        self.set_replayable(replay is not False)
        if replay is None:
            self.probe()

    def _advance(self, action: np.ndarray) -> Ends:
        results = self._results = []
        try:
            for step, one in zip(self._steps, self._actions.decode(action)):
                results.append(step(one))
            rows, rewards, terminated, truncated, self._infos = zip(*results)
            if self._encode is None:
                np.concatenate(rows, out=self._flat, casting="unsafe")
            else:
                encode, obs = self._encode, self.obs
                for i, row in enumerate(rows):
                    row = encode(row)
                    if row.shape != self.observation_space.shape:
                        raise ValueError("wrong shape")  # an assignment might broadcast it
                    obs[i] = row
            ended = sum(terminated) + sum(truncated)
            if not (ended >= 0 and sum(rewards) is not None):  # NaN; text and None are a TypeError
                raise ValueError("not true or false")
            self._raw_reward[:] = rewards
            return terminated, truncated, ended > 0
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit, a panic of a Rust library, ...
            raise self._fault(results, error) from error

    def _fault(self, results: list[Any], error: BaseException) -> EnvFault:
        """Which lane it was, from how far the step came."""
        if len(results) < self.num_envs:
            return EnvFault(f"{self._where(len(results), 1)}: step raised {type(error).__name__}: {error}")
        for i, result in enumerate(results):
            if not isinstance(result, tuple) or len(result) != 5:
                wants = "(obs, reward, terminated, truncated, info)"
                return EnvFault(f"{self._where(i, 1)}: step must return {wants}, not {result!r:.80}")
            if wrong := self._wrong_shape(result[0]) or wrong_outcome(*result[1:]):
                return EnvFault(f"{self._where(i, 1)}: {wrong}")
        return EnvFault(f"{self._where(0, 1)}: {type(error).__name__}: {error}")

    def _wrong_shape(self, obs: Any) -> str | None:
        space = self.envs[0].observation_space
        try:
            row = np.asarray(obs if self._encode is None else self._encode(obs))
            if row.dtype.kind not in "biuf":
                raise TypeError("it is no array of real numbers")
        except Exception as error:
            return f"the observation does not fit {space}: {type(error).__name__}: {error}"
        if row.shape != self.observation_space.shape:
            return f"the observation has shape {np.shape(obs)} instead of {space.shape}"
        return None

    def _wrong_obs(self, obs: Any) -> str | None:
        if wrong := self._wrong_shape(obs):
            return wrong
        with np.errstate(over="ignore", invalid="ignore"):
            return not_finite(np.asarray(obs if self._encode is None else self._encode(obs), self.obs.dtype))

    def _reset_lane(self, i: int, seed: int | None) -> None:
        env = self.envs[i]
        try:
            if self._seed_actions and seed is not None:
                env.action_space.seed(seed)
            obs, _ = env.reset(seed=seed, **self._options)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise EnvFault(f"{self._where(i)}: reset raised {type(error).__name__}: {error}") from error
        self._write(i, obs)

    def _write(self, i: int, obs: Any) -> None:
        wrong = self._wrong_shape(obs)
        if wrong:
            raise EnvFault(f"{self._where(i)}: {wrong}")
        self.obs[i] = obs if self._encode is None else self._encode(obs)

    def _next_episode(self, i: int) -> None:
        life = self._lives[i]
        if life is None or life.game_over or self._truncated[i]:
            super()._next_episode(i)
        else:
            self._reset_lane(i, None)  # the next life of the same game, which is one episode to us

    def _success(self, i: int) -> float | None:
        info = self._infos[i]
        if wrong := wrong_info(info):
            raise EnvFault(f"{self._where(i)}: {wrong}")
        success = info.get("is_success", info.get("success"))
        return None if success is None else float(success)

    def _replay(self, i: int, actions: np.ndarray) -> str | None:
        env, life = self.envs[i], self._lives[i]
        for k, action in enumerate(self._actions.decode(actions)):
            try:
                obs, reward, terminated, truncated, _ = env.step(action)
                self._return[i] += float(reward)
                if terminated or truncated:
                    if life is not None and not life.game_over:
                        obs, _ = env.reset()
                    else:
                        return f"it ended at step {k + 1}"
            except Exception as error:
                return f"step {k + 1} raised {type(error).__name__}: {error}"
        if len(actions):
            self._write(i, obs)
        return None

    def probe(self) -> None:
        """Set `replayable` and `notice`: one seed and the same random actions twice, every bit compared."""
        try:
            first = self._play_probe(PROBE_STEPS, time.perf_counter() + PROBE_SECONDS)
            second = self._play_probe(len(first) - 1, float("inf"))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise EnvFault(
                f"env {self.first_lane} ({self.id}) raised {type(error).__name__}: {error} within "
                f"{PROBE_STEPS} random actions (a check that it replays; env.replay=true or false skips it)"
            ) from error
        if first != second:
            k = next((k for k, (a, b) in enumerate(zip(first, second)) if a != b), len(second))
            self.set_replayable(False)
            self.add_notice(
                f"{self.id} does not replay (the same seed and {k} equal actions gave two results): "
                "each checkpoint drops the open episodes and starts new ones"
            )

    def _play_probe(self, steps: int, stop: float) -> list[tuple[bytes, bytes]]:
        """The bits of (obs), (reward, terminated, truncated) from a fixed seed under fixed random actions."""
        env, encode = self.envs[0], self._encode or (lambda obs: obs)
        env.action_space.seed(PROBE_SEED)
        obs, _ = env.reset(seed=PROBE_SEED, **self._options)
        seen = [(np.array(encode(obs), self.obs.dtype).tobytes(), b"")]
        over = False
        while len(seen) <= steps and not over and time.perf_counter() < stop:
            obs, reward, terminated, truncated, _ = env.step(random_action(env))
            over = bool(terminated or truncated)
            outcome = np.array([reward, terminated, truncated], np.float64)
            seen.append((np.array(encode(obs), self.obs.dtype).tobytes(), outcome.tobytes()))
        return seen

    def try_out(self) -> None:
        """A reset and a few random steps, everything that they give looked at. Raises EnvFault."""
        env, when = self.envs[0], "reset"
        try:
            env.action_space.seed(PROBE_SEED)
            first = env.reset(seed=PROBE_SEED, **self._options)
            wrong = (
                None if isinstance(first, tuple) and len(first) == 2 else f"must return (obs, info), not {first!r:.80}"
            )
            wrong = wrong or self._wrong_obs(first[0]) or wrong_info(first[1])
            for k in range(TRIAL_STEPS):
                if wrong:
                    break
                when = f"step {k + 1}"
                result = env.step(random_action(env))
                if not isinstance(result, tuple) or len(result) != 5:
                    wrong = f"must return (obs, reward, terminated, truncated, info), not {result!r:.80}"
                else:
                    wrong = self._wrong_obs(result[0]) or wrong_outcome(*result[1:])
                if wrong or result[2] or result[3]:
                    break
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            wrong = f"raised {type(error).__name__}: {error}"
        if wrong:
            raise EnvFault(f"{when} of a trial before the run: {wrong}")

    def close(self) -> None:
        for env in self.envs:
            close(env, self.id)


def wrong_outcome(reward: Any, terminated: Any, truncated: Any, info: Any) -> str | None:
    """What is wrong with the rest of what a step returned, in words; None where nothing is."""
    if isinstance(reward, str | bytes) or np.ndim(reward) or np.asarray(reward).dtype.kind not in "biuf":
        return f"the reward is {reward!r:.80}, not a number"
    if not abs(float(reward)) <= np.finfo(np.float32).max:
        return f"the reward is {reward!r:.80}, not a finite float32"
    for name, value in (("terminated", terminated), ("truncated", truncated)):
        if np.ndim(value) or np.asarray(value).dtype.kind not in "biu" or value not in (0, 1):
            return f"{name} is {value!r:.80}, not true or false"
    return wrong_info(info)


def wrong_info(info: Any) -> str | None:
    if not isinstance(info, Mapping):
        return f"the info is {info!r:.80}, not a dict"
    for name in ("is_success", "success"):
        value = info.get(name)
        if value is not None and (np.ndim(value) or np.asarray(value).dtype.kind not in "biuf"):
            return f"info['{name}'] is {value!r:.80}, not true, false or a number"
    return None


def close(env: gym.Env, id: str) -> None:
    """Close an environment; what goes wrong, or takes longer than CLOSE_SECONDS, is a warning: the work is done."""

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"took longer than {CLOSE_SECONDS:g} s")

    main = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    limited = main and signal.getitimer(signal.ITIMER_REAL)[0] == 0  # no alarm of another's
    before = signal.signal(signal.SIGALRM, too_long) if limited else None
    try:
        if limited:
            signal.setitimer(signal.ITIMER_REAL, CLOSE_SECONDS)
        env.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        with contextlib.suppress(OSError, ValueError):
            print(f"rlx: warning: close of {id}: {type(error).__name__}: {escaped(one_line(error))}", file=sys.stderr)
    finally:
        if limited:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


def _episodic_life(env: Any) -> EpisodicLife | None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, EpisodicLife):
            return env
        env = env.env
    return None


def make_lanes(
    cfg: EnvConfig, lanes: range, seed: int, domain: int, buffers: dict[str, np.ndarray] | None = None
) -> Envs:
    """The lanes of that range, stepped in this process."""
    envs = [make_env(cfg) for _ in lanes]
    return SyncEnvs(
        cfg.id,
        envs,
        replay=False if cfg.seeding == "once" else cfg.replay,
        options=reset_options(cfg),
        seed_once=cfg.seeding == "once",
        seed=seed,
        domain=domain,
        first_lane=lanes.start,
        limit=time_limit(cfg, envs[0]),
        clip_reward="clip_reward" in cfg.wrapper_names,
        buffers=buffers,
    )
