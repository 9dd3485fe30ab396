"""Environments by name, as one object.

    cfg = EnvConfig(name="cartpole", id="CartPole-v1")
    envs = make_envs(cfg, num_envs=8, seed=1)
    obs = envs.reset()
    reward, terminated, truncated, final = envs.step(action)      # envs.obs is obs, already the next one

See `batch` for the interface of what comes back, `spaces` for observations and actions.
"""

import contextlib
from dataclasses import replace

from rlx.envs.batch import Envs
from rlx.envs.episodes import TRAIN
from rlx.envs.quick.compiled import make_compiled
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import EnvError
from rlx.envs.sync import make_lanes

WORTH_ARRAYS = 3  # environments from which CartPole's array version is the faster one


def make_envs(cfg: EnvConfig, num_envs: int, seed: int, domain: int = TRAIN) -> Envs:
    """`num_envs` environments behind one interface; call `reset` or `load_state_dict` first.

    Backend auto is sync, or an equal version that steps faster: `compiled`, or CartPole's in arrays. `seed` is the
    run's; `domain` keeps the episodes of training, evaluation and play apart.
    """
    if num_envs < 1:
        raise EnvError(f"num_envs={num_envs}: must be at least 1")
    if cfg.seeding == "once":
        cfg = replace(cfg, replay=False)
    if cfg.backend == "async":
        from rlx.envs.workers import AsyncEnvs

        return AsyncEnvs(cfg, num_envs, seed, domain)
    if cfg.backend in ("vector", "envpool"):
        for key, given in (("action_mask", cfg.action_mask), ("reset_options", cfg.reset_options)):
            if given:
                raise EnvError(f"env.{key}: env.backend={cfg.backend} has none; use env.backend=sync or async")
        if cfg.seeding == "once":
            raise EnvError(f"env.seeding=once: env.backend={cfg.backend} has none; use env.backend=sync or async")
        from rlx.envs.vector import make_vector

        return make_vector(cfg, num_envs, seed, domain)
    if cfg.backend == "auto" and cfg.seeding != "once" and (compiled := make_compiled(cfg, num_envs, seed, domain)):
        return compiled
    plain = cfg.id == "CartPole-v1" and not cfg.wrappers and not cfg.kwargs
    if cfg.backend == "auto" and num_envs >= WORTH_ARRAYS and plain:
        with contextlib.suppress(EnvError):  # it rounds otherwise on this machine: Gymnasium's own, then
            return make_envs(replace(cfg, backend="vector"), num_envs, seed, domain)
    return make_lanes(cfg, range(num_envs), seed, domain)
