"""The tasks of the language world, by the name of their implementation: see rlx.config.plugins. Nothing is imported
until it is chosen."""

from types import ModuleType
from typing import TYPE_CHECKING

from rlx.config import plugins

if TYPE_CHECKING:
    from rlx.language.tasks.base import Sizes, Task, TaskConfig


def task_module(implementation: str) -> ModuleType:
    """The module with `Config` and `Task` of a task. Raises ConfigError naming the choices, or what is wrong."""
    return plugins.load("tasks", implementation)


def make_task(cfg: "TaskConfig", tokens: "Sizes | None" = None) -> "Task":
    """The task that a task module's `Config` describes, its lengths in `tokens` (None: characters)."""
    task: Task = task_module(cfg.implementation).Task(cfg)
    task.measure(*([tokens] if tokens else []))
    return task
