"""Where runs are: one function for every verb."""

import json
import os
from pathlib import Path

import pytest
from command_line import TINY, Forks
from fake_runs import make_run

from rlx.base.errors import UserError
from rlx.rundir import home, reader


def test_the_command_comes_before_the_environment_before_conf_before_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert home.runs_dir() == Path("runs")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "language.yaml").write_text("runs_dir: ${oc.env:PLACE}/of_conf\n")
    monkeypatch.setenv("PLACE", "here")
    assert home.runs_dir() == Path("here/of_conf")
    monkeypatch.setenv("RLX_RUNS_DIR", "of_environment")
    assert home.runs_dir() == Path("of_environment")
    for words in (["ls", "--runs-dir", "of_command"], ["--runs-dir=of_command", "ls"], ["ls", "runs_dir=of_command"]):
        assert home.take(words) == ["ls"] and home.runs_dir() == Path("of_command")
    assert home.take(["train", "--runs-dir", "mine", "seed=3"]) == ["train", "runs_dir=mine", "seed=3"]
    assert home.take(["ls", "--where", "runs_dir=x"]) == ["ls", "--where", "runs_dir=x"]
    assert home.runs_dir() == Path("of_environment")
    with pytest.raises(UserError, match="--runs-dir: needs a value"):
        home.take(["ls", "--runs-dir"])


def test_every_verb_finds_a_run_wherever_it_was_put(forks: Forks, tmp_path: Path) -> None:
    done = forks("train", "--runs-dir", "else where", *TINY, cwd=tmp_path)
    run = done.run
    assert run.startswith("else where/cartpole/ppo/") and "rlx dash 'else where'" in done.out
    for more, env in (
        (["--runs-dir", "else where"], {}),
        (["runs_dir=else where"], {}),
        ([], {"RLX_RUNS_DIR": "else where"}),
    ):
        shown = forks("show", "latest", "--json", *more, cwd=tmp_path, env=[env])
        assert json.loads(shown.out)["run"] == run
        assert run in forks("ls", *more, cwd=tmp_path, env=[env]).out
    again = forks("train", *TINY, cwd=tmp_path, env=[{"RLX_RUNS_DIR": "third"}])
    assert again.run.startswith("third/cartpole/ppo/")
    missing = forks("show", "latest", cwd=tmp_path)
    assert missing.code == 2 and "--runs-dir DIRECTORY or RLX_RUNS_DIR looks elsewhere" in missing.err


def test_a_linked_folder_is_looked_into_and_each_run_is_found_once(tmp_path: Path) -> None:
    inside, outside = tmp_path / "runs", tmp_path / "scratch"
    first = make_run(inside, "a", [(1, 1.0)])
    make_run(outside, "b", [(1, 1.0)])
    os.symlink(outside, inside / "linked")
    os.symlink(inside, outside / "around")
    os.symlink(first, inside / "0_twice")
    assert reader.find(inside) == [first, inside / "linked" / "b"]
    assert reader.find(inside, links=False) == [first]
