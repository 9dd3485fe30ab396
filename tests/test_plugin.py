"""A third party's package, really installed: its algorithm is one of rlx's in every respect."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from command_line import LISTING_MODULES, PLUGIN, Command, Forks, environment, rlx
from installed import pretend

from rlx.base.errors import ConfigError
from rlx.config import registry

FAST = ["algo=random", "env=corridor", "eval_every=0", "video=false", "tensorboard=false", "checkpoint_every=400"]


UNNEEDED = {"rlx_random.algo", "rlx_random.babble", "rlx_random.envs", "torch", "gymnasium"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that pip has installed tests/plugin into."""
    here = tmp_path_factory.mktemp("site")
    shutil.copytree(PLUGIN, here / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [*pip, "--target", str(here / "site"), str(here / "source")],
        check=True,
        capture_output=True,
        env=environment(PYTHONWARNINGS=""),
    )
    return here / "site"


@pytest.fixture(scope="module")
def forks(forks: Forks, site: Path) -> Command:
    """Commands that know the plug-in as it is installed."""
    return partial(forks, path=site)


def test_it_is_listed_and_completed_without_being_imported(site: Path, tmp_path: Path) -> None:
    env = environment(PYTHONPATH=str(site))
    for words, found in [
        (["list", "algos"], "Acts at random"),
        (["list", "envs"], "corridor"),
        (["complete", "--", "train", "algo=ra"], "algo=random"),
        (["complete", "--", "train", "algo=babble", "eval_p"], "eval_prompts="),
        (["complete", "--", "train", "env=corridor", "algo=random", "algo.num"], "algo.num_envs="),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", LISTING_MODULES, *words], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        out, modules = done.stdout, done.stderr.splitlines()[-1]
        assert found in out and not UNNEEDED & set(modules.split())


@pytest.mark.parametrize(
    "words, named",
    [
        ("train algo=randon", "did you mean 'random'"),
        ("train env=coridor", "did you mean 'corridor'"),
        ("train algo=random algo.num_env=3", "'algo.num_envs'"),
        ("train algo=random algo.num_envs=0", "algo.num_envs=0: must be a whole number >= 1"),
        ("train algo.implementation=randon", "did you mean 'random'"),
        ("train preset=ppo_coridor", "ppo_corridor"),
    ],
)
def test_a_typo_gets_its_names(words: str, named: str, forks: Command, tmp_path: Path) -> None:
    done = forks(*words.split(), cwd=tmp_path)
    assert done.code == 2 and named in done.err and done.err.count("\n") == 1


def test_it_trains_and_is_shown(forks: Command, tmp_path: Path) -> None:
    done = forks("train", *FAST, "total_steps=2_000", cwd=tmp_path)
    assert done.code == 0 and done.run.startswith("runs/corridor/random/"), done.err
    shown = json.loads(forks("show", done.run, "--json", cwd=tmp_path).out)
    assert (shown["algo"], shown["env"], shown["step"], shown["status"]) == ("random", "corridor", 2_000, "finished")


def test_its_preset_and_environment_serve_the_algorithms_of_rlx(forks: Command, tmp_path: Path) -> None:
    done = forks("train", "algo=ppo", "env=corridor", "eval_every=0", "video=false", cwd=tmp_path)
    shown = json.loads(forks("show", done.run, "--json", cwd=tmp_path).out)
    assert (shown["total_steps"], shown["env"], shown["status"]) == (3_000, "corridor", "finished")


def test_its_language_algorithm_learns_on_a_task_of_rlx(forks: Command, tmp_path: Path) -> None:
    done = forks("train", "algo=babble", "task=sort", "tensorboard=false", cwd=tmp_path)
    assert done.code == 0 and done.run.startswith("runs/sort/babble/"), done.err
    shown = json.loads(forks("show", done.run, "--json", cwd=tmp_path).out)
    assert (shown["task"], shown["step"], shown["status"]) == ("sort", 6, "finished")
    assert forks("complete", "--", "train", "algo=babble", "algo.s", cwd=tmp_path).out == "algo.stop=\n"
    refused = forks("train", "algo=babble", "env=corridor", cwd=tmp_path)
    assert refused.code == 2 and "env=corridor: babble learns on a task" in refused.err
    assert "babble" in forks("train", "algo=random", "task=sort", cwd=tmp_path).err


def _truth(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def test_a_resumed_run_of_it_equals_one_never_stopped(forks: Command, tmp_path: Path) -> None:
    whole = forks("train", *FAST, "total_steps=4_000", cwd=tmp_path).run
    parts = forks("train", *FAST, "total_steps=1_200", cwd=tmp_path).run
    assert forks("resume", parts, "total_steps=4_000", cwd=tmp_path).run == parts
    hashes = [
        json.loads(forks("show", run, "--json", cwd=tmp_path).out)["weights_sha256"] for run in (whole, parts)
    ]  # fmt: skip
    assert hashes[0] == hashes[1] and _truth(tmp_path / whole) == _truth(tmp_path / parts)
    other = forks("train", *FAST, "total_steps=4_000", "seed=2", cwd=tmp_path).run
    assert json.loads(forks("show", other, "--json", cwd=tmp_path).out)["weights_sha256"] != hashes[0]
    assert forks("eval", parts, "--episodes", "3", "--json", cwd=tmp_path).code == 0


def test_what_it_says_about_itself_is_heard_while_it_is_installed_and_after(forks: Command, tmp_path: Path) -> None:
    done = forks("train", *FAST, "total_steps=800", cwd=tmp_path)
    assert re.search(r"100%.*  seen -?[\d.]+\n", done.err)  # the live line
    refused = forks("resume", done.run, "algo.weight=2.0", cwd=tmp_path)
    assert refused.code == 2 and "algo.weight=2.0: cannot change in a run that has begun" in refused.err
    facts = json.loads((tmp_path / done.run / "run.json").read_text())["facts"]
    assert facts["frozen"] == ["num_envs", "weight"] and facts["metrics"] == ["eval/mean_reward", "train/seen"]

    def gone(*words: str) -> str:
        return rlx(*words, cwd=tmp_path).out

    assert (
        "Acts at random" not in gone("list", "algos")
        and json.loads(gone("show", done.run, "--json"))["algo"] == "random"
    )
    assert "random" in gone("ls") and "train/seen" in gone("plot", done.run, "--out", "seen.svg", "--json")


# -- plug-ins that are broken --------------------------------------------------------------------------------------


def test_a_broken_plug_in_is_named_when_it_is_chosen_and_harms_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(
        tmp_path,
        "broken",
        "[rlx.algos]\nbroken = broken_algo\nempty = empty_algo\nppo = empty_algo\n"
        "[rlx.conf]\na = no.such\nb = empty_algo\n",
        broken_algo="import no_such_module_either\n",
        empty_algo="Config = dict\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="algo.implementation=broken: .*no_such_module_either"):
        registry.algorithm("broken")
    with pytest.raises(ConfigError, match="algo.implementation=empty: .* has no train$"):
        registry.algorithm("empty")
    with pytest.raises(ConfigError, match="did you mean 'broken'"):
        registry.algorithm("brocken")
    assert registry.algorithm("ppo").__name__ == "rlx.algos.ppo"  # the built-in one, not theirs
    assert "ppo_penalty" in registry.options("algo")
