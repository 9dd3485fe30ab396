"""rlx export: the policy as tensors, as an ONNX graph, as a folder that needs nothing of rlx."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from command_line import ROOT, Forks, entries, environment
from safetensors import safe_open
from tiny_runs import speak, train

from rlx.base.errors import UserError
from rlx.control.acting.box import BoxPolicy
from rlx.control.acting.q_values import QPolicy
from rlx.control.policy import Policy, make_one
from rlx.envs.spaces import ActionDecoder
from rlx.export import card, formats
from rlx.export.plain import plain
from rlx.rundir import checkpoint
from rlx.training import runner

KINDS: dict[str, dict[str, Any]] = {  # what networks, observations and actions differ in
    "gaussian": {"env": "pendulum", "algo": "ppo", "env__normalize_obs": True, "model__activation": "elu"},
    "shared": {"env": "cartpole", "algo": "a2c", "model__shared": True, "model__activation": "silu"},
    "linear": {"env": "cartpole", "algo": "vpg", "model__hidden": []},
    "dueling": {"env": "cartpole", "algo": "dqn", "algo__dueling": True, "model__shared": True},
    "dueling_apart": {"env": "cartpole", "algo": "dqn", "algo__dueling": True, "env__normalize_obs": True},
    "table": {"env": "cliffwalking", "algo": "q_learning"},
    "one_hot": {"env": "frozenlake", "algo": "ppo"},
    **{
        name: {"env": "gym", "algo": "ppo", "env__id": f"Spaces{name}-v0", "env__name": name}
        for name in ("Start", "Multi", "Bits", "Dict")
    },
    "Whole": {"env": "gym", "algo": "ppo", "env__id": "SpacesWhole-v0", "env__name": "whole", "model__hidden": []},
    "squashed": {"env": "pendulum", "algo": "sac", "env__normalize_obs": True},
    "held": {"env": "gym", "algo": "sac", "algo__noise": "sde", "env__id": "SpacesDict-v0", "env__name": "matrix"},
    "deterministic": {"env": "gym", "algo": "td3", "env__id": "SpacesWhole-v0", "env__name": "whole"},
    "Big": {"env": "gym", "algo": "ppo", "env__id": "Big-v0", "env__name": "big", "model__features": 16},
}  # fmt: skip


gym.register(
    "Big-v0", "fake_envs:Spaces", max_episode_steps=20,
    kwargs={"observation_space": gym.spaces.Box(0, 255, (40, 36, 3), np.uint8), "action_space": gym.spaces.Discrete(4)},
)  # fmt: skip


def trained(root: Path, kind: str) -> Path:
    changes = {"model__orthogonal_init": False, "eval_every": 0, "total_steps": 96, **KINDS[kind]}
    return train(root, changes.pop("env"), name=kind, **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """runs(kind): a tiny run of that kind, made once."""
    root, made = tmp_path_factory.mktemp("kinds"), {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = trained(root, kind)
        return made[kind]

    return make


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speak(tmp_path_factory.mktemp("speak"), "task=add", "model.positions=rotary", name="speaker")


def observations(cfg: Any, count: int) -> Any:
    """Observations of every kind that a learner may see, and what the environment is handed for an action."""
    envs, rng = make_one(cfg.env), np.random.default_rng(0)
    shape, decode = envs.observation_space.shape, ActionDecoder(envs.raw_action_space, "").decode
    one_hot = type(envs.raw_observation_space).__name__ == "Discrete"
    envs.close()
    if len(shape) == 3:
        return rng.integers(0, 256, (count, *shape)).astype(np.uint8), decode
    if one_hot:
        return np.eye(shape[0], dtype=np.float32)[rng.integers(0, shape[0], count)], decode
    return rng.normal(scale=5, size=(count, *shape)).astype(np.float32), decode


def as_rlx_acts(path: Path, count: int = 100) -> tuple[np.ndarray, np.ndarray]:
    cfg, policy = runner.open_policy(path)
    obs, decode = observations(cfg, count)
    return obs, np.array(decode(policy(obs)))


# -- acting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_act_as_rlx_does(kind: str, runs: Any) -> None:
    obs, expected = as_rlx_acts(runs(kind))
    cfg, module, run = runner.open_run(runs(kind))
    policy, lines = runner.world_of(cfg).load_policy(cfg, module, run), plain(cfg, module, run).functions()
    found = lines["act"](torch.from_numpy(obs)).numpy()
    assert found.shape == expected.shape and np.allclose(found, expected, atol=1e-5)
    outputs = lines["outputs"](torch.from_numpy(obs)).numpy()
    assert outputs.std(0).max() > 1e-3, "a policy that always does the same shows nothing"
    if isinstance(policy, Policy):
        seen = policy.obs_norm.normalize(obs) if policy.obs_norm else obs
        params = policy._mode(obs=torch.from_numpy(seen))[1].numpy()
        assert np.allclose(outputs, params[:, : outputs.shape[1]], atol=1e-5)
    elif isinstance(policy, BoxPolicy):
        low, half = policy.bounds.low, policy.bounds.half
        assert np.allclose(low + (np.tanh(outputs) + 1) * half, policy(obs), atol=1e-5)
    elif isinstance(policy, QPolicy):
        network = module.make_network(cfg, make_one(cfg.env), run)
        network.load_state_dict(run.state("policy"))
        seen = policy.obs_norm.normalize(obs) if policy.obs_norm else obs
        assert np.allclose(outputs, network(torch.from_numpy(seen)).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "Big"])
def test_the_graph_acts_as_rlx_does_on_any_batch(kind: str, runs: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    obs, expected = as_rlx_acts(runs(kind))
    out = formats.export(runs(kind), "onnx", tmp_path / "a.onnx")
    model = onnx.load(out)
    for rows in (slice(0, 100), slice(3, 4)):
        [action, outputs] = evaluate(model, obs[rows])
        assert np.allclose(action, expected[rows], atol=1e-5) and len(outputs) == len(action)
    props = {prop.key: prop.value for prop in model.metadata_props}
    assert props["algo"] == KINDS[kind]["algo"] and len(props["weights_sha256"]) == 64
    assert [opset.version >= 18 for opset in model.opset_import] == [True]


def evaluate(model: Any, given: np.ndarray) -> list[np.ndarray]:
    """With ONNX Runtime where it is, else with ONNX's own evaluator."""
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(model).run(None, {model.graph.input[0].name: given})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {model.graph.input[0].name: given})


