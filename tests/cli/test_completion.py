"""Shell completion: the candidates, and the scripts that ask for them."""

from __future__ import annotations

import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import Forks, command, environment

from rlx.cli import completion
from rlx.cli.completion import candidates
from rlx.config import kind
from rlx.config.nested import flatten


@pytest.mark.parametrize(
    "line, found",
    [
        ("tr", ["train"]),
        ("--v", ["--version"]),
        ("train algo=pp", ["algo=ppo", "algo=ppo_penalty", "algo=ppo_surrogate"]),
        ("train env=cart", ["env=cartpole"]),
        ("train seed=3 env=pend", ["env=pendulum"]),
        ("train +experiment=bench_ppo_z", ["+experiment=bench_ppo_zoo"]),
        ("train -m env=cartpole,acr", ["env=cartpole,acrobot"]),
        ("train total_st", ["total_steps="]),
        ("train algo.clip_", ["algo.clip_coef=", "algo.clip_vloss="]),
        ("train algo=ppo_penalty algo.kl_t", ["algo.kl_target="]),
        ("resume latest total_s", ["total_steps="]),
        ("train video=", ["video=true", "video=false"]),
        ("train device=c", ["device=cpu", "device=cuda"]),
        ("train --mu", ["--multirun"]),
        ("train --cfg ", ["job", "hydra", "all"]),
        ("list e", ["envs", "experiments"]),
        ("completion z", ["zsh"]),
        ("eval latest --ch", ["--checkpoint"]),
        ("plot runs --x ", ["step", "seconds", "time"]),
        ("plot --sm", ["--smooth"]),
        ("eval latest --checkpoint b", ["best"]),
        ("train nothing=", []),
        ("nothing x", []),
        ("ls ", []),
    ],
)
def test_a_tab_offers_what_may_follow(line: str, found: list[str]) -> None:
    assert candidates(line.split(" ")) == found


def test_the_first_word_is_a_verb_and_al_may_become_algo() -> None:
    assert candidates([""]) == candidates([]) == list(completion.FLAGS)
    assert "algo=" in candidates(["train", "al"])


def test_runs_are_offered_newest_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert candidates(["show", ""]) == ["latest", "runs/done"]


def test_the_users_own_choices_are_offered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "env").mkdir(parents=True)
    (tmp_path / "conf" / "env" / "mine.yaml").write_text("defaults: [gym]\nname: mine\nextra: 1\n")
    monkeypatch.chdir(tmp_path)
    assert candidates(["train", "env=min"]) == ["env=mine", *(f"env=minigrid_{it}" for it in ("doorkey", "empty"))]
    offered = candidates(["train", "env=mine", "env."])
    assert "env.extra=" in offered and "env.wrappers=" in offered


@pytest.mark.parametrize("words", [[], ["algo=ppo_penalty", "env=breakout", "model=cnn"], ["algo=dapo", "task=sort"]])
def test_the_keys_offered_are_those_of_the_composed_configuration(
    words: list[str], tmp_path: Path, forks: Forks
) -> None:
    composed = yaml.safe_load(forks("train", *words, "--cfg", "job", cwd=tmp_path).out)
    real = {
        key for key in flatten(composed, empty=True) if key.partition(".")[0] not in ("preset", "experiment")
    }  # fmt: skip
    offered = kind.keys(words)
    assert {key for key in offered if not key.startswith("env.kwargs")} == {
        key for key in real if not key.startswith("env.kwargs")
    }


def test_the_flags_offered_are_those_that_exist(forks: Forks, tmp_path: Path) -> None:
    from rlx.cli.verbs import ORDERS, app
    from rlx.launch.arguments import SWITCHES, VALUED

    verbs = {info.name or info.callback.__name__: info for info in app.registered_commands}
    assert list(verbs) == list(completion.FLAGS)
    assert set(completion.FLAGS["train"]) == {*SWITCHES, *VALUED}
    assert completion.VALUES["--sort"] == tuple(ORDERS) and completion.VALUES["--info"] == VALUED["--info"]
    for verb in set(verbs) - {"train"}:
        page = forks(verb, "--help", cwd=tmp_path).out.partition("Options:")[2]
        listed = {word.strip(",") for word in page.split() if re.fullmatch("--[a-z-]+", word.strip(","))}
        assert set(completion.FLAGS[verb]) == listed, verb


def bash(line: str, cwd: Path, breaks: str = " \t\n\"'><=;|&(:") -> list[str]:
    """What bash's variable COMPREPLY holds after a <TAB> at the end of `line`."""
    script = f"""
        rlx() {{ {shlex.join(command())} "$@"; }}
        compopt() {{ echo "compopt $*"; }}
        COMP_WORDBREAKS={shlex.quote(breaks)}
        source <(rlx completion bash)
        COMP_LINE={shlex.quote(line)} COMP_POINT=${{#COMP_LINE}}
        COMP_POINT=${{#COMP_LINE}}; _rlx rlx
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=cwd, env=environment(), capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    "line, reply",
    [
        ("rlx tra", ["train"]),
        (
            "rlx train algo=pp",
            ["ppo", "ppo_penalty", "ppo_surrogate"],
        ),  # bash has split the word at '=' and keeps "algo="
        ("rlx train algo=ppo env=pend", ["pendulum"]),
        ("rlx train -m env=cartpole,acr", ["cartpole,acrobot"]),
        ("rlx train algo.clip_c", ["compopt -o nospace", "algo.clip_coef="]),
        ("rlx train --cfg ", ["job", "hydra", "all"]),
    ],
)
def test_bash_completes_behind_an_equals_sign(line: str, reply: list[str], tmp_path: Path) -> None:
    assert bash(line, tmp_path) == reply


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_the_whole_word_where_equals_signs_do_not_break_words(tmp_path: Path) -> None:
    assert bash("rlx train algo=pp", tmp_path, breaks=" \t\n") == ["algo=ppo", "algo=ppo_penalty", "algo=ppo_surrogate"]


@pytest.mark.parametrize("shell, check", [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_the_script_of_each_shell_parses(shell: str, check: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "script"
    file.write_text(completion.SCRIPTS[shell].read_text())
    done = subprocess.run([shell, check, str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_a_choice(tmp_path: Path) -> None:
    define = f"function rlx; {shlex.join(command())} $argv; end; rlx completion fish | source"
    script = f"{define}; complete -C 'rlx train algo=pp'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.stdout.split() == ["algo=ppo", "algo=ppo_penalty", "algo=ppo_surrogate"]


def test_a_tab_costs_less_than_150_milliseconds_of_the_processor(tmp_path: Path) -> None:
    """A busy processor takes longer for the same: a tab costs less than twice what importing asyncio does, then."""

    def cost(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment(), capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0 and ("env=cartpole" in done.stdout) == ("complete" in words), done
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    tabs, imports = [], []
    while len(tabs) < 10:
        tabs.append(cost("-m", "rlx", "complete", "--", "train", "env="))
        if min(tabs) < 0.15:
            return
        imports.append(cost("-c", "import asyncio"))  # 0.11 s where a tab took 0.15
        if min(tabs) < 2 * min(imports):
            return
    raise AssertionError((tabs, imports))
