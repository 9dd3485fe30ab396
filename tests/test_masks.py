"""Action masks: an environment that raises on a forbidden action trains, is judged, played, killed and resumed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from masked_envs import ALLOWED, BEST, REWARD
from tiny_runs import Child, checkpoints, die_at, result, resume, serves, train
from variants import distinct

from rlx.base.errors import ConfigError
from rlx.config import registry
from rlx.control.distributions import FORBIDDEN, Categorical, MultiCategorical, forbid
from rlx.control.evaluate import evaluate
from rlx.control.normalize import ObsNormalizer
from rlx.control.show.recording import record
from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import EnvError, EnvFault, mask_size, split_mask
from rlx.tabular.parts import Greedy, Table
from rlx.training import runner

FACTS = {name: registry.facts(registry.values("algo", name)["implementation"]) for name in registry.options("algo")}
ALGORITHMS = [
    name
    for name in distinct("control")
    if serves(name, "Discrete") and not FACTS[name].needs  # these have no transition table
]
TABULAR = [name for name in ALGORITHMS if FACTS[name].observations == ("Discrete", "OneHot")]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def env(id: str = "Choices-v0", kind: str = "vector", **more: Any) -> EnvConfig:
    return EnvConfig("masked", f"masked_envs:{id}", kwargs={"kind": kind}, **more)


def changes(algo: str, id: str = "Choices-v0") -> dict[str, Any]:
    kind = "discrete" if algo in TABULAR else "vector"
    return {
        "algo": algo, "env": "gym", "env.name": "masked", "env.id": f"masked_envs:{id}", "env.kwargs": {"kind": kind},
    }  # fmt: skip


# -- what the learner sees -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("id", ["Choices-v0", "Method-v0", "Pairs-v0"])
@pytest.mark.parametrize("kind, size", [("vector", 2), ("discrete", 2), ("dict", 3)])
def test_the_mask_follows_the_observation(kind: str, size: int, id: str, backend: str) -> None:
    if backend == "async" and kind != "dict":
        pytest.skip("one kind is enough for the workers")
    envs = make_envs(env(id, kind, backend=backend), 3, seed=1)
    obs, choices = envs.reset(), mask_size(envs.action_space)
    assert choices == (6 if id == "Pairs-v0" else 4) and envs.observation_space.shape == (size + choices,)
    rng = np.random.default_rng(0)
    for _ in range(20):
        seen, mask = split_mask(obs, choices)
        state = seen[:, 1 if kind == "discrete" else 0] > 0 if kind != "dict" else seen[:, 1] > 0
        assert (mask[:, :4] == ALLOWED[state.astype(int)]).all()
        action = (rng.random(mask[:, :4].shape) * mask[:, :4]).argmax(-1)
        if id == "Pairs-v0":
            action = np.stack([action, state.astype(int)], -1)
        _, _, _, final = envs.step(action)
        assert all(
            split_mask(last, choices)[1].all() for _, last in final
        )  # nothing is forbidden where nothing is chosen
    envs.close()


def test_an_image_has_a_plane_more_and_the_network_does_not_look_at_it() -> None:
    envs = make_envs(env(kind="image"), 2, seed=1)
    obs = envs.reset()
    assert obs.shape == (2, 2, 36, 36) and obs.dtype == np.uint8
    seen, mask = split_mask(obs, 4, image=True)
    assert (mask == ALLOWED[(seen[:, 0, 0, 0] > 0).astype(int)]).all()


@pytest.mark.parametrize("wrong, says", [("none", "allows no action"), ("long", "4 numbers"), ("two", "0 or 1")])
def test_a_mask_that_is_none_is_named_with_env_episode_and_step(wrong: str, says: str) -> None:
    envs = make_envs(EnvConfig("m", "masked_envs:Choices-v0", kwargs={"wrong": wrong}, replay=False), 1, seed=1)
    envs.reset()
    with pytest.raises(EnvFault, match=rf"^env 0 .*episode 0, step 2: step raised ValueError: .*{says}"):
        for _ in range(4):
            envs.step(np.array([0]))


def test_masks_are_used_where_they_are_given_but_for_gymnasiums_own_and_can_be_ignored_or_demanded() -> None:
    def size(cfg: EnvConfig) -> int:
        envs = make_envs(cfg, 1, seed=1)
        return mask_size(envs.action_space)

    assert size(env()) == 4
    assert size(EnvConfig("taxi", "Taxi-v4")) == 0 and size(EnvConfig("taxi", "Taxi-v4", action_mask=True)) == 6
    ignored = make_envs(env(action_mask=False, replay=False), 1, seed=1)
    assert mask_size(ignored.action_space) == 0 and ignored.observation_space.shape == (2,)
    with pytest.raises(EnvError, match="^env.action_mask=true: CartPole-v1 gives none"):
        size(EnvConfig("c", "CartPole-v1", action_mask=True))
    with pytest.raises(EnvError, match="env.backend=vector"):
        size(EnvConfig("c", "CartPole-v1", action_mask=True, backend="vector"))


# -- equations -----------------------------------------------------------------------------------------------------


def test_log_probabilities_and_entropy_are_those_of_the_allowed_subset(float64: None) -> None:
    logits = torch.randn(50, 6, requires_grad=True)
    mask = (torch.rand(50, 6) < 0.5).double()
    mask[:, 2] = 1
    head = Categorical(6, masked=6)
    params = forbid(logits, mask)
    for row in range(50):
        allowed = mask[row].nonzero().flatten()
        truth = torch.distributions.Categorical(logits=logits[row, allowed])
        logprob, entropy = head.logprob_entropy(params[row].expand(len(allowed), 6), allowed)
        torch.testing.assert_close(logprob, truth.log_prob(torch.arange(len(allowed))))
        torch.testing.assert_close(entropy[0], truth.entropy())
    noise = torch.from_numpy(head.noise(np.random.default_rng(0), (4000, 50)))
    actions = head.sample(params, noise)
    assert (
        mask.expand(4000, 50, 6).gather(-1, actions[..., None]).all()
        and mask.gather(-1, head.mode(params)[:, None]).all()
    )
    other = forbid(torch.randn(50, 6), mask)
    assert torch.isfinite(head.kl(params, other)).all()
    (head.kl(params, other).sum() + head.logprob_entropy(params, head.mode(params))[1].sum()).backward()
    assert (logits.grad[mask == 0] == 0).all() and torch.isfinite(logits.grad).all()


def test_parts_of_a_multidiscrete_action_have_masks_of_their_own() -> None:
    head = MultiCategorical([4, 2], masked=6)
    mask = torch.tensor([1.0, 0, 0, 1, 0, 1])
    noise = torch.from_numpy(head.noise(np.random.default_rng(0), (500,)))
    actions = head.sample(forbid(torch.randn(6), mask).expand(500, 6), noise)
    assert set(actions[:, 0].tolist()) == {0, 3} and set(actions[:, 1].tolist()) == {1}


def test_a_q_network_forbids_so_that_targets_are_the_best_of_what_is_allowed() -> None:
    from rlx.control.networks import QNetwork
    from rlx.functional import value as vf

    model = {"hidden": [8], "activation": "tanh", "shared": False, "orthogonal_init": True, "log_std_init": 0.0}
    from rlx.control.networks import ModelConfig

    cfg = ModelConfig(**model, features=8)
    masked = QNetwork((2 + 4,), 4, cfg, torch.Generator().manual_seed(0), dueling=True, masked=4)
    plain = QNetwork((2,), 4, cfg, torch.Generator().manual_seed(0), dueling=True)
    obs = torch.randn(30, 2)
    mask = torch.from_numpy(ALLOWED[np.arange(30) % 2]).float()
    q, free = masked(torch.cat([obs, mask], -1)), plain(obs)
    torch.testing.assert_close(q[mask == 1], free[mask == 1])
    assert (q[mask == 0] == FORBIDDEN).all()
    by_hand = [
        max(value for value, allowed in zip(row, ok) if allowed) for row, ok in zip(free.tolist(), mask.tolist())
    ]
    torch.testing.assert_close(vf.max_value(q), torch.tensor(by_hand))
    assert mask.gather(-1, vf.double_value(q, torch.arange(120.0).view(30, 4))[:, None].long() % 4).all()


def test_observations_are_normalised_and_their_mask_is_not() -> None:
    statistics = ObsNormalizer((2 + 4,), masked=4)
    rows = np.concatenate([np.random.default_rng(0).normal(5, 3, (100, 2)), ALLOWED[np.arange(100) % 2]], -1)
    statistics.update(rows)
    seen = statistics.normalize(rows)
    assert (seen[:, 2:] == rows[:, 2:]).all() and abs(seen[:, :2].mean()) < 1e-5 and abs(seen[:, :2].std() - 1) < 1e-5


def test_a_table_chooses_and_bootstraps_among_what_is_allowed() -> None:
    table = Table(2, 4, 0.0, masked=True)
    table.q.copy_(torch.tensor([[1.0, 2, 3, 9], [5, 9, 9, 6]]))
    table.open()
    obs = np.concatenate([np.eye(2, dtype=np.float32), ALLOWED.astype(np.float32)], -1)
    assert table.states(obs) == [0, 1] and [table.choices(state) for state in (0, 1)] == [[1, 2, 3], [5, 6]]
    assert [table.choose(state, 0.0, 0.5) for state in (0, 1)] == list(BEST)
    chosen = {table.choose(1, 1.0, u) for u in np.linspace(0, 0.999, 100)}
    assert chosen == {0, 3}
    table.close()
    assert (table.masks.numpy() == ALLOWED).all()
    policy = Greedy(table.q.numpy(), 1.0)
    assert policy(obs).tolist() == list(BEST)
    many = policy(obs.repeat(200, 0), np.random.default_rng(0))
    assert set(many[:200].tolist()) == {0, 1, 2} and set(many[200:].tolist()) == {0, 3}


# -- runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_algorithm_trains_is_judged_and_resumes_exactly_where_forbidden_actions_raise(
    algo: str, tmp_path
) -> None:
    path = tmp_path / "run"
    for life in (
        lambda: train(tmp_path, name="run", progress=die_at(96), **changes(algo)),
        lambda: resume(path, progress=die_at(250)),
    ):
        assert Child(life).wait() == -signal.SIGKILL
    resume(path)
    whole = train(tmp_path, **changes(algo))
    assert result(path) == result(whole) and checkpoints(path) == checkpoints(whole)
    cfg, policy = runner.open_policy(path)
    for how in ({}, {"stochastic": True}):
        report = runner.evaluate_policy(policy, cfg, 20, 3, **how)
        assert report == runner.evaluate_policy(policy, cfg, 20, 3, **how)
    assert cfg.env.kwargs and evaluate(policy, cfg.env, 3, 0).returns


@pytest.mark.parametrize("algo", [name for name in ALGORITHMS if name not in TABULAR and "dqn" not in name])
def test_multidiscrete_masks_and_masks_by_a_method(algo: str, tmp_path) -> None:
    q_critic = registry.values("algo", algo).get("critic") == "q"
    ids = ["Method-v0", *["Pairs-v0"] * (FACTS[algo].actions is None and not q_critic)]
    for id in ids:
        train(tmp_path, **changes(algo, id))


def test_the_best_allowed_action_is_learnt(tmp_path) -> None:
    """Each step pays half, on average, of .5 and 1."""
    words = {"total_steps": 8000, "algo.lr": 5e-3, "algo.num_steps": 32, "algo.num_envs": 4, "algo.num_minibatches": 4}
    for algo, more in (("ppo", words), ("q_learning", {"total_steps": 4000})):
        path = train(tmp_path, **{**changes(algo), **more}, eval_every=0)
        cfg, policy = runner.open_policy(path)
        returns = runner.evaluate_policy(policy, cfg, 200, 3)["mean"]
        assert returns == pytest.approx(4 * np.mean([REWARD[best] for best in BEST]), abs=0.15)


def test_an_exported_policy_takes_the_mask(tmp_path) -> None:
    from rlx.export.plain import plain

    for algo in ("ppo", "dqn", "q_learning"):
        path = train(tmp_path, **changes(algo))
        cfg, module, run = runner.open_run(path)
        exported = plain(cfg, module, run).functions()["act"]
        policy = runner.world_of(cfg).load_policy(cfg, module, run)
        envs = make_envs(cfg.env, 8, seed=3)
        obs = envs.reset()
        for _ in range(10):
            action = policy(obs)
            assert exported(torch.from_numpy(obs)).tolist() == action.tolist()
            envs.step(action)


def test_a_film_of_a_masked_policy_takes_allowed_actions(tmp_path) -> None:
    cfg, policy = runner.open_policy(train(tmp_path, **changes("ppo")))
    with pytest.raises(EnvError, match="cannot render|render"):
        record(policy, cfg.env, 0, 100, width=100)
    assert runner.world_of(cfg).watch(policy, cfg, 0, 100, False)[1] == 4


# -- seeding, options, evaluation ----------------------------------------------------------------------------------


def mean_return(path: Path) -> float:
    return [row["rollout/ep_rew_mean"] for row in result(path)[1] if "rollout/ep_rew_mean" in row][-1]


def items(**more: Any) -> EnvConfig:
    return EnvConfig("items", "masked_envs:Items-v0", **more)


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_seeded_once_a_data_set_goes_on_and_otherwise_shows_one_item_for_ever(backend: str) -> None:
    for seeding, numbers in (("every_reset", {0}), ("once", set(range(10)))):
        envs = make_envs(items(seeding=seeding, backend=backend), 2, seed=1)
        envs.reset()
        rewards = {float(reward) for _ in range(12) for reward in envs.step(np.array([0, 0]))[0]}
        assert rewards == numbers and envs.replayable is (seeding == "every_reset")
        state = envs.state_dict()  # begins anew
        obs = envs.obs.copy()
        other = make_envs(items(seeding=seeding, backend=backend), 2, seed=1)
        other.load_state_dict(state)
        assert (other.obs == obs).all() and (other.obs == 0).all()
        for _ in range(5):
            assert (other.step(np.array([0, 0]))[0] == envs.step(np.array([0, 0]))[0]).all()
        envs.close()
        other.close()
    assert evaluate(lambda obs: np.zeros(len(obs), int), items(seeding="once"), 6, 0, num_envs=1).returns == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]


def test_a_run_seeded_once_is_killed_and_resumed_exactly(tmp_path) -> None:
    more = {"env": "gym", "env.name": "items", "env.id": "masked_envs:Items-v0", "env.seeding": "once"}
    path = tmp_path / "run"
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(150), **more)).wait() == -signal.SIGKILL
    resume(path)
    whole = train(tmp_path, **more)
    assert result(path) == result(whole)


def test_options_go_to_every_reset_and_evaluation_has_its_own(tmp_path) -> None:
    more = {"env": "gym", "env.name": "items", "env.id": "masked_envs:Items-v0", "env.reset_options": {"hard": True}}
    path = train(tmp_path, **more)
    assert mean_return(path) == 100
    path = train(tmp_path, **more, eval_env={"reset_options": {"hard": False}, "seeding": "once"})
    cfg, policy = runner.open_policy(path)
    assert mean_return(path) == 100
    assert runner.evaluate_policy(policy, cfg, 1, 0)["mean"] == 0


@pytest.mark.parametrize(
    "eval_env, says",
    [
        ({"kwrgs": {}}, r"eval_env.kwrgs: no such key; did you mean 'eval_env.kwargs'"),
        ({"id": "Pendulum-v1"}, r"eval_env: its observation space is .*"),
        ({"max_episode_steps": "a"}, r"eval_env.max_episode_steps=a: must be"),
    ],
)
def test_an_evaluation_that_does_not_fit_is_one_line(eval_env: dict[str, Any], says: str, tmp_path) -> None:
    with pytest.raises(ConfigError, match=says):
        train(tmp_path / "runs", eval_env=eval_env)
    assert not (tmp_path / "runs").exists()
