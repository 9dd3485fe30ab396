"""The world of language: what a run on a task asks of its configuration, how its policy is judged and shown."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from rlx.base.errors import ConfigError, UserError, shown
from rlx.base.text import escaped
from rlx.config import keys, registry, schema
from rlx.config.schema import Algo
from rlx.language import evaluate
from rlx.language.config import LanguageConfig
from rlx.language.model import huggingface
from rlx.language.model.gpt import GPTConfig
from rlx.language.policy import TokenPolicy, needed
from rlx.language.tasks import make_task, task_module
from rlx.language.tasks.base import Task, TaskConfig, score
from rlx.language.vocabulary import NAME as VOCABULARY, Vocabulary
from rlx.run import Evaluation, Run, Saved

Config = LanguageConfig
NAME = LanguageConfig.PLACE
ORIGINS = ("init", "algo.reward_model")  # the keys that name another run
PATHS = ("model.path", "task.file")  # and those that name files
GIVES = {  # what an algorithm may need of a task (its NEEDS), in words
    "answer": "demonstrations",
    "text": "corpus",
    "pairs": "preference pairs",
    "step_rewards": "step rewards",
}


SHAPE = ("name", "num_layers", "d_model", "num_heads", "positions", "activation", "path")
COUNTS = ("prompts", "rankings", "seed")  # of an evaluation: how it was made, not how it went


def sections(raw: Mapping[str, Any]) -> dict[str, type]:
    """The types of the sections of a configuration, but for `algo`. Raises ConfigError."""
    module = task_module(schema.implementation(raw, "task", "task=add2"))
    return {"task": module.Config, "model": GPTConfig}


def packages(cfg: LanguageConfig[Algo]) -> list[str]:
    """The modules of other people's packages in which its task is: none but the one that the configuration names."""
    return []


LARGE = 10_000_000  # parameters from which on device=auto takes a GPU (an estimate, not measured)


def large(cfg: LanguageConfig[Algo]) -> bool:
    """Is its network better off on a GPU?"""
    model = cfg.model
    return model.path is not None or 12 * model.num_layers * model.d_model**2 >= LARGE


# -- before a run begins ---------------------------------------------------------------------------------------


def check(cfg: LanguageConfig[Algo], module: ModuleType) -> None:
    """What can only be seen by trying: the task, and whether it has what the algorithm needs. Raises ConfigError."""
    tokenizer, context = huggingface.check(cfg.model.path) if cfg.model.path else (None, 0)
    task = _task(cfg.task, tokenizer)
    for need in registry.facts(cfg.algo.implementation).needs:
        if not hasattr(task, need):
            tasks = ", ".join(_tasks_with(need)) or "none"
            raise ConfigError(
                f"task={cfg.task.name} has no {GIVES.get(need, need)} ({need}); {cfg.algo.name} needs them "
                f"(tasks that have them: {tasks})"
            )
    if tokenizer:
        tokenizer.check(task, context)
    elif cfg.model.context is not None and cfg.model.context < needed(task):
        raise ConfigError(
            f"model.context={cfg.model.context}: task={cfg.task.name} needs {needed(task)} (the beginning, a prompt of "
            f"{task.prompt_length} and a completion of {task.max_new} tokens)"
        )
    if own := getattr(module, "check", None):  # what the algorithm asks beyond its own section
        try:
            own(cfg, task)
        except ValueError as error:
            raise (error if isinstance(error, ConfigError) else ConfigError(str(error))) from None


def _task(cfg: TaskConfig, tokenizer: huggingface.HFTokenizer | None = None) -> Task:
    try:
        return make_task(cfg, tokenizer.sizes if tokenizer else None)
    except UserError:
        raise
    except Exception as error:  # a third party's task may do anything
        raise ConfigError(f"task={cfg.name}: {type(error).__name__}: {error}") from error


def _tasks_with(need: str) -> list[str]:
    """The names of the tasks that have something."""
    names = []
    for name in registry.options("task"):
        try:
            module = task_module(str(registry.values("task", name).get("implementation")))
        except ConfigError:  # a broken plug-in
            continue
        if hasattr(module.Task, need):
            names.append(name)
    return names


