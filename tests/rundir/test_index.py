"""rlx ls: the index of a thousand runs, and which runs --where and --sort name."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from command_line import Forks
from fake_runs import make_run, ramp

from rlx.cli.verbs.looking import ORDERS
from rlx.rundir import filter as where, index, reader
from rlx.rundir.index import NAME

LONG_AGO = time.time() - 1000


def age(root: Path) -> None:
    """Let every file be older than the clock's resolution."""
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            os.utime(os.path.join(directory, name), (LONG_AGO, LONG_AGO))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """30 runs of five algorithms in two environments."""
    for i in range(30):
        env = ("cartpole", "acrobot")[i % 2]
        make_run(tmp_path / env, f"{i:02d}_s{i}", ramp(i), seed=i, env=env, score=float(100 - i), name=f"algo{i % 5}")
    age(tmp_path)
    return tmp_path


def read(root: Path) -> list[str]:
    return [entry.path.name for entry in index.read(root)]


def test_with_the_index_the_same_is_read_as_without(many: Path) -> None:
    first = index.read(many)
    assert (many / NAME).is_file() and len(first) == 30
    again = index.read(many)
    assert again == first and [entry.row for entry in again] == [reader.show(entry.path) for entry in again]
    assert json.loads(json.dumps([entry.row for entry in again])) == [reader.show(entry.path) for entry in again]


def test_what_the_index_holds_is_not_read_again(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.read(many)
    monkeypatch.setattr(reader, "show", lambda path: pytest.fail(f"read {path}"))
    assert len(index.read(many)) == 30


def test_a_run_that_has_changed_is_read_again(many: Path) -> None:
    index.read(many)
    path = many / "acrobot" / "03_s3"
    said = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps({**said, "status": "pruned"}))
    found = {entry.path: entry.row["status"] for entry in index.read(many)}
    assert found.pop(path) == "pruned" and set(found.values()) == {"finished"}


def test_a_run_that_goes_on_is_never_taken_from_the_index(many: Path) -> None:
    path = make_run(many, "running", ramp(1), status="running")
    said = json.loads((path / "status.json").read_text())
    from rlx.base import process

    (path / "status.json").write_text(json.dumps({**said, **process.me()}))
    age(many)
    index.read(many)
    assert "running" not in json.loads((many / NAME).read_text())["runs"]
    (path / "status.json").write_text(
        json.dumps({**said, "host": "elsewhere", "heartbeat": "2020-01-01T00:00:00+00:00"})
    )
    age(many)
    index.read(many)
    assert "running" not in json.loads((many / NAME).read_text())["runs"]  # it may wake up there


def test_one_that_was_killed_here_stays_killed(many: Path) -> None:
    make_run(many, "killed", ramp(1), status="running")
    age(many)
    index.read(many)
    assert json.loads((many / NAME).read_text())["runs"]["killed"][1]["status"] == "killed"


def test_runs_written_this_moment_are_not_taken_as_settled(tmp_path: Path) -> None:
    for i in range(25):
        make_run(tmp_path, str(i), ramp(1))
    index.read(tmp_path)
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 0, "runs": {}}', "\x00\xff", "[" * 100_000])
def test_a_damaged_index_is_made_anew_without_a_word(text: str, many: Path, forks: Forks) -> None:
    (many / NAME).write_text(text, encoding="latin-1")
    done = forks("ls", ".", "--json", cwd=many)
    assert done.code == 0 and done.err == "" and len(json.loads(done.out)) == 30
    assert len(json.loads((many / NAME).read_text())["runs"]) == 30


def test_strange_entries_of_an_index_are_read_anew(many: Path) -> None:
    index.read(many)
    whole = json.loads((many / NAME).read_text())
    for i, name in enumerate(whole["runs"]):
        whole["runs"][name] = [None, 3, [], {}, "x", [1, 2, 3]][i % 6]
    (many / NAME).write_text(json.dumps(whole))
    assert [entry.row for entry in index.read(many)] == [reader.show(path) for path in reader.find(many)]


def test_runs_that_are_gone_are_not_listed_and_deleting_the_index_is_harmless(many: Path) -> None:
    before = read(many)
    for name in ("config.yaml", "run.json", "status.json", "metrics.jsonl"):
        (many / "cartpole" / "00_s0" / name).unlink()
    assert read(many) == before[1:]
    (many / NAME).unlink()
    assert read(many) == before[1:]


def test_ten_at_once_agree_and_leave_one_whole_index(many: Path, forks: Forks) -> None:
    done = forks.together(10, "ls", ".", "--json", cwd=many)
    assert {each.code for each in done} == {0} and len({each.out for each in done}) == 1
    assert len(json.loads((many / NAME).read_text())["runs"]) == 30
    assert [path.name for path in many.iterdir() if path.name.startswith(".")] == [NAME]


