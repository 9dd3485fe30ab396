"""rlx check: what holds of rlx's own passes, and each thing that can be broken is found and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, Forks, entries
from composed import composed
from tiny_runs import TINY_ALGO
from variants import distinct

from rlx.check import algo, env, findings, task
from rlx.config import registry

WORKSHOP = Path(__file__).parents[1] / "fixtures" / "workshop"


def compose(words: list[str]) -> dict[str, Any]:
    return composed(*words)


def found(checks: Any, *only: str) -> dict[str, findings.Finding]:
    return {each.check: each for each in findings.run(check for check in checks if not only or check[0] in only)}


def tiny(name: str) -> tuple[str, ...]:
    values = TINY_ALGO[registry.values("algo", name)["implementation"]]
    return ("model.hidden=[8,8]", *(f"algo.{key}={value}" for key, value in values.items()))


# -- what ships ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", distinct("control"))
def test_every_algorithm_of_control_passes(name: str, tmp_path: Path) -> None:
    """But for what test_every_algorithm.py asks more sharply of them: to learn, to resume, to be the same twice."""
    checks = algo.checks(name, compose, tmp_path, tiny(name))
    result = found(checks, "trains", "evaluation", "nan")
    assert len(result) == 3 and {each.status for each in result.values()} <= {"ok", "note"}, result


@pytest.mark.parametrize("name", ["q_learning", "sft", "dpo"])
def test_algorithms_of_both_worlds_pass_every_check(name: str, tmp_path: Path) -> None:
    result = found(algo.checks(name, compose, tmp_path))
    assert {each.status for each in result.values()} <= {"ok", "note"}, result
    assert [key for key in result if key != "learns"] == ["trains", "resume", "twice", "evaluation", "nan", "engine"]


@pytest.mark.parametrize("name", ["cartpole", "frozenlake", "pendulum", "grid"])
def test_environments_that_ship_pass(name: str) -> None:
    result = found(env.checks(env.config(name, registry.values("env", name))))
    assert len(result) == 9 and {each.status for each in result.values()} <= {"ok", "note"}, result


@pytest.mark.parametrize("name", [name for name in registry.options("task") if name not in ("jsonl", "none")])
def test_tasks_that_ship_pass(name: str) -> None:
    result = found(task.checks(name, registry.values("task", name)))
    assert len(result) == 7 and {each.status for each in result.values()} <= {"ok", "note"}, result


# -- a newcomer's --------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(WORKSHOP, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_two_learner_algorithm_of_ones_own_passes_and_nothing_is_left_behind(forks: Forks, here: Path) -> None:
    before = entries(here)
    done = forks("check", "algo", "two_learners", "--json", cwd=here)
    assert done.code == 0, done.out + done.err
    assert {each["check"]: each["status"] for each in json.loads(done.out)} == dict.fromkeys(
        ("trains", "learns", "resume", "twice", "evaluation", "nan", "engine"), "ok"
    )
    assert {path for path in entries(here) - before if "__pycache__" not in path} == set()


BROKEN = {  # what is changed in two_learners.py: (old, new), and the check that finds it
    "a buffer that is not tracked": ("buffer=buffer, envs=envs", "envs=envs", "resume"),
    "chance that has no seed": ("torch.manual_seed(run.seed)", "torch.seed()", "twice"),
    "a policy that is not restored": ('    actor.load_state_dict(run.state("policy"))\n', "", "evaluation"),
    "actions of a generator of its own": (
        "rng.standard_normal(shape)\n", "np.random.default_rng().standard_normal(shape)\n", "evaluation",
    ),
    "a gradient with the wrong sign": ("- torch.minimum(*critic(", "+ torch.minimum(*critic(", "learns"),
    "a clock that runs back": ("yield run.step, {", "yield -run.step, {", "trains"),
    "a metric that is no number": ('{"alpha": temp', '{"alpha": math.nan * temp', "trains"),
    "an exception": ("while run.step < cfg", "raise KeyError('oh')\n    while run.step < cfg", "trains"),
    "a module that is not tracked": ("policy=actor, ", "", "trains"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_in_an_algorithm_is_found(case: str, here: Path, tmp_path: Path, monkeypatch) -> None:
    old, new, check = BROKEN[case]
    file = here / "algos" / "two_learners.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    monkeypatch.setattr(algo, "MOST", 1)  # no second try
    result = found(algo.checks("two_learners", compose, tmp_path, ("algo.learning_starts=100",)), "trains", check)
    assert result[check].status == "FAIL", result


ENVS = {  # lines of a class, and the check that finds what is wrong with them
    "no seed": ("self.np_random.uniform(-1.0, 1.0, 2)", "np.random.uniform(-1.0, 1.0, 2)", "seeds"),
    "state that reset forgets": ("* (int(action) - 1)", "* (int(action) - 1) * self.count()", "seeds"),
    "another dtype": ("np.array([self.cart, self.mark], np.float32)", "np.array([self.cart, self.mark])", "spaces"),
    "beyond the space": ("np.array([self.cart, self.mark], np", "np.array([2 + self.cart, self.mark], np", "spaces"),
    "another shape": ("np.array([self.cart, self.mark], np", "np.array([self.cart], np", "made|spaces|gymnasium"),
    "a reward that is none": ("reward = -abs(self.cart - self.mark)", "reward = float('nan')", "finite"),
    "no end": ("max_episode_steps: 50", "max_episode_steps: 0", "episodes"),
    "a constructor that raises": ("self.render_mode = render_mode", "raise RuntimeError('no display')", "made"),
    "a step that leaves": ("terminated = False", "raise SystemExit(3)", "spaces|gymnasium"),
    "a step that raises": ("terminated = False", "terminated = 1 / 0", "spaces|gymnasium"),
}


@pytest.mark.parametrize("case", ENVS)
def test_what_is_broken_in_an_environment_is_found(case: str, forks: Forks, tmp_path: Path) -> None:
    old, new, check = ENVS[case]
    assert forks("new", "env", "mine", cwd=tmp_path).code == 0
    for path in (tmp_path / "envs" / "mine.py", tmp_path / "conf" / "env" / "mine.yaml"):
        text = path.read_text().replace(old, new)
        if path.suffix == ".py":
            text += "\n    tally = 0\n\n    def count(self):\n        Mine.tally += 1\n        return Mine.tally % 7\n"
        path.write_text(text)
    done = forks("check", "env", "mine", "--json", cwd=tmp_path)
    failed = [each["check"] for each in json.loads(done.out) if each["status"] == "FAIL"]
    assert done.code == 1 and failed and any(name in check.split("|") for name in failed), done.out
    if case == "no seed":
        text = (tmp_path / "envs" / "mine.py").read_text()
        (tmp_path / "envs" / "mine.py").write_text(
            text.replace("super().reset(seed=seed)", "super().reset(); print(1)")
        )
        assert json.loads(forks("check", "env", "mine", "--json", cwd=tmp_path).out)
    if case == "a step that raises":
        assert "./envs/mine.py, line" in done.out


TASKS = {
    "a prompt with a letter that the alphabet lacks": ('+ "=" for row', '+ "?" for row', "prompts"),
    "chance that has no seed": ("rng.integers(len", "np.random.default_rng().integers(len", "prompts"),
    "an answer that does not fit": ("for letter in prompt[:-1])", 'for letter in prompt[:-1]) + "a"', "answers"),
    "an answer that changes": ("+ 1) % len", "+ int(np.random.default_rng().integers(8))) % len", "answers"),
    "a constructor that raises": ("self.length = cfg.length", "raise RuntimeError('no data')", "made"),
}


@pytest.mark.parametrize("case", TASKS)
def test_what_is_broken_in_a_task_is_found(case: str, forks: Forks, tmp_path: Path) -> None:
    old, new, check = TASKS[case]
    assert forks("new", "task", "mine", cwd=tmp_path).code == 0
    path = tmp_path / "tasks" / "mine.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    done = forks("check", "task", "mine", "--json", cwd=tmp_path)
    failed = [each["check"] for each in json.loads(done.out) if each["status"] == "FAIL"]
    assert done.code == 1 and check in failed, done.out


def test_the_command_says_a_line_for_each_finding_and_names_what_is_not_there(forks: Forks, tmp_path: Path) -> None:
    done: Done = forks("check", "env", "cartpole", cwd=tmp_path)
    assert done.code == 0 and len(done.out.splitlines()) == 9 and done.out.startswith("ok    made")
    for words, named in (
        ("algo pppo", "did you mean 'ppo'"), ("task add22", "did you mean 'add2'"), ("envs x", "did you mean 'env'"),
        ("env cartpoll", "did you mean 'cartpole'"), ("env nope:X", "no module nope"), ("env ./nope.py:X", "./nope.py"),
    ):  # fmt: skip
        done = forks("check", *words.split(), cwd=tmp_path)
        assert done.code == 2 and named in done.err and done.err.count("\n") == 1
    assert forks("check", "env", "CartPole-v1", cwd=tmp_path).code == 0
    assert not entries(tmp_path)
