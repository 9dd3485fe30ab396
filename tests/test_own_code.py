"""What lies in the folder one stands in works as what ships: found, recorded, and run only where that is wanted."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Done, Forks, imported, rlx as process
from waiting import until

from rlx.base.errors import ConfigError
from rlx.config import own_code, plugins

WORKSHOP = Path(__file__).parent / "fixtures" / "workshop"
REACH = ["env=gym", "env.id=my_env:Reach-v0", *TINY, "algo.num_envs=2", "algo.num_steps=64", "preset=none"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An own folder, with a file in it that would kill every command if it were in front of the path."""
    shutil.copytree(WORKSHOP, tmp_path / "here")
    (tmp_path / "here" / "json.py").write_text("raise SystemExit('the wrong json')\n")
    return tmp_path / "here"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def ok(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


def weights(run: Path) -> str:
    return json.loads((run / "status.json").read_text())["weights_sha256"]


def trained(forks: Forks, here: Path, *words: str) -> Path:
    return here / ok(forks("train", *words, cwd=here)).run


# -- found -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, limit",
    [
        (["env.id=my_env:Reach-v0"], 20),
        (["env.id=my_env:Reach"], None),
        (["env.id=./my_env.py:Reach-v0"], 20),
        (["env.id=./my_env.py:Reach"], None),
        (["env.id=my_env:Reach-v0", "env.backend=async", "env.workers=2"], 20),
        (["env.id=./my_env.py:Reach", "env.backend=async", "env.workers=2"], None),
    ],
)
def test_an_environment_of_the_folder_trains_by_module_and_by_file(words, limit, forks, here) -> None:
    run = trained(forks, here, "algo=ppo", *REACH, *words)
    code = record(run)["code"]
    assert code["folder"] == str(here) and code["references"]["env.id"]["name"] == words[0].partition("=")[2]
    assert {"./my_env.py", "./my_numbers.py"} == {module["name"] for module in code["modules"]}


DERIVED = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Keys(spaces.Discrete): ...
class Levers(spaces.MultiDiscrete): ...
class Rooms(spaces.Discrete): ...
class Sensors(spaces.Box): ...
class Motors(spaces.Box): ...


class Own(gym.Env):
    def __init__(self, observation="Sensors", action="Keys"):
        made = {"Keys": lambda: Keys(3), "Levers": lambda: Levers([2, 3]), "Rooms": lambda: Rooms(5),
                "Sensors": lambda: Sensors(-1, 1, (4,)), "Motors": lambda: Motors(-1, 1, (2,))}
        self.observation_space, self.action_space = made[observation](), made[action]()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.left = 10
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.left -= 1
        return self.observation_space.sample(), float(np.sum(action)), self.left == 0, False, {}
