"""What a run in an environment is configured with."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from rlx.config import nested, schema
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
    init: str | None = None  # the run whose policy this one starts from
    eval_env: dict[str, Any] = field(default_factory=dict)  # keys of env that differ in evaluation, films and play

    @property
    def judged_in(self) -> EnvConfig:
        """The environment of evaluation, films and play. Raises ConfigError."""
        if not self.eval_env:
            return self.env
        return schema.section(EnvConfig, nested.merged(asdict(self.env), self.eval_env), "eval_env")
