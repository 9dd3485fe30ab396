"""A hint names the command that works for this copy of rlx, wherever that came from."""

from __future__ import annotations

import json
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from command_line import ROOT

from rlx.base import extras


def test_the_table_names_every_extra_of_the_package():
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert list(extras.EXTRAS) == [extra for extra in optional if extra != "dev"]


def test_a_checkout_is_installed_again_in_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert extras.install("mujoco") == 'pip install -e ".[mujoco]"' and extras.install() == 'pip install -e "."'
    monkeypatch.chdir(tmp_path)
    assert extras.install("mujoco") == f'pip install -e "{ROOT}[mujoco]"'


@pytest.mark.parametrize(
    "direct_url, command",
    [
        (None, 'pip install "rlx[hf]"'),
        ("{", 'pip install "rlx[hf]"'),
        ({"url": "file:///a/rlx.whl", "archive_info": {}}, 'pip install "rlx[hf] @ file:///a/rlx.whl"'),
        ({"url": "file:///a/rlx", "dir_info": {}}, 'pip install "rlx[hf] @ file:///a/rlx"'),
        (
            {"url": "ssh://git@host/rlx", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            'pip install "rlx[hf] @ git+ssh://git@host/rlx@abc"',
        ),
    ],
    ids=["index", "damaged", "wheel", "directory", "repository"],
)
def test_an_installed_copy_is_installed_again_from_where_it_came(
    direct_url: object, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "rlx-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: rlx\nVersion: 1.0\n")
    if direct_url:
        text = direct_url if isinstance(direct_url, str) else json.dumps(direct_url)
        (record / "direct_url.json").write_text(text)
    monkeypatch.setattr(metadata, "distribution", lambda name: metadata.Distribution.at(record))
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "rlx" / "base" / "extras.py"))
    assert extras.install("hf") == command


def test_an_environment_is_known_by_its_id_or_its_entry_point():
    assert extras.of_env("ALE/Pong-v5", "") == "atari"
    assert extras.of_env("Hopper-v5", "gymnasium.envs.mujoco.hopper_v5:HopperEnv") == "mujoco"
    assert extras.of_env("CartPole-v1", "gymnasium.envs.classic_control.cartpole:CartPoleEnv") is None
    assert extras.of_hydra("submitit_slurm") == "slurm" and extras.of_hydra("basic") is None
