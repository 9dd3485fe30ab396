"""The tasks of the language world, by the name of their implementation: see rlx.config.plugins. Nothing is imported
until it is chosen."""

from types import ModuleType
from typing import TYPE_CHECKING

from rlx.config import plugins

if TYPE_CHECKING:
    from rlx.language.tasks.base import Task, TaskConfig


def task_module(implementation: str) -> ModuleType:
    """The module with `Config` and `Task` of a task. Raises ConfigError naming the choices, or what is wrong."""
    return plugins.load("tasks", implementation)


def make_task(cfg: "TaskConfig") -> "Task":
    """The task that a task module's `Config` describes."""
    return task_module(cfg.implementation).Task(cfg)
