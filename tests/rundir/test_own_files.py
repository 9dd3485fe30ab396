"""A run writes into files of its own and nowhere else: no link leads it away, and it notices when they are gone."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from tiny_runs import Child, die_at, record, result, resume, status, train

from rlx.base.errors import ConfigError
from rlx.base.signals import RunFailed
from rlx.training import runner

SHORT = {"total_steps": 160, "eval_every": 0, "checkpoint_every": 64}
NAMES = ["metrics.jsonl", "rlx.log", "checkpoints", ".lock", "videos", "samples", "buffer", "status.json", "policy.txt",
         "map.svg"]  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed behind its first checkpoint. Read it only."""
    root = tmp_path_factory.mktemp("killed")
    assert Child(lambda: train(root, name="run", progress=die_at(96), **SHORT)).wait() < 0
    return root / "run"


def contents(directory: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


# -- links


@pytest.mark.parametrize("name", NAMES)
def test_a_resume_follows_no_link_inside_a_run_directory(name: str, killed: Path, tmp_path: Path) -> None:
    path, outside = shutil.copytree(killed, tmp_path / "run"), tmp_path / "outside" / name
    outside.parent.mkdir()
    if (path / name).exists():
        shutil.move(path / name, outside)
    elif name in ("videos", "samples", "buffer"):
        outside.mkdir()
    else:
        outside.write_text("another's\n")
    (path / name).symlink_to(outside)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=rf"^{path}/{name}: is a link, and rlx follows none inside a run directory"):
        resume(path)
    assert contents(tmp_path) == before


def test_a_link_that_leads_to_a_file_in_a_directory_of_the_run_is_not_followed(killed: Path, tmp_path: Path) -> None:
    path = shutil.copytree(killed, tmp_path / "run")
    (tmp_path / "mine").write_text("mine")
    (path / "buffer").mkdir()
    (path / "buffer" / "rows_000000.bin").symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigError, match="rows_000000.bin: is a link"):
        resume(path)


def test_a_link_above_a_run_directory_is_followed(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed, tmp_path / "disk" / "run")
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    (tmp_path / "latest").symlink_to(tmp_path / "runs" / "run")
    resume(tmp_path / "latest")
    assert result(tmp_path / "disk" / "run")


def test_a_link_that_appears_while_the_run_goes_on_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    path = tmp_path / "run"

    def plant(step: int, _metrics: object) -> None:
        if step == 32:
            for name in ("checkpoints", "samples"):
                (path / name).symlink_to(outside)

    assert Child(lambda: train(tmp_path, name="run", progress=plant, **SHORT), tmp_path / "err").wait() == 1
    assert "checkpoints: Too many levels of symbolic links" in (tmp_path / "err").read_text()
    assert not list(outside.iterdir())


def test_a_copy_made_of_hard_links_keeps_its_metrics(killed: Path, tmp_path: Path) -> None:
    """cp -al: the copy of a run that goes on afterwards stays as it was."""
    path = shutil.copytree(killed, tmp_path / "run")
    copy = shutil.copytree(path, tmp_path / "copy", copy_function=os.link)
    before = (copy / "metrics.jsonl").read_bytes()
    resume(path)
    assert (copy / "metrics.jsonl").read_bytes() == before and (path / "metrics.jsonl").read_bytes() != before


# -- files that go while the run goes on


def lose(path: Path, name: str, how: str) -> None:
    """Take away the run directory or one of its files."""
    file = path / name
    if how == "moved":
        file.rename(path.parent / "elsewhere")
    elif file.is_dir():
        shutil.rmtree(file)
    else:
        file.unlink()
    if how == "another":
        file.mkdir() if name == "" else file.write_text("")


