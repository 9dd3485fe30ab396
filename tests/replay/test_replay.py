"""The replay buffer against a list of transitions, in RAM and on disk, and what it promises when a run is stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scipy import stats

from rlx.base.files.atomic import CannotWrite
from rlx.replay.buffer import NO_TRANSITION, Replay, num_frames
from rlx.replay.mapped_log import Segments
from rlx.replay.prioritized import Priorities, SumTree
from rlx.replay.store import Disk, Memory

GAMMA = 0.9


class Fake:
    """Lanes with random episodes. Every frame is numbered, so that no two observations are equal; `stack` of them are
    what is observed. Keeps the list of transitions that the buffer is compared with."""

    def __init__(
        self, lanes: int, stack: int = 0, seed: int = 0, lives: bool = False, gaps: bool = False, states: int = 0,
        actions: gym.Space | None = None,
    ) -> None:  # fmt: skip
        self.num_envs, self.stack, self.lives, self.gaps, self.states = lanes, stack, lives, gaps, states
        self.rng = np.random.default_rng(seed)
        self.shape = (stack, 2, 3) if stack else (states,) if states else (2,)
        self.dtype = np.uint8 if stack else np.float32
        self.observation_space = gym.spaces.Box(0, 255, self.shape, self.dtype)
        self.raw_observation_space = gym.spaces.Discrete(states) if states else self.observation_space
        self.action_space = actions or gym.spaces.Discrete(3)
        self.replayable, self.count = True, 0
        self.obs = np.zeros((lanes, *self.shape), self.dtype)
        self.valid = np.ones(lanes, bool)
        self.resetting = np.zeros(lanes, bool)
        self.lists: list[list[dict[str, Any]]] = [[] for _ in range(lanes)]  # of each lane, a row each

    def reset(self) -> np.ndarray:
        for i in range(self.num_envs):
            self.obs[i] = self.first(i)
        return self.obs

    def frame(self) -> np.ndarray:
        self.count += 1
        if self.states:
            return np.eye(self.states, dtype=np.float32)[self.rng.integers(self.states)]
        return np.array([self.count, -self.count], np.float32) if not self.stack else self._picture()

    def _picture(self) -> np.ndarray:
        return self.rng.integers(0, 256, (1, *self.shape[1:]), np.uint8)

    def first(self, i: int) -> np.ndarray:
        if self.stack and self.lives and self.rng.random() < 0.5:  # a life is lost: the stack goes on
            return np.concatenate([self.obs[i][1:], self.frame()])
        return np.repeat(self.frame(), self.stack, 0) if self.stack else self.frame()

    def next(self, i: int) -> np.ndarray:
        return np.concatenate([self.obs[i][1:], self.frame()]) if self.stack else self.frame()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list]:
        reward = self.rng.standard_normal(self.num_envs).astype(np.float32)
        kind = self.rng.choice(4, self.num_envs, p=[0.7, 0.1, 0.1, 0.1])
        kind[self.resetting] = 0
        terminated, truncated, final = (kind == 1) | (kind == 3), kind >= 2, []
        self.valid = ~self.resetting
        for i in range(self.num_envs):
            after = self.next(i)
            self.lists[i].append(
                {"obs": self.obs[i].copy(), "action": action[i], "reward": reward[i], "after": after.copy(),
                 "terminated": bool(terminated[i]), "done": bool(terminated[i] or truncated[i]), "valid": self.valid[i]}
            )  # fmt: skip
            if kind[i]:
                final.append((i, after.copy()))
                self.obs[i] = after  # lives: the next stack begins with what is seen now
                self.obs[i] = self.first(i)
            else:
                self.obs[i] = after
        self.resetting = (terminated | truncated) if self.gaps else self.resetting
        return reward, terminated, truncated, final

    def expected(self, t: int, i: int, n: int) -> dict[str, Any]:
        """The n-step transition, from the list: n rewards or fewer, and what was seen behind them."""
        row = self.lists[i][t]
        window = [row]
        while len(window) < n and not window[-1]["done"] and t + len(window) < len(self.lists[i]):
            window.append(self.lists[i][t + len(window)])
        return {
            "obs": row["obs"], "action": row["action"], "next_obs": window[-1]["after"],
            "reward": sum(GAMMA**k * float(x["reward"]) for k, x in enumerate(window)),
            "discount": GAMMA ** len(window), "terminated": window[-1]["terminated"],
        }  # fmt: skip


def disk(path: Path, segment_bytes: int = 400) -> Callable[..., Disk]:
    path.mkdir(exist_ok=True)  # the run's directory
    return partial(Disk, directory=path / "buffer", segment_bytes=segment_bytes)


def make(envs: Fake, capacity: int, store: Callable[..., Any], n_step: int = 1, **kwargs: Any) -> Replay:
    return Replay(envs, capacity, store, frames=envs.stack, gamma=GAMMA, n_step=n_step, **kwargs)


def drawn(envs: Fake, rng: np.random.Generator) -> np.ndarray:
    """Actions [N, d] of any size that the space's type holds."""
    shape, whole = (envs.num_envs, *envs.action_space.shape), envs.action_space.dtype != np.float32
    return rng.integers(0, 2, shape) if whole else rng.standard_normal(shape, dtype=np.float32)


