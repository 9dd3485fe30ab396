"""A policy as tensors and a few lines of plain torch that act with them: what an export holds, whoever reads it.

The lines are the one definition. They stand in the folder's policy.py, and the ONNX graph is what they compute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlx.base.errors import UserError
from rlx.config import registry
from rlx.control.acting.box import BoxPolicy
from rlx.control.acting.q_values import QPolicy
from rlx.control.actors import SquashedGaussian, StateDependent
from rlx.control.distributions import FORBIDDEN
from rlx.control.networks import ModelConfig
from rlx.control.normalize import EPS
from rlx.control.policy import Policy, make_one
from rlx.envs.spaces import kind_of, mask_size, rescaled
from rlx.language.model.tokenizer import Tokenizer
from rlx.language.policy import TokenPolicy
from rlx.run import Run
from rlx.tabular.parts import Greedy

CRITIC = ("critic.", "log_std")  # what acting without chance has no use for
ACTIVATE = {
    "tanh": "{}.tanh()", "relu": "{}.relu()", "elu": "F.elu({})", "silu": "F.silu({})",
    "gelu": "F.gelu({})", "relu2": "{}.relu().square()",
}  # fmt: skip


@dataclass
class Plain:
    """`lines` define `outputs(x)`, and what is made of that: `act(obs)` or `complete(prompt)`, with the tensors `w`."""

    tensors: dict[str, Tensor]
    lines: list[str]
    takes: str  # what x is, in words
    gives: str
    example: str  # a call
    inputs: Tensor  # an example of x
    axes: tuple[str, ...]  # those of x that may have any length
    names: tuple[str, ...]  # of x and of the outputs
    constants: dict[str, Any] = field(default_factory=dict)  # of a tokenizer
    extra: dict[str, Any] = field(default_factory=dict)  # further files, as JSON

    def functions(self) -> dict[str, Any]:
        """What the lines define."""
        scope: dict[str, Any] = {"torch": torch, "F": torch.nn.functional, "w": self.tensors, **self.constants}
        exec("\n".join(self.lines), scope)
        return scope


def plain(cfg: Any, module: Any, run: Run) -> Plain:
    """The policy of a run's checkpoint. Raises UserError for one that is more than tensors and a few lines."""
    if getattr(cfg.model, "encoder", None):
        raise UserError(f"model.encoder={cfg.model.encoder}: policies with a module of one's own cannot be exported")
    policy = registry.world(cfg.algo.implementation).load_policy(cfg, module, run)
    if isinstance(policy, TokenPolicy):
        return _speaker(policy, cfg)
    if not isinstance(policy, Policy | QPolicy | BoxPolicy | Greedy):
        raise UserError(f"algo={cfg.algo.name}: policies of this kind cannot be exported ({type(policy).__name__})")
    tensors = {"q": run.state("table")["q"]} if isinstance(policy, Greedy) else dict(run.state("policy"))
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(CRITIC)}
    envs = make_one(cfg.env)
    try:
        return _actor(tensors, policy, cfg, envs)
    finally:
        envs.close()


# -- in an environment -------------------------------------------------------------------------------------------


def _actor(tensors: dict[str, Tensor], policy: Any, cfg: Any, envs: Any) -> Plain:
    shape, masked = envs.observation_space.shape, mask_size(envs.action_space)
    body = ["    x = torch.as_tensor(obs)"]
    if masked:
        image = len(shape) == 3
        mask = f"obs[:, -1].flatten(1)[:, :{masked}]" if image else f"obs[:, -{masked}:]"
        body = ["    obs = torch.as_tensor(obs)", f"    x, mask = obs{'[:, :-1]' if image else ''}, {mask}.float()"]
    if stats := getattr(policy, "obs_norm", None):
        tensors["obs.mean"] = torch.from_numpy(stats.stats.mean)
        tensors["obs.scale"] = torch.from_numpy(1.0 / np.sqrt(stats.stats.var + EPS))
        clip = f"{stats.clip:g}"
        body.append(f'    x = ((x - w["obs.mean"]) * w["obs.scale"]).clamp(-{clip}, {clip}).float()')
    if masked and len(shape) == 1:
        body.append(f"    x = x[:, :-{masked}]")
    body += ['    return w["q"][x.argmax(-1)]'] if "q" in tensors else _network(tensors, cfg.model, shape)
    if masked:
        value = body.pop().removeprefix("    return ")
        body.append(f"    return ({value}) * mask + (1 - mask) * {FORBIDDEN:g}")
    if isinstance(policy, BoxPolicy):
        raw: Any = envs.raw_action_space
        half = (np.ravel(raw.high) / 2 - np.ravel(raw.low) / 2).astype(np.float32)
        tensors["action.half"] = torch.from_numpy(np.where(rescaled(raw), half, policy.bounds.half))
        body[-1] += _before_squashing(policy)
    act, gives = _action(envs.raw_action_space, tensors, squashed=isinstance(policy, BoxPolicy))
    lines = ["def outputs(obs):", *body, "", "", "def act(obs):", f"    return {act}"]
    example = np.zeros((2, *shape), envs.obs.dtype)
    if "q" in tensors:
        example[:, 0] = 1
    if masked:
        example[:, -1 if len(shape) == 3 else slice(-masked, None)] = 1
    return Plain(
        tensors, lines, _observation(envs, cfg.env), gives, f"act(torch.zeros(1, {', '.join(map(str, shape))}))",
        torch.from_numpy(example), ("batch",), ("obs", "action", "outputs"),
    )  # fmt: skip


