"""What every algorithm of the world of language must do, built-in ones and those that come later: each YAML of
conf/algo that learns on a task is tested here."""

from __future__ import annotations

import math
import re
import shutil
import signal
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from language_runs import TINY_ALGO, train
from tiny_lm import algo as algo_config, train as learn
from tiny_runs import Child, checkpoints, die, die_at, record, result, resume, status
from variants import ALIKE

from rlx.base.errors import UserError
from rlx.config import registry
from rlx.language.learner import TokenLearner
from rlx.run import Run
from rlx.rundir.metrics import read_metrics
from rlx.training import runner

ALGORITHMS = sorted(registry.algorithms_of("language"))
IMPLEMENTATION = {name: registry.values("algo", name)["implementation"] for name in ALGORITHMS}
STARTED = ["reward_model", "rlhf_ppo", "dpo"]  # these cannot begin without a policy
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ALGORITHMS},
    "rlhf_ppo-scored": ("rlhf_ppo", {"algo.reward_model": "MODEL", "algo.whiten_rewards": True}),
    "rlhf_ppo-stiennon": ("rlhf_ppo", {"algo.reward_model": "MODEL", "algo.value_init": "reward_model"}),
    "reward_model-task": ("reward_model", {"algo.data": "task", "algo.group_size": 2}),
    "sft-short": ("sft", {"task.length": 2, "algo.check_every": 1, "algo.check_prompts": 64, "algo.lr": 1e-2}),
    "dpo-task": ("dpo", {"algo.data": "task"}),
}
every = pytest.mark.parametrize("case", CASES)
distinct = pytest.mark.parametrize("case", [case for case in CASES if case not in ALIKE])