def inherit(raw: dict[str, Any], source: Saved, key: str, where: str, words: Sequence[str]) -> None:
    """Give a configuration what it takes over from that of the run that its `key` names: with init the network.

    `words`: the command, where another network may have been asked for. Raises ConfigError if the two do not fit.
    """
    saved, vocabulary = source.config, source.tracked.get(VOCABULARY)
    scores = registry.facts(str(saved["algo"].get("implementation"))).scores
    if scores != (key == "algo.reward_model"):
        kind = "scores completions and writes none" if scores else f"is a policy of {saved['algo'].get('name')}"
        raise ConfigError(f"{where}: the network of that run {kind}; {key} needs a run of another algorithm")
    if key == "init":
        keys.check_unasked("model", raw["model"], saved["model"], where, words)
        raw["model"] = {**saved["model"]}
    _same_shape(raw["model"], saved["model"], where)
    if (path := saved["model"]["path"]) is not None:  # its tokenizer is its own, and reads any text
        if vocabulary:
            tokenizer = huggingface.HFTokenizer(path)
            Vocabulary(_of(raw, where, tokenizer), tokenizer, None).changes(vocabulary)
        return
    task = _of(raw, where)
    if vocabulary is None:  # of a run from before it was saved: as its files are now
        other = _of(saved, where)
        vocabulary = {"alphabet": other.alphabet, "context": saved["model"]["context"] or needed(other)}
    if task.alphabet != vocabulary["alphabet"]:
        raise ConfigError(
            f"{where}: its alphabet {shown(vocabulary['alphabet'])} (task={saved['task']['name']}) is not that of "
            f"task={raw['task']['name']}, {shown(task.alphabet)}"
        )
    reach = vocabulary["context"]
    if reach < needed(task):
        raise ConfigError(
            f"{where}: its network reads {reach} tokens; task={raw['task']['name']} needs {needed(task)} "
            f"(train that one with model.context={needed(task)})"
        )
    own = raw["model"]["context"] or needed(task)
    if key == "init":
        raw["model"]["context"] = None if reach == needed(task) else reach
    elif reach != own:
        raise ConfigError(f"{where}: its network reads {reach} tokens, this run's {own}; they share their weights")


def _of(raw: Mapping[str, Any], where: str, tokenizer: huggingface.HFTokenizer | None = None) -> Task:
    """The task of a configuration."""
    kind = sections(raw)["task"]
    try:
        return _task(schema.section(kind, raw["task"], "task"), tokenizer)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _same_shape(model: Mapping[str, Any], saved: Mapping[str, Any], where: str) -> None:
    """A network that judges begins as the policy's copy: both have one shape."""
    for name in SHAPE:
        if model.get(name) != saved.get(name):
            raise ConfigError(
                f"{where}: has a network with model.{name}={shown(saved.get(name))}, this run one with "
                f"{shown(model.get(name))}; they must be of one shape"
            )


# -- how good a policy is --------------------------------------------------------------------------------------


def load_policy(cfg: LanguageConfig[Algo], module: ModuleType, run: Run) -> Any:
    """The policy that a checkpoint holds: as the algorithm restores it, or the model tracked as `policy`."""
    return module.load_policy(cfg, run) if hasattr(module, "load_policy") else TokenPolicy.restore(cfg, run)


def raw_policy(policy: Any, cfg: LanguageConfig[Algo]) -> Any:
    """`policy(prompt) -> completion`, the likeliest one or as drawn from `rng`; of a list of prompts a list."""

    def complete(prompts: str | Sequence[str], rng: np.random.Generator | None = None) -> str | list[str]:
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        heat = None if rng is None else temperature(cfg)
        rows = sample(policy, cfg, listed, 1, 0, heat, rng is None, rng)
        texts = [row["completions"][0]["text"] for row in rows]
        return texts[0] if isinstance(prompts, str) else texts

    return complete


def evaluation(cfg: LanguageConfig[Algo], module: ModuleType, run: Run) -> Evaluation:
    """Held-out prompts, and some completions to look at. Draws nothing from the run's own generators."""
    if own := getattr(module, "evaluate", None):  # generating is not what it learns
        values = own(cfg, run, cfg.eval_prompts, cfg.seed)
        summary = {"score": values.get("score", next(iter(values.values()))), **values}
        return Evaluation(_metrics(values), summary)
    policy = load_policy(cfg, module, run)
    values = _numbers(evaluate.report(policy, cfg, cfg.eval_prompts, cfg.seed, k=1))
    best = values["greedy_accuracy" if hasattr(policy.task, "answer") else "reward"]
    return Evaluation(_metrics(values), {"score": best, **values}, text=_samples(policy, cfg) if cfg.samples else None)


