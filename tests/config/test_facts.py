"""Facts about algorithms: read from their files, copied into run.json, and the same as before each said so itself."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import command_line
import pytest
from command_line import Done, environment
from fake_runs import make_run
from installed import pretend

import rlx
from rlx.analysis.curves.curves import default_metric
from rlx.base.errors import ConfigError
from rlx.config import older_runs, plugins, registry
from rlx.config.facts import Facts, fault, outline
from rlx.config.keys import identity
from rlx.rundir import reader

ALGORITHMS = list(registry.implementations())
NEW = (  # no older run has them
    *("sac", "td3", "sarsa_lambda", "n_step_sarsa", "monte_carlo", "double_q_learning", "value_iteration", "bandit"),
)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in NEW])
def test_what_an_algorithm_freezes_is_what_was_frozen_of_its_keys_before(name: str) -> None:
    keys = {field.name for field in dataclasses.fields(registry.algorithm(name).Config)}
    assert set(registry.facts(name).frozen) == keys & set(older_runs.FROZEN)


@pytest.mark.parametrize(
    "name", [name for name in registry.options("algo") if registry.values("algo", name)["implementation"] not in NEW]
)
def test_the_identity_of_a_configuration_is_that_of_an_older_run(name: str) -> None:
    """So the checkpoints of one fit the other."""
    algo = registry.values("algo", name)
    about = registry.facts(algo["implementation"])
    raw = {"algo": algo, "env": {"id": "CartPole-v1", "workers": 2}, "seed": 1, "total_steps": 5}
    assert identity(raw, about.frozen) == identity(raw, Facts.of(None, about.world).frozen)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_of_rlx_states_its_facts_as_literals(name: str) -> None:
    stated = outline(plugins.RLX / "algos" / f"{name}.py").facts
    assert {"world", "frozen", "shown", "metrics"} <= set(stated)
    module = registry.algorithm(name)
    assert all(getattr(module, fact.upper()) == value for fact, value in stated.items())
    assert not [fact for fact, value in stated.items() if fault(fact, value)]


def test_facts_are_read_without_torch(tmp_path: Path) -> None:
    code = "import sys; from rlx.config import registry as r; r.facts('grpo'), r.implementations();"
    code += " assert not {'torch', 'hydra', 'rlx.algos.grpo'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), check=True, capture_output=True)


def test_facts_survive_the_way_through_run_json() -> None:
    for name in ALGORITHMS:
        about = registry.facts(name)
        assert Facts.of(json.loads(json.dumps(about.as_json()))) == about


@pytest.mark.parametrize("damaged", [None, 3, [], {"frozen": 3, "metrics": [1], "shown": ["x"], "world": "moon"}])
def test_a_damaged_record_of_facts_counts_as_none(damaged: object) -> None:
    assert Facts.of(damaged, "language") == Facts.of(None, "language")
    assert Facts.of(damaged, "language").metrics == older_runs.METRICS["language"]


@pytest.mark.parametrize(
    "line, said",
    [
        ("FROZEN = ('num_envs')", "FROZEN must be a tuple of names"),
        ("FROZEN = ('num_env',)", "FROZEN: Config has no num_env"),
        ("SHOWN = {'loss': '{:q}'}", "SHOWN '{:q}' cannot format a number"),
        ("WORLD = 'moon'", "WORLD must be 'control' or 'language'"),
    ],
)
def test_a_wrong_fact_is_named_when_its_algorithm_is_chosen(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = "from dataclasses import dataclass\n@dataclass\nclass Config:\n    num_envs: int\ndef train(): pass\n"
    module = f"wrong_{abs(hash(line))}"
    pretend(tmp_path, module, f"[rlx.algos]\nwrong = {module}\n", **{module: f"{line}\n{config}"})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as error:
        registry.algorithm("wrong")
    assert said in str(error.value) and "\n" not in str(error.value)


# -- torch-free readers --------------------------------------------------------------------------------------------


def _state(run: Path, **facts: object) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "facts": facts}))


def test_a_run_is_drawn_by_the_metric_that_its_algorithm_names(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", [(1, 1.0), (2, 2.0)])
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "train/regret": 5.0}\n')
    assert default_metric([run]) == "rollout/ep_rew_mean"  # one from before 0.2.0
    _state(run, metrics=["eval/mean_reward", "train/regret"])
    assert default_metric([run]) == "train/regret" and reader.facts(run).evaluated == "eval/mean_reward"


# -- one file and one YAML -----------------------------------------------------------------------------------------

MINE = """
from dataclasses import dataclass
from rlx.control.config import ControlConfig
from rlx.functional import policy as pg, returns
from rlx.control.on_policy import Agent
from rlx.engine.learner import Learner

METRICS = ("eval/mean_reward", "train/loss")

@dataclass
class Config:
    name: str
    implementation: str
    num_envs: int
    num_steps: int
    gamma: float
    lr: float

def train(cfg: ControlConfig[Config], run):
    algo, agent = cfg.algo, Agent.new(cfg, run)
    def loss(batch):
        logprob, _ = agent.head.logprob_entropy(agent.model.policy(batch["obs"]), batch["action"])
        total = pg.policy_gradient(logprob, batch["weight"]).mean()
        return total, {"loss": total}
    learner = Learner(agent.model.policy_parameters(), loss)
    agent.track(run, optimizer=learner)
    while run.step < cfg.total_steps:
        batch = agent.rollout.collect()
        weight = returns.reward_to_go(batch["reward"], batch["done"], algo.gamma)
        data = {"obs": batch["obs"], "action": batch["action"], "weight": weight}
        info = learner.step({name: x.flatten(0, 1) for name, x in data.items()}, None, algo.lr)
        run.step += weight.numel()
        yield run.step, agent.metrics(info)
    agent.envs.close()
"""


def test_one_file_and_one_yaml_are_an_algorithm_inside_the_repository_too(tmp_path: Path) -> None:
    source = Path(rlx.__file__).parent
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, tmp_path / "copy" / "rlx", ignore=ignore)
    shutil.copytree(source.parent / "conf", tmp_path / "copy" / "conf", ignore=ignore)
    (tmp_path / "copy" / "rlx" / "algos" / "mine.py").write_text(MINE)
    values = {"name": "mine", "implementation": "mine", "num_envs": 2, "num_steps": 64, "gamma": 0.99, "lr": 0.01}
    (tmp_path / "copy" / "conf" / "algo" / "mine.yaml").write_text(f"# My own.\n{json.dumps(values)}\n")

    def rlx_(*words: str) -> Done:
        return command_line.rlx(*words, cwd=tmp_path, PYTHONPATH=str(tmp_path / "copy"))

    fast = ["total_steps=512", "eval_every=256", "eval_episodes=2", "video=false", "tensorboard=false"]
    done = rlx_("train", "algo=mine", "env=cartpole", "log_every=128", *fast)
    assert done.code == 0, done.err
    shown = json.loads(rlx_("show", done.run, "--json").out)
    assert (shown["algo"], shown["status"], shown["step"]) == ("mine", "finished", 512) and shown["eval"][
        "episodes"
    ] == 2
    assert "mine" in rlx_("list", "algos").out and "algo=mine" in rlx_("complete", "--", "train", "algo=mi").out
    assert "train/loss" in rlx_("plot", done.run, "--out", "loss.svg", "--json").out

    (tmp_path / "copy" / "rlx" / "algos" / "mine.py").write_text("class Config: ...\n")
    refused = rlx_("train", "algo=mine", "env=cartpole", *fast)
    assert refused.code == 2 and refused.err == "rlx: error: algo.implementation=mine: rlx/algos/mine.py has no train\n"