"""


@pytest.mark.parametrize(
    "algo, observation, action",
    [
        ("ppo", "Sensors", "Keys"), ("ppo", "Sensors", "Levers"), ("a2c", "Rooms", "Motors"),
        ("dqn", "Sensors", "Keys"), ("sac", "Sensors", "Motors"), ("q_learning", "Rooms", "Keys"),
        ("actor_critic_all_actions", "Rooms", "Keys"),
    ],
)  # fmt: skip
def test_spaces_that_are_derived_from_gymnasiums_serve_as_those_do(algo, observation, action, forks, here) -> None:
    (here / "derived.py").write_text(DERIVED)
    env = ["env=gym", "env.id=./derived.py:Own", f"env.kwargs={{observation: {observation}, action: {action}}}"]
    soon = ["algo.learning_starts=100"] if algo == "dqn" else []
    run = trained(forks, here, f"algo={algo}", *env, "preset=none", *TINY, *soon)
    assert ok(forks("eval", str(run), "--episodes", "2", cwd=here)).out
    ok(forks("export", str(run), "--to", "folder", cwd=here))


def test_a_registered_id_wins_over_a_class_of_the_same_name(here, monkeypatch) -> None:
    from rlx.envs.single import EnvConfig, make_env, time_limit

    monkeypatch.chdir(here)
    limits = {}
    for id in ("./my_env.py:Reach-v0", "./my_env.py:Reach"):
        env = make_env(cfg := EnvConfig("x", id))
        limits[id], name = time_limit(cfg, env), type(env).__name__
        assert name == "Reach"
    assert list(limits.values()) == [20, None]


def test_what_is_installed_wins_over_the_folder_and_the_folder_is_asked_last(forks, here) -> None:
    """./json.py harms nobody, not even a command that imports a module of the folder."""
    assert process("ls", cwd=here).code == 0
    (here / "tensorboard.py").write_text("raise SystemExit('the wrong tensorboard')\n")  # imported once the folder is
    run = process("train", "algo=ppo", *REACH, "tensorboard=true", cwd=here)
    assert run.code == 0, run.err
    assert list((here / run.run).glob("events*"))
    refused = forks("train", "env=gym", "env.id=json:Reach-v0", cwd=here)
    assert refused.code == 2 and "wrong json" not in refused.err


def test_an_algorithm_by_name_and_by_file_and_a_copy_may_be_called_as_what_it_hides(forks, here) -> None:
    short = [*TINY, "algo.num_steps=256", "env=cartpole"]
    by_name = trained(forks, here, "algo=my_vpg", *short)
    by_file = trained(forks, here, "algo=my_vpg", "algo.implementation=./algos/my_vpg.py", *short)
    assert weights(by_name) == weights(by_file)
    (here / "algos" / "torch.py").write_text((here / "algos" / "my_vpg.py").read_text())
    assert weights(trained(forks, here, "algo=my_vpg", "algo.implementation=torch", *short)) == weights(by_name)
    listed = ok(forks("list", "algos", cwd=here)).out
    assert any(line.split()[:2] == ["my_vpg", "./algos/my_vpg.py"] for line in listed.splitlines())
    assert "reach" in (envs := ok(forks("list", "envs", cwd=here)).out) and "./my_env.py" in envs


def test_a_task_of_the_folder_and_wrappers_with_arguments(forks, here) -> None:
    run = trained(forks, here, "algo=sft", "task=shout", "total_steps=4", "eval_every=0", "tensorboard=false")
    assert record(run)["code"]["references"]["task.implementation"]["file"] == "./tasks/shout.py"
    returns = []
    for factor in (1, 3):
        wrapper = f"env.wrappers=[{{name: ./my_env.py:Scale, kwargs: {{factor: {factor}}}}}]"
        run = trained(forks, here, "algo=ppo", *REACH, "algo.lr=1e-12", wrapper)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        returns.append([row["rollout/ep_rew_mean"] for row in rows if "rollout/ep_rew_mean" in row])
    assert returns[0] and [3 * value for value in returns[0]] == pytest.approx(returns[1])


def test_a_grid_and_a_search_use_the_folder(forks, here) -> None:
    ok(forks("train", "-m", "algo=my_vpg", "env=reach,cartpole", *TINY, "algo.num_steps=128", cwd=here))
    short = ["algo.num_steps=128", "env=reach", "total_steps=256", "eval_every=256", "eval_episodes=1", "video=false"]
    ok(
        forks(
            "sweep",
            "algo=my_vpg",
            *short,
            "algo.lr=tag(log, interval(1e-4, 1e-2))",
            "trials=2",
            "seeds=1",
            "tensorboard=false",
            cwd=here,
        )
    )
    runs = [path for path in here.rglob("run.json") if path.parent.name != "runs"]
    assert len(runs) == 4
    for file in runs:
        assert json.loads(file.read_text())["code"]["folder"] == str(here)


@pytest.mark.parametrize(
    "words, named",
    [
        ("env=gym env.id=my_envs:Reach-v0", "no module my_envs"),
        ("env=gym env.id=./my_envs.py:Reach", "./my_envs.py"),
        ("env=gym env.id=./my_env.py:Reech", "did you mean './my_env.py:Reach'"),
        ("env=gym env.id=./my_env.py", "there are: Reach"),
        ("env=gym env.id=./broken.py:Reach", "SyntaxError"),
        ("env.wrappers=[./my_env.py:Skale]", "./my_env.py has no Skale"),
        ("env.wrappers=[{nam:x}]", "{name: NAME, kwargs: {...}}"),
        ("algo.implementation=./algos/none.py", "./algos/none.py"),
        ("algo.implementation=./my_env.py", "has no Config and no train"),
        ("algo.implementation=my_vgp", "did you mean 'my_vpg'"),
        ("algo=./algos/my_vpg.py", "algo.implementation=./algos/my_vpg.py"),
        ("algo=sft task=shout task.implementation=shoot", "did you mean 'shout'"),
    ],
)
def test_what_is_not_there_is_one_line_and_leaves_nothing(words, named, forks, here) -> None:
    (here / "broken.py").write_text("def (:\n")
    done = forks("train", *words.split(" "), cwd=here)
    assert done.code == 2 and named in done.err and done.err.count("\n") == 1, done.err
    assert not (here / "runs").exists()


# -- elsewhere, and other people's -------------------------------------------------------------------------------


def test_a_run_is_evaluated_resumed_and_exported_from_another_folder(forks, here, elsewhere) -> None:
    run = trained(forks, here, "algo=my_vpg", "env=reach", *TINY, "algo.num_steps=128")
    whole = trained(forks, here, "algo=my_vpg", "env=reach", *TINY, "algo.num_steps=128", "total_steps=1024")
    assert "over 2 episodes" in ok(forks("eval", str(run), "--episodes", "2", cwd=elsewhere)).out
    ok(forks("export", str(run), "--to", "safetensors", cwd=elsewhere))
    ok(forks("resume", str(run), "total_steps=1024", cwd=elsewhere))
    assert weights(run) == weights(whole)
    moved = shutil.copytree(run, elsewhere / "copy")  # it is this machine's wherever it lies
    ok(forks("eval", str(moved), "--episodes", "1", cwd=elsewhere))


@pytest.mark.parametrize(
    "words",
    [
        ["env=gym", "env.id=subprocess:Popen", "env.kwargs.args=[touch,PLACE]"],
        ["env=gym", "env.id=os:system", "env.kwargs.command='touch PLACE'"],
        ["env.wrappers=[{name: 'subprocess:Popen', kwargs: {args: [touch,PLACE]}}]"],
        ["env.wrappers=['builtins:print']"],
        ["logger=[{name: 'os:system', kwargs: {command: 'touch PLACE'}}]"],
        ["model.encoder='builtins:print'"],
    ],
    ids=lambda words: words[-1].partition("=")[0] + words[0][-8:],
)
def test_a_configuration_names_environments_wrappers_loggers_and_modules_and_calls_nothing_else(
    words, forks, here
) -> None:
    done = forks("train", *(word.replace("PLACE", str(here / "touched")) for word in words), cwd=here)
    assert done.code == 2 and done.err.count("\n") == 1, done.err
    assert not (here / "touched").exists() and not (here / "runs").exists()


def test_what_this_machine_has_not_recorded_runs_no_code_until_it_is_trusted(forks, here, elsewhere) -> None:
    run = trained(forks, here, "algo=my_vpg", "env=reach", *TINY, "algo.num_steps=128")
    touched = here / "touched"
    with open(here / "my_numbers.py", "a") as file:
        file.write(f"open({str(touched)!r}, 'w').close()\n")
    other = {"XDG_STATE_HOME": str(elsewhere / "state")}  # another machine's key
    for words in (
        ["eval", str(run), "--episodes", "1"], ["play", str(run), "--gif", "a.gif"], ["resume", str(run)],
        ["export", str(run), "--to", "onnx"], ["resume", str(run), "total_steps=2048"],
    ):  # fmt: skip
        [done] = forks.together(1, *words, cwd=elsewhere, env=[other])
        assert done.code == 2 and "--trust" in done.err and done.err.count("\n") == 1, (words, done.err)
    for words in (["ls", str(here / "runs")], ["show", str(run)], ["diff", str(run), str(run)], ["plot", str(here)],
                  ["report", str(here)], ["compare", str(here / "runs")]):  # fmt: skip
        forks.together(1, *words, cwd=elsewhere, env=[other])
    assert not touched.exists()
    [done] = forks.together(1, "eval", str(run), "--episodes", "1", "--trust", cwd=elsewhere, env=[other])
    assert done.code == 0 and touched.exists()


def test_a_signature_is_of_the_folder_and_of_all_names_in_the_configuration(forks, here, elsewhere) -> None:
    """Somebody else's configuration does not become mine by an old record of mine."""
    run = trained(forks, here, "algo=my_vpg", "env=reach", *TINY, "algo.num_steps=128")
    config = (run / "config.yaml").read_text()
    (here / "evil.py").write_text("raise SystemExit('evil')\n")
    (run / "config.yaml").write_text(config.replace("./my_env.py:Reach", "./evil.py:Reach"))
    done = forks("eval", str(run), cwd=elsewhere)
    assert done.code == 2 and "--trust" in done.err and "evil.py" in done.err


