"""A number for a completion: the model's body with one output instead of a token's logits."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlx.config.schema import Algo
from rlx.language.config import LanguageConfig
from rlx.language.policy import TokenPolicy, make_model
from rlx.language.rollout import Groups


class Scorer(nn.Module):
    """r(x, y) = gain (w . h) + bias, h what the model knows after the last token of y.

    `gain` and `bias` are fitted afterwards (`normalise`), so that what a fixed policy writes scores 0 on average with
    standard deviation 1.
    """

    gain: Tensor
    bias: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()))

    @classmethod
    def new(cls, cfg: LanguageConfig[Algo], policy: TokenPolicy, generator: torch.Generator) -> "Scorer":
        """With the policy's body, and an output drawn from N(0, 1 / (D + 1)) (Ziegler et al. 2019, section 2.1)."""
        model = _like(cfg, policy, generator)
        take_body(model, policy.model.state_dict())
        nn.init.normal_(model.unembed, std=(model.d + 1) ** -0.5, generator=generator)
        return cls(model.to(policy.device))

    def raw(self, groups: Groups) -> Tensor:
        """Scores before gain and bias: [P, G]."""
        features = self.model.features(groups.prompt, groups.prompt_mask, groups.tokens, last=True)
        at = groups.lengths[..., None, None].expand(*groups.lengths.shape, 1, features.shape[-1])
        return self.model.logits(features.gather(2, at)).squeeze(-1).squeeze(-1)

    def forward(self, groups: Groups) -> Tensor:
        return self.gain * self.raw(groups) + self.bias

    @torch.no_grad()
    def normalise(self, groups: Groups) -> None:
        """Mean 0 and standard deviation 1 over these completions (Ziegler et al. 2019, section 2.1)."""
        std, mean = torch.std_mean(self.raw(groups))
        self.gain.copy_(1 / std.clamp(min=1e-8))
        self.bias.copy_(-mean * self.gain)


class ValueHead(nn.Module):
    """V(s) before each token, from the policy's own features: one network with two outputs. The values start at 0."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._policy = (model,)  # in a tuple: its parameters are the policy's
        self.weight = nn.Parameter(torch.zeros_like(model.unembed[:1]))

    def of(self, features: Tensor) -> Tensor:
        """[..., D] -> [..., 1]"""
        return nn.functional.linear(features.to(self.weight.dtype), self.weight)

    def forward(self, prompt: Tensor, mask: Tensor | None, completion: Tensor) -> Tensor:
        return self.of(self._policy[0].features(prompt, mask, completion))


def make_critic(cfg: LanguageConfig[Algo], policy: TokenPolicy, body: Mapping[str, Tensor] | None = None) -> nn.Module:
    """V(s) before each token: `model.logits(model.features(...))[..., 0]`. With the policy's body and a zero output
    (the values start at 0), or all of another scorer's model."""
    model = _like(cfg, policy, torch.Generator())
    if body is None:
        take_body(model, policy.model.state_dict())
        nn.init.zeros_(model.unembed)
    else:
        model.load_state_dict(body)
    return model.to(policy.device)


def _like(cfg: LanguageConfig[Algo], policy: TokenPolicy, generator: torch.Generator) -> Any:
    """A model of the policy's shape with one output."""
    context = policy.model.context
    return make_model(cfg.model, policy.task, policy.tokenizer, generator, outputs=1, context=context)


def take_body(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Everything but the output from another model's state."""
    own = model.state_dict()
    model.load_state_dict({**state, "unembed": own["unembed"]})