def begin(place: Path, case: str, progress: Any = None, name: str | None = None, **changes: Any) -> Path:
    """The run of a case, from the policy START of that directory."""
    algo, own = CASES[case]
    named = {key: str(place / value) if value == "MODEL" else value for key, value in own.items()}
    return train(place, algo, progress=progress, name=name, **{"init": str(place / "START"), **named, **changes})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs to start from: a policy, START, and a reward model of its samples, MODEL. Read them only."""
    here = tmp_path_factory.mktemp("home")
    start = train(here, "pretrain", name="START", **{"algo.lr": 1e-2})
    train(here, "reward_model", name="MODEL", init=str(start))
    return here


@pytest.fixture(scope="module")
def whole(home: Path) -> Callable[[str], Path]:
    """The run of a case, never stopped. Read it only."""
    return lru_cache(lambda case: begin(home, case))


@pytest.fixture
def place(tmp_path: Path, home: Path) -> Path:
    """A directory with copies of the runs to start from."""
    for name in ("START", "MODEL"):
        shutil.copytree(home / name, tmp_path / name)
    return tmp_path


def test_every_algorithm_belongs_to_one_of_the_two_files() -> None:
    """What neither this file nor test_every_algorithm.py covers, nobody does."""
    assert sorted([*ALGORITHMS, *registry.algorithms_of("control")]) == sorted(registry.options("algo"))
    used = {registry.values("algo", name)["implementation"] for name in registry.options("algo")}
    assert used == set(registry.implementations())


# -- one run -----------------------------------------------------------------------------------------------------


def die_in_step(number: int) -> None:
    """Let this process kill itself behind its `number`-th optimiser step, before anything knows of it."""
    real, left = TokenLearner.step, [number]

    def step(self: TokenLearner, lr: float) -> dict[str, float]:
        found = real(self, lr)
        left[0] -= 1
        if not left[0]:
            die()
        return found

    TokenLearner.step = step  # type: ignore[method-assign]


@distinct
def test_a_run_killed_again_and_again_equals_one_never_stopped(case: str, place: Path, whole) -> None:
    """Before its first checkpoint, between two, in the middle of an iteration, before the last one. As soon as it has a
    checkpoint, what it started from may be gone."""
    path = place / "run"
    assert Child(lambda: begin(place, case, die_at(1), name="run")).wait() == -signal.SIGKILL
    assert Child(lambda: resume(path, die_at(8))).wait() == -signal.SIGKILL
    for name in ("START", "MODEL"):
        shutil.rmtree(place / name)
    for life in (lambda: (die_in_step(3), resume(path)), lambda: resume(path, die_at(12))):
        assert Child(life).wait() == -signal.SIGKILL
    resume(path)
    assert result(path) == result(whole(case)) and checkpoints(path) == checkpoints(whole(case))
    assert len(record(path)["resumes"]) == 4


@distinct
def test_a_seed_gives_the_same_run_twice_and_another_seed_another_one(case: str, home: Path, whole) -> None:
    """Evaluating and checkpoints, often or never, change nothing."""

    def learnt(path: Path) -> tuple[str, list[dict[str, Any]]]:
        weights, rows = result(path)
        return weights, [row for row in rows if not any(key.startswith("eval/") for key in row)]

    one = learnt(whole(case))
    assert learnt(begin(home, case, eval_every=1, eval_prompts=9, samples=5, checkpoint_every=1)) == one
    assert learnt(begin(home, case, eval_every=0, checkpoint_every=0)) == one
    assert learnt(begin(home, case, eval_every=0, seed=2))[0] != one[0]


@distinct
def test_a_run_made_longer_equals_one_that_was_as_long_from_the_start(case: str, home: Path, whole) -> None:
    steady = {"algo.anneal_lr": False, "eval_every": 0}
    path = begin(home, case, total_steps=8, **steady)
    resume(path, total_steps=16)
    assert result(path) == result(begin(home, case, total_steps=16, **steady))


@every
def test_what_was_saved_is_what_was_evaluated(case: str, whole) -> None:
    cfg, module, run = runner.open_run(whole(case))
    how = {} if hasattr(module, "evaluate") else {"k": 1}
    found = runner.report(cfg, module, run, cfg.eval_prompts, cfg.seed, **how)
    told = status(whole(case))["evaluation"]
    both = set(found) & set(told)
    assert len(both) >= 5 and {key: told[key] for key in both} == {key: found[key] for key in both}
    assert told["step"] == 12 and told["score"] in found.values()


@every
def test_metrics_are_finite_numbers(case: str, whole) -> None:
    rows = read_metrics(whole(case) / "metrics.jsonl")
    assert {type(value) for row in rows for value in row.values()} <= {int, float}
    assert all(math.isfinite(value) for row in rows for value in row.values())
    trained = [row for row in rows if "loss" in row]
    assert trained[-1]["step"] == 12 and all({"grad_norm", "learning_rate"} <= set(row) for row in trained)
    assert [row["step"] for row in rows if any(key.startswith("eval/") for key in row)][-1] == 12


@distinct
def test_a_value_that_is_not_finite_ends_the_run_and_reaches_no_checkpoint(case: str, home: Path, whole) -> None:
    """Planted in a weight, as a division by zero would; of each module that the run has."""
    _, _, run = runner.open_run(whole(case))
    names = {key.partition(".")[0] for key in run.state_dict()["tracked"]} - {
        "optimizer",
        "data",
        "goal",
        "kl_coef",
        "vocabulary",
    }
    real, modules = Run.track, {}

    def track(self: Run, **objects: Any) -> None:
        real(self, **objects)
        modules.update(objects)

    def plant(name: str) -> Callable[..., None]:
        def progress(step: int, _: Any) -> None:
            if step >= 7:
                next(modules[name].parameters()).data.view(-1)[0] = float("nan")

        return progress

    Run.track = track  # type: ignore[method-assign]
    try:
        for name in names:
            with pytest.raises(runner.RunFailed, match="finite") as failure:
                begin(home, case, plant(name), eval_every=0)
            assert status(failure.value.path)["status"] == "failed"
            steps = [int(re.findall(r"\d+", file)[0]) for file in checkpoints(failure.value.path)]
            assert steps and max(steps) < 7, name
    finally:
        Run.track = real  # type: ignore[method-assign]
    assert names


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_batch_learnt_in_parts_is_the_batch(algo: str) -> None:
    """micro_batch=1 against 0: every part is divided by the whole batch's counts."""
    tiny = TINY_ALGO.get(IMPLEMENTATION[algo], {})
    runs = [learn(algo_config(f"algo={algo}", micro_batch=n, **tiny), reward="dense", steps=8) for n in (0, 1)]
    whole, parts = (torch.cat([x.flatten() for x in run.parameters().values()]) for run, _ in runs)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-9)  # float64, eight steps of Adam
    for one, other in zip(*(history for _, history in runs), strict=True):
        assert other == pytest.approx(one, rel=1e-6, abs=1e-9)