def snippet(path: Path, out: Path, call: str) -> str:
    """What the README of an export shows, from another folder, with another call at the end."""
    formats.export(path, "folder", out)
    [code] = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)
    *lines, last = code.strip().splitlines()
    assert re.fullmatch(r"print\((act|complete)\(.*\)\)", last)
    assert {"README.md", "policy.py", "config.yaml", "weights.safetensors"} <= {file.name for file in out.iterdir()}
    found = f"import sys; sys.path.insert(0, {str(out)!r}); sys.modules.pop('policy', None)"
    return "\n".join([found, *lines, last, f"print(json.dumps({call}))"])


def test_the_readme_acts_without_rlx(runs: Any, speaker: Path, tmp_path: Path) -> None:
    obs, acted = as_rlx_acts(runs("gaussian"))
    _, policy = runner.open_policy(speaker)
    prompts = policy.task.prompts(np.random.default_rng(5), 20, held_out=True)
    acts = snippet(runs("gaussian"), tmp_path / "acts", f"act(torch.tensor({obs.tolist()!r})).tolist()")
    speaks = snippet(speaker, tmp_path / "speaks", f"[complete(prompt) for prompt in {prompts!r}]")
    end = "import sys; assert not any(name.split('.')[0] in ('rlx', 'gymnasium') for name in sys.modules)"
    (tmp_path / "act.py").write_text(f"import json\n{acts}\n{speaks}\n{end}")
    command = [sys.executable, "-P", str(tmp_path / "act.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    example, actions, _, said = done.stdout.splitlines()
    assert np.allclose(json.loads(actions), acted, atol=1e-5)
    tried = subprocess.run([sys.executable, str(tmp_path / "acts" / "policy.py")], capture_output=True, text=True)
    assert tried.stdout.strip() == example, tried.stderr
    assert json.loads(said) == [found.text for found in policy.complete(prompts)]


@pytest.mark.parametrize("positions, activation", [("learned", "gelu"), ("rotary", "relu2")])
def test_the_logits_of_a_language_model_are_those_of_rlx(positions: str, activation: str, tmp_path: Path) -> None:
    words = ["task=reverse", f"model.positions={positions}", f"model.activation={activation}", "model.num_layers=2"]
    path = speak(tmp_path, *words, name="speaker")
    cfg, module, run = runner.open_run(path)
    policy, exported = runner.world_of(cfg).load_policy(cfg, module, run), plain(cfg, module, run)
    prompts = [prompt[:3] for prompt in policy.task.prompts(np.random.default_rng(0), 9, held_out=True)]
    ids, mask = policy.tokenizer.prompts(prompts)
    assert mask.all()
    with torch.no_grad():
        expected = policy.model(ids, None, torch.zeros(9, 1, 1, dtype=torch.long))[:, 0, 0]
        assert torch.allclose(exported.functions()["outputs"](ids), expected, atol=1e-5)
    if positions == "rotary":
        pytest.importorskip("onnxscript")
        import onnx

        model = onnx.load_from_string(formats.onnx_bytes(exported, {}))
        assert np.allclose(evaluate(model, ids.numpy())[0], expected.numpy(), atol=1e-5)
        longer = torch.cat([ids, ids[:, 1:]], 1)[:1]
        assert np.allclose(evaluate(model, longer.numpy())[0], exported.functions()["outputs"](longer), atol=1e-5)


# -- what it says of itself ------------------------------------------------------------------------------------------


def test_the_header_says_what_it_is_and_its_hashes_hold(runs: Any, tmp_path: Path) -> None:
    path = runs("gaussian")
    out = formats.export(path, "safetensors", tmp_path / "a.safetensors", "final")
    with safe_open(out, "pt") as file:
        said, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    status = json.loads((path / "status.json").read_text())
    assert said["weights_sha256"] == status["weights_sha256"]
    assert said["exported_sha256"] == checkpoint.weights_sha256(tensors)
    assert (said["algo"], said["env"], said["seed"], said["step"]) == ("ppo", "pendulum", "1", str(status["step"]))
    assert json.loads(said["versions"])["torch"] == torch.__version__ and len(said["config_hash"]) == 10
    assert {"actor.0.weight", "obs.mean", "action.low"} <= set(tensors) and "critic.0.weight" not in tensors


def test_a_card_holds_no_line_of_another_kind() -> None:
    text = card._inline("a`b\n# c")
    assert "`" not in text and "\n" not in text


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, said",
    [
        (["--to", "onx"], "--to=onx: no such format; did you mean 'onnx'?"),
        (["--to", "folder", "--out", "afile"], "--out=afile: already exists"),
        (["--to", "folder", "--out", "nix/a"], "the directory nix does not exist"),
        (["--to", "safetensors", "--checkpoint", "7"], "no checkpoint '7'"),
        ([], "to is missing"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(words: list[str], said: str, place: Path, forks: Forks) -> None:
    before = entries(place)
    done = forks("export", "runs/done", *words, cwd=place)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and said in done.err, done
    assert entries(place) == before


def test_without_the_extra_onnx_is_one_line_that_names_it(place: Path, forks: Forks) -> None:
    before = entries(place)
    done = forks("export", "runs/done", "--to", "onnx", cwd=place, without=["onnx"])
    hint = f'pip install -e "{ROOT}[onnx]"'
    assert done.code == 2 and done.err == f"rlx: error: --to=onnx: onnx is not installed ({hint})\n"
    assert entries(place) == before


@pytest.mark.parametrize("to", ["safetensors", "folder"])
def test_where_nothing_can_be_written_one_line_says_so(to: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(formats.atomic, "write_atomically", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="--out=.*: cannot be written: Read-only file system"):
        formats.export(place / "runs" / "done", to, place / "new")
    assert not (place / "new").exists()


def test_the_name_is_made_where_none_is_given(place: Path, forks: Forks) -> None:
    done = forks("export", "runs/done", "--to", "folder", "--checkpoint", "final", cwd=place)
    assert (done.code, done.err) == (0, "") and done.out == "ppo_cartpole_s1_512\n", done
    assert forks("export", "runs/done", "--to", "folder", cwd=place).code == 2
