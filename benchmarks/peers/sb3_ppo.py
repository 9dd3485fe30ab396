"""Stable-Baselines3's PPO on CartPole-v1, as its users run it: Monitor and TensorBoard on, nothing else.

    python benchmarks/peers/sb3_ppo.py zoo --total-steps 100000 --seed 1 --log-dir DIR

`zoo` are RL-Baselines3-Zoo's hyper-parameters (hyperparams/ppo.yml, CartPole-v1), `cleanrl` the defaults of
CleanRL's ppo.py. They are the same as those of conf/experiment/bench_ppo_*.yaml; tests/test_benchmarks.py compares.
No checkpoint and no evaluation: rlx writes checkpoints in the runs it is compared with.
"""

from __future__ import annotations

import argparse
from typing import Any

NUM_ENVS = {"zoo": 8, "cleanrl": 4}
HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "zoo": {
        "n_steps": 32,
        "batch_size": 256,
        "n_epochs": 20,
        "gamma": 0.98,
        "gae_lambda": 0.8,
        "learning_rate": 1e-3,  # falls linearly to 0
        "clip_range": 0.2,  # falls linearly to 0
        "clip_range_vf": None,
        "ent_coef": 0.0,
        "vf_coef": 0.5,  # of the plain mean square, without the half
        "max_grad_norm": 0.5,
        "normalize_advantage": True,
    },
    "cleanrl": {
        "n_steps": 128,
        "batch_size": 128,
        "n_epochs": 4,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "learning_rate": 2.5e-4,  # falls linearly to 0
        "clip_range": 0.2,
        "clip_range_vf": 0.2,  # the clipped square alone, where CleanRL takes the larger of the two
        "ent_coef": 0.01,
        "vf_coef": 0.25,  # of the plain mean square: CleanRL's .5 of half of it
        "max_grad_norm": 0.5,
        "normalize_advantage": True,
    },
}
FALLING = {"zoo": ("learning_rate", "clip_range"), "cleanrl": ("learning_rate",)}


def linear(initial: float) -> Any:
    """Stable-Baselines3 hands over what remains of the run, 1 to 0."""
    return lambda remaining: remaining * initial


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hyperparameters", choices=sorted(HYPERPARAMETERS))
    parser.add_argument("--total-steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-dir", required=True)
    args = parser.parse_args()

    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    name = args.hyperparameters
    values = dict(HYPERPARAMETERS[name])
    for key in FALLING[name]:
        values[key] = linear(values[key])
    envs = make_vec_env("CartPole-v1", n_envs=NUM_ENVS[name], seed=args.seed)  # a DummyVecEnv; each in a Monitor
    model = PPO("MlpPolicy", envs, seed=args.seed, device="cpu", tensorboard_log=args.log_dir, verbose=0, **values)
    model.learn(args.total_steps)
    envs.close()


if __name__ == "__main__":
    main()
