"""The wheel is all that rlx needs: installed elsewhere, it trains with its own configuration files."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from command_line import ROOT, TINY, environment, rlx

from rlx import __version__

pytest.importorskip("hatchling")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(place), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, env=environment(PYTHONWARNINGS=""))  # pip's are not ours
    return next(place.glob("rlx-*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    install = [*PIP, "install", "--no-deps", "--no-index", "--target", str(place), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, env=environment(PYTHONWARNINGS=""))
    return place


def test_the_wheel_holds_every_module_template_and_configuration_file_and_no_test(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "rlx").rglob("*.py")}
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "rlx").rglob("templates/*")}
    files = {f"rlx/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert len(files) > 20 and len(templates) > 5
    assert names == modules | templates | files | {
        "rlx/py.typed",
        "rlx/engine/kernels.c",
        "rlx/envs/quick/classic_control.c",
    }


def test_the_version_stands_alike_in_the_package_the_changelog_and_the_citation(wheel: Path) -> None:
    changelog = re.search(r"^## (\S+)( \(unreleased\))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert changelog and __version__ == changelog[1] == citation["version"] == wheel.name.split("-")[1]
    assert ("date-released" in citation) == (changelog[2] is None)


def test_the_lowest_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    lowest = {f"{bound[1]}=={bound[2]}" for line in wanted if (bound := re.match(r"([\w-]+).*?>=([\d.]+)", line))}
    pinned = (ROOT / "constraints-lowest.txt").read_text().splitlines()[1:]
    assert sorted(pinned) == sorted(lowest)


def test_the_installed_wheel_names_itself_as_where_an_extra_comes_from(site: Path, wheel: Path, tmp_path: Path) -> None:
    code = "from rlx.base import extras; print(extras.install('mujoco'))"
    env = environment(PYTHONPATH=str(site))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == f'pip install "rlx[mujoco] @ {wheel.as_uri()}"\n', done.stderr


def test_the_installed_wheel_uses_the_files_inside_it(site: Path, tmp_path: Path) -> None:
    code = "import rlx.config.registry as r; print(r.conf_dir()); print(r.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [str(site / "rlx" / "conf"), str(site / "rlx" / "config" / "registry.py")]
    shown = rlx("train", "--cfg", "job", "env=pendulum", cwd=tmp_path, PYTHONPATH=str(site))
    assert yaml.safe_load(shown.out)["env"]["id"] == "Pendulum-v1"


def test_the_installed_wheel_trains_in_another_directory(site: Path, tmp_path: Path) -> None:
    done = rlx("train", *TINY, cwd=tmp_path, PYTHONPATH=str(site))
    assert done.code == 0 and (tmp_path / done.run / "config.yaml").is_file(), done.err
