"""Run directories that an older commit wrote (tests/fixtures/base_runs): they are listed, shown, drawn, evaluated and
gone on with as its own were."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import PLUGIN, ROOT, Command, Done, Forks

from benchmarks import make_fixtures, witness

OLDER = ROOT / "tests" / "fixtures" / "base_runs" / "runs"
CONTROL, LANGUAGE, PLUG_IN = (
    next(OLDER.glob(f"{kind}/*")) for kind in ("cartpole/ppo", "names/grpo", "corridor/random")
)
STOPPED = {"control": CONTROL, "language": LANGUAGE, "plug-in": PLUG_IN}
GRID, SEARCH = next(OLDER.glob("sweeps/2*")), OLDER / "sweeps" / "older"
each_stopped = pytest.mark.parametrize("older", STOPPED.values(), ids=STOPPED)


@pytest.fixture(scope="module")
def forks(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Commands that know the plug-in as it is now."""
    return partial(forks, path=make_fixtures.install(PLUGIN, tmp_path_factory.mktemp("site") / "site"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with all of them in runs/. Read it only."""
    place = tmp_path_factory.mktemp("older")
    shutil.copytree(OLDER, place / "runs")
    return place


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The same, to go on with."""
    shutil.copytree(OLDER, tmp_path / "runs")
    return tmp_path


def name(older: Path) -> str:
    """The run as one types it."""
    return str(Path("runs") / older.relative_to(OLDER))


def good(done: Done) -> str:
    assert done.code == 0 and "Traceback" not in done.err, done
    return done.out


def read(file: Path) -> Any:
    return json.loads(file.read_text())


# -- looking ---------------------------------------------------------------------------------------------------


def test_all_are_listed_as_they_stand(forks: Command, here: Path) -> None:
    rows = json.loads(good(forks("ls", "--json", cwd=here)))
    statuses = {row["run"]: row["status"] for row in rows}
    stopped = {name(older): "interrupted" for older in STOPPED.values()}
    jobs = {name(file.parent): "finished" for file in OLDER.glob("sweeps/*/*/config.yaml")}
    assert statuses == {**stopped, **jobs} and len(jobs) == 6
    for row in rows:
        status = read(here / row["run"] / "status.json")
        assert (row["step"], row["checkpoint"]) == (status["step"], status["checkpoint"])
        assert row["eval"]["score"] == status["evaluation"]["score"]
    table = good(forks("ls", cwd=here))
    assert all(Path(run).name in table for run in statuses)


@each_stopped
def test_a_run_is_shown_with_the_last_of_its_metrics(older: Path, forks: Command, here: Path) -> None:
    shown = json.loads(good(forks("show", name(older), "--json", cwd=here)))
    last = [row for row in witness.metrics(older) if not any(key.startswith("eval/") for key in row)][-1]
    assert shown["command"] == read(older / "run.json")["command"]
    assert {key: shown["metrics"][key] for key in last} == last
    assert older.name in good(forks("show", name(older), cwd=here))


def test_grid_and_search_are_shown(forks: Command, here: Path) -> None:
    shown = good(forks("show", name(GRID), cwd=here))
    assert "0_cartpole_ppo_s1" in shown and "1_cartpole_ppo_s1" in shown
    trials = witness.lines(SEARCH / "trials.jsonl")
    text = good(forks("sweep", "show", "older", "--json", cwd=here))
    assert all(json.dumps(trial["params"]["algo.lr"]) in text for trial in trials)
    best = max(trials, key=lambda trial: trial["score"])
    assert json.dumps(best["params"]["algo.lr"]) in good(forks("sweep", "best", "older", "--json", cwd=here))


def test_their_curves_are_drawn_and_their_scores_compared(forks: Command, here: Path, tmp_path: Path) -> None:
    good(forks("plot", *(name(older) for older in STOPPED.values()), "-o", str(tmp_path / "a.png"), cwd=here))
    good(forks("plot", "runs/sweeps", "--by", "lr", "-o", str(tmp_path / "b.png"), cwd=here))
    assert all((tmp_path / file).read_bytes().startswith(b"\x89PNG") for file in ("a.png", "b.png"))
    good(forks("compare", name(GRID), f"{name(SEARCH)}/trial_*", cwd=here))
    jobs = [name(file.parent) for file in sorted(GRID.glob("*/config.yaml"))]
    assert "algo.lr" in good(forks("diff", *jobs, cwd=here))


def test_the_film_in_the_events_of_a_run_is_in_its_report(forks: Command, here: Path, tmp_path: Path) -> None:
    good(forks("report", name(CONTROL), "-o", str(tmp_path / "a.html"), cwd=here))
    assert "data:image/gif;base64," in (tmp_path / "a.html").read_text()
    good(forks("report", name(SEARCH), "-o", str(tmp_path / "b.html"), cwd=here))
    good(forks("report", "-o", str(tmp_path / "c.html"), cwd=here))
    assert all("<html" in (tmp_path / file).read_text() for file in ("b.html", "c.html"))


# -- its policy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "older, words",
    [
        (CONTROL, ["--episodes", "3"]),
        (PLUG_IN, ["--episodes", "3"]),
        (LANGUAGE, ["--prompts", "8"]),
        (next(GRID.glob("0_*")), ["--episodes", "2", "--checkpoint", "best"]),
    ],
    ids=["control", "plug-in", "language", "a job of the grid"],
)
def test_its_policy_is_evaluated(older: Path, words: list[str], forks: Command, here: Path) -> None:
    result = json.loads(good(forks("eval", name(older), *words, "--seed", "1", "--json", cwd=here)))
    assert len(result["returns"]) == int(words[1]) if "--episodes" in words else 0 <= result["reward"] <= 1


def test_its_policy_plays_completes_and_is_exported(forks: Command, here: Path, tmp_path: Path) -> None:
    good(forks("play", name(CONTROL), "--gif", str(tmp_path / "a.gif"), cwd=here))
    assert (tmp_path / "a.gif").read_bytes().startswith(b"GIF8")
    good(forks("sample", name(LANGUAGE), cwd=here))
    good(forks("export", name(CONTROL), "--to", "safetensors", "-o", str(tmp_path / "exported"), cwd=here))


# -- going on --------------------------------------------------------------------------------------------------


@each_stopped
def test_a_stopped_run_goes_on_from_its_checkpoint_to_its_end(older: Path, forks: Command, copy: Path) -> None:
    run, step = copy / name(older), read(older / "status.json")["checkpoint"]
    done = forks("resume", name(older), cwd=copy)
    assert good(done) and done.run == name(older)
    status = read(run / "status.json")
    assert status["status"] == "finished" and status["step"] >= status["total_steps"] > step
    before, after = witness.metrics(older), witness.metrics(run)
    assert after[: len(before)] == before and before[-1]["step"] <= step < after[len(before)]["step"]
    steps = [row["step"] for row in after]
    assert steps == sorted(steps) and steps[-1] == status["step"] == status["evaluation"]["step"]
    assert [entry["step"] for entry in read(run / "run.json")["resumes"]] == [step]
    assert [file.name.partition("_")[0] for file in sorted((run / "checkpoints").iterdir())][:2] == ["best", "final"]


@pytest.mark.skipif(not witness.has_commit(witness.BASE), reason=f"the commit {witness.BASE:.7} is not in this clone")
@pytest.mark.parametrize("older", [CONTROL, LANGUAGE], ids=["control", "language"])
def test_it_goes_on_to_the_same_bits_as_with_the_code_that_began_it(
    older: Path, forks: Command, copy: Path, tmp_path: Path
) -> None:
    base = witness.Side(witness.take_out(witness.BASE, tmp_path / "source"), tmp_path / "base")
    shutil.copytree(older, base.place / "run")
    assert base.python("-m", "rlx", "resume", "run").returncode == 0
    good(forks("resume", name(older), cwd=copy))
    assert witness.difference(base.place / "run", copy / name(older)) is None


def test_a_grid_is_continued_with_the_job_that_is_missing(forks: Command, copy: Path) -> None:
    kept, missing = sorted((copy / name(GRID)).glob("[01]_*"))
    before = (kept / "status.json").read_bytes()
    shutil.rmtree(missing)
    done = forks(*make_fixtures.FINISHED["grid"], "--continue", cwd=copy)
    assert "2 of 2 jobs finished" in good(done) and done.run == name(GRID)
    assert read(missing / "status.json")["status"] == "finished" and (kept / "status.json").read_bytes() == before


def test_a_search_is_continued_with_another_trial(forks: Command, copy: Path) -> None:
    before = witness.lines(SEARCH / "trials.jsonl")
    good(forks("sweep", "resume", "older", "trials=3", cwd=copy))
    trials = witness.lines(copy / name(SEARCH) / "trials.jsonl")
    assert trials[:2] == before and [trial["state"] for trial in trials] == ["complete"] * 3
    assert all(read(copy / name(SEARCH) / run / "status.json")["status"] == "finished" for run in trials[2]["runs"])
