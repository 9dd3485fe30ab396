"""Every key of a metrics.jsonl has an explanation: whatever algorithm, world or switch it comes from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import language_runs
import pytest
import tiny_runs
import yaml
from command_line import ROOT

from rlx.base.errors import UserError
from rlx.config import registry
from rlx.explain import metrics, source
from rlx.explain.answer import answer
from rlx.rundir.metrics import read_metrics

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SIGNS = {"env": "gym", "env.name": "signs", "env.id": "probe_envs:Signs-v0"}
SHORT = {"total_steps": 96, "eval_every": 96, "eval_episodes": 1, "checkpoint_every": 0}
CONTINUOUS = ("sac", "td3", "ddpg")
CONTROL: dict[str, dict[str, Any]] = {  # an algorithm, and switches that add metrics
    **{name: {**SIGNS, "algo": name} for name in registry.algorithms_of("control")},
    **{name: {"env": "pendulum", "algo": name, "algo.learning_starts": 8, "algo.rounds": 16} for name in CONTINUOUS},
    "ppo in a Box": {"env": "pendulum", "algo": "ppo"},
    "ppo with success": {"env": "frozenlake", "algo": "ppo"},
    "reinforce in one environment": {**SIGNS, "algo": "reinforce", "algo.num_envs": 1},
    "vpg with a baseline": {**SIGNS, "algo": "vpg", "algo.weight": "baseline"},
    "q_learning with an oracle": {"env": "grid", "algo": "q_learning"},
}
SAID = {"total_steps": 4, "eval_every": 4, "eval_prompts": 2, "samples": 0, "checkpoint_every": 0}
LANGUAGE: dict[str, dict[str, Any]] = {
    **{name: {"algo": name} for name in registry.algorithms_of("language")},
    "grpo with a reference": {"algo": "grpo", "algo.kl_coef": 0.04},
    "rlhf_ppo on a reward model": {"algo": "rlhf_ppo", "algo.reward_model": "MODEL", "algo.value_init": "reward_model"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Where the runs to start from are: a policy, START, and a reward model of its samples, MODEL."""

    @cache
    def make() -> Path:
        here = tmp_path_factory.mktemp("home")
        start = language_runs.train(here, "pretrain", name="START", **{**SAID, "algo.lr": 1e-2})
        language_runs.train(here, "reward_model", name="MODEL", init=str(start), **SAID)
        return here

    return make


def unexplained(run: Path) -> set[str]:
    names = {name for row in read_metrics(run / "metrics.jsonl") for name in row}
    implementation = yaml.safe_load((run / "config.yaml").read_text())["algo"]["implementation"]
    return {name for name in names if metrics.of(name, implementation) is None}


@pytest.mark.parametrize("case", CONTROL)
def test_every_metric_of_a_control_run_has_an_explanation(case: str, tmp_path: Path) -> None:
    run = tiny_runs.train(tmp_path, **{**SHORT, **CONTROL[case]})
    assert unexplained(run) == set()


@pytest.mark.parametrize("case", LANGUAGE)
def test_every_metric_of_a_language_run_has_an_explanation(case: str, tmp_path: Path, home) -> None:
    place = home()
    changes = {key: str(place / value) if value == "MODEL" else value for key, value in LANGUAGE[case].items()}
    run = language_runs.train(tmp_path, changes.pop("algo"), **{"init": str(place / "START"), **SAID, **changes})
    assert unexplained(run) == set()


def test_an_explanation_has_a_definition_healthy_values_and_what_to_do_if_they_are_not() -> None:
    known = [one for listed in metrics.meanings().values() for one in listed]
    assert len(known) > 80
    for one in known:
        assert all(part.endswith(".") for part in (one.definition, one.healthy, one.otherwise)), one
        assert one.path.is_file() and one.place.rpartition(":")[2].isdigit()


def test_a_metric_is_explained_where_it_is_made() -> None:
    lines = metrics.explain("train/approx_kl")
    where = next(line for line in lines if line.startswith("where: "))
    file, _, line = where.removeprefix("where: ").partition(":")
    assert '"approx_kl": pg.approx_kl(' in (ROOT / file).read_text().splitlines()[int(line) - 1]
    assert "nats" in lines[1] and lines[2] == "healthy: .001 to .02."


def test_a_name_that_nobody_knows_is_one_line_with_what_is_near() -> None:
    with pytest.raises(UserError, match="^explain train/aprox_kl: nothing .* did you mean 'train/approx_kl'"):
        answer(["train/aprox_kl"])


MINE = """import a_package_that_nobody_has
MEANINGS = {"train/mine": "A number. Healthy: 1. If not: do something."}
class Config: ...
def train(): yield 1, {"train/mine": 1.0}
"""


def test_the_metrics_of_a_strangers_file_are_explained_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "algos").mkdir()
    (tmp_path / "algos" / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    page = answer(["train/mine"])
    assert page[0] == "train/mine, a metric of mine" and "where: ./algos/mine.py:4" in page
    (tmp_path / "algos" / "mine.py").write_text("def (")
    assert source.literal(tmp_path / "algos" / "torn.py", "MEANINGS") is None


def test_a_table_is_read_however_it_is_laid_out(tmp_path: Path) -> None:
    forms = ('X = {"a": "b"}', 'X: dict = {\n    "a": "b",\n}', 'X = {\n    "a":\n    "b"\n    }', 'X = dict(a="b")')
    for i, form in enumerate(forms):
        (tmp_path / f"{i}.py").write_text(f"'''Doc.'''\n{form}\nY = 1\n")
    assert [source.literal(tmp_path / f"{i}.py", "X") for i in range(4)] == [{"a": "b"}] * 3 + [None]


@pytest.mark.parametrize("case", ["ppo", "q_learning with an oracle"])
def test_tensorboards_text_tab_says_what_the_metrics_of_a_run_mean(case: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tiny_runs.train(tmp_path, **{**SHORT, **CONTROL[case], "tensorboard": True})
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    text = accumulator.Tensors("metrics")[0].tensor_proto.string_val[0].decode()
    names = {name for row in read_metrics(run / "metrics.jsonl") for name in row} - {"step"}
    assert names and [name for name in names if f"**{name}**: " not in text] == []
    assert ("**train/approx_kl**" in text) == (case == "ppo") and "**objective/kl**" not in text
