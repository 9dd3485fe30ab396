"""PureJaxRL's PPO on CartPole-v1 (gymnax), the whole training one compiled program, from a checkout given by path.

    python benchmarks/peers/purejaxrl.py zoo --checkout ../purejaxrl --total-steps 100000 --seed 1 [--members 16]

The Python that runs it has jax, flax, optax, distrax and gymnax. As published it needs two small changes for gymnax 1:
brax and navix, which its wrappers import and CartPole does not use, are left out; a step of six values (terminated and
truncated apart) is folded to the five that it expects. Both are done here, the checkout stays as it is. With `zoo` the
clip range stays where it is (there, and in rlx, it falls linearly): PureJaxRL has no such schedule. `--members` trains
that many seeds at once (vmap). Prints the CPU seconds of compiling and running apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from types import ModuleType
from typing import Any

COMMON = {"MAX_GRAD_NORM": 0.5, "ACTIVATION": "tanh", "ENV_NAME": "CartPole-v1", "ANNEAL_LR": True, "DEBUG": False}
HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "zoo": {
        "LR": 1e-3, "NUM_ENVS": 8, "NUM_STEPS": 32, "UPDATE_EPOCHS": 20, "NUM_MINIBATCHES": 1, "GAMMA": 0.98,
        "GAE_LAMBDA": 0.8, "CLIP_EPS": 0.2, "ENT_COEF": 0.0, "VF_COEF": 0.5,
    },
    "cleanrl": {
        "LR": 2.5e-4, "NUM_ENVS": 4, "NUM_STEPS": 128, "UPDATE_EPOCHS": 4, "NUM_MINIBATCHES": 4, "GAMMA": 0.99,
        "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "ENT_COEF": 0.01, "VF_COEF": 0.5,
    },
}  # fmt: skip


def absent(name: str, **names: Any) -> None:
    """A module that is imported and never used."""
    module = ModuleType(name)
    vars(module).update(names)
    sys.modules[name] = module


def five_values(make: Any) -> Any:
    """gymnax.make, with environments whose step gives (obs, state, reward, done, info)."""

    def folded(name: str) -> Any:
        env, params = make(name)
        step = env.step

        def step_of_five(*args: Any) -> Any:
            obs, state, reward, *ends, info = step(*args)
            return obs, state, reward, ends[0] if len(ends) == 1 else ends[0] | ends[1], info

        env.step = step_of_five
        return env, params

    return folded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hyperparameters", choices=sorted(HYPERPARAMETERS))
    parser.add_argument("--checkout", required=True)
    parser.add_argument("--total-steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--members", type=int, default=1)
    args = parser.parse_args()

    for name in ("brax", "navix"):
        absent(name, envs=None)
    absent("brax.envs")
    absent("brax.envs.wrappers")
    absent("brax.envs.wrappers.training", EpisodeWrapper=None, AutoResetWrapper=None)
    sys.path.insert(0, f"{args.checkout}/purejaxrl")
    import gymnax
    import jax

    gymnax.make = five_values(gymnax.make)
    import ppo

    config = {**COMMON, **HYPERPARAMETERS[args.hyperparameters], "TOTAL_TIMESTEPS": args.total_steps}
    train = ppo.make_train(config)
    keys = jax.random.split(jax.random.PRNGKey(args.seed), args.members)
    compiled = jax.jit(jax.vmap(train)).lower(keys).compile()
    before = time.process_time()
    metrics = jax.block_until_ready(compiled(keys))["metrics"]
    ran = time.process_time() - before
    returns = metrics["returned_episode_returns"]  # [members, updates, steps, environments]
    last = float(returns[:, -1].mean())
    print(json.dumps({"compile_cpu": round(before, 3), "run_cpu": round(ran, 3), "return": last}))


if __name__ == "__main__":
    main()
