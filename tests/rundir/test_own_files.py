"""A run writes into files of its own and nowhere else: no link leads it away, and it notices when they are gone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tiny_runs import Child, die_at, result, resume, status, train

from rlx.base.errors import ConfigError
from rlx.base.signals import RunFailed

SHORT = {"total_steps": 160, "eval_every": 0, "checkpoint_every": 64}
NAMES = ["metrics.jsonl", "rlx.log", "checkpoints", ".lock", "videos", "samples", "buffer", "status.json", "policy.txt"]


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
