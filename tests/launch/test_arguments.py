"""What a message proposes can be typed."""

import re

import pytest

from rlx.base.errors import ConfigError
from rlx.launch import arguments

UNREADABLE = [
    "model.hidden[0]=32", "env.wrappers[1]=x", "model.hidden.-1=3", "seed=1,2,", "algo=ppo,", "seed=,1",
    "runs_dir=a,,b", "runs_dir=a(b)c", "runs_dir=a{b}c", "x[=1", "runs_dir='a", "seed=[1",
]  # fmt: skip


@pytest.mark.parametrize("word", UNREADABLE)
def test_a_word_that_cannot_be_read_is_answered_with_one_that_can_or_with_none(word: str) -> None:
    with pytest.raises(ConfigError) as error:
        arguments.overrides([word])
    start = f"cannot read '{word}': "
    assert str(error.value).startswith(start) and "\n" not in str(error.value)
    for proposal in re.findall(r"'([^' ]+=[^']*)'$", str(error.value)[len(start) :]):
        assert arguments.overrides([proposal], multirun=True)
