"""The world of environments: what a run in one asks of its configuration, how its policy is judged and shown."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import torch

from rlx.base import global_rngs
from rlx.base.errors import ConfigError, shown
from rlx.base.pages.canvas import Canvas
from rlx.config import keys, registry, schema
from rlx.config.schema import Algo
from rlx.control import evaluate
from rlx.control.config import ControlConfig
from rlx.control.distributions import make_head
from rlx.control.networks import SMALLEST_IMAGE, ModelConfig, encoder_of
from rlx.control.policy import Policy, make_one
from rlx.control.raw import RawPolicy
from rlx.control.show import film, map_picture, maps
from rlx.envs.batch import Envs
from rlx.envs.single import EnvConfig, package_of
from rlx.envs.spaces import EnvError, EnvFault, kind_of
from rlx.run import Evaluation, Run, Saved

Config = ControlConfig
NAME = ControlConfig.PLACE
ORIGINS = ("init",)  # the key that names another run
PATHS: tuple[str, ...] = ()
EVAL_ENVS = 10  # environments of an evaluation


def sections(raw: Mapping[str, Any]) -> dict[str, type]:
    """The types of the sections of a configuration, but for `algo`."""
    return {"env": EnvConfig, "model": ModelConfig}


def packages(cfg: ControlConfig[Algo]) -> list[str]:
    """The modules of other people's packages in which its environments are."""
    return package_of(cfg.env.id)


def large(cfg: ControlConfig[Algo]) -> bool:
    """Is its network better off on a GPU? None here is."""
    return False


def check(cfg: ControlConfig[Algo], module: ModuleType) -> None:
    """What can only be seen by trying: the environment, and whether it fits the algorithm. Raises ConfigError."""
    try:
        envs = make_one(replace(cfg.env, replay=True))
        try:
            _fits(cfg, actions=kind_of(envs.action_space), observations=kind_of(envs.raw_observation_space))
            make_head(envs.action_space)
            shape = envs.observation_space.shape or ()
            _check_encoder(cfg, shape)
            if len(shape) == 3 and not cfg.model.encoder and min(shape[1:]) < SMALLEST_IMAGE:
                raise ConfigError(
                    f"env.id={cfg.env.id}: images of {shape[1]} by {shape[2]} are too small for the CNN: "
                    f"{SMALLEST_IMAGE} by {SMALLEST_IMAGE} at least (env.wrappers=[flatten] makes vectors of them)"
                )
            _fits_in_memory(cfg, envs)
            _check_judged_in(cfg, envs)
            if trial := getattr(envs, "try_out", None):
                trial()
            if own := getattr(module, "check", None):  # what the algorithm asks beyond its own section
                own(cfg, envs)
        finally:
            envs.close()
    except EnvError as error:
        raise ConfigError(str(error)) from None
    except EnvFault as error:
        raise ConfigError(f"env.id={cfg.env.id}: {error}") from None
    except ValueError as error:
        raise (error if isinstance(error, ConfigError) else ConfigError(f"env.id={cfg.env.id}: {error}")) from None


def inherit(raw: dict[str, Any], source: Saved, key: str, where: str, words: Sequence[str]) -> None:
    """Give a configuration the network of the run that `init` names. Raises ConfigError if the two do not fit."""
    saved = source.config
    names = [str(each["algo"].get("implementation")) for each in (raw, saved)]
    if names[0] != names[1] and any(hasattr(registry.algorithm(name), "load_policy") for name in names):
        of = saved["algo"].get("name")
        raise ConfigError(f"{where}: is a run of {of}, with another kind of policy than {names[0]}")
    keys.check_unasked("model", raw["model"], saved["model"], where, words)
    raw["model"] = {**saved["model"]}
    ours, theirs = (each["env"].get("normalize_obs", False) for each in (raw, saved))
    if ours != theirs:
        given = f"env.normalize_obs={shown(ours)}"
        raise ConfigError(f"{given}: {where} was trained with {shown(theirs)}, which its policy needs")
    if raw["env"] == saved["env"]:
        return
    configs = (schema.section(EnvConfig, each["env"], "env") for each in (raw, saved))
    own, other = (make_one(replace(config, replay=True)) for config in configs)
    for envs in (own, other):
        envs.close()
    for what in ("observation_space", "action_space"):
        one, two = (getattr(envs, what) for envs in (own, other))
        if (kind_of(one), one.shape, getattr(one, "n", None)) != (kind_of(two), two.shape, getattr(two, "n", None)):
            title = what.replace("_", " ")
            raise ConfigError(f"{where}: its {title} is {two}, and that of env={raw['env']['name']} {one}")


