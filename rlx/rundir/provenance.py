"""run.json: where a run came from. Command, versions, git, host, device, seed; what was noticed; how it went on."""

import contextlib
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from rlx import __version__
from rlx.base import process
from rlx.base.files.document import Document
from rlx.config import registry

FORMAT = 1  # of run.json, and of the logs beside it
NAMES = r"(?:secret|passw(?:or)?d|passphrase|(?<![a-z])pwd|api[_-]?key|private[_-]?key|credential|token(?![a-z]))"
SECRET = re.compile(rf"""({NAMES}[\w.-]{{0,50}}["']?\s{{0,3}}[=:]\s{{0,3}}["']?)[^\s"',;&]+""", re.IGNORECASE)
OPTION = re.compile(rf"--?[\w-]{{0,50}}{NAMES}", re.IGNORECASE)  # whose value is the next word
WORD = re.compile(rf"((?<![\w-])--?[\w-]{{0,50}}{NAMES}\s{{1,3}}|\bbearer\s{{1,3}})(?!-)[^\s\"']+", re.IGNORECASE)
KNOWN = re.compile(  # what secrets of some services look like, wherever they stand
    r"\b(?:sk-[\w-]{16,}|gh[a-z]_\w{20,}|hf_\w{20,}|AKIA[0-9A-Z]{16}|xox[a-z]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})"
    r"|(?s:-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.{0,20000}?-----END [A-Z ]{0,30}PRIVATE KEY-----)"
)
GIT_SECONDS = 5
LOGIN = re.compile(r"(\w{1,20}://)[^/\s@'\"]{1,500}@")


@dataclass(kw_only=True)
class Provenance(Document):
    """Where a run came from."""

    FILE: ClassVar[str] = "run.json"

    format: int = FORMAT
    command: list[Any] | None = None
    started: str | None = None
    algo: str | None = None
    env: str | None = None
    task: str | None = None
    env_id: str | None = None
    init: dict[str, Any] | None = None  # the runs that it starts from: {run, algo, step, weights_sha256}
    reward_model: dict[str, Any] | None = None
    trial: int | None = None  # of a search
    study: str | None = None
    params: dict[str, Any] | None = None
    seed: int | None = None
    device: str | None = None
    threads: int | None = None
    versions: dict[str, Any] | None = None
    host: str | None = None
    machine: dict[str, Any] | None = None
    git: dict[str, Any] | None = None
    notices: list[Any] = field(default_factory=list)
    resumes: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, Any] | None = None  # how many evaluations, films, loggers
    facts: dict[str, Any] | None = None  # of its algorithm, when it began: see config.facts
    engine: dict[str, Any] | None = None  # {what is tracked: what computes it}, where that rounds in its own way
    code: dict[str, Any] | None = None  # that is not rlx's, and files: see training.code_record

    @property
    def place(self) -> str:
        """The world of the run: env or task."""
        return "env" if self.task is None else "task"

    @property
    def latest_code(self) -> dict[str, Any]:
        """What is recorded of the code that ran last."""
        records = [self.code, *(resume.get("code") for resume in self.resumes)]
        return next((record for record in reversed(records) if isinstance(record, dict)), {})

    @property
    def hashes(self) -> dict[str, str]:
        """{file or module: sha256} of that code; data files by key and path."""
        return hashes(self.latest_code)

    @property
    def code_digest(self) -> str | None:
        """Which code made it, not rlx's own; of a run that went on with other code, one after the other."""
        records = [self.code, *(resume.get("code") for resume in self.resumes)]
        digests = [record.get("digest") for record in records if isinstance(record, Mapping)]
        return "+".join(dict.fromkeys(str(digest) for digest in digests if digest)) or None

    @property
    def origins(self) -> dict[str, dict[str, Any]]:
        """The runs that it starts from, by what they are to it."""
        return {key: origin for key in ("init", "reward_model") if (origin := getattr(self, key))}


def hashes(code: Mapping[str, Any]) -> dict[str, str]:
    """{file or module: sha256} of a record of code (training.code_record)."""
    modules, data = code.get("modules"), code.get("data")
    listed = modules if isinstance(modules, list) else []
    found = {str(each.get("name")): str(each.get("sha256")) for each in listed if isinstance(each, Mapping)}
    for key, each in data.items() if isinstance(data, Mapping) else ():
        if isinstance(each, Mapping):
            found[f"{key}={each.get('path')}"] = str(each.get("sha256"))
    return found


def scrub(text: str) -> str:
    """Without the user and password of URLs, without the values of keys that sound like secrets, and without what looks
    like one."""
    return WORD.sub(r"\1***", SECRET.sub(r"\1***", KNOWN.sub("***", LOGIN.sub(r"\1***@", text))))