@pytest.mark.parametrize(
    "name, how",
    [("", "gone"), ("", "another"), ("", "moved"), (".lock", "gone"), (".lock", "another"), ("metrics.jsonl", "gone"),
     ("metrics.jsonl", "another"), ("config.yaml", "gone"), ("run.json", "gone")],
)  # fmt: skip
def test_a_run_that_is_deleted_or_replaced_under_itself_stops_in_one_line(name: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    left: dict[str, bytes | None] = {}

    def progress(step: int, _metrics: object) -> None:
        if step == 96:
            lose(path, name, how)
            left.update(contents(tmp_path))

    with pytest.raises(RunFailed) as failed:
        train(tmp_path, name="run", progress=progress, tensorboard=True, **SHORT)
    what = f"{path}/{name}".removesuffix("/")
    assert str(failed.value) == f"{what} is not this run's any more (removed, moved or replaced while it went on)"
    now = contents(tmp_path)
    if name in ("", ".lock"):  # it may be another's
        assert now == left
    else:
        assert now.keys() - left.keys() <= {str(path / "rlx.log")} and status(path)["status"] == "failed"


# -- files that are not what they were


def test_a_resume_survives_any_key_of_run_json_under_another_name(killed: Path, tmp_path: Path) -> None:
    """A flipped bit in a key, or a later version's record."""
    whole = json.loads((killed / "run.json").read_text())
    for key in whole:
        path = shutil.copytree(killed, tmp_path / key)
        (path / "run.json").write_text(json.dumps({f"{name}x" if name == key else name: whole[name] for name in whole}))
        try:
            resume(path)
        except ConfigError as error:
            assert "\n" not in str(error)
        else:
            assert record(path)[f"{key}x"] == whole[key] and status(path)["status"] == "finished"


@pytest.mark.parametrize("file", ["run.json", "status.json", "config.yaml"])
def test_every_record_says_its_format_and_a_later_one_is_refused_in_one_line(
    file: str, killed: Path, tmp_path: Path
) -> None:
    """run.json's is also that of metrics.jsonl, which holds nothing but metrics."""
    path = shutil.copytree(killed, tmp_path / "run")
    content = (path / file).read_text()
    later = re.sub(r"(format\"?:? )1\b", r"\g<1>2", content, count=1)
    assert later != content
    (path / file).write_text(later)
    before = contents(path)
    for goes_on in (resume, runner.open_policy):
        with pytest.raises(ConfigError, match=rf"^{path}/{file}: format 2, this rlx reads format 1"):
            goes_on(path)
    assert contents(path) == before


def test_a_configuration_changed_by_hand_is_said_and_recorded(
    killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shutil.copytree(killed, tmp_path / "run")
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("gamma: 0.99", "gamma: 0.98"))
    runner.open_policy(path)
    what = "config.yaml is not the one of the checkpoint of step 64: algo.gamma=0.98 (was 0.99)"
    assert capsys.readouterr().err == f"rlx: warning: {what}\n"
    resume(path)
    assert f"rlx: warning: {what}\n" in capsys.readouterr().err
    assert record(path)["resumes"][0]["changes"] == {"algo.gamma": [0.99, 0.98]}
    resume(path, total_steps=192)  # its checkpoints are of the new one
    assert "config.yaml" not in capsys.readouterr().err


def test_a_configuration_changed_by_hand_is_refused_where_it_could_not_change(killed: Path, tmp_path: Path) -> None:
    path = shutil.copytree(killed, tmp_path / "run")
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("num_envs: 2", "num_envs: 4"))
    with pytest.raises(ConfigError, match=r"algo.num_envs=2 there, 4 here"):
        resume(path)


def test_changes_that_rlx_made_itself_are_not_said_again(
    killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shutil.copytree(killed, tmp_path / "run")
    assert Child(lambda: resume(path, progress=die_at(96), algo__gamma=0.97, total_steps=256)).wait() < 0
    capsys.readouterr()
    resume(path)
    assert "config.yaml" not in capsys.readouterr().err


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_damaged_byte_of_the_metrics_is_said_and_recorded(
    place: float, finished: bool, killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shutil.copytree(killed, tmp_path / "run")
    if finished:
        resume(path)
    data = bytearray((path / "metrics.jsonl").read_bytes())
    data[int(place * data.index(b'{"step": 96'))] ^= 1
    (path / "metrics.jsonl").write_bytes(data)
    capsys.readouterr()
    resume(path)
    line = "metrics.jsonl is not what it was when the checkpoint of step"
    assert line in capsys.readouterr().err
    assert any(line in notice for notice in record(path)["notices"])
    resume(path, total_steps=192)  # its checkpoints are of the new one
    assert finished or line not in capsys.readouterr().err
