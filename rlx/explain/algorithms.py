"""Algorithms: the docstring of the module, the literal table LESSON in it, the keys' comments, the calls of equations.

    LESSON = {
        "what": "Three sentences.",
        "kind": "on-policy, model-free",
        "watch": ("train/approx_kl",),                  metrics
        "wrong": ("symptom: cause and remedy",),
        "try": ("rlx train algo=ppo env=cartpole",),
    }

A variant, one YAML file over another, says in its head what it changes, and with a line `Kind: ...` what it is where
that differs.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.config import registry
from rlx.explain import comments, keys, metrics, source
from rlx.explain.functions import calls, first_sentence, laid_out
from rlx.explain.keys import Key

UNTOLD = "its file does not say (LESSON)"


def names() -> list[str]:
    """Choices of algo=, and files that have no YAML yet."""
    return list(dict.fromkeys([*keys.options("algo"), *source.algorithm_files()]))


def file_of(name: str) -> Path | None:
    return source.algorithm_file(keys.implementation(name))


def lesson(name: str) -> dict[str, Any]:
    """What its file says; {} where it says nothing that can be read."""
    path = file_of(name)
    value = source.literal(path, "LESSON") if path else None
    return value if isinstance(value, Mapping) else {}  # type: ignore[return-value]


def head(name: str) -> list[str]:
    """What its YAML file says of itself, without the line of its kind."""
    path = keys.options("algo").get(name)
    return [line for line in comments.head(path) if not line.startswith("Kind: ")] if path else []


def kind(name: str) -> str:
    """On- or off-policy, model-free or model-based."""
    path = keys.options("algo").get(name)
    own = [line for line in comments.head(path) if line.startswith("Kind: ")] if path else []
    return own[0].removeprefix("Kind: ") if own else str(lesson(name).get("kind", UNTOLD))


def spaces(name: str) -> str:
    """What it can act in, or what it asks of a task."""
    about = registry.facts(keys.implementation(name))
    if about.world == "language":
        needs = f" with {', '.join(about.needs)}" if about.needs else ""
        return f"tasks of language{needs} (rlx list tasks)"
    needs = f", and {', '.join(about.needs)}" if about.needs else ""
    actions, observations = (" or ".join(listed) if listed else "any" for listed in (about.actions, about.observations))
    return f"environments with {actions} actions and {observations} observations{needs} (rlx list envs)"


def symbols(name: str) -> dict[str, Key]:
    """The symbols of the equations that are keys: those that a comment begins with, or the key itself is."""
    path = file_of(name)
    text = source.docstring(path) if path else ""
    known: dict[str, Key] = {}
    for short, key in keys.of("algo", name).items():
        choices = re.split(", | or ", key.field.range) if key.field else []
        for symbol in (comments.symbol_of(key.text)[0], short):
            if symbol not in ("", "name", "implementation", *choices) and _stands_in(text, symbol):
                known.setdefault(symbol, key)
    return known


def _stands_in(text: str, symbol: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(symbol)}(?!\w)", text) is not None


def explain(name: str) -> list[str]:
    """The page of an algorithm."""
    path, said, base = file_of(name), lesson(name), keys.base_of("algo", name) if name in keys.options("algo") else name
    top = head(name)
    doc = source.docstring(path) if path else ""
    what = said.get("what") or doc.partition("\n\n")[0].replace("\n", " ") or UNTOLD
    lines = [f"{name}: {top[0]}" if top else name, ""]
    if base == name:
        lines.append(f"what: {what}")
    else:
        lines += [f"what: {base} with {changes(name)}. {' '.join(top[1:])}", f"{base}: {what}"]
    lines += [f"kind: {kind(name)}", f"where it learns: {spaces(name)}", ""]
    if path:
        lines += [f"equations ({source.near(path, 1)})", "", *laid_out(doc), ""]
        lines += _tied(name, path)
    lines += _watch(name, said)
    lines += _listed("what goes wrong", [f"- {one}" for one in strings(said, "wrong")])
    lines += _listed("try it", [f"    {line}" for line in commands(name, base, said)])
    return lines[:-1]


def changes(name: str) -> str:
    """What a variant sets, as words of the command line."""
    own = comments.comments(keys.options("algo")[name])
    values = [
        f"algo.{key}={one.value}" for key, one in own.items() if key.partition(".")[0] not in ("defaults", "name")
    ]
    return " ".join(values)


def _tied(name: str, path: Path) -> list[str]:
    """Symbols to keys, equations to functions and to the loop that calls them."""
    lines = ["symbols that are keys:"]
    for symbol, key in symbols(name).items():
        value = key.comment.value if key.comment else ""
        what = comments.symbol_of(key.summary)[1]
        lines.append(f"  {symbol}: {key.name}={value}, {what}")
    lines = [*lines, ""] if len(lines) > 1 else []
    used = calls(path)
    if used:
        lines.append("the equations it calls:")
        for call in used:
            doc = first_sentence(call.function.doc)
            title = f"{call.function.path.stem}.{call.function.name}"
            lines.append(f"  {title}: {doc} {call.function.place}, called at {call.place}")
        lines.append("")
    if own := source.functions(path):
        lines.append("the loop and its parts:")
        for function in own.values():
            doc = first_sentence(function.doc)
            lines.append(f"  {function.name}: {function.place}{f', {doc}' if doc else ''}")
        lines.append("")
    return lines


def _watch(name: str, said: Mapping[str, Any]) -> list[str]:
    implementation, rows = keys.implementation(name), []
    for metric in strings(said, "watch"):
        if one := metrics.of(metric, implementation):
            rows.append(f"  {metric}: {one.definition} Healthy: {one.healthy}")
    return _listed("what to watch", rows)


def _listed(title: str, rows: list[str]) -> list[str]:
    return [f"{title}:", *rows, ""] if rows else []


def strings(said: Mapping[str, Any], name: str) -> list[str]:
    """A list of a lesson: "watch", "wrong" or "try"."""
    listed = said.get(name)
    return [one for one in listed if isinstance(one, str)] if isinstance(listed, tuple | list) else []


def commands(name: str, base: str, said: Mapping[str, Any]) -> list[str]:
    """Lines to try: those of its file; a variant's are those of what it is a variant of, and the two compared."""
    lines = strings(said, "try")
    if base == name and any(re.search(rf"\balgo={name}(?= |$)", line) for line in lines):
        return lines
    if base == name:  # a copy, or a file that names none
        place = "task=add2" if registry.world_name(keys.implementation(name)) == "language" else "env=cartpole"
        return [f"rlx train algo={name} {place}"]
    chosen = re.compile(rf"\balgo={base}(?= |$)")
    first = next((line for line in lines if chosen.search(line)), lines[0])
    both = chosen.sub(f"algo={base},{name}", first).replace("rlx train ", "rlx train -m ")
    return [*lines[: lines.index(first)], chosen.sub(f"algo={name}", first), f"{both} seed=1,2,3"]
