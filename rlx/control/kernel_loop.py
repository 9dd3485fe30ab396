"""Acting and stepping in one call of the compiled kernels, where they know the environments (see rlx.envs.compiled)."""

import numpy as np

from rlx.base import stopwatch
from rlx.control.normalize import ObsNormalizer
from rlx.engine.native_ops import Acting
from rlx.engine.tape import Forward
from rlx.engine.trust import Calls
from rlx.envs.batch import Envs


class KernelLoop:
    """Made with the function that acts, obs, noise -> action, recorded for arrays like `noise` and `action`."""

    def __init__(
        self, act: Forward, envs: Envs, obs_norm: ObsNormalizer | None, noise: np.ndarray, action: np.ndarray
    ) -> None:
        self.envs, self.obs_norm, loop = envs, obs_norm, None
        if envs.kernel is not None:
            loop = act.acting(envs.kernel, action, obs=envs.obs, noise=noise)
        self._loop: tuple[Acting, Calls] | None = loop
        self._raw: np.ndarray | None = None
        self._scale: np.ndarray | None = None  # that it normalises with

    def __bool__(self) -> bool:
        return self._loop is not None

    def into(
        self, obs: np.ndarray, action: np.ndarray, noise: np.ndarray, reward: np.ndarray, raw: np.ndarray | None
    ) -> None:
        """Where the rows of each time lie: what was seen (`raw`: before it was normalised), done and rewarded."""
        if self._loop:
            self._loop[0].into(obs=obs, action=action, noise=noise, reward=reward)
            self._raw, self._scale = raw, None

    def run(self, t: int, T: int) -> int:
        """Act and step at the times from t on, before T, until an episode ends: how many steps that were, which
        `Envs.stepped` is to be told. 0 where Python is to take the next step, alone or compared with torch."""
        if not self._loop:
            return 0
        acting, calls = self._loop
        count = min(T - t, self.envs.room, calls.room)
        if count < 2:
            return 0
        if (norm := self.obs_norm) and self._raw is not None and norm.scale is not self._scale:
            self._scale = norm.scale
            acting.normalize(self._raw, norm.stats.mean, norm.scale, norm.clip)
        steps = acting.run(t, count)
        stopwatch.spent["env"] += acting.env_seconds()
        calls.made += steps
        return steps
