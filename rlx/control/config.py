"""What a run in an environment is configured with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from rlx.config import schema
from rlx.config.schema import Algo, Count
from rlx.control.networks import ModelConfig
from rlx.envs.single import EnvConfig

A = TypeVar("A", bound=Algo, covariant=True)  # the algorithm's own section


@dataclass
class ControlConfig(schema.Config, Generic[A]):
    PLACE: ClassVar[str] = "env"

    algo: A
    model: ModelConfig
    env: EnvConfig
    eval_episodes: Count
    video: bool  # a GIF of the agent at each evaluation milestone
