"""One damaged run among good ones: no verb prints a traceback, waits, or drops the good ones.

Each damage in the place of each file, and every verb that reads more than one run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, Forks
from fake_runs import make_run, ramp, study_of

from rlx.analysis import remove
from rlx.analysis.compare import build as compare, diff
from rlx.analysis.curves import build, profiles, summary
from rlx.analysis.report import build as report, page
from rlx.base.errors import UserError
from rlx.cli import completion, exit_codes
from rlx.rundir import filter as conditions, index, query, reader
from rlx.rundir.layout import Status

METRIC = "rollout/ep_rew_mean"
GOOD = ["good1", "good2", "good3"]
BOMB = b"a0: &a0 [x, x, x]\n" + b"".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n".encode() for i in range(1, 12)
)
WRONG = {  # of the right form, of other types
    "status.json": b'{"status": 3, "step": "x", "evaluation": 3, "pid": [], "error": {}, "heartbeat": 1}',
    "run.json": b'{"algo": 3, "env": [], "task": null, "seed": "x", "versions": 3, "git": "x", "machine": [],'
    b' "init": 4, "command": "x", "notices": 3, "started": {}, "params": [], "trial": "x", "resumes": [3]}',
    "config.yaml": b"algo: 3\nenv: [1]\nseed: {}\nruns_dir: \"a\\0b\"\ntotal_steps: x\nwhen: 2024-01-13\n"
    b"1: 2\ninit: 7\n",
    "metrics.jsonl": b'{"step": "x", "rollout/ep_rew_mean": 1}\n{"step": 1, "rollout/ep_rew_mean": "x"}\n{"step": 2}\n',
    "jobs.jsonl": b'{"job": "x", "run": 3}\n{"run": "good1", "overrides": 5, "error": {}}\n'
    b'{"run": "x", "overrides": [1]}\n',
    "trials.jsonl": b'{"number": 1, "params": 3, "values": 4, "score": "x", "state": 5, "runs": 6, "error": []}\n',
    "study.json": b'{"name": 3, "space": [], "config": 4, "trials": "x"}',
    "importance.json": b'{"algo.lr": "x", "b": []}',
    "sweep.json": b'{"asked": 3, "process": []}',
    ".rlx-index.json": b'{"format": 1, "runs": []}',
}  # fmt: skip


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 200_000_000)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "fifo": os.mkfifo,
    "directory": Path.mkdir,
    "empty": Path.touch,
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "brackets": lambda path: path.write_bytes(b"[" * 100_000),
    "digits": lambda path: path.write_bytes(b'{"step": ' + b"9" * 5000 + b"}\n"),
    "date": lambda path: path.write_bytes(b"when: 2024-13-45\n"),
    "aliases": lambda path: path.write_bytes(BOMB),
    "utf-8": lambda path: path.write_bytes(b'{"step": 1, "a": "\xff\xfe"}\n'),
    "list": lambda path: path.write_bytes(b"[1, 2]\n"),
    "types": lambda path: path.write_bytes(WRONG.get(path.name, b'{"a": 1}')),
    "nul": lambda path: path.write_bytes(b"\0" * 1000),
    "sparse": sparse,
    "dangling link": lambda path: path.symlink_to("nowhere"),
}
RUN_FILES = ["config.yaml", "run.json", "status.json", "metrics.jsonl"]


def damaged(root: Path, file: str, damage: str) -> Path:
    """Three good runs of two configurations, and one in which a file is damaged."""
    for i, name in enumerate(GOOD):
        make_run(root, name, ramp(i + 1), seed=i, lr=1.0 if i == 2 else 0.1, score=float(i))
    bad = make_run(root, "bad", ramp(9), seed=9, score=9.0)
    path = bad / file
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    DAMAGES[damage](path)
    return bad


def lines_of(found: build.Plot) -> set[str]:
    return {curve.path.name for lines in found.panels.values() for line in lines for curve in line.curves}


CASES = [(file, damage) for file in RUN_FILES for damage in DAMAGES]


@pytest.mark.parametrize("file, damage", CASES, ids=lambda word: word)
def test_no_verb_loses_the_good_runs_to_a_damaged_one(
    file: str, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = damaged(tmp_path / "runs", file, damage)
    words = [str(tmp_path / "runs")]
    paths = query.find(words)
    assert {path.name for path in paths} >= {*GOOD}
    # ls, show
    rows = {entry.path.name: entry.row for entry in index.read(tmp_path / "runs")}
    assert {name for name in rows if rows[name]["status"] == "finished"} >= {*GOOD} and json.dumps(rows)
    for sort in ("started", "eval", "env", "step", "algo.lr", METRIC):
        conditions.ordered(index.read(tmp_path / "runs"), sort)
    # plot, compare, report, diff
    assert lines_of(build.build(paths, "")) >= {*GOOD}
    assert json.dumps(build.build(paths, METRIC, x="seconds", by=["seed"]).to_json())
    assert lines_of(profiles.build(paths)) >= {*GOOD}
    sides = compare.build([f"{words[0]}/good[12]", f"{words[0]}/good3", *([str(bad)] if reader.is_run(bad) else [])])
    assert {curve.path.name for side in sides.sides for curve in side.curves} >= {*GOOD} and sides.to_json()
    made = report.build(words)
    assert {run.path.name for row in made.rows for run in row.runs} >= {*GOOD}
    assert "good1" in page.html(made) and json.dumps(made.table())
    summary.write(tmp_path / "runs")
    if bad in reader.find(bad):
        try:
            assert json.dumps(diff.build(bad, tmp_path / "runs" / "good1"))
        except UserError as error:
            assert re.fullmatch(r"[^\n]*config\.yaml is unreadable", str(error))
    # completion, latest, rm
    assert {Path(word).name for word in completion.candidates(["show", "runs/"])} >= {*GOOD}
    assert reader.resolve("latest:ppo").name in [*GOOD, "bad"] and reader.newest_first(tmp_path / "runs")
    assert {path.name for path in remove.plan([], ["lr=0.1"]).runs} >= {"good1", "good2"}
    plan = remove.plan([str(tmp_path / "runs" / "good1")])
    remove.carry_out(plan)
    assert not (tmp_path / "runs" / "good1").exists()


@pytest.mark.parametrize("file", ["config.yaml", "run.json", "status.json"])
@pytest.mark.parametrize("damage", [each for each in DAMAGES if each not in ("types", "dangling link")])
def test_a_run_with_a_damaged_file_is_marked_and_named(file: str, damage: str, tmp_path: Path) -> None:
    bad = damaged(tmp_path, file, damage)
    row = index.entry(bad).row
    assert row["status"] == "damaged", row
    assert reader.state(bad) == ("damaged" if file == "status.json" else "finished")
    assert re.fullmatch(rf"{re.escape(file)}: unreadable \([^\n]+\)", row["error"]), row["error"]


@pytest.mark.parametrize("score", ["best", [1], {"a": 1}, True])
def test_a_score_that_is_no_number_is_no_score(score: object, tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", ramp(1), score=1.0)
    whole = json.loads((run / "status.json").read_text())
    whole["evaluation"] = {"step": 100, "score": score}
    (run / "status.json").write_text(json.dumps(whole))
    row = reader.show(run)
    assert row["status"] == "finished" and Status.read(run).score is None
    assert remove.plan([str(run)]).runs == [run] and remove.plan([str(tmp_path)], ["eval>0"]).runs == []


def test_a_name_too_long_for_any_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError) as error:
        remove.plan(["x" * 5000])
    assert exit_codes.code_of(error.value) == 2 and capsys.readouterr().err.count("\n") == 1


FILES = ["policy.txt", "checkpoints/step_000000000100.safetensors", "videos/step_000000000100.gif", "samples/100.txt",
         "events.out.tfevents.1.host.1", "rlx.log", ".lock"]  # fmt: skip


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_lies_beside_the_records_is_passed_over(file: str, damage: str, tmp_path: Path) -> None:
    bad = damaged(tmp_path, file, damage)
    row = reader.show(bad)
    assert row["status"] == "finished" and row["weights_sha256"] is None and row["checkpoint"] is None
    assert "good1" in page.html(report.build([str(tmp_path)]))
    summary.write(tmp_path)


SEARCH_FILES = ["study.json", "trials.jsonl", "importance.json", "jobs.jsonl", "sweep.json", ".rlx-index.json"]


@pytest.mark.parametrize("file", SEARCH_FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_of_a_search_or_a_grid_hides_no_run(file: str, damage: str, tmp_path: Path) -> None:
    from rlx.analysis import grids
    from rlx.launch import grid
    from rlx.search import study as studies, trials

    root = tmp_path / "runs" / "sweeps" / "mine"
    study_of(root)
    if file in ("jobs.jsonl", "sweep.json"):
        for other in ("study.json", "trials.jsonl", "importance.json"):
            (root / other).unlink()
        (root / "sweep.json").write_text('{"asked": ["seed=1"]}')
    (root / file).unlink(missing_ok=True)
    DAMAGES[damage](root / file)
    assert len(index.read(root)) == 4 and json.dumps(grids.show(root))
    assert "trial_0000_s1" in page.html(report.build([str(root)]))
    study = studies.Study(root, {"name": "mine"})
    assert isinstance(study.rows(), list)
    trials.read_importance(study)
    for find in (lambda: studies.find("mine", root.parent), lambda: studies.find("latest", root.parent)):
        try:
            find()
        except UserError as error:
            assert "\n" not in str(error)
    assert grid.Grid(root, None, []).jobs() == [] or damage == "types"
    assert grid._same(root, ["seed=1"]) in (None, root) and not grid.orphaned(root, {"_target_": "JoblibLauncher"})


VERBS = [
    ("ls", "runs"), ("ls", "runs", "--json", "--sort", "eval"), ("ls", "runs", "--where", "seed>=0"),
    ("show", "runs/bad"), ("show", "runs/bad", "--json"), ("plot", "runs"), ("report", "runs"), ("compare", "runs"),
    ("diff", "runs/bad", "runs/good1"), ("rm", "--where", "algo=ppo", "--dry-run"), ("rm", "runs/bad", "--dry-run"),
    ("complete", "--", "show", "runs/"),
]  # fmt: skip


def sound(done: Done) -> bool:
    quiet = not any(word in done.out + done.err for word in ("Traceback", "RLX_DEBUG"))
    return quiet and (done.code == 0 or (done.code == 2 and done.err.count("\n") == 1))


@pytest.mark.parametrize(
    "file, damage", [("status.json", "fifo"), ("config.yaml", "date"), ("status.json", "brackets")]
)
def test_on_the_command_line_too(file: str, damage: str, tmp_path: Path, forks: Forks) -> None:
    damaged(tmp_path / "runs", file, damage)
    for words in VERBS:
        done = forks(*words, cwd=tmp_path, timeout=60)
        assert sound(done), (words, done)
        if words[0] in ("ls", "report", "plot", "compare", "rm", "complete") and words[1] != "runs/bad":
            assert done.code == 0, (words, done)
    assert "damaged" in forks("ls", "runs", cwd=tmp_path).out


def test_a_damaged_run_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for damage in DAMAGES:
        bad = damaged(tmp_path / "runs", "status.json", damage)
        remove.carry_out(remove.plan([str(bad)]))
        assert not bad.exists()
        shutil.rmtree(tmp_path / "runs")


def test_a_run_whose_metrics_are_a_pipe_is_not_resumed(tmp_path: Path) -> None:
    import tiny_runs

    path = tiny_runs.train(tmp_path, name="run", total_steps=64)
    (path / "metrics.jsonl").unlink()
    os.mkfifo(path / "metrics.jsonl")
    with pytest.raises(UserError, match=r"^[^\n]*metrics.jsonl: is not a regular file$"):
        tiny_runs.resume(path, total_steps=128)
