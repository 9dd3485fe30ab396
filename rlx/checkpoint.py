"""Checkpoints: whole or absent, checked on reading, no pickle.

A checkpoint NAME is two files. `NAME.safetensors` holds the tensors; `NAME.json`, the manifest, holds everything
else and the size and sha256 of the first, and its own sha256. The tensors are written first; the manifest makes the
checkpoint exist. Each is serialised to memory, written under a temporary name that no reader looks at, synced,
renamed, and the directory is synced.

The state is a tree of dicts and lists with tensors, numpy arrays, numbers, strings, booleans and None at its leaves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from rlx.errors import UserError
from rlx.files import write_atomically

FORMAT = 1
TENSOR, ARRAY = "$tensor", "$array"


class CheckpointError(UserError):
    """No checkpoint that can be read, or one that is damaged."""


# -- the state as tensors and JSON -----------------------------------------------------------------------------


def _pack(tree: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(tree, torch.Tensor):
        tensors[path] = tree.detach().to("cpu", copy=True).contiguous()
        return {TENSOR: path}
    if isinstance(tree, np.ndarray):
        tensors[path] = torch.from_numpy(np.array(tree, order="C", copy=True))
        return {ARRAY: path}
    if isinstance(tree, np.generic):
        return tree.item()
    if isinstance(tree, Mapping):
        if not all(isinstance(key, str) and not key.startswith("$") for key in tree):
            raise TypeError(f"{path}: the keys of a state must be strings, got {list(tree)[:3]}")
        return {key: _pack(value, f"{path}/{key}", tensors) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_pack(value, f"{path}/{index}", tensors) for index, value in enumerate(tree)]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"{path}: a state cannot hold a {type(tree).__name__}")


def _unpack(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(tree, dict):
        if TENSOR in tree:
            return tensors[tree[TENSOR]]
        if ARRAY in tree:
            return tensors[tree[ARRAY]].numpy()
        return {key: _unpack(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_unpack(value, tensors) for value in tree]
    return tree


def weights_sha256(parameters: Mapping[str, torch.Tensor]) -> str:
    """One hash of all parameters: names in order, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        tensor = parameters[name].detach().to("cpu").contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# -- files -----------------------------------------------------------------------------------------------------


def _canonical(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def save(directory: Path, name: str, state: Mapping[str, Any], **info: Any) -> Path:
    """Write checkpoint `name`; `info` goes into the manifest, to be read without the tensors. Returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    tree = _pack(state, "", tensors)
    data = safetensors.torch.save(tensors)
    body = {
        "format": FORMAT,
        **info,
        "file": f"{name}.safetensors",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "state": tree,
    }
    manifest = directory / f"{name}.json"
    manifest.unlink(missing_ok=True)  # an older one of this name: never a manifest beside tensors it does not match
    write_atomically(directory / f"{name}.safetensors", data)
    write_atomically(manifest, _canonical([body, hashlib.sha256(_canonical(body)).hexdigest()]))
    return manifest


def read_manifest(manifest: Path) -> dict[str, Any]:
    """The manifest, checked against its own hash. Raises CheckpointError saying what is wrong."""
    try:
        raw = manifest.read_bytes()
        body, digest = json.loads(raw)
        whole = raw == _canonical([body, digest]) and hashlib.sha256(_canonical(body)).hexdigest() == digest
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{manifest.name}: unreadable ({type(error).__name__})") from None
    if not whole:
        raise CheckpointError(f"{manifest.name}: damaged (its sha256 does not match)")
    if body["format"] != FORMAT:
        raise CheckpointError(f"{manifest.name}: format {body['format']}, this rlx reads format {FORMAT}")
    return body


def load(manifest: Path) -> dict[str, Any]:
    """The state of one checkpoint, after its hashes were checked. Raises CheckpointError saying what is wrong."""
    body = read_manifest(manifest)
    path = manifest.parent / f"{manifest.stem}.safetensors"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name}: {error.strerror}") from None
    if len(data) != body["size"] or hashlib.sha256(data).hexdigest() != body["sha256"]:
        raise CheckpointError(f"{path.name}: damaged ({len(data)} of {body['size']} bytes, or its sha256 differs)")
    try:
        return _unpack(body["state"], safetensors.torch.load(data))
    except (safetensors.SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path.name}: {error}") from None


class Checkpoints:
    """The checkpoints of one run: the last `keep` by step, `best` and `final`."""

    def __init__(self, directory: Path, keep: int = 3) -> None:
        self.directory, self.keep = directory, keep

    def save(self, step: int, state: Mapping[str, Any], name: str | None = None, **info: Any) -> None:
        save(self.directory, name or f"step_{step:012d}", state, step=step, **info)
        if name is None:
            for manifest in self._periodic()[: -self.keep]:
                manifest.unlink(missing_ok=True)
                manifest.with_suffix(".safetensors").unlink(missing_ok=True)

    def _periodic(self) -> list[Path]:
        return sorted(self.directory.glob("step_*.json"))

    def newest_first(self) -> list[Path]:
        """All manifests that can be read, newest step first; the others last (reading them says what is wrong)."""

        def step(manifest: Path) -> tuple[int, bool]:
            try:
                return int(read_manifest(manifest)["step"]), manifest.stem == "final"
            except CheckpointError:
                name = manifest.stem.removeprefix("step_")
                return (int(name), True) if name.isdigit() else (2**62, True)

        return sorted(self.directory.glob("[!.]*.json"), key=step, reverse=True)

    def load(self, which: str = "latest") -> tuple[dict[str, Any] | None, list[str]]:
        """The state of a checkpoint, and a warning for each newer one that is damaged.

        `which` is latest, best, final or a step. (None, []) when the run has no checkpoint yet. Raises
        CheckpointError when there are some and none can be read: never silently from scratch.
        """
        found = self.newest_first()
        if which != "latest":
            wanted = f"step_{int(which):012d}" if which.isdigit() else which
            found = [manifest for manifest in found if manifest.stem == wanted]
            if not found:
                raise CheckpointError(f"no checkpoint '{which}' (there are: {', '.join(self.names()) or 'none'})")
        warnings: list[str] = []
        for manifest in found:
            try:
                return load(manifest), warnings
            except CheckpointError as error:
                warnings.append(f"skipping a bad checkpoint, {error}")
        orphans = [] if found else list(self._orphans())
        if found or orphans:
            raise CheckpointError(f"no checkpoint can be read: {'; '.join(warnings) or 'their manifests are missing'}")
        return None, warnings

    def _orphans(self) -> Iterator[Path]:
        """Tensors without a manifest. One alone is a first save that was cut off; more means lost manifests."""
        files = list(self.directory.glob("[!.]*.safetensors"))
        return iter(files if len(files) > 1 else [])

    def names(self) -> list[str]:
        return [manifest.stem for manifest in sorted(self.directory.glob("[!.]*.json"))]