def git(place: Path | str, *words: str) -> bytes | None:
    """What git says of the repository that a directory is in; None where it says nothing within GIT_SECONDS."""
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(["git", "-C", str(place), *words], capture_output=True, timeout=GIT_SECONDS, env=quiet)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _git() -> dict[str, str | None]:
    """The commit of the repository that rlx was started in, and what differs from it, if there is one."""

    def ask(*words: str) -> str | None:
        answer = git(".", *words)
        return None if answer is None else answer.decode(errors="replace").strip()[:10_000]

    return {"commit": ask("rev-parse", "HEAD"), "diff_stat": ask("diff", "--no-ext-diff", "--stat=100", "HEAD")}


def versions() -> dict[str, str]:
    import torch

    packages = {"rlx": __version__, "python": platform.python_version(), "torch": torch.__version__}
    for name in ("numpy", "gymnasium", "hydra-core", "tensorboard"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    if "transformers" in sys.modules:  # a model of Hugging Face
        packages["transformers"] = metadata.version("transformers")
    return packages


def machine(device: str) -> dict[str, Any]:
    import torch

    return {
        "system": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
    }


def command_line(words: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for word in words:
        kept.append("***" if kept and OPTION.fullmatch(kept[-1]) else scrub(word[:2_000]))
    return kept[:500]


def new(cfg: Any, command: list[str], device: str, origins: Mapping[str, Any]) -> Provenance:
    """`origins`: the runs that it starts from, by what they are to it (init, reward_model)."""
    tree = {
        "format": FORMAT,
        "command": command_line(command),
        "started": process.now(),
        "algo": cfg.algo.name,
        cfg.PLACE: cfg.place.name,
        **({"env_id": cfg.place.id} if cfg.PLACE == "env" else {}),
        **origins,
        "seed": cfg.seed,
        "device": device,
        "threads": cfg.threads,
        "versions": versions(),
        "host": socket.gethostname(),
        "machine": machine(device),
        "git": _git(),
        "notices": [],
        "resumes": [],
        "facts": registry.facts(cfg.algo.implementation).as_json(),
    }
    return Provenance.of(tree)


def update(path: Path, **changes: Any) -> Provenance:
    """Change keys of run.json; returns it as it was. Raises ConfigError where it cannot be read."""
    before = Provenance.load(path)
    before.source = {"notices": [], "resumes": [], **(before.source or {})}
    if any(getattr(before, key) != value for key, value in changes.items()):
        replace(before, **changes).write(path)
    return before


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, list[Any]]:
    """{dotted key: [value before, value after]} wherever two configurations differ."""
    changes: dict[str, list[Any]] = {}
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if isinstance(new, Mapping) and (isinstance(old, Mapping) or old is None):
            changes |= differences(old or {}, new, f"{prefix}{key}.")
        elif old != new or key not in before:
            changes[f"{prefix}{key}"] = [old, new]
    return changes


def add_notices(path: Path, notices: Iterable[str]) -> None:
    if notices := [scrub(notice) for notice in notices]:
        update(path, notices=list(dict.fromkeys([*Provenance.load(path).notices, *notices])))


def count_failed(path: Path, what: str) -> None:
    """One more side task that failed while training went on."""
    counts = Provenance.load(path).failed or {}
    update(path, failed={**counts, what: counts.get(what, 0) + 1})


def drop_resume(path: Path) -> None:
    """Forget the newest resume: it was refused."""
    update(path, resumes=Provenance.load(path).resumes[:-1])


def add_resume(
    path: Path,
    command: list[str],
    device: str,
    step: int,
    changes: Mapping[str, Any],
    code: Mapping[str, Any] | None = None,
) -> str | None:
    """Record that the run goes on. Returns one line if what computes it has changed since it was last started; of
    `code`, see training.code_record."""
    entry: dict[str, Any] = {
        "step": step,
        "time": process.now(),
        "command": command_line(command),
        "changes": dict(changes),
        "versions": versions(),
        "host": socket.gethostname(),
        "machine": machine(device),
        **({"code": dict(code)} if code else {}),
    }
    record = Provenance.load(path)
    update(path, resumes=[*record.resumes, entry])
    last = Provenance.of(record.resumes[-1]) if record.resumes else record
    other = differences(last.versions or {}, entry["versions"])
    computer = {key: value for key, value in (last.machine or {}).items() if key != "system"}
    other |= differences(computer, {key: entry["machine"].get(key) for key in computer})
    other |= {key: both for key, both in changes.items() if key in ("device", "threads")}
    if not other:
        return None
    what = ", ".join(f"{key} {new} (was {old})" for key, (old, new) in other.items())
    return f"{what}: the result may differ in its last bits from that of a run never stopped"