def _before_squashing(policy: BoxPolicy) -> str:
    """What is taken of the last layer."""
    if isinstance(policy.actor, StateDependent):
        return ".clamp(-2, 2)"
    return f"[:, :{policy.actor.dim}]" if isinstance(policy.actor, SquashedGaussian) else ""


def _network(tensors: Mapping[str, Tensor], model: ModelConfig, shape: tuple[int, ...]) -> list[str]:
    """The lines from x to the outputs of the last layer, for nets.ActorCritic and nets.QNetwork."""
    lines = []
    if len(shape) == 3:
        lines += [
            "    x = x.float() / 255",
            "    for i, stride in ((0, 4), (2, 2), (4, 1)):",
            '        x = F.conv2d(x, w[f"features.convs.{i}.weight"], w[f"features.convs.{i}.bias"], stride).relu()',
            '    x = F.linear(x.flatten(1), w["features.out.0.weight"], w["features.out.0.bias"]).relu()',
        ]
    else:
        lines.append("    x = x.float().flatten(1)")
    lines += _layers(tensors, "trunk", model.activation, last=True)
    if "actor.0.weight" in tensors:
        return [*lines, *_layers(tensors, "actor", model.activation), "    return x"]
    if "state_value.0.weight" not in tensors:
        return [*lines, *_layers(tensors, "action_value", model.activation), "    return x"]
    value = _layers(tensors, "state_value", model.activation)
    advantage = _layers(tensors, "action_value", model.activation)
    return [
        *lines,
        "    seen = x",
        *value,
        "    value, x = x, seen",
        *advantage,
        "    return value + x - x.mean(-1, True)",
    ]


def _layers(tensors: Mapping[str, Tensor], name: str, activation: str, last: bool = False) -> list[str]:
    """Linear layers with activations between them, and after the last one if `last`."""
    numbers = sorted(int(key.split(".")[1]) for key in tensors if key.startswith(f"{name}.") and key.endswith("weight"))
    if not numbers:
        return []
    layer = f'F.linear(x, w[f"{name}.{{i}}.weight"], w[f"{name}.{{i}}.bias"])'
    inner, end = (numbers, []) if last else (numbers[:-1], numbers[-1:])
    lines = [f"    for i in {tuple(inner)}:", f"        x = {ACTIVATE[activation].format(layer)}"] if inner else []
    return lines + [f'    x = F.linear(x, w["{name}.{i}.weight"], w["{name}.{i}.bias"])' for i in end]


def _action(space: Any, tensors: dict[str, Tensor], squashed: bool = False) -> tuple[str, str]:
    """The expression for what the environment is given, and its meaning (see control.spaces)."""
    kind, x = kind_of(space), "outputs(obs)"
    if kind == "Discrete":
        start = int(space.start)
        named = f", counted from {start}" if start else ""
        return f"{x}.argmax(-1)" + (f" + {start}" if start else ""), f"int64 [N], one of {space.n} actions{named}"
    sizes = "".join(f", {size}" for size in space.shape)
    shape = f".reshape(-1{sizes})" if len(space.shape) != 1 else ""
    if kind == "MultiBinary":
        return f"({x} > 0).long(){shape}", f"int64 [N{sizes}] of 0 and 1"
    if kind == "MultiDiscrete":
        choices, starts = ([int(n) for n in np.ravel(part)] for part in (space.nvec, space.start))
        code = f"torch.stack([part.argmax(-1) for part in {x}.split({choices}, -1)], -1)"
        code = f"({code} + torch.tensor({starts}))" if any(starts) else code
        return code + shape, f"int64 [N{sizes}], each below {np.asarray(space.nvec).tolist()}"
    for name, bound in (("low", space.low), ("high", space.high)):
        tensors[f"action.{name}"] = torch.from_numpy(np.ravel(bound).astype(np.float32))
    x = f'w["action.low"] + ({x}.tanh() + 1) * w["action.half"]' if squashed else x
    if not squashed and (which := rescaled(space)).any():  # [-1, 1] stands for these bounds
        w = {name: tensors[f"action.{name}"] for name in ("low", "high")}
        tensors["action.scale"] = torch.where(torch.from_numpy(which), (w["high"] - w["low"]) / 2, 1.0)
        tensors["action.middle"] = torch.where(torch.from_numpy(which), (w["high"] + w["low"]) / 2, 0.0)
        x = f'w["action.middle"] + w["action.scale"] * {x}'
    code = f'torch.minimum(torch.maximum({x}, w["action.low"]), w["action.high"])'
    whole = ".round()" if np.issubdtype(space.dtype, np.integer) else ""
    return code + whole + shape, f"float32 [N{sizes}], clipped to the action space"


