"""A language model with the tokenizer and the task it belongs to: made new, taken from another run, or restored."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlx.base.errors import ConfigError
from rlx.config.schema import Algo
from rlx.language.config import LanguageConfig
from rlx.language.model.gpt import GPT, GPTConfig
from rlx.language.model.huggingface import HFModel, HFTokenizer
from rlx.language.model.sample import Completions, generate, noise
from rlx.language.model.tokenizer import Tokenizer
from rlx.language.tasks import make_task
from rlx.language.tasks.base import Task
from rlx.language.vocabulary import NAME, Vocabulary, saved_in
from rlx.run import Run


@dataclass
class Completion:
    """One completion as text, without its end token; `logprob` is that of the whole of it."""

    text: str
    logprob: float
    ended: bool


def make_words(cfg: LanguageConfig[Algo], alphabet: str | None = None) -> tuple[Task, Any]:
    """Task and tokenizer: the Hugging Face model's, or characters, of a checkpoint's alphabet or of the task's."""
    if cfg.model.path:
        tokenizer = HFTokenizer(cfg.model.path)
        return make_task(cfg.task, tokenizer.sizes), tokenizer
    task = make_task(cfg.task)
    return task, Tokenizer(alphabet or task.alphabet)


def make_vocabulary(cfg: LanguageConfig[Algo], run: Run, saved: Mapping[str, Any] | None) -> Vocabulary:
    """Task and tokenizer of a run, `saved` what its weights were trained with. Gives notice of files that have changed;
    raises ConfigError where the weights cannot read them any more."""
    if isinstance(live := run.tracked.get(NAME), Vocabulary):
        return live
    task, tokenizer = make_words(cfg, (saved or {}).get("alphabet"))
    context = None if cfg.model.path else (saved or {}).get("context") or cfg.model.context or needed(task)
    vocabulary = Vocabulary(task, tokenizer, context)
    for line in vocabulary.changes(saved) if saved else ():
        run.notice(line)
    if context is not None and context < needed(task):
        raise ConfigError(
            f"task={task.name}: needs {needed(task)} tokens (the beginning, a prompt of {task.prompt_length} and a "
            f"completion of {task.max_new}); the network of these weights reads {context}"
        )
    return vocabulary


def make_model(
    cfg: GPTConfig, task: Task, tokenizer: Any, generator: torch.Generator, outputs: int = 0, weights: bool = False,
    context: int | None = None,
) -> Any:  # fmt: skip
    """A new model that can read the task; `outputs` numbers instead of a token's logits (1: a score). That of a
    directory has its own `weights` where they are asked for. `context`: what it reads where that is not the task's."""
    torch.set_float32_matmul_precision(cfg.matmul)
    if cfg.path:
        with torch.random.fork_rng(devices=[]):  # what is not loaded is drawn from torch's own generator
            torch.manual_seed(generator.initial_seed())
            return HFModel(cfg.path, outputs, weights, cfg.dtype, tokenizer.known)
    context = context or cfg.context or needed(task)
    return GPT(cfg, outputs or tokenizer.num_outputs, tokenizer.num_inputs, context, generator)


def needed(task: Task) -> int:
    """Tokens of the longest sequence: the beginning, the prompt, the completion with its end."""
    return 1 + task.prompt_length + task.max_new


class TokenPolicy:
    """pi(completion | prompt): what the language algorithms train, and what evaluation and `rlx sample` use."""

    def __init__(self, model: Any, tokenizer: Any, task: Any, device: torch.device) -> None:
        self.model, self.tokenizer, self.task, self.device = model, tokenizer, task, device  # task: a Task

    @classmethod
    def new(cls, cfg: LanguageConfig[Algo], run: Run) -> "TokenPolicy":
        """The policy a run starts with: that of the run cfg.init, or a new one. (Tracked, it is what was saved.)"""
        start = run.saved(cfg.init).tracked if cfg.init and not run.resumed else None
        saved = saved_in(run) if run.resumed else (start or {}).get(NAME)
        words = make_vocabulary(cfg, run, saved)
        model = cls._empty(cfg, words, run.generator("model"), weights=not (cfg.init or run.resumed))
        if start:
            model.load_state_dict(start["policy"])
        for line in () if run.resumed else words.task.notices:
            run.notice(line)
        run.track(**{NAME: words})
        return cls(model.to(run.device), words.tokenizer, words.task, run.device)

    @classmethod
    def restore(cls, cfg: LanguageConfig[Algo], run: Run, name: str = "policy") -> "TokenPolicy":
        """The policy of a run in progress or of a checkpoint, where it is tracked by that name."""
        words = make_vocabulary(cfg, run, saved_in(run))
        model = cls._empty(cfg, words, torch.Generator())
        model.load_state_dict(run.state(name))
        return cls(model.to(run.device), words.tokenizer, words.task, run.device)

    @staticmethod
    def _empty(cfg: LanguageConfig[Algo], words: Vocabulary, generator: torch.Generator, weights: bool = False) -> Any:
        return make_model(cfg.model, words.task, words.tokenizer, generator, weights=weights, context=words.context)

    def frozen(self) -> Any:
        """A copy of the model as it is now, which learns nothing: the reference."""
        return copy.deepcopy(self.model).requires_grad_(False)

    def prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Token ids [P, S] and their mask (None where nothing is padded), on the device."""
        ids, mask = self.tokenizer.prompts(prompts)
        return ids.to(self.device), None if bool(mask.all()) else mask.to(self.device)

    def completions(self, completions: Sequence[str], ended: Sequence[bool] | None = None) -> tuple[Tensor, Tensor]:
        """Token ids and mask [B, L] of the longest, on the device."""
        length = max(map(len, completions), default=0) + 1
        ids, mask = self.tokenizer.completions(completions, length, ended)
        return ids.to(self.device), mask.to(self.device)

    def generate(
        self, prompts: Sequence[str], size: int, rng: np.random.Generator | None, temperature: float = 1.0
    ) -> tuple[Completions, list[str]]:
        """`size` completions of each prompt, drawn from `rng` or (None) the likeliest token each time; as text too."""
        uniform = None if rng is None else noise(rng, len(prompts) * size, self.task.max_new)
        ids, mask = self.prompts(prompts)
        completions = generate(
            self.model, ids, mask, size=size, max_new=self.task.max_new, end=self.tokenizer.ends,
            uniform=uniform, temperature=temperature,
        )  # fmt: skip
        return completions, self.decode(completions)

    def decode(self, completions: Completions) -> list[str]:
        """The texts, without end tokens."""
        return self.tokenizer.decode(completions.tokens.cpu(), (completions.lengths - completions.ended.long()).cpu())

    def complete(
        self, prompts: Sequence[str], rng: np.random.Generator | None = None, temperature: float = 1.0
    ) -> list[Completion]:
        """One completion of each prompt. UserError for one that is too long or has an unknown character."""
        completions, texts = self.generate(prompts, 1, rng, temperature)
        return [Completion(*x) for x in zip(texts, completions.logprob.sum(-1).tolist(), completions.ended.tolist())]