def begin(cfg: ControlConfig[Algo], run: Run) -> None:
    """Before a new run's algorithm builds what it learns with."""
    if cfg.init:
        run.begin_with(run.saved(cfg.init).tracked)


def _check_encoder(cfg: ControlConfig[Algo], shape: tuple[int, ...]) -> None:
    """A module of one's own must take what is observed. Raises ConfigError."""
    if cfg.model.encoder is None:
        return
    encoder = encoder_of(cfg.model.encoder)
    try:
        out = encoder(shape, cfg.model.features)(torch.zeros(2, *shape))
    except Exception as error:  # it may do anything
        line = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"model.encoder={cfg.model.encoder}: {type(error).__name__}: {line}") from error
    if tuple(out.shape) != (2, cfg.model.features):
        raise ConfigError(
            f"model.encoder={cfg.model.encoder}: gives {list(out.shape)} of two observations, not "
            f"[2, model.features={cfg.model.features}]"
        )


def _check_judged_in(cfg: ControlConfig[Algo], envs: Envs) -> None:
    """Evaluation must show a policy what it has learnt from."""
    if not cfg.eval_env:
        return
    judged = make_one(replace(cfg.judged_in, replay=True))
    judged.close()
    for what in ("observation_space", "action_space"):
        here, there = getattr(envs, what), getattr(judged, what)
        kinds = [(kind_of(space), space.shape, getattr(space, "n", None)) for space in (here, there)]
        if kinds[0] != kinds[1]:
            raise ConfigError(f"eval_env: its {what.replace('_', ' ')} is {there}, and that of env is {here}")


def _fits_in_memory(cfg: ControlConfig[Algo], envs: Envs) -> None:
    """The observations of a rollout, its largest tensor, must fit into this machine's memory."""
    sizes = {name: getattr(cfg.algo, name) for name in ("num_envs", "num_steps") if hasattr(cfg.algo, name)}
    needed = math.prod(sizes.values()) * envs.obs.nbytes
    if needed > (memory := psutil.virtual_memory().total):
        words = ", ".join(f"algo.{name}={value}" for name, value in sizes.items())
        raise ConfigError(
            f"{words}: the observations of a rollout would take {needed / 1e9:,.0f} GB, and this machine has "
            f"{memory / 1e9:,.0f} GB"
        )


def _fits(cfg: ControlConfig[Algo], **spaces: str) -> None:
    """An algorithm may say which kinds of Gymnasium spaces it can serve: ACTIONS, OBSERVATIONS."""
    for attribute, kind in spaces.items():
        allowed = getattr(registry.facts(cfg.algo.implementation), attribute)
        if allowed and kind not in allowed:
            others = ", ".join(registry.serving(**spaces))
            raise ConfigError(
                f"env.id={cfg.env.id} has {kind} {attribute}; {cfg.algo.name} needs {allowed[0]} ones"
                + (f" (use {others})" if others else "")
            )


def load_policy(cfg: ControlConfig[Algo], module: ModuleType, run: Run) -> Any:
    """The policy that a checkpoint holds: as the algorithm restores it, or an actor-critic's."""
    return module.load_policy(cfg, run) if hasattr(module, "load_policy") else Policy.restore(cfg, run)


def raw_policy(policy: Any, cfg: ControlConfig[Algo]) -> RawPolicy:
    """The same for observations as the environment gives them."""
    return RawPolicy(policy, cfg)


def evaluation(cfg: ControlConfig[Algo], module: ModuleType, run: Run) -> Evaluation:
    """Whole episodes of environments and seeds of their own, and a short film of one."""
    policy = load_policy(cfg, module, run)
    kept = run.kept.setdefault("evaluation", evaluate.Kept())
    episodes = evaluate.evaluate(policy, cfg.judged_in, cfg.eval_episodes, cfg.seed, num_envs=EVAL_ENVS, kept=kept)
    run.notice(episodes.cut)
    mean, std = float(np.mean(episodes.returns)), float(np.std(episodes.returns))
    metrics = {
        "eval/mean_reward": mean,
        "eval/std_reward": std,
        "eval/mean_ep_length": float(np.mean(episodes.lengths)),
    }
    successes = [success for success in episodes.successes if success is not None]
    if successes:
        metrics["eval/success_rate"] = float(np.mean(successes))
    summary = {"score": mean, "mean_reward": mean, "std_reward": std, "episodes": len(episodes.returns)}
    evaluation = Evaluation(metrics, summary)
    if cfg.video and run.films:
        _film(evaluation, policy, cfg, float(np.mean(episodes.lengths)))
    return evaluation