def _observation(envs: Any, env: Any) -> str:
    raw, shape = kind_of(envs.raw_observation_space), list(envs.observation_space.shape)
    size = ", ".join(map(str, shape))
    kind = "uint8" if len(shape) == 3 else "float32"
    how = {"Discrete": "one-hot", "MultiDiscrete": "one-hot parts", "Dict": "its parts one after another"}.get(raw, "")
    how = "images, channels first" if len(shape) == 3 else how
    if masked := mask_size(envs.action_space):
        mask = f"the last {'plane' if len(shape) == 3 else masked} the mask of the actions"
        how = f"{how}, {mask}" if how else mask
    after = f"after the wrappers {', '.join(env.wrapper_names)}" if env.wrappers else ""
    return ", ".join(part for part in (f"{kind} [N, {size}] of {env.id}", how, after) if part)


# -- on a task ---------------------------------------------------------------------------------------------------


def _speaker(policy: TokenPolicy, cfg: Any) -> Plain:
    """A language model, without padding: all prompts of a call have one length."""
    tokenizer, model = policy.tokenizer, cfg.model
    if not isinstance(tokenizer, Tokenizer):
        raise UserError("model=hf: the network is one of transformers, which --to hf writes for it")
    names = {"alphabet": tokenizer.alphabet, "end": tokenizer.end, "begin": tokenizer.begin}
    vocabulary = {**names, "max_new": policy.task.max_new, "context": policy.model.context}
    tensors = {name: tensor.detach().float() for name, tensor in policy.model.state_dict().items()}
    learned = model.positions == "learned"
    embed = ['    x = w["embed"][tokens] + w["position"][: tokens.shape[1]]'] if learned else [
        f'    x, half = w["embed"][tokens], {model.d_model // model.num_heads // 2}',
        "    angle = at[:, None] * 10_000.0 ** (-torch.arange(half) / half)",
        "    cos, sin = angle.cos(), angle.sin()",
    ]  # fmt: skip
    turn = [] if learned else [
        "        (a, b), (c, d) = q.chunk(2, -1), k.chunk(2, -1)",
        "        q = torch.cat([a * cos - b * sin, a * sin + b * cos], -1)",
        "        k = torch.cat([c * cos - d * sin, c * sin + d * cos], -1)",
    ]  # fmt: skip
    up = ACTIVATE[model.activation].format('F.linear(norm(x), w[f"blocks.{i}.up"])')
    lines = [
        "def norm(x):",
        "    return F.layer_norm(x, x.shape[-1:])",
        "",
        "",
        "def outputs(tokens):",
        "    at = torch.arange(tokens.shape[1])",
        *embed,
        f"    for i in range({model.num_layers}):",
        '        rows = F.linear(norm(x), w[f"blocks.{i}.qkv"])',
        f"        q, k, v = rows.unflatten(-1, (3, {model.num_heads}, -1)).permute(2, 0, 3, 1, 4)",
        *turn,
        "        score = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5",
        "        told = score.masked_fill(at > at[:, None], -1e9).softmax(-1) @ v",
        '        x = x + F.linear(told.transpose(1, 2).flatten(2), w[f"blocks.{i}.out"])',
        f'        x = x + F.linear({up}, w[f"blocks.{{i}}.down"])',
        '    return F.linear(norm(x[:, -1]), w["unembed"])',
        "",
        "",
        "def complete(prompt):",
        '    tokens, size = [vocab["begin"], *map(vocab["alphabet"].index, prompt)], len(prompt) + 1',
        '    while len(tokens) < size + vocab["max_new"] and tokens[-1] != vocab["end"]:',
        "        tokens.append(int(outputs(torch.tensor([tokens])).argmax()))",
        '    return "".join(vocab["alphabet"][i] for i in tokens[size:] if i != vocab["end"])',
    ]
    prompt = policy.task.prompts(np.random.default_rng(0), 1, held_out=True)[0]
    return Plain(
        tensors, lines, "int64 [N, T] of tokens, each row beginning with `begin`",
        f"the logits of the next token, [N, {tokenizer.num_outputs}]", f"complete({prompt!r})",
        tokenizer.prompts([prompt, prompt])[0], ("batch", "time"), ("tokens", "logits"), {"vocab": vocabulary},
        {"vocabulary.json": vocabulary},
    )  # fmt: skip
