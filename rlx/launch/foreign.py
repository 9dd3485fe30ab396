"""What other tools call rlx's keys: an answer to the first words of their users.

The names are those of Stable-Baselines3 and its zoo, CleanRL, RLlib, Spinning Up and TRL.
"""

import re
from collections.abc import Collection

from rlx.base.errors import closest

# rlx's keys: the names of others. Of several keys for one name, the first that the chosen algorithm has.
NAMES = {
    "total_steps": "timesteps total_timesteps n_timesteps num_timesteps total_env_steps env_steps max_steps "
    "total_frames frames max_timesteps num_env_steps n_total_steps training_steps num_train_steps steps epochs "
    "max_iters num_iterations",
    "algo.lr": "learning_rate pi_lr policy_lr actor_lr q_lr step_size optimizer_lr",
    "algo.critic_lr": "vf_lr value_lr",
    "algo.num_steps": "n_steps num_steps rollout_length rollout_fragment_length steps_per_epoch unroll_length horizon",
    "algo.num_envs": "n_envs num_envs num_env nenvs num_workers num_env_runners num_rollout_workers n_workers "
    "num_envs_per_worker num_envs_per_env_runner num_cpu",
    "algo.batch_size": "batch_size minibatch_size train_batch_size sgd_minibatch_size mini_batch_size "
    "per_device_train_batch_size",
    "algo.num_prompts": "batch_size train_batch_size per_device_train_batch_size",
    "algo.num_minibatches": "batch_size minibatch_size sgd_minibatch_size mini_batch_size nminibatches n_minibatches",
    "algo.num_epochs": "n_epochs num_epochs update_epochs noptepochs num_sgd_iter train_pi_iters train_v_iters "
    "ppo_epochs num_iterations ppo_epoch",
    "algo.clip_coef": "clip_range clip_ratio clip_param cliprange clip epsilon_clip clip_epsilon",
    "algo.clip_low": "epsilon cliprange_low",
    "algo.clip_high": "epsilon_high cliprange_high",
    "algo.ent_coef": "entropy_coef entropy_coeff entropy_coefficient",
    "algo.alpha": "ent_coef entropy_coef entropy_coeff alpha temperature",
    "algo.vf_coef": "value_coef vf_loss_coeff value_loss_coef vf_loss_coef",
    "algo.kl_coef": "kl_coeff beta kl_penalty init_kl_coef",
    "algo.gae_lambda": "lam lambda lambda_ gae_lam",
    "algo.gamma": "discount discount_factor gamma",
    "algo.max_grad_norm": "grad_clip max_grad clip_grad_norm grad_clip_norm",
    "algo.normalize_advantage": "norm_adv advantage_normalization",
    "algo.tau": "polyak soft_update_tau target_smoothing",
    "algo.buffer_size": "replay_size replay_buffer_size memory_size buffer_capacity capacity",
    "algo.learning_starts": "start_steps update_after warmup_steps learning_start "
    "num_steps_sampled_before_learning_starts",
    "algo.train_freq": "train_frequency update_every training_intensity",
    "algo.target_update_every": "target_update_interval target_network_frequency target_network_update_freq "
    "target_update",
    "algo.final_epsilon": "exploration_final_eps end_e eps_end final_eps epsilon_end",
    "algo.exploration_fraction": "exploration_timesteps eps_decay epsilon_timesteps epsilon_decay",
    "algo.policy_delay": "policy_frequency delay",
    "algo.target_noise": "target_policy_noise policy_noise smooth_target_policy",
    "algo.noise_std": "exploration_noise act_noise action_noise",
    "algo.group_size": "num_generations group_size rollouts_per_prompt n_samples",
    "model.hidden": "hidden_sizes net_arch hidden_size hid policy_kwargs fcnet_hiddens hidden_dim hidden_layers "
    "layers l",
    "model.activation": "activation_fn fcnet_activation act_fn nonlinearity",
    "model.path": "model_name_or_path model_name model_id",
    "env.id": "env_id env_name environment gym_id task_id",
    "env.max_episode_steps": "max_ep_len max_episode_length episode_length time_limit",
    "env.normalize_obs": "norm_obs normalize observation_filter",
    "env.normalize_reward": "norm_reward",
    "env.wrappers": "env_wrapper wrapper",
    "env.kwargs": "env_kwargs env_config make_kwargs",
    "eval_every": "eval_freq evaluation_interval eval_interval eval_frequency eval_steps",
    "eval_episodes": "n_eval_episodes num_eval_episodes evaluation_duration eval_eps num_test_episodes",
    "checkpoint_every": "save_freq save_interval checkpoint_freq checkpoint_frequency save_steps save_model",
    "log_every": "log_interval log_freq logging_steps print_freq",
    "runs_dir": "log_dir logdir log_folder tensorboard_log output_dir save_dir save_path local_dir storage_path f",
    "name": "exp_name run_name experiment_name wandb_run_name",
    "tags": "wandb_tags",
    "init": "trained_agent load load_path pretrained restore checkpoint_path resume_from_checkpoint model_path i",
    "device": "cuda gpu num_gpus use_cuda use_gpu no_cuda accelerator",
    "threads": "num_threads torch_threads n_threads",
    "video": "capture_video record_video render save_video",
    "logger": "track wandb use_wandb report_to wandb_project_name wandb_project",
    "seed": "random_seed rng_seed seeds",
}  # fmt: skip
WORTH = {"algo.num_minibatches": "a minibatch has num_envs * num_steps / num_minibatches steps"}
VALUES = {"device": {"true": "cuda", "1": "cuda", "false": "cpu", "0": "cpu"}, "logger": {"true": "[wandb]"}}


def meant(name: str, known: Collection[str]) -> str | None:
    """The key that a name means, of those that there are."""
    bare = re.sub(r"\W+", "_", name.strip("-").rpartition(".")[2]).lower()
    if bare in known:
        return bare
    keys = [key for key, names in NAMES.items() if bare in names.split()]
    own = [key for key in known if key.rpartition(".")[2] == bare and key.rpartition(".")[0] in ("algo", "model")]
    return next((key for key in [*own, *keys] if key in known), None)


def worded(name: str, value: str | None, known: Collection[str]) -> str | None:
    """What to type in its place."""
    if (key := meant(name, known)) is None:
        bare = name.strip("-").replace("-", "_")
        if (key := closest(bare, known) if len(bare) > 3 else None) is None:
            return None
    value = VALUES.get(key, {}).get(value or "true", value)
    word = f"env=gym {key}={value or 'ID'}" if key == "env.id" else f"{key}={value or 'VALUE'}"
    return f"{word} ({WORTH[key]})" if key in WORTH else word
