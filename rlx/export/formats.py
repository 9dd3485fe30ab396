"""A run's policy for others: its tensors, an ONNX graph, a folder that needs nothing of rlx or one for transformers."""

import contextlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rlx.base import extras
from rlx.base.errors import UserError
from rlx.base.files import atomic
from rlx.config import registry
from rlx.config.keys import config_hash, hparams
from rlx.export import card
from rlx.export.plain import Plain, plain
from rlx.rundir import checkpoint, provenance
from rlx.rundir.layout import read_config
from rlx.rundir.reader import checkpoint_manifest
from rlx.training import runner


def export(path: Path, to: str, out: Path | None = None, which: str = "latest", trust: bool = False) -> Path:
    """Write the policy of a run's checkpoint; returns where. `to` is one of WRITERS, `trust`: see
    runner.resume. Raises UserError, nothing is overwritten, and nothing half written stays."""
    cfg, module, run = runner.open_run(path, which, trust=trust)
    facts = card.facts(path, cfg, run.step, _hash(path, run.step), _config_hash(path))
    out = out or Path("_".join([cfg.algo.name, cfg.place.name, f"s{cfg.seed}", str(run.step)]) + ENDINGS[to])
    _check_out(out)
    try:
        WRITERS[to](out, cfg, module, run, facts, path)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written: {error.strerror or error}") from None
    return out


def _check_out(out: Path) -> None:
    if os.path.lexists(out):
        raise UserError(f"--out={out}: already exists and is not overwritten")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out={out}: the directory {out.parent} does not exist")


def _hash(path: Path, step: int) -> str:
    """weights_sha256 of the checkpoint of a step, as `rlx show` has it of the newest."""
    for file in (path / "checkpoints").glob(f"*_{step:012d}.safetensors"):
        if weights := checkpoint_manifest(file).get("weights_sha256"):
            return str(weights)
    return "unknown"


def _config_hash(path: Path) -> str:
    """The name of the run's row in the HPARAMS tab."""
    return config_hash(hparams(read_config(path)))


# -- what is written ---------------------------------------------------------------------------------------------


def _tensors(cfg: Any, module: Any, run: Any) -> dict[str, Tensor]:
    """Of a policy that is more than tensors and a few lines, and of a reward model, its tensors alone."""
    try:
        return plain(cfg, module, run).tensors
    except UserError:
        for name in ("policy", "scorer"):
            with contextlib.suppress(KeyError):
                return {key: tensor for key, tensor in run.state(name).items() if isinstance(tensor, Tensor)}
        raise


def _safetensors(out: Path, cfg: Any, module: Any, run: Any, facts: dict[str, str], _: Path) -> None:
    atomic.write_atomically(out, _bytes(_tensors(cfg, module, run), facts))


def _bytes(tensors: dict[str, Tensor], facts: dict[str, str]) -> bytes:
    whole = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(whole, {**facts, "exported_sha256": checkpoint.weights_sha256(whole)})


def _onnx(out: Path, cfg: Any, module: Any, run: Any, facts: dict[str, str], _: Path) -> None:
    atomic.write_atomically(out, onnx_bytes(plain(cfg, module, run), facts))


class _Graph(torch.nn.Module):
    """What the lines compute, as a module."""

    def __init__(self, policy: Plain) -> None:
        super().__init__()
        self.functions, self.names = policy.functions(), {name: _flat(name) for name in policy.tensors}
        for name, tensor in policy.tensors.items():
            self.register_buffer(_flat(name), tensor.detach())

    def forward(self, x: Tensor) -> Any:
        self.functions["w"] = {name: getattr(self, flat) for name, flat in self.names.items()}
        outputs = self.functions["outputs"](x)
        return (self.functions["act"](x), outputs) if "act" in self.functions else outputs


def _flat(name: str) -> str:
    return name.replace(".", "__")


def onnx_bytes(policy: Plain, facts: dict[str, str]) -> bytes:
    """The graph, for any batch size (and any length of prompts). Raises UserError without the extra."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--to=onnx: {error.name} is not installed ({extras.install('onnx')})") from None
    axes = {i: torch.export.Dim(name) for i, name in enumerate(policy.axes)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Graph(policy).eval(), (policy.inputs,), dynamo=True, verbose=False, dynamic_shapes=(axes,),
            input_names=policy.names[:1], output_names=policy.names[1:],
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@contextlib.contextmanager
def _directory(out: Path) -> Iterator[Path]:
    """A place to fill, which becomes `out` at the end."""
    place = out.with_name(f"{atomic.TEMPORARY}{os.getpid()}-{out.name}")
    try:
        place.mkdir()
        yield place
        os.rename(place, out)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _hf(out: Path, cfg: Any, module: Any, run: Any, facts: dict[str, str], _: Path) -> None:
    """The model and the tokenizer of a run with model=hf, as transformers saves and loads them."""
    if cfg.model.path is None:
        raise UserError(f"--to=hf: needs a run with model=hf; this one's network is rlx's (model={cfg.model.name})")
    policy = registry.world(cfg.algo.implementation).load_policy(cfg, module, run)
    with _directory(out) as place:
        policy.model.save(place, facts)
        policy.tokenizer.save(place)


def _folder(out: Path, cfg: Any, module: Any, run: Any, facts: dict[str, str], path: Path) -> None:
    policy = plain(cfg, module, run)
    with _directory(out) as place:
        (place / "weights.safetensors").write_bytes(_bytes(policy.tensors, facts))
        (place / "config.yaml").write_text(provenance.scrub((path / "config.yaml").read_text("utf-8")), "utf-8")
        (place / "policy.py").write_text(card.code(policy), "utf-8")
        (place / "README.md").write_text(card.readme(policy, facts), "utf-8")
        for name, value in policy.extra.items():
            (place / name).write_text(json.dumps(value, indent=1) + "\n", "utf-8")


ENDINGS = {"safetensors": ".safetensors", "onnx": ".onnx", "folder": "", "hf": ""}
WRITERS: dict[str, Callable[..., None]] = {
    "safetensors": _safetensors, "onnx": _onnx, "folder": _folder, "hf": _hf,
}  # fmt: skip
