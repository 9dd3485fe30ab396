"""Gymnasium's classic control, all lanes in one call of the compiled kernels (backend "auto").

A step of Gymnasium's costs 4 to 90 us, nearly all of it overhead of single numbers; here it costs less than one, acting
needs not return to Python in between (`Envs.kernel`), and every bit is the same: before the first use, steps from
random states are compared with Gymnasium's own, and where one differs, or there are no kernels, Gymnasium steps.
Episodes start, are seeded, saved and replayed by Gymnasium's environment, so that states are exchangeable with the
other backends'.
"""

import ctypes
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlx.engine import kernels
from rlx.envs.batch import Ends
from rlx.envs.single import EnvConfig, find, make_env, time_limit
from rlx.envs.sync import SyncEnvs

SOURCE = Path(__file__).with_name("classic_control.c")
LANES = np.dtype(  # its struct
    [(name, "u8") for name in ("step", "obs", "reward", "returns")]
    + [(name, "i8") for name in ("lanes", "obs_size", "action_bytes", "code", "state_size")]
    + [("state", "u8"), ("terminated", "u8"), ("k", "f8", 12)]
)
COMPARED = 256  # random states

# Of each environment: the name of its kernel, the attributes that this one is given, how far states are compared.
KNOWN: dict[str, tuple[str, str, tuple[float, ...]]] = {
    "cartpole:CartPoleEnv": (
        "cartpole",
        "force_mag gravity masspole total_mass length polemass_length tau x_threshold theta_threshold_radians",
        (3.0, 2.0, 0.5, 2.0),
    ),
    "mountain_car:MountainCarEnv": (
        "mountain_car",
        "force gravity max_speed min_position max_position goal_position goal_velocity",
        (1.5, 0.08),
    ),
    "continuous_mountain_car:Continuous_MountainCarEnv": (
        "continuous_mountain_car",
        "power max_speed min_position max_position goal_position goal_velocity min_action max_action",
        (1.5, 0.08),
    ),
    "pendulum:PendulumEnv": ("pendulum", "g m l dt max_speed max_torque", (10.0, 9.0)),
    "acrobot:AcrobotEnv": (
        "acrobot",
        "LINK_MASS_1 LINK_MASS_2 LINK_LENGTH_1 LINK_COM_POS_1 LINK_COM_POS_2 LINK_MOI dt MAX_VEL_1 MAX_VEL_2",
        (3.2, 3.2, 13.0, 29.0),
    ),
}
_verdicts: dict[str, bool] = {}  # whether an environment with such arguments is stepped as Gymnasium does it


def make_compiled(cfg: EnvConfig, num_envs: int, seed: int, domain: int) -> "CompiledEnvs | None":
    """None where there is no kernel for them, or one that does not do exactly what Gymnasium does."""
    target = find(cfg.id)
    spec = gym.registry.get(target) if isinstance(target, str) else target
    known = KNOWN.get(str(spec and spec.entry_point).removeprefix("gymnasium.envs.classic_control."))
    if known is None or cfg.wrappers or kernels.load() is None or (loaded := kernels.library(SOURCE)) is None:
        return None
    env = make_env(cfg)
    patched = any(getattr(type(env), name).__module__ != type(env).__module__ for name in ("step", "reset"))
    if patched or env is not env.unwrapped or env.render_mode is not None:
        return None
    limit, replay = time_limit(cfg, env), cfg.replay is not False
    envs = CompiledEnvs(cfg.id, env, num_envs, loaded, known, limit=limit, replay=replay, seed=seed, domain=domain)
    key = f"{spec} {cfg.kwargs}"
    if key not in _verdicts:
        _verdicts[key] = envs.agrees()
    return envs if _verdicts[key] else None