def play(envs: Fake, replay: Replay, steps: int, rng: np.random.Generator) -> None:
    if not replay._began:
        replay.begin(envs.reset())
    for _ in range(steps):
        action = rng.integers(0, 3, envs.num_envs) if envs.action_space.shape == () else drawn(envs, rng)
        replay.add(action, *envs.step(action), envs)


def check_all(envs: Fake, replay: Replay, n: int) -> int:
    """Every transition the buffer can give equals the list's; how many they are."""
    N = envs.num_envs
    e = np.arange(replay.first * N, replay.t * N)
    e = e[[envs.lists[k % N][k // N]["valid"] for k in e]]
    got = replay.transitions(e)
    for j, k in enumerate(e):
        expected = envs.expected(k // N, k % N, n)
        if expected["terminated"]:
            del expected["next_obs"]  # never bootstrapped
        for name, value in expected.items():
            np.testing.assert_allclose(got[name][j], value, 1e-5, 1e-6, err_msg=f"{name} of {k}")  # float32
    return len(e)


CASES = [
    {"lanes": 1},
    {"lanes": 3},
    {"lanes": 3, "gaps": True},
    {"lanes": 1, "stack": 4},
    {"lanes": 3, "stack": 4},
    {"lanes": 2, "stack": 4, "lives": True},
    {"lanes": 2, "stack": 2, "gaps": True},
    {"lanes": 2, "actions": gym.spaces.Box(-1, 1, (3,), np.float32)},
    {"lanes": 2, "actions": gym.spaces.MultiDiscrete([2, 300]), "states": 700},
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("where", ["ram", "disk"])
def test_every_transition_is_the_one_of_a_list(case: dict, n: int, where: str, tmp_path: Path) -> None:
    envs, rng = Fake(**case), np.random.default_rng(1)
    replay = make(envs, 60, Memory if where == "ram" else disk(tmp_path), n)
    for steps in (1, 1, 2, 15, 60, 7):  # the ring goes round more than once
        play(envs, replay, steps, rng)
        assert check_all(envs, replay, n) <= len(replay) <= max(60, 2 * envs.num_envs)
    assert replay.first > 0 and len(replay) == 60


def test_the_next_observation_of_a_truncated_step_is_the_final_one_and_no_sample_crosses_an_episode() -> None:
    envs, rng = Fake(2), np.random.default_rng(1)
    replay = make(envs, 1000, Memory)
    play(envs, replay, 300, rng)
    batch = replay.sample(rng, 5000)
    known = {float(row["obs"][0]): float(row["after"][0]) for lane in envs.lists for row in lane}
    on = ~batch["terminated"]
    assert on.any() and (~on).any()
    assert [known[x] for x in batch["obs"][on, 0].tolist()] == batch["next_obs"][on, 0].tolist()


def test_rows_that_were_no_transition_are_never_sampled_and_the_others_equally_often() -> None:
    envs, rng = Fake(2, gaps=True), np.random.default_rng(1)
    replay = make(envs, 100, Memory)
    play(envs, replay, 80, rng)
    count: dict[float, int] = {}
    for x in replay.sample(rng, 50_000)["obs"][:, 0].tolist():
        count[x] = count.get(x, 0) + 1
    rows = [row for lane in envs.lists for row in lane[-50:]]
    good = {float(row["obs"][0]) for row in rows if row["valid"]}
    assert set(count) == good and len(good) < 100
    assert stats.chisquare(list(count.values())).pvalue > 1e-3


def test_a_stack_is_seen_in_the_space_of_the_observations() -> None:
    assert num_frames((4, 84, 84), np.dtype(np.uint8), ["atari", "episodic_life"]) == 4
    assert num_frames((12, 84, 84), np.dtype(np.uint8), ["resize_84", "frame_stack_4"]) == 4
    assert num_frames((4, 84, 84), np.dtype(np.uint8), []) == 4  # a vector environment stacks by itself
    assert num_frames((3, 84, 84), np.dtype(np.uint8), []) == 0  # colours
    assert num_frames((16,), np.dtype(np.float32), ["frame_stack_4"]) == 0


def test_of_stacked_frames_one_each_row_is_stored() -> None:
    envs = Fake(2, stack=4)
    replay = make(envs, 100, Memory)
    play(envs, replay, 200, np.random.default_rng(0))
    assert replay.store._obs.nbytes == (50 + 1 + 3) * 2 * 6  # rows, the open one, history; lanes; a frame of 2 by 3


@pytest.mark.parametrize(
    "space, dtype, size",
    [(gym.spaces.Box(-9, 9, (3,), np.float32), np.float32, 12), (gym.spaces.MultiBinary(5), np.int64, 5),
     (gym.spaces.MultiDiscrete([3, 300]), np.int64, 4), (gym.spaces.Discrete(256), np.int64, 1)],
    ids=lambda x: getattr(x, "__name__", str(x)),
)  # fmt: skip
def test_an_action_comes_back_whole_and_takes_the_smallest_type_that_holds_it(
    space: gym.Space, dtype: type, size: int
) -> None:
    envs, rng = Fake(2, actions=space), np.random.default_rng(0)
    replay = make(envs, 100, Memory)
    play(envs, replay, 20, rng)
    batch, rows = replay.sample(rng, 64), [row for lane in envs.lists for row in lane]
    actions = {float(row["obs"][0]): row["action"] for row in rows}
    np.testing.assert_array_equal(batch["action"], [actions[x] for x in batch["obs"][:, 0].tolist()])
    assert batch["action"].dtype == dtype and replay.store.action[0, 0].nbytes == size


def test_of_a_discrete_observation_its_number_is_stored(tmp_path: Path) -> None:
    envs = Fake(2, states=500)  # as many as Taxi has
    for store in (Memory, disk(tmp_path, 10_000)):
        replay = make(envs, 100, store)
        play(envs, replay, 20, np.random.default_rng(0))
        kept = replay.store.obs(np.arange(4))
        assert kept.dtype == np.uint16 and kept.shape == (4,)
        assert replay.observations(np.arange(4)).dtype == envs.dtype


def test_a_buffer_saved_as_one_hot_vectors_is_read_as_numbers() -> None:
    envs, rng = Fake(2, states=7), np.random.default_rng(0)
    replay = make(envs, 100, Memory)
    play(envs, replay, 30, rng)
    state = replay.state_dict()
    store = state["store"] | {name: np.eye(7, dtype=np.float32)[state["store"][name]] for name in ("obs", "aside")}
    again = make(Fake(2, states=7), 100, Memory)
    again.load_state_dict(state | {"store": store})
    assert equal(again.state_dict()["store"], state["store"])


# -- stopped and gone on


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("where", ["ram", "disk"])
def test_a_restored_buffer_goes_on_as_if_nothing_had_been(
    case: dict, prioritized: bool, where: str, tmp_path: Path
) -> None:
    """It was saved, went on without being saved, and is restored: at every fill of the ring and of the files."""
    kwargs: dict[str, Any] = {"priorities": partial(Priorities, alpha=0.7)} if prioritized else {}
    for steps, more in ((0, 50), (1, 3), (5, 7), (30, 5), (47, 50)):
        store = Memory if where == "ram" else disk(tmp_path / str(steps))
        envs, rng = Fake(**case), np.random.default_rng(1)
        replay = make(envs, 40, store, 2, **kwargs)

        def learn(replay: Replay, rng: np.random.Generator) -> dict[str, Any]:
            batch = replay.sample(rng, 64)
            if prioritized:
                replay.rerank(batch["reward"])
            return batch

        if steps:
            play(envs, replay, steps, rng)
            learn(replay, rng)
        state, seed = replay.state_dict(), Fake(**case)
        play(seed, make(seed, 40, Memory), steps, np.random.default_rng(1)) if steps else None
        draws = [np.random.default_rng(2) for _ in range(2)]
        play(envs, replay, more, draws[0])
        expected = learn(replay, draws[0])
        again = make(seed, 40, store, 2, **kwargs)
        again.load_state_dict(state)
        play(seed, again, more, draws[1])
        assert equal(learn(again, draws[1]), expected)
        assert check_all(seed, again, 2)
        assert equal(again.state_dict()["store"], replay.state_dict()["store"])


def test_new_episodes_without_a_step_cut_the_old_ones_off() -> None:
    """What a checkpoint does to environments that cannot be replayed is a truncation, not a transition."""
    for stack in (0, 4):
        envs, rng = Fake(2, stack), np.random.default_rng(0)
        replay = make(envs, 100, Memory, 3)
        play(envs, replay, 20, rng)
        for i in range(2):
            envs.lists[i][-1]["done"] = True  # as the list sees it
        replay.cut(envs.reset())
        check_all(envs, replay, 3)
        play(envs, replay, 20, rng)
        check_all(envs, replay, 3)


@pytest.mark.parametrize("stack", [0, 4])
def test_a_buffer_on_disk_is_saved_without_being_copied(stack: int, tmp_path: Path) -> None:
    envs = Fake(2, stack)
    replay = make(envs, 1000, disk(tmp_path))
    play(envs, replay, 300, np.random.default_rng(0))

    def size(tree: Any) -> int:
        return sum(map(size, tree.values())) if isinstance(tree, dict) else getattr(tree, "nbytes", 0)

    assert size(replay.state_dict()) < 200
    files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "buffer").iterdir()}
    state = replay.state_dict()["store"]
    play(envs, replay, 5, np.random.default_rng(0))
    for name in ("rows", "aside"):  # what was written is not written again
        per, length = state[name]["per_file"], state[name]["length"]
        for k, sha in state[name]["files"]:
            path = tmp_path / "buffer" / f"{name}_{k:06d}.bin"
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sha and path.read_bytes() == files[path][1]
        assert length // per == len(state[name]["files"])


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    envs = Fake(1)
    replay = make(envs, 100, disk(tmp_path))
    play(envs, replay, 70, np.random.default_rng(0))
    state = replay.state_dict()
    files = sorted((tmp_path / "buffer").glob("rows_*"))
    assert len(files) > 2
    for path in (files[0], files[-1]):
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            make(envs, 100, disk(tmp_path)).load_state_dict(state)
        path.write_bytes(data[:-1])
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            make(envs, 100, disk(tmp_path)).load_state_dict(state)
        path.unlink()
        with pytest.raises(ValueError, match=f"{path.name} is missing"):
            make(envs, 100, disk(tmp_path)).load_state_dict(state)
        path.write_bytes(data)
    data = files[-1].read_bytes()  # behind what was saved anything may stand
    files[-1].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    make(envs, 100, disk(tmp_path)).load_state_dict(state)


def test_the_storage_cannot_change_and_says_so(tmp_path: Path) -> None:
    states = []
    for store in (Memory, disk(tmp_path)):
        envs = Fake(1)
        replay = make(envs, 100, store)
        play(envs, replay, 10, np.random.default_rng(0))
        states.append(replay.state_dict())
    for store, state in ((disk(tmp_path), states[0]), (Memory, states[1])):
        with pytest.raises(ValueError, match="buffer_ram_mb"):
            make(Fake(1), 100, store).load_state_dict(state)
    with pytest.raises(ValueError, match="num_envs=2: the saved buffer has 1 lanes"):
        make(Fake(2), 100, Memory).load_state_dict(states[0])


def test_files_go_when_no_checkpoint_needs_them_and_not_before(tmp_path: Path) -> None:
    """Any periodic checkpoint that is there can be gone on from, whatever has been written since."""
    envs, rng = Fake(1), np.random.default_rng(0)
    replay = make(envs, 20, disk(tmp_path, 60))  # 4 rows a file
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    states: dict[int, Any] = {}
    for _ in range(30):
        play(envs, replay, 10, rng)
        states[replay.t] = replay.state_dict()
        (checkpoints / f"step_{replay.t:012d}.safetensors").touch()
        (checkpoints / "best_000000000010.safetensors").touch()  # does not hold on to the first files for ever
        for old in sorted(states)[:-3]:
            (checkpoints / f"step_{old:012d}.safetensors").unlink()
            del states[old]
    assert replay.store.log.per_file == 4
    files = sorted((tmp_path / "buffer").glob("rows_*"))  # from 20 rows and an open one before step 270 to the open row
    assert [path.name for path in files] == [f"rows_{k:06d}.bin" for k in range((270 - 21) // 4, 300 // 4 + 1)]
    for t, state in states.items():  # reading them deletes what came later: newest first
        copy = tmp_path / f"copy{t}"
        (copy / "buffer").mkdir(parents=True)
        for path in (tmp_path / "buffer").iterdir():
            (copy / "buffer" / path.name).write_bytes(path.read_bytes())
        again = make(Fake(1), 20, disk(copy, 60))
        again.load_state_dict(state)
        assert max(copy.glob("buffer/rows_*")).name == f"rows_{t // 4:06d}.bin"  # what came later is gone
        assert again.t == t and check_all(envs_until(envs, t), again, 1) == 20


def envs_until(envs: Fake, t: int) -> Any:
    cut = SimpleNamespace(num_envs=envs.num_envs, lists=[lane[:t] for lane in envs.lists])
    cut.expected = partial(Fake.expected, cut)
    return cut


def test_a_run_that_starts_anew_finds_no_rows_of_another_life(tmp_path: Path) -> None:
    for seed in (0, 1):
        envs = Fake(1, seed=seed)
        replay = make(envs, 100, disk(tmp_path))
        play(envs, replay, 50 if seed == 0 else 3, np.random.default_rng(seed))
        check_all(envs, replay, 1)
    assert len(list((tmp_path / "buffer").glob("rows_*"))) == 1


def test_a_full_disk_is_an_error_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(CannotWrite, match="rows_000000.bin: No space left on device"):
        make(envs := Fake(1), 100, disk(tmp_path)).begin(envs.reset())


def test_a_log_is_hashed_once_however_often_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Segments(tmp_path, "rows", np.dtype([("x", np.int64)]), 80)
    hashed = 0

    class Counting:
        def __init__(self, data: bytes = b"") -> None:
            self.inner = sha256(data)

        def update(self, data: Any) -> None:
            nonlocal hashed
            hashed += len(data)
            self.inner.update(data)

        def hexdigest(self) -> str:
            return self.inner.hexdigest()

    sha256 = hashlib.sha256
    monkeypatch.setattr("rlx.replay.mapped_log.hashlib.sha256", Counting)
    log.clear()
    for n in range(35):
        block, row = log.at(n)
        block["x"][row] = n
        log.length = n + 1
        log.state(0)
    assert hashed == 35 * 8


# -- priorities


def test_a_sum_tree_finds_the_leaf_of_the_cumulated_sum() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 17, 64, 1000):
        tree, weights = SumTree(size), np.zeros(size)
        for _ in range(5):
            index = rng.integers(0, size, max(1, size // 2))
            weights[index] = new = rng.random(len(index))
            tree.set(index, new)
            assert tree.total == pytest.approx(weights.sum())
            mass = rng.random(200) * tree.total
            np.testing.assert_array_equal(tree.find(mass), np.searchsorted(weights.cumsum(), mass, side="right"))
        other = SumTree(size)
        other.rebuild(tree.leaves)
        np.testing.assert_array_equal(other.nodes, tree.nodes)  # to the last bit


def test_transitions_are_drawn_in_proportion_to_priority_to_the_alpha() -> None:
    rng, errors = np.random.default_rng(0), np.array([0.0, 0.5, 1.0, 2.0, 8.0])
    priorities = Priorities(8, alpha=0.5, eps=0.01)
    priorities.admit(np.arange(5))
    priorities.update(np.arange(5), -errors)  # the size of an error counts
    p = (errors + 0.01) ** 0.5
    draws = np.concatenate([priorities.sample(rng, 1, 0.4)[0] for _ in range(20_000)])
    assert stats.chisquare(np.bincount(draws, minlength=5), 20_000 * p / p.sum()).pvalue > 1e-3
    index, weight = priorities.sample(rng, 64, 0.4)
    expected = (1 / (5 * p / p.sum())) ** 0.4
    np.testing.assert_allclose(weight, (expected[index] / expected[index].max()), rtol=1e-6)
    assert priorities.highest == pytest.approx(8.01)
    priorities.admit(np.array([6]))
    assert priorities.tree.leaves[6] == pytest.approx(8.01**0.5)


def test_alpha_0_is_uniform_and_beta_1_undoes_the_priorities_exactly() -> None:
    """E[w 1{i}] is the same for every transition."""
    rng = np.random.default_rng(0)
    flat = Priorities(4, alpha=0.0)
    flat.admit(np.arange(4))
    flat.update(np.arange(4), np.array([0.1, 1.0, 5.0, 50.0]))
    assert set(flat.tree.leaves.tolist()) == {1.0} and set(flat.sample(rng, 16, 1.0)[1].tolist()) == {1.0}
    steep = Priorities(4, alpha=1.0, eps=0.0)
    steep.admit(np.arange(4))
    steep.update(np.arange(4), np.array([1.0, 2.0, 3.0, 4.0]))
    index, weight = steep.sample(rng, 10_000, 1.0)
    np.testing.assert_allclose(np.bincount(index, weight) / 1000, 1.0, rtol=2e-3)  # stratified: off by a draw each


def test_what_leaves_the_buffer_leaves_the_tree() -> None:
    envs, rng = Fake(3, gaps=True), np.random.default_rng(0)
    replay = make(envs, 30, Memory, priorities=partial(Priorities, alpha=0.6))
    for steps in (1, 4, 20, 3, 55):
        play(envs, replay, steps, rng)
        replay.sample(rng, 8)
        replay.rerank(rng.random(8))
        live = np.flatnonzero(replay.priorities.tree.leaves)
        e = np.arange(replay.first * 3, replay.t * 3)
        good = e[[envs.lists[k % 3][k // 3]["valid"] for k in e]]
        assert sorted(live) == sorted(good % replay._ring) and replay.priorities.count == len(good)
        np.testing.assert_array_equal(np.sort(replay._newest_at(live)), good)
    assert (replay.store.flags == NO_TRANSITION).any()
