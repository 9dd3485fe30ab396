"""Language models of a few hundred weights on tasks of a few completions, for tests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import some_tasks
import torch
from torch import Tensor

from rlx.algos import grpo
from rlx.config import registry, schema
from rlx.language.model.gpt import GPT, GPTConfig
from rlx.language.model.tokenizer import Tokenizer
from rlx.language.policy import TokenPolicy, make_model
from rlx.language.rollout import Groups, logprobs
from rlx.language.tasks import make_task
from rlx.launch.composing import compose
from rlx.run import Run

torch.set_num_threads(1)


@lru_cache
def task_config(name: str, **changes: Any) -> Any:
    """The section task; made once, since Hydra composes in one thread only."""
    return some_tasks.config(name, **changes)


def gpt(**changes: Any) -> GPTConfig:
    values: dict[str, Any] = {
        "name": "gpt", "num_layers": 2, "d_model": 8, "num_heads": 2, "context": None, "positions": "learned",
        "activation": "gelu", "dtype": "float64", "matmul": "highest", "path": None,
    }  # fmt: skip
    return GPTConfig(**{**values, **changes})


def make(num_tokens: int = 5, context: int = 16, seed: int = 0, **changes: Any) -> GPT:
    """A model with weights large enough that its distributions are far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    return stir(GPT(gpt(**changes), num_tokens, num_tokens + 1, context, generator), generator)


def stir(model: GPT, generator: torch.Generator) -> GPT:
    for weight in model.parameters():
        weight.data.normal_(0, 0.6, generator=generator)
    return model


def policy(name: str = "enumerable", seed: int = 0, model: GPTConfig | None = None, **changes: Any) -> TokenPolicy:
    task = make_task(task_config(name, **changes))
    tokenizer, generator = Tokenizer(task.alphabet), torch.Generator().manual_seed(seed)
    return TokenPolicy(
        stir(make_model(model or gpt(), task, tokenizer, generator), generator), tokenizer, task, torch.device("cpu")
    )


@lru_cache
def _raw(words: tuple[str, ...]) -> dict[str, Any]:
    return compose([*words, "preset=none"])["algo"]


def algo(*words: str, **changes: Any) -> Any:
    """The section algo as these words compose it: algo("algo=grpo", "as=trl", clip_high=0.28)."""
    raw = {**_raw(words or ("algo=grpo",)), **changes}
    return schema.section(registry.algorithm(raw["implementation"]).Config, raw, "algo")


def outputs(model: Any, policy: TokenPolicy, prompt: str, text: str, ended: bool = True) -> tuple[Tensor, list[int]]:
    """What the model says before each token of a completion [n, V], each from a prompt that has all before it, written
    out by hand; and those tokens."""
    order = policy.tokenizer.alphabet
    begin, end = len(order) + 1, len(order)
    tokens = [*map(order.index, text), *([end] if ended else [])]
    before = [begin, *map(order.index, prompt)]
    rows = [torch.tensor([[*before, *tokens[:t]]]) for t in range(len(tokens))]
    return torch.cat([model(row, None, torch.tensor([[[end]]]))[0, 0] for row in rows]), tokens


def one_by_one(policy: TokenPolicy, prompt: str, text: str, ended: bool = True, temperature: float = 1.0) -> Tensor:
    """Log-prob of each token of a completion, by hand."""
    logits, tokens = outputs(policy.model, policy, prompt, text, ended)
    logits = logits / temperature
    return logits[range(len(tokens)), tokens] - logits.exp().sum(-1).log()


def varied(groups: Groups) -> bool:
    """Whether they are fit to test with: padded prompts, completions of many lengths, some cut, some groups short."""
    lengths = groups.lengths
    return (
        groups.prompt_mask is not None
        and 0 < groups.ended.double().mean() < 1
        and len(set(lengths.flatten().tolist())) > 3
        and len(set(lengths.amax(-1).tolist())) > 1
    )


