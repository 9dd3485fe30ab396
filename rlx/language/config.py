"""What a run on a task is configured with."""

from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from rlx.config import schema
from rlx.config.ranges import Whole
from rlx.config.schema import Algo, Count
from rlx.language.model.gpt import GPTConfig
from rlx.language.tasks.base import TaskConfig

A = TypeVar("A", bound=Algo, covariant=True)  # the algorithm's own section


class Sampling(Algo, Protocol):
    """The section of an algorithm that samples."""

    temperature: float


@dataclass
class LanguageConfig(schema.Config, Generic[A]):
    PLACE: ClassVar[str] = "task"

    algo: A
    model: GPTConfig
    task: TaskConfig
    init: str | None  # the run whose final weights it starts from
    eval_prompts: Count
    samples: Whole  # completions shown at each evaluation; 0: none
