"""Numbers that cannot work are refused; those that hardly can are said, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command_line import TINY, Forks
from composed import composed

from rlx.base.errors import ConfigError
from rlx.config import odd
from rlx.training import runner

CONTROL = ["algo=ppo", "env=cartpole"]


@pytest.mark.parametrize(
    "words",
    [
        ["algo=sft", "task=add2", "algo.adam_beta1=1"],
        ["algo=grpo", "task=add2", "algo.adam_beta2=1.0"],
        ["algo=rlhf_ppo", "task=names", "algo.adam_beta2=1"],
        [*CONTROL, "algo.lr=1e39"],
        [*CONTROL, "model.log_std_init=-1e300"],
    ],
)
def test_a_number_that_gives_nan_is_refused(words: list[str]) -> None:
    key = words[-1].partition("=")[0]
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        runner.typed(composed(*words))


@pytest.mark.parametrize(
    "word", ["algo.clip_coef=1e30", "algo.lr=1e30", "model.log_std_init=1e10", "algo.vf_coef=1e30"]
)
def test_an_odd_number_is_one_line_that_names_its_key(word: str) -> None:
    cfg, _ = runner.typed(composed(*CONTROL, word))
    (line,) = odd.lines(cfg)
    assert line.startswith(f"{word.partition('=')[0]}=")


def test_nothing_that_ships_is_odd() -> None:
    for path in sorted(Path("conf/preset").glob("*.yaml")) + sorted(Path("conf/algo").glob("*.yaml")):
        section = yaml.safe_load(path.read_text()) or {}
        for name, value in section.get("algo", section).items():
            if isinstance(value, float):
                assert abs(value) <= odd._largest(name) or name in odd.UNLIMITED, f"{path}: {name}"


def test_an_odd_number_warns_once_and_trains(tmp_path: Path, forks: Forks) -> None:
    done = forks("train", *TINY, "algo.clip_coef=1e30", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.err.count("warning: algo.clip_coef=1e+30") == 1
    assert any(
        "algo.clip_coef" in note for note in json.loads((tmp_path / done.run / "run.json").read_text())["notices"]
    )
