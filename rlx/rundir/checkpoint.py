"""Checkpoints: whole or absent, checked on reading, no pickle.

A checkpoint is one file, KIND_STEP.safetensors: step_000000012000, best_000000010000, final_000000100000. It comes
into being by one rename: written under a temporary name that no reader looks at, synced, renamed, directory synced.
The tensors are the file's tensors; the rest of the state is JSON in the file's header, beside a sha256 over the whole
file (taken with zeros in the hash's own place). safetensors itself would load 299 of 300 flipped bits unnoticed.

The state is a tree of dicts and lists with tensors, numpy arrays, numbers, strings, booleans and None at its leaves.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch

from rlx.base.errors import UserError
from rlx.base.files.atomic import own_directory, write_atomically

FORMAT = 1
TENSOR, ARRAY = "$tensor", "$array"
KINDS = ("best", "step", "final")  # of two at one step the later kind is taken
NAME = re.compile(r"(best|step|final)_(\d{12,19})\.safetensors")
BLANK = b"0" * 64
HASH = re.compile(rb'"sha256":"([0-9a-f]{64})"')  # only the header's own entry: JSON within it has \" for "


class CheckpointError(UserError):
    """No checkpoint that can be read, or one that is damaged."""


# -- the state as tensors and JSON -----------------------------------------------------------------------------


def _pack(tree: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(tree, torch.Tensor):
        return {TENSOR: _put(tree.detach().to("cpu", copy=True).contiguous(), path, tensors)}
    if isinstance(tree, np.ndarray):
        return {ARRAY: _put(torch.from_numpy(np.array(tree, order="C", copy=True)), path, tensors)}
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


def _put(tensor: torch.Tensor, path: str, tensors: dict[str, torch.Tensor]) -> str:
    name = path.removeprefix("/")
    if name in tensors:
        raise TypeError(f"{path}: two tensors of a state have this name")
    tensors[name] = tensor
    return name


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


# -- one file --------------------------------------------------------------------------------------------------


def save(path: Path, state: Mapping[str, Any], **info: Any) -> None:
    """Write one checkpoint; `info`, plain data, is kept beside the state. Raises CannotWrite."""
    tensors: dict[str, torch.Tensor] = {}
    manifest = json.dumps({"format": FORMAT, **info, "state": _pack(state, "", tensors)})
    data = safetensors.torch.save(tensors, {"rlx": manifest, "sha256": BLANK.decode()})
    place = data.index(b'"sha256":"' + BLANK) + len(b'"sha256":"')
    write_atomically(path, data[:place], hashlib.sha256(data).hexdigest().encode(), data[place + len(BLANK) :])


def load(path: Path) -> dict[str, Any]:
    """{"format", "state", ...the info} of one checkpoint, every byte of it checked. Raises CheckpointError."""
    if not path.is_file():  # a pipe is none
        raise CheckpointError(f"{path.name}: no such file")
    if not path.resolve().is_relative_to(path.parent.parent.resolve()):
        raise CheckpointError(f"{path.name}: a link that leads out of the run directory")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name}: {error.strerror}") from None
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    match = HASH.search(header)
    if match is None or _digest(data, 8 + match.start(1)) != match[1].decode():
        raise CheckpointError(f"{path.name}: damaged (its {len(data):,} bytes do not have the sha256 they should)")
    try:
        manifest: dict[str, Any] = json.loads(json.loads(header)["__metadata__"]["rlx"])
        if manifest["format"] != FORMAT:
            raise CheckpointError(f"{path.name}: format {manifest['format']}, this rlx reads format {FORMAT}")
        manifest["state"] = _unpack(manifest["state"], safetensors.torch.load(data))
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path.name}: not a checkpoint of rlx ({type(error).__name__}: {error})") from None
    return manifest


def _digest(data: bytes, place: int) -> str:
    digest = hashlib.sha256(memoryview(data)[:place])
    digest.update(BLANK)
    digest.update(memoryview(data)[place + len(BLANK) :])
    return digest.hexdigest()


# -- those of one run ------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """The checkpoint that was loaded, and one line for each newer one that could not be."""

    state: dict[str, Any]
    kind: str
    step: int
    warnings: list[str]


class Checkpoints:
    """The checkpoints of one run: the last `keep` by step, the best and the final one.

    `identity` is what a run cannot change: a checkpoint with another one is another run's.
    """

    def __init__(self, directory: Path, keep: int = 3, identity: Mapping[str, Any] | None = None) -> None:
        self.directory, self.keep = directory, keep
        self.identity = json.loads(json.dumps(identity or {}))

    def save(self, kind: str, step: int, state: Mapping[str, Any], **info: Any) -> None:
        """Write one; then remove those that it makes superfluous. Raises CannotWrite."""
        own_directory(self.directory)
        save(self._path(kind, step), state, kind=kind, step=step, identity=self.identity, **info)
        others = [other for other in self.steps(kind) if other != step]
        if kind == "step":  # keep the newest before this one; any after it could not be read, or we would not be here
            earlier = [other for other in others if other < step]
            others = [other for other in others if other > step] + earlier[self.keep - 1 :]
        for other in others:
            self._path(kind, other).unlink(missing_ok=True)

    def load(self, which: str = "latest") -> Found | None:
        """The newest checkpoint that is whole; `which` is latest, best, final or a step.

        None when the run has none yet. Raises CheckpointError when there are some and none can be read: never
        silently from scratch.
        """
        files = self._newest_first()
        if which != "latest":
            files = [item for item in files if which == item[1] or (which.isdigit() and int(which) == item[0])]
            if not files:
                names = ", ".join(f"{kind} {step}" for step, kind in self._newest_first())
                raise CheckpointError(f"no checkpoint '{which}' (there are: {names or 'none'})")
        problems: list[str] = []
        for step, kind in files:
            try:
                return Found(self._load(kind, step), kind, step, [f"skipped a checkpoint, {line}" for line in problems])
            except CheckpointError as error:
                problems.append(str(error))
        if files:
            raise CheckpointError(f"no checkpoint can be read: {'; '.join(problems)}")
        return None

    def _load(self, kind: str, step: int) -> dict[str, Any]:
        path = self._path(kind, step)
        manifest = load(path)
        if (manifest.get("kind"), manifest.get("step")) != (kind, step):
            raise CheckpointError(f"{path.name}: holds {manifest.get('kind')} {manifest.get('step')}, it was renamed")
        identity = manifest.get("identity", {})
        for key in {**self.identity, **identity}:
            if self.identity and identity.get(key) != self.identity.get(key):
                raise CheckpointError(
                    f"{path.name}: is another run's: {key}={identity.get(key)} there, {self.identity.get(key)} here"
                )
        state: dict[str, Any] = manifest["state"]
        return state

    def _path(self, kind: str, step: int) -> Path:
        return self.directory / f"{kind}_{step:012d}.safetensors"

    def steps(self, kind: str) -> list[int]:
        """The steps of which there is a file of this kind."""
        return [step for step, other in self._newest_first() if other == kind]

    def _newest_first(self) -> list[tuple[int, str]]:
        names = [NAME.fullmatch(path.name) for path in self.directory.glob("*")]
        return sorted(
            ((int(name[2]), name[1]) for name in names if name), key=lambda item: (item[0], KINDS.index(item[1]))
        )[::-1]
