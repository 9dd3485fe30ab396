"""The backend "sync": single environments stepped one after another in this process."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rlx.envs.batch import Ends, Envs
from rlx.envs.single import EnvConfig, make_env, reset_options, time_limit
from rlx.envs.spaces import EnvFault
from rlx.envs.wrappers import EpisodicLife, random_action

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
            self._raw_reward[:] = rewards
            return terminated, truncated, any(terminated) or any(truncated)
        except Exception as error:
            raise self._fault(results, error) from error

    def _fault(self, results: list[Any], error: Exception) -> EnvFault:
        """Which lane it was, from how far the step came."""
        if len(results) < self.num_envs:
            return EnvFault(f"{self._where(len(results), 1)}: step raised {type(error).__name__}: {error}")
        for i, result in enumerate(results):
            if not isinstance(result, tuple) or len(result) != 5:
                wants = "(obs, reward, terminated, truncated, info)"
                return EnvFault(f"{self._where(i, 1)}: step must return {wants}, not {result!r:.80}")
            wrong = self._wrong_shape(result[0])
            if wrong:
                return EnvFault(f"{self._where(i, 1)}: {wrong}")
            try:
                self._raw_reward[i] = result[1]
            except (TypeError, ValueError):
                return EnvFault(f"{self._where(i, 1)}: the reward is {result[1]!r:.80}, not a number")
        return EnvFault(f"{self._where(0, 1)}: {type(error).__name__}: {error}")

    def _wrong_shape(self, obs: Any) -> str | None:
        space = self.envs[0].observation_space
        try:
            row = np.asarray(obs if self._encode is None else self._encode(obs))
            if row.dtype == object:
                raise TypeError("it is no numeric array")
        except Exception as error:
            return f"the observation does not fit {space}: {type(error).__name__}: {error}"
        if row.shape != self.observation_space.shape:
            return f"the observation has shape {np.shape(obs)} instead of {space.shape}"
        return None

    def _reset_lane(self, i: int, seed: int | None) -> None:
        env = self.envs[i]
        try:
            if self._seed_actions and seed is not None:
                env.action_space.seed(seed)
            obs, _ = env.reset(seed=seed, **self._options)
        except Exception as error:
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
        except Exception as error:
            raise EnvFault(
                f"env {self.first_lane} ({self.id}) raised {type(error).__name__}: {error} within "
                f"{PROBE_STEPS} random actions (a check that it replays; env.replay=true or false skips it)"
            ) from error
        if first != second:
            k = next((k for k, (a, b) in enumerate(zip(first, second)) if a != b), len(second))
            self.set_replayable(False)
            self.notice = (
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

    def close(self) -> None:
        for env in self.envs:
            env.close()


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
