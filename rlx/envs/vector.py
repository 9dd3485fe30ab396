"""The backends "vector" (Gymnasium's vector_entry_point) and "envpool": one object steps all environments.

CartPole has its own, exact and resumable: see `cartpole`. The others share one random generator or seed only
when they are made, so that open episodes cannot be restored: each checkpoint starts new ones (`replayable` is
False).

How the true final observation and the next episode's first both arrive in the step that ends an episode:
  envpool               the ended environments alone are reset at once (sync mode takes a subset of ids)
  autoreset SAME_STEP   the environment does it; the final observation is in info["final_obs"]
  autoreset DISABLED    reset(options={"reset_mask": ended})
  autoreset NEXT_STEP   cannot be had: the next step of that lane is the reset, so `valid` is False for it
                        and obs keeps the final observation until then
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from rlx.envs.batch import Ends, Envs, Final
from rlx.envs.episodes import episode_seed
from rlx.envs.quick.cartpole import CartPoleEnvs
from rlx.envs.single import EnvConfig, explain, find, install_hint, make_env, one_line, time_limit
from rlx.envs.spaces import EnvError, EnvFault, with_channels
from rlx.envs.sync import wrong_info

FOREVER = 2**31 - 1  # steps: what these libraries take for "no limit"
CARTPOLE = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
ENVPOOL_WRAPPERS = ("atari", "clip_reward", "episodic_life", "fire_reset")


def make_vector(cfg: EnvConfig, num_envs: int, seed: int, domain: int) -> Envs:
    """The environments of cfg.backend "vector" or "envpool"."""
    common: dict[str, Any] = {"seed": seed, "domain": domain, "clip_reward": "clip_reward" in cfg.wrapper_names}
    if cfg.backend == "envpool":
        return EnvPoolEnvs(cfg, num_envs, **common)
    others = [name for name in cfg.wrapper_names if name != "clip_reward"]
    if others:
        raise EnvError(f"env.wrappers={others}: env.backend=vector takes no wrappers; use env.backend=sync")
    target = find(cfg.id)
    spec = gym.registry.get(target) if isinstance(target, str) else target
    if spec is not None and spec.entry_point == CARTPOLE and not cfg.kwargs:
        env = make_env(cfg)
        limit = time_limit(cfg, env)
        return CartPoleEnvs(cfg.id, env, num_envs, limit=limit, replay=cfg.replay is not False, **common)
    kwargs = dict(cfg.kwargs)
    if cfg.max_episode_steps is not None:
        kwargs["max_episode_steps"] = cfg.max_episode_steps if cfg.max_episode_steps > 0 else FOREVER
    try:
        venv = gym.make_vec(target, num_envs, vectorization_mode="vector_entry_point", **kwargs)
    except Exception as error:
        if "vector entry point" in str(error):
            raise EnvError(f"env.backend=vector: {cfg.id} has no vectorised version; use env.backend=sync") from error
        raise explain(cfg, error) from error
    return VectorEnvs(cfg.id, venv, unmasked=cfg.action_mask is False, channels=cfg.channels, **common)


class VectorEnvs(Envs):
    """See `Envs`. `restarts` counts the seeded resets of all lanes."""

    replayable = False
    restarts = -1

    def __init__(self, id: str, venv: Any, unmasked: bool = False, channels: str | None = None, **kwargs: Any):
        self._unmasked = unmasked
        observation = venv.single_observation_space
        spaces = with_channels(observation, channels) if channels else observation, venv.single_action_space
        super().__init__(id, venv.num_envs, *spaces, **kwargs)
        self.venv = venv
        self.add_notice(f"{id}: this backend cannot restore open episodes; each checkpoint starts new ones")
        self._autoreset = getattr(venv, "metadata", {}).get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.waits = self._autoreset == AutoresetMode.NEXT_STEP
        self._action_dtype = venv.single_action_space.dtype
        self._next = np.zeros_like(self.obs)  # SAME_STEP: the first observations of the next episodes
        self._waiting = np.zeros(self.num_envs, bool)  # NEXT_STEP: lanes whose next step is the reset
        self._infos: dict[str, Any] = {}

    def reset(self) -> np.ndarray:
        self.restarts += 1
        self._restart([episode_seed(self.seed, self.domain, i, self.restarts) for i in range(self.num_envs)])
        self._start = [self._t] * self.num_envs
        self._episode = [self.restarts] * self.num_envs
        self._return[:] = 0.0
        self._waiting[:] = False
        self.valid[:] = True
        for i in range(self.num_envs):
            self._check_first(i)
        return self.obs

    def _restart(self, seeds: list[int]) -> None:
        obs, infos = self.venv.reset(seed=seeds[0])
        if "action_mask" in infos and not self._unmasked:
            raise EnvError(
                f"env.id={self.id}: gives masks of its actions, and env.backend=vector takes none; use "
                "env.backend=sync (or env.action_mask=false)"
            )
        self._put(self.obs, obs)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, Final]:
        np.logical_not(self._waiting, self.valid)
        for i in np.flatnonzero(self._waiting):  # this step is the reset of lane i: its episode starts after it
            self._start[i], self._return[i] = self._t + 1, 0.0
        self._waiting[:] = False
        return super().step(action)

    def _advance(self, action: np.ndarray) -> Ends:
        batch = np.asarray(self._actions.decode(action), self._action_dtype)
        try:
            obs, reward, terminated, truncated, self._infos = self.venv.step(batch)
            self._put(self.obs, obs)
            self._raw_reward[:] = reward
        except Exception as error:
            raise EnvFault(f"{self.id} at step {self._t}: {type(error).__name__}: {error}") from error
        self._raw_reward[~self.valid] = 0.0
        ended = np.logical_or(terminated, truncated)
        if self._autoreset == AutoresetMode.SAME_STEP and ended.any():
            self._next[:] = self.obs
            for i in np.flatnonzero(ended):
                self.obs[i] = self._encode_one(self._infos["final_obs"][i])
        return terminated, truncated, bool(ended.any())

    def _finish(self, terminated: Any, truncated: Any) -> Final:
        final = super()._finish(terminated, truncated)
        ended = [i for i, _ in final]
        if self._autoreset == AutoresetMode.SAME_STEP:
            self.obs[ended] = self._next[ended]
        elif self._autoreset == AutoresetMode.NEXT_STEP:
            self._waiting[ended] = True
        else:
            self._reset_some(ended)
        for i in ended:
            self._check_first(i)
        return final

    def _reset_some(self, ended: list[int]) -> None:
        mask = np.zeros(self.num_envs, bool)
        mask[ended] = True
        self._put(self._next, self.venv.reset(options={"reset_mask": mask})[0])
        self.obs[ended] = self._next[ended]

    def _begin(self, i: int) -> None:  # called by _finish for an ended lane; its reset is above
        self._start[i], self._return[i] = self._t, 0.0

    def _put(self, target: np.ndarray, obs: Any) -> None:
        if self._encode is None:
            target[:] = obs
        else:
            for i, row in enumerate(obs):
                target[i] = self._encode(row)

    def _encode_one(self, obs: Any) -> Any:
        return obs if self._encode is None else self._encode(obs)

    def _success(self, i: int) -> float | None:
        for key in ("is_success", "success"):
            if key in self._infos and self._infos.get(f"_{key}", np.ones(self.num_envs, bool))[i]:
                value = self._infos[key][i]
                if wrong := wrong_info({key: value}):
                    raise EnvFault(f"{self._where(i)}: {wrong}")
                return None if value is None else float(value)
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load_common(state)
        self.restarts = max(int(lane["episode"]) for lane in state["lanes"]) - 1
        self.reset()

    def close(self) -> None:
        self.venv.close()


class EnvPoolEnvs(VectorEnvs):
    """EnvPool in sync mode. Seeds are fixed when a pool is made: a seeded reset makes a new one."""

    def __init__(self, cfg: EnvConfig, num_envs: int, **kwargs: Any):
        try:
            import envpool
        except ImportError as error:
            raise EnvError(f"env.backend=envpool: {install_hint('envpool')}") from error
        others = [name for name in cfg.wrapper_names if name not in ENVPOOL_WRAPPERS]
        if others:
            raise EnvError(f"env.wrappers={others}: env.backend=envpool takes only {', '.join(ENVPOOL_WRAPPERS)}")
        options = dict(cfg.kwargs)
        if cfg.id.startswith("ALE/"):  # EnvPool does the preprocessing itself and calls Pong "Pong-v5"
            options.pop("frameskip", None)
            options["episodic_life"] = "episodic_life" in cfg.wrapper_names
            options["use_fire_reset"] = "fire_reset" in cfg.wrapper_names
        if cfg.max_episode_steps is not None:
            options["max_episode_steps"] = cfg.max_episode_steps if cfg.max_episode_steps > 0 else FOREVER
        options.setdefault("num_threads", cfg.workers or 1)

        def make(seeds: list[int]) -> Any:
            try:
                return envpool.make_gymnasium(cfg.id.removeprefix("ALE/"), num_envs=num_envs, seed=seeds, **options)
            except Exception as error:
                raise EnvError(f"env.backend=envpool: {cfg.id}: {one_line(error)}") from error

        self._make = make
        super().__init__(cfg.id, make([0] * num_envs), channels=cfg.channels, **kwargs)
        self._autoreset, self.waits = AutoresetMode.DISABLED, False

    def _restart(self, seeds: list[int]) -> None:
        self.venv.close()
        self.venv = self._make(seeds)
        self._put(self.obs, self.venv.reset()[0])

    def _reset_some(self, ended: list[int]) -> None:
        obs, info = self.venv.reset(np.array(ended, np.int32))
        for i, row in zip(info["env_id"], obs):
            self.obs[i] = self._encode_one(row)