def test_code_that_is_gone_is_named_and_where_it_was(forks, here, elsewhere) -> None:
    run = trained(forks, here, "algo=my_vpg", "env=reach", *TINY, "algo.num_steps=128")
    (here / "algos" / "my_vpg.py").rename(here / "gone.py")
    for words in (["eval", str(run)], ["resume", str(run), "total_steps=2048"], ["export", str(run), "--to", "onnx"]):
        done = forks(*words, cwd=elsewhere)
        assert done.code == 2 and f"./algos/my_vpg.py is not in {here}" in done.err, done.err
        assert "did you mean" not in done.err
    (here / "gone.py").rename(here / "algos" / "my_vpg.py")
    here.rename(here.parent / "moved")
    run = Path(str(run).replace(str(here), str(here.parent / "moved")))
    ok(forks("eval", str(run), "--episodes", "1", cwd=here.parent / "moved"))  # found where one stands


def test_a_package_that_is_not_installed_is_named_with_its_version(here, tmp_path, monkeypatch) -> None:
    from rlx.training import code_record

    raw = {"algo": {"implementation": "random"}, "env": {"id": "CartPole-v1"}}
    code = {"references": {"algo.implementation": {
        "name": "random", "module": "rlx_gone.algo", "distribution": "rlx-gone 0.3"}}}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps({"code": code}))
    with pytest.raises(ConfigError, match=r"random: module rlx_gone.algo of rlx-gone 0.3 is not installed here$"):
        code_record.enter(tmp_path, raw, trust=False)


