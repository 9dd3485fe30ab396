"""Choices of the configuration's groups (env=cartpole, task=add2, preset=ppo_cartpole): what their files say."""

import re
from pathlib import Path

from rlx.config import registry
from rlx.explain import comments, keys, source

GROUPS = ("env", "task", "preset", "experiment", "model", "as")  # algorithms have pages of their own


def find(name: str) -> tuple[str, Path] | None:
    """The group of a choice and its file; also of `env=cartpole`."""
    group, equals, option = name.partition("=")
    groups = [group] if equals and group in GROUPS else [] if equals else GROUPS
    for each in groups:
        if path := keys.options(each).get(option if equals else name):
            return (each, path) if path.stem != "none" else None
    return None


def names() -> list[str]:
    return [name for group in GROUPS for name in keys.options(group) if name != "none"]


def explain(group: str, path: Path) -> list[str]:
    """The page of a choice."""
    name, origin = path.stem, registry.origin(group, path.stem)
    lines = [f"{group}={name}: {' '.join(comments.head(path))}", f"where: {source.near(path, 1)}"]
    lines += [f"from: {origin}"] * (origin != "rlx")
    if presets := _presets(group, name):
        example = f"{registry.preset_owner(presets[0], name)}_{name}"
        lines += ["", f"tuned for: {', '.join(presets)} (rlx explain {example})"]
    rows = [
        f"  {one.key}={one.value}{f': {one.text}' if one.text else ''}"
        for one in comments.comments(path).values()
        if one.value and one.key.partition(".")[0] not in ("defaults", "stages")
    ]
    if rows:
        lines += ["", "what it sets:", *rows]
    return [*lines, "", f"try it: {_command(group, name)}"]


def _presets(group: str, name: str) -> list[str]:
    """The algorithms that have tuned values for an environment or a task, of their own or of what they vary."""
    if group not in ("env", "task"):
        return []
    return [algo for algo in keys.options("algo") if registry.preset_owner(algo, name)]


def _command(group: str, name: str) -> str:
    if group in ("env", "task"):
        tuned, usual = _presets(group, name), ("ppo", "q_learning") if group == "env" else ("sft", "pretrain")
        algo = next((each for each in (*usual, *tuned) if each in tuned), usual[0])
        return f"rlx train algo={algo} {group}={name}"
    if group == "preset":
        algo = max((each for each in keys.options("algo") if name.startswith(f"{each}_")), key=len, default="")
        place = name.removeprefix(f"{algo}_")
        section = "env" if place in keys.options("env") else "task"
        return f"rlx train algo={algo} {section}={place}"
    if group == "as":
        return f"rlx train algo=grpo task=add2 init=latest:sft as={name}"
    world = "" if group == "experiment" or re.match(r"mlp|cnn", name) else "algo=sft task=add2 "
    return f"rlx train {world}{group}={name}"
