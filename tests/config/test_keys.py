"""What a key of the configuration means: what was computed by 0.1.0 (identities.json) holds for its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlx.config import keys, older_runs
from rlx.config.nested import flatten

OLD: dict[str, Any] = json.loads((Path(__file__).parent / "identities.json").read_text())


@pytest.mark.parametrize("name", OLD)
def test_an_old_checkpoint_fits_its_run(name: str) -> None:
    assert keys.identity(OLD[name]["config"], older_runs.FROZEN) == OLD[name]["identity"]


@pytest.mark.parametrize("name", OLD)
def test_an_old_run_keeps_its_row_of_the_hparams_tab(name: str) -> None:
    row = keys.hparams(OLD[name]["config"])
    assert keys.config_hash(row) == OLD[name]["config_hash"] and not {"device", "threads", "runs_dir"} & row.keys()


@pytest.mark.parametrize("name", OLD)
def test_an_old_run_keeps_its_curve(name: str) -> None:
    assert sorted(keys.curve(flatten(OLD[name]["config"]))) == OLD[name]["curve"]


@pytest.mark.parametrize(
    "key, meaning",
    [
        ("env.kwargs.gravity", keys.TABLE["env"]),  # as its section
        ("env", keys.TABLE["env"]),
        ("environment", keys.OTHER),  # no section of this one
        ("algo.lr", keys.TABLE["algo"]),
        ("algo.num_envs", keys.TABLE["algo"]),
        ("expect.score", keys.TABLE["expect"]),
        ("eval_episodes", keys.OTHER),
    ],
)
def test_a_key_without_a_line_means_what_its_section_does(key: str, meaning: keys.Meaning) -> None:
    assert keys.meaning(key) == meaning


def test_what_an_algorithm_freezes_is_fixed_and_nothing_else_of_it_changes() -> None:
    fixed = keys.TABLE["algo"]._replace(resume=keys.FIXED)
    assert keys.meaning("algo.num_envs", ("num_envs",)) == keys.meaning("algo.data.seed", ("data",)) == fixed
    assert keys.meaning("algo.num_env", ("num_envs",)) == keys.meaning("algo.lr", ("num_envs",)) == keys.TABLE["algo"]
    assert keys.meaning("env.num_envs", ("num_envs",)) == keys.TABLE["env"]


def test_what_a_resume_may_change_is_no_part_of_the_identity() -> None:
    config = OLD["dqn"]["config"]
    for key in ("total_steps", "device", "log_every"):
        assert keys.meaning(key).resume == keys.FREE
        assert keys.identity({**config, key: "another"}) == keys.identity(config)
    assert keys.identity({**config, "seed": 8}) != keys.identity(config)
