"""The tasks of the language world, by the name of their implementation. Nothing is imported until it is chosen."""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING

from rlx.base.errors import ConfigError, choices_hint

if TYPE_CHECKING:
    from rlx.language.tasks.base import Task, TaskConfig

IMPLEMENTATIONS = ("add", "copy", "reverse", "sort", "parity", "count", "countdown", "names", "enumerable", "jsonl")


def task_module(implementation: str) -> ModuleType:
    """The module with `Config` and `Task` of a task. Raises ConfigError naming the choices, or what is wrong."""
    where = f"task.implementation={implementation}"
    if implementation in IMPLEMENTATIONS:
        return importlib.import_module(f"{__name__}.{implementation}")
    plugins = {point.name: point.value for point in metadata.entry_points(group="rlx.tasks")}
    if implementation not in plugins:
        raise ConfigError(f"{where}: no such task{choices_hint(implementation, (*IMPLEMENTATIONS, *plugins))}")
    value = plugins[implementation]
    try:
        module = importlib.import_module(value)
    except Exception as error:  # a third party's module may do anything while it is imported
        raise ConfigError(
            f"{where}: the plug-in's module {value} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if missing := [name for name in ("Config", "Task") if not hasattr(module, name)]:
        raise ConfigError(f"{where}: the plug-in's module {value} has no {' and no '.join(missing)}")
    return module


def make_task(cfg: TaskConfig) -> Task:
    """The task that a task module's `Config` describes."""
    return task_module(cfg.implementation).Task(cfg)