class Everything:
    """All completions that a policy can write to the empty prompt: tokens and mask [N, L], their texts, their probs."""

    def __init__(self, policy: TokenPolicy) -> None:
        self.policy, self.L = policy, policy.task.max_new
        self.texts, ended = zip(*policy.task.all_completions())
        self.ended = torch.tensor(ended)
        self.tokens, self.mask = policy.tokenizer.completions(self.texts, self.L, ended)
        self.tokens = self.tokens.masked_fill(~self.mask, 0)  # begin, which pads, is no token that can be predicted
        self.prompt, _ = policy.prompts([""])

    def logits(self, model: Any = None) -> Tensor:
        """[N, L, V]."""
        return (model or self.policy.model)(self.prompt, None, self.tokens[None])[0]

    def logprob(self, model: Any = None) -> Tensor:
        """Of each token [N, L], 0 outside the mask."""
        return logprobs(self.logits(model), self.tokens).masked_fill(~self.mask, 0.0)

    def groups(self, index: Tensor, reward: Tensor, logprob: Tensor) -> Groups:
        """Groups [P, G] of these completions; reward [N], logprob [N, L]."""
        P = len(index)
        texts = [self.texts[i] for i in index.flatten().tolist()]
        return Groups(
            [""] * P, texts, self.prompt.expand(P, -1), None, self.tokens[index], self.mask[index], logprob[index],
            self.ended[index], reward[index], torch.zeros(index.shape),
        )  # fmt: skip


def run(seed: int = 1) -> Run:
    return Run(Path("."), torch.device("cpu"), seed)


def train(
    cfg_algo: Any,
    name: str = "parity",
    steps: int = 1,
    seed: int = 1,
    start: Any = None,
    scorer: Any = None,
    model: GPTConfig | None = None,
    init: str | None = "start",
    **task: Any,
) -> Any:
    """Train a tiny policy for some steps -> its run, and the metrics of each. `start`: the first weights (init=None: as
    a run draws them); `scorer`: what the reward model's run has saved."""
    mine, shape = run(seed), model or gpt()
    cfg = SimpleNamespace(
        algo=cfg_algo, task=task_config(name, **task), model=shape, seed=seed, total_steps=steps, init=init
    )
    weights = start or policy(name, seed=seed, model=shape, **task).model.state_dict()
    saved = SimpleNamespace(tracked={"policy": weights, "scorer": scorer})  # what cfg.init and algo.reward_model name
    mine._open_saved = lambda path: saved
    return mine, [metrics for _, metrics in registry.algorithm(cfg_algo.implementation).train(cfg, mine)]


# -- loss and advantages of numbers, without a model -----------------------------------------------------------


def counts(mask: Tensor) -> dict[str, int]:
    return {"num_sequences": len(mask), "num_tokens": int(mask.sum())}


def loss_of(
    cfg: grpo.Config,
    new: Tensor,
    given: dict[str, Tensor],
    entropy: Tensor | None = None,
    max_new: int = 7,
    whole: dict[str, int] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """grpo.loss of completions [B, L] whose log-probs are `new`; `whole`: the counts of the batch they are part of."""
    entropy = torch.zeros_like(new) if entropy is None else entropy
    return grpo.loss(cfg, max_new, new, entropy, given, whole or counts(given["mask"]))


def groups_of(reward: Any, mask: Tensor | None = None, logprob: Tensor | None = None, **fields: Any) -> Groups:
    """Groups with these rewards [P, G]; of 5 tokens each where no mask is given."""
    reward = torch.as_tensor(reward, dtype=torch.float64)
    P, G = reward.shape
    mask = torch.ones(P, G, 5, dtype=torch.bool) if mask is None else mask
    values: dict[str, Any] = {
        "prompts": ["x"] * P, "texts": [""] * (P * G), "prompt": torch.zeros(P, 1).long(), "prompt_mask": None,
        "tokens": mask.long(), "mask": mask, "logprob": torch.zeros(mask.shape) if logprob is None else logprob,
        "ended": torch.ones(P, G, dtype=torch.bool), "reward": reward, "correct": reward,
    }  # fmt: skip
    return Groups(**{**values, **fields})


def advantage_of(
    cfg: grpo.Config, groups: Groups, task: Any = None, ref: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    task = task or SimpleNamespace(max_new=groups.mask.shape[-1])
    return grpo.advantages(cfg, task, groups, groups.logprob if ref is None else ref)