# -- what decided ------------------------------------------------------------------------------------------------


def test_code_that_changed_between_two_runs_is_named_and_makes_another_line(forks, here) -> None:
    short = ["algo=my_vpg", "env=reach", *TINY, "algo.num_steps=128"]
    first = trained(forks, here, *short)
    file = here / "algos" / "my_vpg.py"
    file.write_text(file.read_text().replace("FACTOR = 1.0", "FACTOR = 30.0"))
    second = trained(forks, here, *short)
    differences = json.loads(ok(forks("diff", str(first), str(second), "--json", cwd=here)).out)
    assert differences["same_config"] and differences["same_seed"] and not differences["same_weights"]
    assert list(differences["code"]) == ["./algos/my_vpg.py"]
    assert "other code (./algos/my_vpg.py)" in ok(forks("diff", str(first), str(second), cwd=here)).out
    plotted = json.loads(ok(forks("plot", "--json", "--out", "a.png", cwd=here)).out)
    assert len(plotted["panels"][0]["lines"]) == 2 and not any("repeat" in note for note in plotted["notes"])
    metric = "--metric=train/value_loss"
    listed = json.loads(ok(forks("ls", "--json", cwd=here)).out)
    assert len({row["code"] for row in listed}) == 2 and "code" in ok(forks("ls", cwd=here)).out.splitlines()[0]
    assert (
        "A and B ran different code: ./algos/my_vpg.py"
        in ok(forks("compare", str(first), str(second), metric, cwd=here)).out
    )
    again = trained(forks, here, *short)
    assert record(again)["code"]["digest"] == record(second)["code"]["digest"]


def test_a_resume_names_what_has_changed_and_records_it(forks, here) -> None:
    data = here / "data.jsonl"
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(9) for b in range(9)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["algo=sft", "task=jsonl", f"task.file={data}", "total_steps=4", "eval_every=0", "tensorboard=false"]
    run = trained(forks, here, *words)
    assert record(run)["code"]["data"]["task.file"]["bytes"] == data.stat().st_size
    same = ok(forks("resume", str(run), "total_steps=6", cwd=here))
    assert "changed since" not in same.err
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[::-1]))
    done = ok(forks("resume", str(run), "total_steps=8", cwd=here))
    assert f"changed since the run was last started: task.file={data} (from step 6 on)" in done.err
    assert any("changed since" in notice for notice in record(run)["notices"])


def test_uncommitted_changes_are_kept_without_secrets(forks, here) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=here, check=True, capture_output=True)

    git("init"), git("add", "."), git("commit", "-m", "one")
    clean = trained(forks, here, "algo=ppo", *REACH)
    assert not (clean / "code.patch").exists() and not record(clean)["code"]["repositories"][0]["changed"]
    with open(here / "my_numbers.py", "a") as file:
        file.write('API_KEY = "sk-1234567890"\nPRIZE = 3.0\n')
    changed = trained(forks, here, "algo=ppo", *REACH)
    patch = (changed / "code.patch").read_text()
    assert "+PRIZE = 3.0" in patch and "sk-1234567890" not in patch
    assert len(record(changed)["code"]["repositories"][0]["commit"]) == 40