# -- what does not fit -------------------------------------------------------------------------------------------


def refused(root: Path, text: str, *words: str, **changes: Any) -> None:
    """In one line, and before anything is written."""
    with pytest.raises(UserError, match=text) as error:
        train(root / "new", *words, **changes)
    assert "\n" not in str(error.value) and not (root / "new").exists()


@pytest.mark.parametrize(
    "algo, task, text",
    [
        ("sft", "names", r"task=names has no demonstrations \(answer\); sft needs them \(tasks that have .*add2"),
        ("sft", "enumerable", "task=enumerable has no demonstrations"),
        ("pretrain", "enumerable", r"task=enumerable has no corpus \(text\); pretrain needs .*names"),
        ("grpo_process", "names", "task=names has no step rewards; algo.supervision=process needs them"),
    ],
)
def test_a_task_without_what_an_algorithm_needs_is_refused(algo: str, task: str, text: str, tmp_path: Path) -> None:
    refused(tmp_path, text, algo, task)


@pytest.mark.parametrize("algo", ["dpo", "reward_model"])
def test_a_task_without_pairs_is_refused_where_they_are_asked_for(algo: str, tmp_path: Path) -> None:
    text = "algo.data=task: task=enumerable has no pairs of its own"
    size = {"algo.group_size": 2} if algo == "reward_model" else {}
    refused(tmp_path, text, algo, "enumerable", init="stage:1", **{"algo.data": "task", **size})


@pytest.mark.parametrize("algo", STARTED)
def test_an_algorithm_that_needs_a_policy_to_start_from_says_so(algo: str, tmp_path: Path) -> None:
    refused(tmp_path, rf"init=null: {algo} .*\(init=latest:\w+, or", algo)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_run_to_start_from_that_is_not_there_or_has_not_finished_is_refused(algo: str, place: Path) -> None:
    (place / "START" / "status.json").write_text('{"status": "interrupted", "step": 3}')
    refused(place, "START: has not finished, it is interrupted", algo, init=str(place / "START"))
    refused(place, "no such run directory", algo, init=str(place / "nowhere"))
    refused(place, "init=latest:sft: no finished run of sft on task=parity", algo, init="latest:sft")


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_run_to_start_from_that_does_not_fit_is_refused(algo: str, home: Path) -> None:
    start = str(home / "START")
    task = "names" if algo in ("pretrain", *STARTED) else "copy"
    refused(home, rf"START: its alphabet 01= \(task=parity\) is not that of task={task}", algo, task, init=start)
    refused(home, "MODEL: the network of that run scores completions and writes none", algo, init=str(home / "MODEL"))
    longer = {"task.length": 9, "init": start}
    refused(home, r"START: its network reads 15 tokens; task=parity needs 21 \(train that one with", algo, **longer)


def test_a_reward_model_that_is_none_or_knows_another_alphabet_is_refused(place: Path) -> None:
    init, key = {"init": str(place / "START")}, "algo.reward_model"
    refused(place, "is a policy of pretrain; algo.reward_model needs", "rlhf_ppo", **{key: init["init"]}, **init)
    refused(place, "no finished run of reward_model on task=parity", "rlhf_ppo", **{key: "latest"}, **init)
    other = train(place, "pretrain", "copy")
    model = train(place, "reward_model", "copy", init=str(other), **{"algo.data": "task", "algo.group_size": 2})
    refused(place, r"its alphabet 0123456789= \(task=copy\) is not that of", "rlhf_ppo", **{key: str(model)}, **init)


def test_a_reward_model_with_another_network_than_the_policys_is_refused(place: Path) -> None:
    wide = train(place, "pretrain", **{"model.d_model": 32})
    model = {"algo.reward_model": str(place / "MODEL")}
    refused(place, "d_model", "rlhf_ppo", init=str(wide), **model)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_batch_with_fewer_rows_than_torchrun_has_processes_is_refused(
    algo: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "9")
    refused(home, r"algo\.\w+=\d.*: gives batches of \d rows, and torchrun 9 proc", algo, init=str(home / "START"))