def _metrics(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"eval/{name}": value for name, value in _numbers(values).items() if name not in COUNTS}


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _samples(policy: Any, cfg: LanguageConfig[Algo]) -> str:
    """One line a sample: its reward, the prompt, the completion."""
    rng = np.random.default_rng([cfg.seed, 4])
    prompts = policy.task.prompts(rng, cfg.samples, held_out=True)
    lines = []
    written = policy.complete(prompts, rng, temperature(cfg))
    rewards = score(policy.task, prompts, [one.text for one in written], [one.ended for one in written])["reward"]
    for prompt, completion, reward in zip(prompts, written, rewards.tolist()):
        text = escaped(f"{prompt}{completion.text}")
        lines.append(f"{reward:7.3f}  {text}{'' if completion.ended else ' (cut)'}")
    return "\n".join(lines)


def temperature(cfg: LanguageConfig[Algo]) -> float:
    """The temperature at which the run samples."""
    return float(getattr(cfg.algo, "temperature", 1.0))


def report(policy: Any, cfg: LanguageConfig[Algo], count: int, seed: int, k: int = 8) -> dict[str, Any]:
    """How good a policy is on `count` held-out prompts: see `evaluate.report`."""
    return evaluate.report(policy, cfg, count, seed, k)


def sample(
    policy: Any,
    cfg: LanguageConfig[Algo],
    prompts: Sequence[str],
    count: int,
    seed: int,
    heat: float | None,
    greedy: bool,
    rng: np.random.Generator | None = None,
) -> list[dict[str, Any]]:
    """`count` completions of each prompt (none given: of four held-out ones), sampled at `heat` or at the run's
    temperature: [{prompt, completions: [{text, logprob, ended}]}]. Raises UserError for a prompt that cannot be read.
    """
    rng = rng or np.random.default_rng([seed, 5])
    prompts = list(prompts) or policy.task.prompts(rng, 4, held_out=True)
    start, unit = (1, "characters") if cfg.model.path is None else (0, "tokens")  # the beginning is no character
    most = policy.model.context - policy.task.max_new - start
    for prompt, size in zip(prompts, policy.tokenizer.prompts(prompts)[1].sum(-1).tolist()):
        if size - start > most:
            raise UserError(
                f"{shown(prompt)}: a prompt of {size - start} {unit}; this run's network reads {most} at most, "
                f"beside a completion of {policy.task.max_new}"
            )
    completions = policy.complete(
        [prompt for prompt in prompts for _ in range(count)],
        None if greedy else rng,
        temperature(cfg) if heat is None else heat,
    )
    rows = [{"text": one.text, "logprob": one.logprob, "ended": one.ended} for one in completions]
    return [{"prompt": prompt, "completions": rows[i * count : (i + 1) * count]} for i, prompt in enumerate(prompts)]


# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "eval/greedy_accuracy": (
        "Share of held-out prompts whose most probable completion is right, from 0 to 1. Healthy: rises towards "
        "1. If not: flat while `reward` rises, training prompts are learned by heart or the reward is partial: "
        "task.reward=exact."
    ),
    "eval/sampled_accuracy": (
        "Share of held-out prompts whose sampled completion is right, at the run's temperature. Healthy: rises, "
        "at most `eval/greedy_accuracy`. If not: far below it, the policy is still unsure: train longer."
    ),
    "eval/reward": (
        "Mean reward of one sampled completion of each held-out prompt. Healthy: rises as `reward` does. If not: "
        "falling while the training reward rises, training prompts are over-fitted."
    ),
    "eval/format": (
        "Share of sampled completions that have the form of an answer, right or wrong. Healthy: near 1 after sft. "
        "If not: start from sft (init=latest:sft)."
    ),
    "eval/mean_length": (
        "Mean tokens of a sampled completion, the end token included. Healthy: the answers' length. If not: at "
        "task.max_new, completions do not end (see `eval/ended`)."
    ),
    "eval/ended": (
        "Share of sampled completions that ended by the end token. Healthy: near 1. If not: a larger "
        "task.max_new, or a start from sft; missing ends can be made to cost (algo.overlong, algo.missing_end)."
    ),
}
