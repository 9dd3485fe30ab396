"""Tasks as their YAML files describe them, for tests."""

from __future__ import annotations

import random
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import TypeAdapter

from rlx.config.registry import options
from rlx.language import tasks

NAMES = sorted(set(options("task")) - {"jsonl"})  # jsonl needs a file: test_jsonl.py
ANSWERED = [name for name in NAMES if name not in ("names", "enumerable")]


@lru_cache
def composed(name: str, *words: str) -> dict[str, Any]:
    """The section `task` as Hydra composes it."""
    with initialize_config_dir(str(Path(options("task")[name]).parent.parent), version_base=None):
        cfg = compose(overrides=[f"+task={name}", *words])
    return OmegaConf.to_container(cfg.task, resolve=True)


def config(name: str, **changes: Any) -> Any:
    raw = composed(name)
    kind = tasks.task_module(raw["implementation"]).Config
    assert set(raw) == {field.name for field in fields(kind)}  # the YAML has every value, the dataclass every type
    return TypeAdapter(kind).validate_python({**raw, **changes})


def task(name: str, **changes: Any) -> Any:
    return tasks.make_task(config(name, **changes))


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(it: Any, n: int = 2_000) -> list[tuple[str, str, bool]]:
    """Random completions of prompts, half of them a right answer with a few characters changed."""
    draw = random.Random(n)
    rows = []
    for prompt in it.prompts(rng(7), n):
        text = "".join(draw.choices(it.alphabet, k=draw.randrange(it.max_new)))
        if hasattr(it, "answer") and draw.random() < 0.5:
            right = it.answer(prompt)
            cut = draw.randrange(len(right) + 1)
            text = draw.choice([right, right[:cut], right[:cut] + draw.choice(it.alphabet) + right[cut + 1 :]])
        rows.append((prompt, text, draw.random() < 0.8))
    return rows