def test_where_the_runs_cannot_be_written_the_index_is_in_the_users_cache(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(many.parent / "cache"))
    index.read(many)
    beside, cache = index.files_of(many)
    assert not beside.exists() and cache.is_file() and len(index._load(many)) == 30


def test_a_copy_of_the_runs_is_listed_where_it_is(many: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The index names runs by where they are under its directory."""
    index.read(many)
    moved = tmp_path_factory.mktemp("moved") / "runs"
    many.rename(moved)
    assert {entry.row["run"] for entry in index.read(moved)} == {str(path) for path in reader.find(moved)}


# -- finding runs --------------------------------------------------------------------------------------------------


def test_no_run_is_looked_for_inside_a_run_or_behind_a_link(tmp_path: Path) -> None:
    outer = make_run(tmp_path, "outer", ramp(1))
    make_run(outer / "checkpoints", "inner", ramp(1))
    make_run(tmp_path / ".hidden" / "deep", "other", ramp(1))
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "latest").symlink_to(outer)
    assert [path.name for path in reader.find(tmp_path)] == ["other", "outer"]
    assert reader.find(outer) == [outer] and reader.find(tmp_path / "nothing") == []


# -- which and in what order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, seeds",
    [
        (["algo=algo1"], {1, 6, 11, 16, 21, 26}),
        (["algo=algo1", "env=acrobot"], {1, 11, 21}),
        (["algo != algo1", "seed<4"], {0, 2, 3}),
        (["eval>=99"], {0, 1}),
        (["eval<=72", "eval!=71"], {28}),
        (["lr=1e-3", "seed==5"], {5}),
        (["algo.lr=0.0010", "model.hidden=[64, 64]", "hidden=[64,64]", "seed=7"], {7}),
        (["rollout/ep_rew_mean>2899"], {29}),
        (["status=finished", "step>=1_00", "seed>28.5"], {29}),
        (["trial=3"], set()),
        (["task!=add2", "seed=2"], {2}),
        (["video=true"], {1}),
    ],
)
def test_conditions_are_those_of_the_configuration_the_outcome_and_the_metrics(
    words: list[str], seeds: set[int], many: Path
) -> None:
    found = where.select(index.read(many), words)
    assert {entry.row["seed"] for entry in found} == seeds


def test_any_key_orders_and_what_has_none_comes_first(many: Path) -> None:
    make_run(many, "x", [], seed=99)
    entries = index.read(many)

    def seeds(word: str) -> list[int]:
        return [entry.row["seed"] for entry in where.ordered(entries, where.sort_key(word, entries, ORDERS))]

    assert seeds("eval") == seeds("return") == [99, *range(29, -1, -1)]
    assert seeds("algo.name")[-1] == 99 and seeds("seed") == sorted(seeds("time"))
    assert seeds("ep_rew_mean") == [99, *range(30)]


@pytest.mark.parametrize(
    "words, said",
    [
        (["--where", "algo"], "--where=algo: must be KEY=VALUE"),
        (["--where", "=3"], "must be KEY=VALUE"),
        (["--where", "algo=>ppo"], "must be KEY=VALUE"),
        (["--where", "algo===ppo"], "must be KEY=VALUE"),
        (["--where", "eval>nan"], "nan is not a number"),
        (["--where", "algo="], "must be KEY=VALUE"),
        (["--where", "gama=1"], "--where=gama: no run's configuration has this key; did you mean 'gamma'?"),
        (["--where", "zzz=1"], "no run's configuration has this key"),
        (["--where", "step>many"], "many is not a number, which > needs"),
        (["--where", "status=finnished"], "did you mean 'finished'?"),
        (["--sort", "gama"], "no such order (there are: algo, env, eval"),
        (["--sort", "evil"], "did you mean 'eval'?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(words: list[str], said: str, place: Path, forks: Forks) -> None:
    done = forks("ls", *words, cwd=place)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and said in done.err, done


@pytest.mark.parametrize("words", [["--where", "name=ppo"], ["--sort", "name"]])
def test_a_key_that_may_be_two_is_asked_for_again(words: list[str], many: Path, forks: Forks) -> None:
    done = forks("ls", ".", *words, cwd=many)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and "which of algo.name, env.name?" in done.err


def test_the_key_that_orders_gets_a_column(many: Path, forks: Forks) -> None:
    lines = forks("ls", ".", "--sort", "lr", "--where", "hidden=[64,64]", cwd=many).out.splitlines()
    assert lines[0].split() == ["status", "algo", "env", "seed", "step", "eval", "lr", "hidden", "run"]
    assert lines[1].split()[6] == "0.001" and len(lines) == 31


def test_none_that_fits_is_said(many: Path, forks: Forks) -> None:
    done = forks("ls", ".", "--where", "algo=ppo", cwd=many)
    assert done.code == 0 and done.out == "none of the 30 runs under . has algo=ppo\n"
    assert json.loads(forks("ls", ".", "--where", "algo=ppo", "--json", cwd=many).out) == []
