"""Acting and stepping in one call of the compiled kernels, where they know the environments (envs.quick.compiled)."""

from time import perf_counter

import numpy as np

from rlx.base import stopwatch
from rlx.control.normalize import ObsNormalizer
from rlx.engine.tape import Forward
from rlx.envs.batch import Envs

ROLLOUT = np.dtype(  # the struct of rlx/engine/kernels.c
    [(name, "u8") for name in ("ops", "num_ops", "obs_in", "noise_in", "action_out", "noise_bytes", "envs")]
    + [(name, "u8") for name in ("obs", "raw", "action", "noise", "reward", "mean", "scale")]
    + [("clip", "f8"), ("env_seconds", "f8")]
)


class KernelLoop:
    """Made with the function that acts, obs, noise -> action, recorded for arrays like `noise` and `action`."""

    def __init__(
        self, act: Forward, envs: Envs, obs_norm: ObsNormalizer | None, noise: np.ndarray, action: np.ndarray
    ) -> None:
        self.envs, self.obs_norm = envs, obs_norm
        self._scale: np.ndarray | None = None  # that it normalises with
        self._struct = np.zeros((), ROLLOUT)
        self._address = self._struct.ctypes.data
        self._keep: dict[str, np.ndarray] = {}  # what the struct has addresses of
        self._acts = act.compiled(action, obs=envs.obs, noise=noise) if envs.kernel is not None else None
        if self._acts and envs.kernel is not None:
            _, tape, _ = self._acts
            inputs, table = {name: tensor.numpy() for name, tensor in tape.inputs.items()}, tape.table
            assert table is not None
            self._set(obs_in=inputs["obs"], noise_in=inputs["noise"], action_out=tape.outputs[0].numpy())
            self._set(ops=table.array, envs=envs.kernel)
            self._struct["num_ops"], self._struct["noise_bytes"] = len(table.array), noise.nbytes

    def __bool__(self) -> bool:
        return self._acts is not None

    def _set(self, **arrays: np.ndarray) -> None:
        self._keep |= arrays
        for name, array in arrays.items():
            self._struct[name] = array.ctypes.data

    def into(
        self, obs: np.ndarray, action: np.ndarray, noise: np.ndarray, reward: np.ndarray, raw: np.ndarray | None
    ) -> None:
        """Where the rows of each time lie, contiguous: what was seen (`raw`: before it was normalised), done and
        rewarded."""
        self._set(obs=obs, action=action, noise=noise, reward=reward, **({} if raw is None else {"raw": raw}))
        self._scale = None

    def run(self, t: int, T: int) -> int:
        """Act and step at the times from t on, before T, until an episode ends: how many steps that were, which
        `Envs.stepped` is to be told. 0 where Python is to take the next step, alone or compared with torch."""
        if not self._acts:
            return 0
        kernels, _, calls = self._acts
        count = min(T - t, self.envs.room, calls.room)
        if count < 2:
            return 0
        if (norm := self.obs_norm) and "raw" in self._keep and norm.scale is not self._scale:
            self._scale = norm.scale
            self._set(mean=norm.stats.mean, scale=norm.scale)
            self._struct["clip"] = norm.clip
        began = perf_counter()
        steps = kernels.rollout(self._address, t, count)
        spent = perf_counter() - began  # the kernel's own count, of one step in 16, can be above it
        stopwatch.spent["env"] += min(float(self._struct["env_seconds"]), spent)
        self._struct["env_seconds"] = 0.0
        calls.made += steps
        return steps