def test_a_run_of_what_ships_records_no_folder(finished: Path) -> None:
    assert "code" not in record(finished)


def test_listing_imports_none_of_it(here, forks) -> None:
    (here / "json.py").unlink()  # python -c puts the folder in front
    trained(forks, here, "algo=my_vpg", "env=reach", *TINY, "algo.num_steps=128")
    for words in (["ls", "runs"], ["show", "latest"]):
        modules, _ = imported(*words, cwd=here)
        assert not modules


def test_a_killed_run_of_it_is_resumed_with_equal_bits(forks, here, elsewhere) -> None:
    words = ["algo=my_vpg", "env=reach", *TINY, "total_steps=3072", "algo.num_steps=128", "checkpoint_every=256",
             "preset=none"]  # fmt: skip
    whole = trained(forks, here, *words)
    child = forks.begin("train", *words, cwd=here)

    def run() -> Path | None:
        runs = [path.parent.parent for path in here.rglob("checkpoints/step_*") if path.parent.parent != whole]
        return runs[0] if runs else None

    until(run)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    cut = run()
    assert cut is not None and "weights_sha256" not in json.loads((cut / "status.json").read_text())
    ok(forks("resume", str(cut), cwd=elsewhere))
    assert weights(cut) == weights(whole)


def test_a_file_that_changed_is_loaded_anew_and_another_of_its_name_is_another_module(tmp_path) -> None:
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.py").write_text(f"VALUE = {value}\n")
    one, two = (own_code.load_file(tmp_path / name / "same.py") for name in "ab")
    assert (one.VALUE, two.VALUE) == (1, 2) and own_code.load_file(tmp_path / "a" / "same.py") is one
    (tmp_path / "a" / "same.py").write_text("VALUE = 3\n")
    assert own_code.load_file(tmp_path / "a" / "same.py").VALUE == 3


def test_nobody_replaces_what_is_rlxs_own(here, monkeypatch) -> None:
    monkeypatch.chdir(here)
    shutil.copy(here / "algos" / "my_vpg.py", here / "algos" / "ppo.py")
    source = plugins.source("algos", "ppo")
    assert source is not None and source.where == "rlx" and plugins.source("algos", "./algos/ppo.py").own


@pytest.mark.parametrize("algo", ["ppo", "dqn", "vpg"])
def test_an_encoder_of_ones_own_is_learnt_saved_and_judged(algo, forks, here, elsewhere) -> None:
    short = ["algo.learning_starts=100"] if algo == "dqn" else ["algo.num_steps=128"]
    words = [f"algo={algo}", "env=cartpole", "preset=none", *TINY, *short, "model.encoder=my_net", "model.features=8"]
    run = trained(forks, here, *words)
    assert record(run)["code"]["references"]["model.encoder"]["file"] == "./models/my_net.py"
    plain = trained(forks, here, *[word for word in words if "encoder" not in word])
    assert weights(run) != weights(plain)
    ok(forks("resume", str(run), "total_steps=1024", cwd=elsewhere))
    ok(forks("eval", str(run), "--episodes", "1", cwd=elsewhere))
    refused = forks("export", str(run), "--to", "onnx", cwd=elsewhere)
    assert refused.code == 2 and "cannot be exported" in refused.err


def test_an_encoder_that_does_not_fit_is_one_line(forks, here) -> None:
    file = here / "models" / "my_net.py"
    for old, new, says in (
        ("relu()", "relu()[..., :2]", "gives [2, 2] of two observations"), ("relu()", "rellu()", "AttributeError"),
    ):  # fmt: skip
        text = file.read_text()
        file.write_text(text.replace(old, new))
        done = forks("train", "env=cartpole", "model.encoder=my_net", cwd=here)
        assert done.code == 2 and says in done.err and done.err.count("\n") == 1, done.err
        file.write_text(text)
    assert "did you mean 'my_net'" in forks("train", "env=cartpole", "model.encoder=my_nett", cwd=here).err
    assert not (here / "runs").exists()