def beginning(cfg: ControlConfig[Algo], module: ModuleType, run: Run) -> Evaluation:
    """A film of the policy that a run begins with, where films are on."""
    evaluation = Evaluation({}, {})
    if cfg.video:
        with global_rngs.seeded(cfg.seed):
            _film(evaluation, load_policy(cfg, module, run), cfg)
    return evaluation


def _film(evaluation: Evaluation, policy: Any, cfg: ControlConfig[Algo], length: float = 0.0) -> None:
    try:
        evaluation.gif = film.film(policy, cfg.judged_in, cfg.seed, length)
    except film.NoFilm as error:  # a missing display or renderer must not end a training run
        evaluation.no_film = str(error)


def report(policy: Any, cfg: ControlConfig[Algo], count: int, seed: int, stochastic: bool = False) -> dict[str, Any]:
    """{mean, std, n, returns} over `count` fresh episodes; deterministic unless `stochastic`."""
    rng = np.random.default_rng([seed, 3]) if stochastic else None
    episodes = evaluate.evaluate(lambda obs: policy(obs, rng), cfg.judged_in, count, seed, num_envs=EVAL_ENVS)
    if episodes.cut:
        print(f"rlx: note: {episodes.cut}", file=sys.stderr)
    returns = [float(value) for value in episodes.returns]
    return {"mean": float(np.mean(returns)), "std": float(np.std(returns)), "n": len(returns), "returns": returns}


def picture(cfg: ControlConfig[Algo], module: ModuleType, run: Run) -> Canvas | None:
    """A map of what a run in progress has learned; None where there is none. What cannot be drawn is said once."""
    with global_rngs.seeded(cfg.seed):
        try:
            learned = maps.build(load_policy(cfg, module, run), cfg)
            return map_picture.draw(learned, f"{cfg.algo.name} on {cfg.env.name}, step {run.step:,}")
        except maps.NoMap:
            return None
        except Exception as error:  # an environment's or a policy's own
            run.notice(f"no map: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            return None


def watch(policy: Any, cfg: ControlConfig[Algo], seed: int, steps: int, stochastic: bool) -> tuple[float, int]:
    """One episode in a window, where there is a display. Returns the return and the length."""
    if not evaluate.has_display():
        print("rlx: note: no display here; --gif out.gif writes a picture", file=sys.stderr)
    rng = np.random.default_rng([seed, 3]) if stochastic else None
    return evaluate.watch_episode(lambda obs: policy(obs, rng), cfg.judged_in, seed, steps)


# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "eval/mean_reward": (
        "Mean return of the policy without exploration, over eval_episodes fresh episodes with raw rewards. "
        "Healthy: at or above `rollout/ep_rew_mean`, near what the preset promises in the end. If not: far below "
        "it, the policy needs its noise (a stuck argmax) or training normalises what evaluation does not; more "
        "eval_episodes make it less noisy."
    ),
    "eval/std_reward": (
        "Standard deviation of the return over the evaluation's episodes. Healthy: small beside "
        "`eval/mean_reward` once solved; 0 in deterministic environments. If not: large, some starts are solved "
        "and others are not: train longer, or judge by more eval_episodes."
    ),
    "eval/mean_ep_length": (
        "Mean length of the evaluation's episodes, in steps. Healthy: as the goal asks, long for balancing, short "
        "for reaching. If not: at the time limit with a low return, the greedy policy walks in circles: explore "
        "longer in training."
    ),
    "eval/success_rate": (
        "Share of the evaluation's episodes that the environment calls a success, from 0 to 1. Healthy: towards "
        "1. If not: compare `rollout/success_rate`; both at 0, the reward is too rare to be met by chance."
    ),
    "train/learning_rate": (
        "Step size of the (policy's) optimiser at this iteration, dimensionless. Healthy: algo.lr, or falling "
        "linearly to 0 with algo.anneal_lr=true. If not: a run that goes to pieces has too large a one; one that "
        "hardly moves has too small a one: change algo.lr by factors of 3."
    ),
    "train/n_updates": (
        "Gradient steps so far (of the critics, where the policy moves more rarely). Healthy: grows by epochs times "
        "minibatches an iteration, with a replay buffer by algo.gradient_steps for each algo.train_freq steps. If "
        "not: a run of few updates has learned little, whatever its step count says: more epochs or smaller batches; "
        "0, learning has not started: lower algo.learning_starts."
    ),
    "train/grad_norm": (
        "Global L2 norm of the gradient (of the critics, where the policy has an optimiser of its own) before "
        "clipping, mean over the iteration. Healthy: of one order of magnitude through the run, around or below "
        "algo.max_grad_norm. If not: far above it in every step, clipping sets the step size, or values diverge: "
        "lower algo.lr or scale the rewards (env.normalize_reward=true); near 0, nothing is learned any more."
    ),
}
