"""Episodes, ends, seeds and resume of the backends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from command_line import environment
from pydantic import TypeAdapter, ValidationError

from rlx.base.extras import install
from rlx.engine import kernels
from rlx.envs.episodes import ActionLog, episode_seed
from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig, make_env
from rlx.envs.spaces import EnvError, EnvFault

BACKENDS = ["sync", "async"]


def config(id, **changes):
    id = f"fake_envs:{id}" if id.startswith(("Counter-", "Random-", "Lives-", "CounterVector-", "Spaces")) else id
    return EnvConfig(name="test", id=id, **{"backend": "sync", "workers": 2, "step_timeout": 20.0, **changes})


@pytest.fixture
def make(request):
    """make_envs, closed at the end of the test."""
    made = []

    def make(cfg, num_envs=3, seed=0, domain=0):
        envs = make_envs(cfg, num_envs, seed, domain)
        made.append(envs)
        return envs

    yield make
    for envs in made:
        envs.close()


def actions(envs, steps, seed=0):
    envs.action_space.seed(seed)
    return [np.stack([envs.action_space.sample() for _ in range(envs.num_envs)]) for _ in range(steps)]


def play(envs, actions):
    """Everything a learner sees, copied."""
    seen = []
    for action in actions:
        reward, terminated, truncated, final = envs.step(action)
        final = [(i, obs.copy()) for i, obs in final]
        seen.append((envs.obs.copy(), reward.copy(), terminated.copy(), truncated.copy(), final))
    return seen


def assert_equal(a, b):
    """Bitwise, nested."""
    assert type(a) is type(b)
    if isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_equal(x, y)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    else:
        assert a == b


# Ends of episodes


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_successor_is_the_true_one_and_never_the_reset_observation(make, backend):
    envs = make(config("Counter-v0", backend=backend))
    obs = envs.reset().copy()
    ends = transitions = 0
    for action in actions(envs, 60):
        _, terminated, truncated, final = envs.step(action)
        successor = envs.obs.copy()
        for i, last in final:
            successor[i] = last
            assert envs.obs[i, 0] == 0.0  # and the new episode has begun
            assert envs.obs[i, 1] != last[1]  # with another seed
        assert (successor[:, 0] == obs[:, 0] + 1).all()
        assert (successor[:, 1] == obs[:, 1]).all()
        assert [i for i, _ in final] == np.flatnonzero(terminated | truncated).tolist()
        transitions, ends = transitions + 3, ends + len(final)
        obs = envs.obs.copy()
    assert ends > 30
    # no dummy transition: the steps of the finished episodes and of the open ones are all there were
    assert sum(length for _, length, _ in envs.pop_episodes()) + obs[:, 0].sum() == transitions


@pytest.mark.parametrize("end", ["terminated", "truncated", "both"])
def test_how_an_episode_ended_is_reported_as_it_was(make, end):
    envs = make(config("Counter-v0", kwargs={"length": 4, "end": end}))
    envs.reset()
    *_, (_, _, terminated, truncated, final) = play(envs, actions(envs, 4))
    assert terminated.all() == (end != "truncated") and terminated.any() == terminated.all()
    assert truncated.all() == (end != "terminated") and truncated.any() == truncated.all()
    assert len(final) == 3
    _, _, terminated, truncated, final = play(envs, actions(envs, 1))[0]
    assert not terminated.any() and not truncated.any() and not final


def test_the_own_time_limit_truncates_and_may_coincide_with_a_termination(make):
    cut = make(config("Counter-v0", kwargs={"length": 5}, max_episode_steps=3))
    cut.reset()
    _, _, terminated, truncated, final = play(cut, actions(cut, 3))[-1]
    assert truncated.all() and not terminated.any() and [o[0] for _, o in final] == [3, 3, 3]
    both = make(config("Counter-v0", kwargs={"length": 3}, max_episode_steps=3))
    both.reset()
    _, _, terminated, truncated, _ = play(both, actions(both, 3))[-1]
    assert truncated.all() and terminated.all()


def test_the_time_limit_counts_each_lane_by_itself(make):
    envs = make(config("Counter-v0", max_episode_steps=4))
    envs.reset()
    play(envs, actions(envs, 60))
    lengths = [length for _, length, _ in envs.pop_episodes()]
    assert set(lengths) == {2, 3, 4}  # 2 to 6 by seed, cut at 4


@pytest.mark.parametrize("steps, limit", [(None, 100), (0, None), (-1, None), (7, 7)])
def test_the_registered_limit_holds_unless_the_config_says_otherwise(make, steps, limit):
    envs = make(config("Counter-v0", kwargs={"length": 150}, max_episode_steps=steps), num_envs=1)
    envs.reset()
    play(envs, actions(envs, 150))
    assert envs.pop_episodes()[0][1] == (limit or 150)


def test_episode_records_hold_raw_return_length_and_success(make):
    envs = make(config("Counter-v0", kwargs={"reward": 2.5}))
    envs.reset()
    play(envs, actions(envs, 30))
    episodes = envs.pop_episodes()
    assert len(episodes) > 10 and envs.pop_episodes() == []
    for total, length, success in episodes:
        assert total == 2.5 * length and success == float(length % 2 == 0)
    none = make(config("CartPole-v1"))
    none.reset()
    play(none, actions(none, 60))
    assert {success for *_, success in none.pop_episodes()} == {None}


def test_clip_reward_changes_what_the_learner_sees_and_not_the_record(make):
    envs = make(config("Counter-v0", kwargs={"reward": -1000.0}, wrappers=["clip_reward"]))
    envs.reset()
    seen = play(envs, actions(envs, 10))
    assert {float(r) for _, reward, *_ in seen for r in reward} == {-1.0}
    assert all(total == -1000.0 * length for total, length, _ in envs.pop_episodes())


def test_a_lost_life_ends_an_episode_for_the_learner_but_not_the_game(make):
    envs = make(config("Lives-v0", wrappers=["episodic_life"]), num_envs=1)
    envs.reset()
    seen = play(envs, actions(envs, 10))
    ends = [k for k, (_, _, terminated, *_) in enumerate(seen) if terminated[0]]
    # Lives end at game steps 4, 8 and 12; a no-op step of the game (5, 9) stands at the start of lives 2 and 3.
    assert ends == [3, 6, 9]
    assert [final[0][1][0] for *_, final in seen if final] == [4, 8, 12]
    assert [obs[0, 0] for k, (obs, *_) in enumerate(seen) if k in ends] == [5, 9, 0]
    assert envs.pop_episodes() == [(50.0, 10, None)]


def test_obs_is_one_array_updated_in_place(make):
    envs = make(config("Counter-v0"))
    obs = envs.reset()
    play(envs, actions(envs, 5))
    assert obs is envs.obs


# Seeds


def test_no_episode_seed_is_shared_between_lanes_episodes_run_seeds_and_domains():
    seeds = [episode_seed(s, d, i, e) for s in range(6) for d in range(3) for i in range(6) for e in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_observations_differ_between_lanes_run_seeds_and_domains(make, backend):
    first = [
        envs.reset()[:, 1]
        for seed, domain in [(0, 0), (1, 0), (0, 1), (0, 2)]
        for envs in [make(config("Counter-v0", backend=backend), 4, seed, domain)]
    ]
    assert len(np.unique(np.concatenate(first))) == 16
    again = make(config("Counter-v0", backend=backend), 4, 0, 0)
    assert_equal(again.reset()[:, 1].copy(), first[0].copy())


def test_wrappers_that_sample_actions_get_the_episode_seed(make):
    samples = []
    for _ in range(2):
        envs = make(config("CartPole-v1", wrappers=["flatten"], replay=True), 2)
        envs.reset()
        samples.append([[env.action_space.sample() for _ in range(30)] for env in envs.envs])
    assert samples[0] == samples[1] and samples[0][0] != samples[0][1]


# Backends agree


@pytest.mark.parametrize("id", ["Counter-v0", "Pendulum-v1", "SpacesMulti-v0", "SpacesColor-v0"])
def test_async_equals_sync_to_the_bit(make, id):
    one, two = make(config(id), 5), make(config(id, backend="async", workers=3), 5)
    assert_equal(one.reset().copy(), two.reset().copy())
    some = actions(one, 300)
    assert_equal(play(one, some), play(two, some))
    assert one.episodes == two.episodes


@pytest.mark.parametrize("num_envs", [1, 5, 8, 33])
def test_cartpole_vectorised_equals_sync_to_the_bit(make, num_envs):
    one, two = make(config("CartPole-v1"), num_envs), make(config("CartPole-v1", backend="vector"), num_envs)
    assert_equal(one.reset().copy(), two.reset().copy())
    rng = np.random.default_rng(0)
    for _ in range(1500):  # nearly balanced: short episodes, long ones and the time limit
        x, v, angle, turn = one.obs.T
        action = (angle + 0.5 * turn + 0.1 * x + 0.2 * v > rng.normal(0, 0.06, num_envs)).astype(np.int64)
        assert_equal(play(one, [action]), play(two, [action]))
        assert np.array_equal(two._state.T, [env.state for env in one.envs])  # in float64
    assert one.episodes == two.episodes
    assert {length for _, length, _ in one.episodes} & {500}


# Resume

EXACT = ["CartPole-v1", "LunarLander-v3", "Pendulum-v1", "HalfCheetah-v5", "Counter-v0", "SpacesDict-v0"]


def through_json(state):
    """Arrays and JSON scalars only: what a checkpoint may hold."""
    if isinstance(state, dict):
        return {str(key): through_json(value) for key, value in state.items()}
    if isinstance(state, list):
        return [through_json(value) for value in state]
    if isinstance(state, np.ndarray):
        assert state.dtype != object
        return state.copy()
    return json.loads(json.dumps(state))


@pytest.mark.parametrize(
    "id, backend", [(id, "sync") for id in EXACT] + [("CartPole-v1", "async"), ("CartPole-v1", "vector")]
)
def test_a_restored_run_equals_one_never_stopped(make, id, backend):
    cfg = config(id, backend=backend, max_episode_steps=70)
    straight = make(cfg)
    straight.reset()
    some = actions(straight, 260)
    play(straight, some[:130])
    saved = through_json(straight.state_dict())
    here = straight.obs.copy()
    rest = play(straight, some[130:])

    restored = make(cfg)
    restored.load_state_dict(saved)
    assert_equal(restored.obs.copy(), here)
    assert_equal(play(restored, some[130:]), rest)
    assert restored.pop_episodes() == straight.pop_episodes()
    assert_equal(through_json(restored.state_dict())["lanes"][0]["obs"], straight.obs[0].copy())


def test_states_are_exchangeable_between_backends(make):
    kinds = [config("CartPole-v1", backend=backend) for backend in ("sync", "async", "vector")]
    others = [make(after, seed=99) for after in kinds]
    for before in kinds:
        a = make(before)
        a.reset()
        some = actions(a, 90)
        play(a, some[:45])
        state = through_json(a.state_dict())
        rest = play(a, some[45:])
        for b in others:  # the second and third time from a state in the middle of an episode
            b.load_state_dict(state)
            assert_equal(rest, play(b, some[45:]))


def test_saving_twice_and_into_a_used_environment_changes_nothing(make):
    envs, used = make(config("CartPole-v1")), make(config("CartPole-v1"), seed=5)
    envs.reset(), used.reset()
    some = actions(envs, 100)
    play(envs, some[:50]), play(used, some[:33])
    envs.state_dict()
    used.load_state_dict(envs.state_dict())
    assert_equal(play(envs, some[50:]), play(used, some[50:]))


def test_a_game_with_lives_is_restored_in_its_second_life(make):
    cfg = config("Lives-v0", wrappers=["episodic_life"])
    envs, restored = make(cfg), make(cfg)
    envs.reset()
    some = actions(envs, 40)
    play(envs, some[:5])
    restored.load_state_dict(through_json(envs.state_dict()))
    assert_equal(play(envs, some[5:]), play(restored, some[5:]))
    assert envs.pop_episodes() == restored.pop_episodes()


def test_an_environment_that_does_not_replay_says_so_and_starts_new_episodes_at_each_save(make):
    envs, again = make(config("Random-v0")), make(config("Random-v0"))
    assert not envs.replayable and "does not replay" in envs.notice
    envs.reset()
    play(envs, actions(envs, 25))
    state = through_json(envs.state_dict())
    assert (envs.obs[:, 0] == 0).all()  # the uninterrupted run starts anew as well
    before = envs.pop_episodes()
    again.load_state_dict(state)
    assert again.pop_episodes() == before
    assert_equal(again.obs.copy(), envs.obs.copy())  # the first observation is seeded
    clocks = [[obs[:, 0].tolist() for obs, *_ in play(e, actions(e, 30))] for e in (envs, again)]
    assert clocks[0] == clocks[1]  # and so is all but the noise


@pytest.mark.parametrize("backend", BACKENDS)
def test_replay_false_restarts_equally_in_both_runs(make, backend):
    cfg = config("CartPole-v1", replay=False, backend=backend)
    envs, again = make(cfg), make(cfg)
    assert not envs.replayable and envs.notice is None
    envs.reset()
    some = actions(envs, 80)
    play(envs, some[:40])
    again.load_state_dict(through_json(envs.state_dict()))
    assert_equal(play(envs, some[40:]), play(again, some[40:]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_replay_that_arrives_elsewhere_is_an_error(make, backend):
    cfg = config("CartPole-v1", backend=backend)
    envs = make(cfg)
    envs.reset()
    play(envs, actions(envs, 5))
    state = envs.state_dict()
    state["lanes"][2]["obs"] = np.nextafter(state["lanes"][2]["obs"], np.float32(9))
    with pytest.raises(EnvError, match=r"^env.id=CartPole-v1: .* of env 2 does not replay .* env.replay=false"):
        make(cfg).load_state_dict(state)
    with pytest.raises(EnvError, match=r"^num_envs=2: the saved state has 3 environments$"):
        make(cfg, 2).load_state_dict(state)


def test_the_action_log_keeps_long_open_episodes_beside_short_ones():
    rng = np.random.default_rng(0)
    log, starts, kept = ActionLog((3,), np.uint8, rows=4), [0, 0, 0], []
    for t in range(2000):
        action = rng.integers(0, 200, 3)
        log.put(t, action, starts)
        kept.append(action)
        for i, every in enumerate((5, 700, 1)):
            if (t + 1) % every == 0:
                starts[i] = t + 1
        if t % 13 == 0:
            for i in range(3):
                want = [a[i] for a in kept[starts[i] : t + 1]]
                assert log.get(starts[i], t + 1, i).tolist() == want
    assert len(log.rows) <= 2048


# Faults


FAULTS = {
    "raise": "step raised ZeroDivisionError: boom",
    "nan": "the observation is nan at index 1",
    "inf reward": "the reward is inf",
    "shape": r"the observation has shape \(3,\) instead of \(2,\)",
    "four values": r"step must return \(obs, reward, terminated, truncated, info\)",
}


@pytest.mark.parametrize("fault, backend", [(fault, "sync") for fault in FAULTS] + [("nan", "async")])
def test_a_fault_names_environment_episode_and_step(make, fault, backend):
    kwargs = {"length": 50, "fault": fault, "at": 30}
    envs = make(config("Counter-v0", kwargs=kwargs, backend=backend), 4)
    envs.reset()
    with pytest.raises(
        EnvFault, match=rf"env 0 \(fake_envs:Counter-v0\), episode 0, step 30: {FAULTS[fault]}"
    ) as caught:
        play(envs, actions(envs, 60))
    assert "\n" not in str(caught.value)
    if fault == "raise" and backend == "sync":
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_fault_while_probing_names_the_way_out(make):
    with pytest.raises(EnvFault, match="boom within 20 random actions .*env.replay"):
        make(config("Counter-v0", kwargs={"length": 50, "fault": "raise"}))


def test_a_nan_action_is_named_beside_the_nan_it_caused(make):
    envs = make(config("Pendulum-v1"), 2)
    envs.reset()
    with pytest.raises(EnvFault, match=r"env 1 .* is nan.* after the action \[nan\]"):
        envs.step(np.array([[0.0], [np.nan]]))


def test_a_wrong_action_shape_is_refused(make):
    with pytest.raises(ValueError, match=r"takes actions of shape \(3, 1\), not \(3,\)"):
        envs = make(config("Pendulum-v1"))
        envs.reset()
        envs.step(np.zeros(3))


# The user's mistakes


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"id": "CartPol-v1"}, r"env.id=CartPol-v1: Environment `CartPol` doesn't exist. Did you mean: `CartPole`\?"),
        ({"id": "Taxi-v3"}, r"env.id=Taxi-v3: .*deprecated.*Taxi-v4"),
        ({"id": "CartPole-v9"}, r"env.id=CartPole-v9: .*`v1`"),
        ({"id": "nowhere:Env-v0"}, r"env.id=nowhere:Env-v0: no module nowhere "),
        ({"id": ""}, r"env.id=: Malformed"),
        ({"kwargs": {"speed": 3}}, r"env.kwargs.speed: CartPole-v1 takes no such argument \(there are: "),
        ({"wrappers": ["flaten"]}, r"env.wrappers=flaten: no such wrapper; did you mean 'flatten'\?"),
        ({"wrappers": ["os.system"]}, r"env.wrappers=os.system: no such wrapper \(there are: atari"),
        ({"wrappers": ["atari"]}, r"env.wrappers=atari: CartPole-v1: .*"),
        ({"id": "fake_envs:SpacesText-v0"}, r"env.id=fake_envs:SpacesText-v0: the observation is a Text; rlx takes"),
        ({"id": "fake_envs:SpacesMixed-v0"}, r"env.id=.*: the observation\['image'\] is an image \(8, 9, 3\)"),
        ({"id": "fake_envs:SpacesDictAction-v0"}, r"env.id=.*: the action is a Dict; rlx takes Discrete"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")  # Gymnasium's, of Taxi-v3
def test_a_mistake_is_one_line_that_begins_with_its_key(changes, text):
    with pytest.raises(EnvError, match="^" + text) as caught:
        make_env(EnvConfig(**{"name": "test", "id": "CartPole-v1", **changes}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "id, module, extra",
    [
        ("LunarLander-v3", "Box2D", "box2d"),
        ("Hopper-v5", "mujoco", "mujoco"),
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("MiniGrid-Empty-5x5-v0", "minigrid", "minigrid"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_brings_it(id, module, extra):
    import subprocess
    import sys

    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from rlx.envs.single import *\n"
        f"try: make_env(EnvConfig('x', {id!r}))\n"
        "except EnvError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == f"env.id={id}: its package is missing: {install(extra)}", out.stderr


@pytest.mark.parametrize("backend", ["vector", "envpool"])
def test_backends_that_cannot_do_it_say_so(backend):
    with pytest.raises(EnvError, match=f"^env.(backend={backend}|wrappers=)"):
        make_envs(config("LunarLander-v3", backend=backend, wrappers=["flatten"]), 2, 0)
    with pytest.raises(EnvError, match=f"^env.backend={backend}: "):
        make_envs(config("Counter-v0", backend=backend), 2, 0)


@pytest.mark.parametrize(
    "bad",
    [{"max_episode_steps": -2}, {"workers": 0}, {"step_timeout": 0}, {"backend": "x"}, {"idd": 1}, {"clip_obs": -1}],
)
def test_the_config_refuses_what_is_out_of_range_or_unknown(bad):
    with pytest.raises(ValidationError):
        TypeAdapter(EnvConfig).validate_python({"name": "test", "id": "CartPole-v1", **bad})


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_run_seed_is_one_word(seed):
    with pytest.raises(EnvError, match=f"^seed={seed}: "):
        make_envs(config("CartPole-v1"), 1, seed)


def test_bare_environments_carry_no_checker_and_no_time_limit():
    env = make_env(config("CartPole-v1"))
    assert env is env.unwrapped and not isinstance(env, gym.Wrapper)


def test_mujoco_writes_nothing_to_stdout_or_the_working_directory(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_env(config("HalfCheetah-v5")).close()
    assert capfd.readouterr().out == "" and os.listdir(tmp_path) == []


def test_backend_auto_is_the_compiled_version_or_else_the_array_version_where_it_pays(make, monkeypatch):
    if kernels.load() is not None:
        assert type(make(config("CartPole-v1", backend="auto"), 1)).__name__ == "CompiledEnvs"
        assert type(make(config("Acrobot-v1", backend="auto"), 8)).__name__ == "CompiledEnvs"
        assert type(make(config("Acrobot-v1", backend="auto", seeding="once"), 8)).__name__ == "SyncEnvs"
    monkeypatch.setattr(kernels, "load", lambda: None)
    assert type(make(config("CartPole-v1", backend="auto"), 8)).__name__ == "CartPoleEnvs"
    assert type(make(config("CartPole-v1", backend="auto"), 1)).__name__ == "SyncEnvs"
    assert type(make(config("Acrobot-v1", backend="auto"), 8)).__name__ == "SyncEnvs"


def test_backend_auto_chooses_among_equals_only(make):
    """With an argument CartPole has no equal array version: Gymnasium's own cannot be replayed."""
    auto, sync = (make(config("CartPole-v1", kwargs={"sutton_barto_reward": True}, backend=name), 4)
                  for name in ("auto", "sync"))  # fmt: skip
    assert type(auto) is type(sync) and auto.replayable
    auto.reset(), sync.reset()
    taken = actions(sync, 50)
    assert_equal(play(auto, taken), play(sync, taken))


HELPERS = str(Path(__file__).resolve().parents[1] / "helpers")
TOO_LARGE = """
import numpy as np
from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import EnvFault
cfg = EnvConfig("counter", "fake_envs:Counter-v0", kwargs={"reward": 1e39}, replay=True, backend="BACKEND")
envs = make_envs(cfg, 1, 0)
envs.reset()
try:
    envs.step(np.zeros(1, int))
except EnvFault as error:
    print(error)
envs.close()
"""


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_a_reward_beyond_float32_is_one_line_and_no_warning_of_numpys(backend):
    code = TOO_LARGE.replace("BACKEND", backend)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(PYTHONPATH=HELPERS), capture_output=True, text=True, check=True
    )
    assert done.stdout == "env 0 (fake_envs:Counter-v0), episode 0, step 1: the reward is 1e+39\n" and not done.stderr
