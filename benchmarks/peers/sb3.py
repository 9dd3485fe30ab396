"""Stable-Baselines3 on CartPole-v1 (or ENVIRONMENTS), as its users run it: Monitor and TensorBoard, nothing else.

    python benchmarks/peers/sb3.py ppo zoo --total-steps 100000 --seed 1 --log-dir DIR

`zoo` are RL-Baselines3-Zoo's hyper-parameters (hyperparams/ppo.yml, a2c.yml, dqn.yml; CartPole-v1), `cleanrl` the
defaults of CleanRL's ppo.py, `huber` those of its dqn.py but for the loss, `lunarlander` and `halfcheetah` are those of
RL-Baselines3-Zoo and Stable-Baselines3 there, `defaults` those of Stable-Baselines3. They are the
same as those of conf/experiment/bench_*.yaml; tests/test_benchmarks.py compares. No checkpoint and no evaluation: rlx
writes checkpoints in the runs it is compared with.
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

NUM_ENVS = {
    ("ppo", "zoo"): 8, ("ppo", "cleanrl"): 4, ("ppo", "lunarlander"): 16, ("ppo", "halfcheetah"): 1, ("a2c", "zoo"): 8,
    ("dqn", "zoo"): 1, ("dqn", "huber"): 1, ("sac", "defaults"): 1, ("td3", "defaults"): 1,
}  # fmt: skip
ENVIRONMENTS = {  # CartPole-v1 elsewhere
    ("sac", "defaults"): "Pendulum-v1", ("td3", "defaults"): "Pendulum-v1", ("ppo", "lunarlander"): "LunarLander-v3",
    ("ppo", "halfcheetah"): "HalfCheetah-v5",
}  # fmt: skip
NORMALIZED = (("ppo", "halfcheetah"),)  # observations and rewards, by VecNormalize
HYPERPARAMETERS: dict[tuple[str, str], dict[str, Any]] = {
    ("ppo", "zoo"): {
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
    ("ppo", "cleanrl"): {
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
    ("ppo", "lunarlander"): {  # RL-Baselines3-Zoo's; max_grad_norm, learning rate and clip range are the defaults
        "n_steps": 1024,
        "batch_size": 64,
        "n_epochs": 4,
        "gamma": 0.999,
        "gae_lambda": 0.98,
        "learning_rate": 3e-4,
        "clip_range": 0.2,
        "clip_range_vf": None,
        "ent_coef": 0.01,
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
        "normalize_advantage": True,
    },
    ("ppo", "halfcheetah"): {  # the defaults of Stable-Baselines3
        "n_steps": 2048,
        "batch_size": 64,
        "n_epochs": 10,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "learning_rate": 3e-4,
        "clip_range": 0.2,
        "clip_range_vf": None,
        "ent_coef": 0.0,
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
        "normalize_advantage": True,
    },
    ("a2c", "zoo"): {  # the zoo names ent_coef; the rest are the defaults of Stable-Baselines3
        "n_steps": 5,
        "gamma": 0.99,
        "gae_lambda": 1.0,
        "learning_rate": 7e-4,
        "ent_coef": 0.0,
        "vf_coef": 0.5,  # of the plain mean square, without the half
        "max_grad_norm": 0.5,
        "rms_prop_eps": 1e-5,
        "use_rms_prop": True,  # torch's: alpha .99, epsilon outside the root
        "normalize_advantage": False,
    },
    ("dqn", "zoo"): {  # max_grad_norm, tau and the first epsilon are the defaults of Stable-Baselines3
        "learning_rate": 2.3e-3,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 1_000,
        "gamma": 0.99,
        "target_update_interval": 10,
        "train_freq": 256,
        "gradient_steps": 128,
        "exploration_fraction": 0.16,
        "exploration_initial_eps": 1.0,
        "exploration_final_eps": 0.04,
        "max_grad_norm": 10,
        "tau": 1.0,
        "policy_kwargs": {"net_arch": [256, 256]},
    },
    ("dqn", "huber"): {  # CleanRL's; the loss (Huber's) and max_grad_norm are those of Stable-Baselines3
        "learning_rate": 2.5e-4,
        "batch_size": 128,
        "buffer_size": 10_000,
        "learning_starts": 10_000,
        "gamma": 0.99,
        "target_update_interval": 500,
        "train_freq": 10,
        "gradient_steps": 1,
        "exploration_fraction": 0.5,
        "exploration_initial_eps": 1.0,
        "exploration_final_eps": 0.05,
        "max_grad_norm": 10,
        "tau": 1.0,
        "policy_kwargs": {"net_arch": [120, 84]},
    },
    ("sac", "defaults"): {
        "learning_rate": 3e-4,
        "buffer_size": 1_000_000,
        "learning_starts": 100,
        "batch_size": 256,
        "tau": 0.005,
        "gamma": 0.99,
        "train_freq": 1,
        "gradient_steps": 1,
        "ent_coef": "auto",
        "target_entropy": "auto",
        "policy_kwargs": {"net_arch": [256, 256]},
    },
    ("td3", "defaults"): {
        "learning_rate": 1e-3,
        "buffer_size": 1_000_000,
        "learning_starts": 100,
        "batch_size": 256,
        "tau": 0.005,
        "gamma": 0.99,
        "train_freq": 1,
        "gradient_steps": 1,
        "policy_delay": 2,
        "target_policy_noise": 0.2,
        "target_noise_clip": 0.5,
        "policy_kwargs": {"net_arch": [400, 300]},
    },
}
FALLING = {("ppo", "zoo"): ("learning_rate", "clip_range"), ("ppo", "cleanrl"): ("learning_rate",)}


def linear(initial: float) -> Any:
    """Stable-Baselines3 hands over what remains of the run, 1 to 0."""
    return lambda remaining: remaining * initial


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithm", choices=sorted({algo for algo, _ in HYPERPARAMETERS}))
    parser.add_argument("hyperparameters", choices=sorted({name for _, name in HYPERPARAMETERS}))
    parser.add_argument("--total-steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-dir", required=True)
    parser.add_argument("--workers", action="store_true", help="a process for each environment (SubprocVecEnv)")
    parser.add_argument("--environments", type=int, help="that many, for the same steps in a rollout")
    parser.add_argument("--sbx", action="store_true", help="SBX instead: the same library's algorithms in JAX")
    args = parser.parse_args()
    chosen = (args.algorithm, args.hyperparameters)
    if chosen not in HYPERPARAMETERS:
        parser.error(f"there are: {', '.join(' '.join(pair) for pair in HYPERPARAMETERS)}")

    library = importlib.import_module("sbx" if args.sbx else "stable_baselines3")
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

    values, count = dict(HYPERPARAMETERS[chosen]), args.environments or NUM_ENVS[chosen]
    if args.environments:
        values["n_steps"] = values["n_steps"] * NUM_ENVS[chosen] // count
    for key in FALLING.get(chosen, ()):
        values[key] = linear(values[key])
    env_id = ENVIRONMENTS.get(chosen, "CartPole-v1")
    kind = SubprocVecEnv if args.workers else None  # None: a DummyVecEnv; each environment in a Monitor
    envs = make_vec_env(env_id, n_envs=count, seed=args.seed, vec_env_cls=kind)
    if chosen in NORMALIZED:
        envs = VecNormalize(envs, gamma=values["gamma"])
    algorithm = getattr(library, args.algorithm.upper())
    device = {} if args.sbx else {"device": "cpu"}
    model = algorithm("MlpPolicy", envs, seed=args.seed, **device, tensorboard_log=args.log_dir, verbose=0, **values)
    model.learn(args.total_steps)
    envs.close()
    print(f"steps: {model.num_timesteps}")  # its log may end earlier: A2C writes every 100 rollouts


if __name__ == "__main__":
    main()