class CompiledEnvs(SyncEnvs):
    """See `Envs`. One environment of Gymnasium's serves all lanes for resets and replays."""

    def __init__(
        self, id: str, env: Any, num_envs: int, loaded: ctypes.CDLL, known: tuple[str, str, tuple[float, ...]],
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(id, [env] * num_envs, **kwargs)
        name, constants, self._spread = known
        self.env, self._never, self._infos = env, np.zeros(num_envs, bool), [{}] * num_envs
        self._single = name == "continuous_mountain_car"  # whose state holds floats from its first step on
        self._state = np.zeros((num_envs, len(self._spread) + self._single))
        self._given = np.zeros(self._action_shape, self._actions.dtype)
        self._fell = np.zeros(num_envs, bool)
        self.kernel = np.zeros((), LANES)
        arrays = self._state, self.obs, self._raw_reward, self._return, self._fell
        for field, array in zip(("state", "obs", "reward", "returns", "terminated"), arrays, strict=True):
            self.kernel[field] = array.ctypes.data
        sizes = num_envs, kernels.numbered(loaded.rlx_environments)[name], self._state.shape[1], self.obs.shape[1]
        for field, size in zip(("lanes", "code", "state_size", "obs_size"), sizes, strict=True):
            self.kernel[field] = size
        self.kernel["action_bytes"] = self._given[0].nbytes
        values = [getattr(env, constant) for constant in constants.split()]
        self.kernel["k"][: len(values)] = values
        step = loaded.rlx_env
        step.argtypes, step.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_int64
        self.kernel["step"] = ctypes.cast(step, ctypes.c_void_p).value
        self._call, self._addresses = step, (self.kernel.ctypes.data, self._given.ctypes.data)

    def _advance(self, action: np.ndarray) -> Ends:
        self._given[:] = action
        ended = self._call(*self._addresses)
        return self._fell, self._never, bool(ended)

    def _ends(self) -> Ends:
        return self._fell, self._never, bool(self._fell.any())

    def _reset_lane(self, i: int, seed: int | None) -> None:
        super()._reset_lane(i, seed)
        self._take_state(i)

    def _replay(self, i: int, actions: np.ndarray) -> str | None:
        problem = super()._replay(i, actions)
        self._take_state(i)
        return problem

    def _take_state(self, i: int) -> None:
        state = np.asarray(self.env.state)
        self._state[i] = [*state, state.dtype == np.float32] if self._single else state

    def agrees(self) -> bool:
        """Whether every bit of a step equals Gymnasium's, from random states, large and tiny. Leaves no trace."""
        rng, kept = np.random.default_rng(1), (self._state.copy(), self.obs.copy())
        equal = all(self._agree(rng) for _ in range(-(-COMPARED // self.num_envs)))
        self._state[:], self.obs[:], self._raw_reward[:] = *kept, 0.0
        return equal

    def _agree(self, rng: np.random.Generator) -> bool:
        """One step of each lane."""
        shape = self.num_envs, len(self._spread)
        size = 10.0 ** (rng.uniform(-6, 0, shape) * rng.integers(0, 2, shape))
        states = size * rng.uniform(-1, 1, shape) * self._spread
        kind = np.float32 if self._single and rng.integers(2) else np.float64
        before = states.astype(kind)
        action = self._some_actions(rng)
        self._state[:, : before.shape[1]] = before
        if self._single:
            self._state[:, -1] = kind == np.float32
        self._advance(action)
        for i, given in enumerate(self._actions.decode(action)):
            self.env.reset()
            self.env.state = before[i].copy()
            obs, reward, terminated, _, _ = self.env.step(given)
            mine = (self._state[i, : before.shape[1]], self.obs[i], self._raw_reward[i], self._fell[i])
            theirs = (self.env.state, obs, reward, terminated)
            if not all(np.array_equal(a, b) for a, b in zip(mine, theirs)):
                return False
        return True

    def _some_actions(self, rng: np.random.Generator) -> np.ndarray:
        """Of a Box, a quarter beyond the bounds."""
        if isinstance(self.action_space, gym.spaces.Box):
            return (self.action_space.high * rng.uniform(-4 / 3, 4 / 3, self._action_shape)).astype(np.float32)
        return rng.integers(0, self.action_space.n, self.num_envs)  # type: ignore[attr-defined]
