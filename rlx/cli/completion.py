"""Shell completion that knows `key=value`: groups, their choices, configuration keys, runs.

Typer's own script is wrong here: bash splits words at '=', so `algo=p<TAB>` would complete nothing. Keys are read
from the YAML files, without Hydra: a <TAB> must answer at once.
"""

from collections.abc import Iterable
from pathlib import Path

from rlx.config import kind, registry
from rlx.rundir import home
from rlx.search import settings

SCRIPTS = {shell: Path(__file__).parent / "templates" / f"rlx.{shell}" for shell in ("bash", "zsh", "fish")}

FLAGS: dict[str, tuple[str, ...]] = {  # of each verb; a test holds them against the verbs themselves
    "train": (
        "--multirun", "--continue", "--cfg", "--info", "--config-dir", "--config-name", "--package", "--resolve",
        "--run", "--verbose", "--help", "--hydra-help", "--version", "--dry-run", "--quiet", "--json", "--jobs",
    ),
    "resume": ("--trust", "--verbose", "--quiet", "--json", "--help"),
    "sweep": ("--jobs", "--config-dir", "--train", "--seeds", "--json", "--help"),
    "eval": (
        "--episodes", "--prompts", "--k", "--seed", "--stochastic", "--checkpoint", "--device", "--trust", "--json",
        "--help",
    ),
    "play": (
        "--gif", "--out", "--seed", "--checkpoint", "--stochastic", "--strip", "--trajectory", "--steps", "--fps",
        "--trust", "--json", "--help",
    ),
    "sample": ("--count", "--greedy", "--temperature", "--seed", "--checkpoint", "--trust", "--json", "--help"),
    "draw": ("--out", "--dims", "--checkpoint", "--trust", "--help"),
    "ls": ("--where", "--sort", "--json", "--csv", "--latex", "--markdown", "--help"),
    "show": ("--table", "--checkpoint", "--trust", "--json", "--csv", "--latex", "--markdown", "--help"),
    "plot": (
        "--metric", "--by", "--group-by", "--out", "--smooth", "--x", "--stat", "--profile", "--size", "--style",
        "--title", "--ylabel", "--label", "--caption", "--no-caption", "--json", "--help",
    ),
    "rm": ("--where", "--dry-run", "--yes", "--json", "--help"),
    "diff": ("--json", "--help"),
    "compare": ("--metric", "--by", "--group-by", "--lower", "--json", "--csv", "--latex", "--markdown", "--help"),
    "dash": ("--port", "--help"),
    "explain": ("--help",),
    "report": ("--out", "--metric", "--title", "--json", "--help"),
    "export": ("--to", "--out", "--checkpoint", "--trust", "--json", "--help"),
    "new": ("--from", "--help"),
    "check": ("--json", "--help"),
    "list": ("--json", "--help"),
    "doctor": ("--help",),
    "completion": ("--help",),
}  # fmt: skip
DEVICES = ("auto", "cpu", "cuda", "mps")
VALUES: dict[str, tuple[str, ...]] = {  # of flags
    "--cfg": ("job", "hydra", "all"), "-c": ("job", "hydra", "all"), "--device": DEVICES,
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--checkpoint": ("latest", "best", "final"), "--sort": ("time", "eval", "return", "env", "algo", "status", "step"),
    "--x": ("step", "seconds", "time"), "--stat": ("mean", "iqm"), "--style": ("screen", "paper"),
    "--where": ("algo=", "env=", "task=", "seed=", "status=", "'step>=", "'eval>="),
    "--to": ("safetensors", "onnx", "folder"),
}  # fmt: skip
LISTS = ("algos", "envs", "tasks", "presets", "models", "experiments", "sweeps", "wrappers", "loggers")
RUN_VERBS = ("resume", "eval", "play", "sample", "draw", "show", "plot", "rm", "diff", "compare", "report", "export")

ACTIONS = ("resume", "best", "show")  # of rlx sweep
SEVERAL = ("plot", "rm", "diff", "compare")  # runs


def candidates(words: list[str]) -> list[str]:
    """What could stand in place of the last of `words` (what was typed after `rlx`)."""
    words = [*home.take(words[:-1]), *words[-1:]]
    current = words[-1] if words else ""
    if len(words) <= 1:
        return _starting(current, (*FLAGS, "--help", "--version") if current.startswith("-") else FLAGS)
    verb, before = words[0], words[-2]
    if before in VALUES and (verb != "train" or before != "--device"):
        return _starting(current, VALUES[before])
    if current.startswith("-"):
        return _starting(current, (*FLAGS.get(verb, ()), home.FLAG))
    if len(words) == 2 and verb in ("list", "completion"):
        return _starting(current, LISTS if verb == "list" else SCRIPTS)
    if verb == "list" and words[1] == "presets":
        return _override(words[2:], current) if "=" in current else _starting(current, ("algo=", "env=", "task="))
    if verb == "explain" and len(words) == 2:
        from rlx.explain.answer import names

        return _starting(current, [name for name in names() if " " not in name])
    if verb in RUN_VERBS and (len(words) == 2 or verb in SEVERAL):
        from rlx.rundir import reader

        return _starting(current, ["latest", *(str(path) for path in reversed(reader.find(home.runs_dir())))])
    if verb == "sweep":
        return _sweep(words, current)
    return _override(words[1:], current) if verb in ("train", "resume") else []


def _sweep(words: list[str], current: str) -> list[str]:
    """What stands after `rlx sweep`: an action and a study, or settings and the words of a run."""
    if words[1] in ACTIONS and len(words) > 2:
        studies = sorted(path.parent.name for path in (home.runs_dir() / "sweeps").glob("*/study.json"))
        more = ("trials=", "jobs=", "storage=") if words[1] == "resume" else ()
        return _starting(current, ("latest", *studies) if len(words) == 3 else more)
    name, equals, value = current.partition("=")
    if equals and name in settings.NAMES:
        choices = {"sampler": settings.SAMPLERS, "pruner": settings.PRUNERS, "sweep": registry.options("sweep")}
        return [f"{name}={choice}" for choice in _starting(value, choices.get(name, ()))]
    actions = ACTIONS if len(words) == 2 else ()
    return [*_starting(current, (*actions, *(f"{name}=" for name in settings.NAMES))), *_override(words[1:], current)]


def _override(words: list[str], current: str) -> list[str]:
    """group=choice (with the choices before it in a sweep), key=value for the values known, or key=."""
    name, equals, value = current.partition("=")
    plus = name[: len(name) - len(name.lstrip("+"))]
    name = name.lstrip("+")
    groups = registry.groups()
    if equals:
        done, comma, last = value.rpartition(",")
        return [f"{plus}{name}={done}{comma}{choice}" for choice in _starting(last, _values(name, words, groups))]
    keys = [*(f"{group}=" for group in groups), *(f"{key}=" for key in kind.keys(words[:-1]))]
    return [f"{plus}{key}" for key in _starting(name, keys)]


def _values(name: str, words: list[str], groups: list[str]) -> Iterable[str]:
    if name in groups:
        return registry.options(name)
    if name == "device":
        return DEVICES
    if name == "init":
        return ("latest", *(f"latest:{algo}" for world in registry.WORLDS for algo in registry.algorithms_of(world)))
    return ("true", "false") if isinstance(kind.keys(words[:-1]).get(name), bool) else ()


def _starting(current: str, choices: Iterable[str]) -> list[str]:
    return [choice for choice in choices if choice.startswith(current)]
