"""The replay buffer: what happened in the last rows of N lanes, and minibatches of it.

Time-major, like the rollout: row t holds observation, action, reward and flags of step t in every lane, and
transition e = t N + i is step t of lane i. The next observation of e is the observation of e + N, so none is stored
twice; only an episode that was truncated leaves its final observation aside (one that terminated is not bootstrapped
and needs none). Of stacked frames a row keeps the newest, and stacks are put together again when they are sampled;
that the older frames are those of the rows before is verified as each row comes in, and where they are not (an
episode begins, a life is lost) the whole stack is kept aside.

A window of n steps ends early at a termination, a truncation or the newest row, and is bootstrapped from there:

    R = sum_{k<m} gamma^k r_{t+k},   y = R + gamma^m V(s_{t+m}),   m <= n

An action takes the shape of the space and the smallest type that holds it: float32 of a Box, one byte of two choices.
Of Discrete observations a row keeps the number, and the one-hot vector is made again when it is sampled.

Where the rows are kept is the store's matter: in RAM, saved whole, or on disk (see `replay_disk`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlx.envs.batch import Envs
from rlx.envs.spaces import ActionDecoder, num_states
from rlx.replay.prioritized import Priorities
from rlx.replay.store import Store

TERMINATED, TRUNCATED, NO_TRANSITION = 1, 2, 4  # flags
STACK, FINAL = 0, 1  # what an observation kept aside is: the stack a row begins with, the one after its step
Array = np.ndarray


def num_frames(shape: tuple[int, ...], dtype: Any, wrappers: Sequence[str]) -> int:
    """How many frames an observation stacks; 0 where it is no stack. A wrong guess would cost memory, not exactness."""
    if len(shape) != 3 or dtype != np.uint8:
        return 0
    named = [4 if name == "atari" else int(name[12:]) for name in wrappers if name == "atari" or is_stack(name)]
    frames = named[-1] if named else shape[0] if shape[0] in (2, 4, 8) else 0
    return frames if frames > 1 and shape[0] % frames == 0 else 0


def is_stack(name: str) -> bool:
    return name.startswith("frame_stack_") and name[12:].isdigit()


def layout_of(envs: Envs, capacity: int, lanes: int, frames: int) -> tuple[Any, ...]:
    """What a store is made with: slots, lanes, the shape that a row keeps, that of an observation, their types."""
    shape, dtype, actions = envs.observation_space.shape, envs.obs.dtype, ActionDecoder(envs.action_space, "the buffer")
    if states := num_states(envs):
        shape, dtype = (), np.min_scalar_type(states - 1)
    slots = max(2, -(-capacity // lanes)) + 1 + max(0, frames - 1)  # an open row, and what the oldest stacks reach to
    kept = (shape[0] // frames, *shape[1:]) if frames else shape
    return slots, lanes, kept, shape, dtype, (actions.log_dtype, actions.shape)


class Replay:
    """The last `capacity` transitions of N lanes (rounded up to whole rows)."""

    def __init__(
        self,
        envs: Envs,
        capacity: int,
        make_store: Callable[..., Store],
        *,
        frames: int = 0,
        gamma: float = 0.99,
        n_step: int = 1,
        priorities: Callable[[int], Priorities] | None = None,
    ) -> None:
        shape, N = envs.observation_space.shape, envs.num_envs
        self.states = num_states(envs)
        self.num_envs, self.n_step = N, n_step
        self.rows = max(2, -(-capacity // N))
        self.frames, self.channels = frames, shape[0] // frames if frames else 0
        layout = layout_of(envs, capacity, N, frames)
        self._slots = slots = layout[0]
        self._ring = slots * N
        actions = ActionDecoder(envs.action_space, "the buffer")
        self._action_shape = actions.shape
        self._action_dtype = np.float32 if actions.log_dtype == np.float32 else np.int64
        self.store = make_store(*layout)
        self.priorities = priorities(self._ring) if priorities else None
        self._gammas = (gamma ** np.arange(n_step + 1)).astype(np.float32)
        self.t = 0  # complete rows so far
        self._began = False
        self._forgot = 0  # when what is too old was last given up
        self._skipped = False  # whether any row holds a reset that was no transition
        self._open = np.empty(0)  # the newest observations, where they are stacks
        self._age = np.zeros(N, np.int64)
        self._sampled = np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return min(self.t, self.rows) * self.num_envs

    @property
    def first(self) -> int:
        """The oldest row that can be sampled."""
        return max(0, self.t - self.rows)

    @property
    def _reach(self) -> int:
        """The oldest row that a stack of frames can reach back to."""
        return max(0, self.first - max(0, self.frames - 1))

    # -- in ------------------------------------------------------------------------------------------------------

    def begin(self, obs: Array) -> None:
        """The observations [N, ...] of the very first step."""
        self.store.start()
        self._began = True
        self.observe(obs)

    def observe(self, obs: Array) -> None:
        """The observations the next step starts from. A second call replaces the first."""
        if not self.frames:
            self.store.put_obs(self.t, self._packed(obs))
            return
        c, old, t = self.channels, self._open, self.t
        self.store.put_obs(t, obs[:, -c:])
        for i, stack in enumerate(obs):
            if len(old) and np.array_equal(stack[:-c], old[i, c:]):
                self._age[i] = min(self._age[i] + 1, 255)
                continue
            self._age[i] = 0
            key = self._key(t * self.num_envs + i, STACK)
            still = (stack.reshape(self.frames, -1) == stack[-c:].reshape(-1)).all()
            if not still or self.store.aside(key) is not None:
                self.store.put_aside(key, stack)
        self._open = obs.copy()
        self.store.age[t % self._slots] = self._age

    def extend(self, action: Array, reward: Array, obs: Array) -> None:
        """Steps [k, N] in which no episode ended, and the observations [k, N, ...] behind them."""
        assert not self.frames
        rows, store = np.arange(self.t, self.t + len(action)), self.store
        slots = rows % self._slots
        store.action[slots], store.reward[slots], store.flags[slots] = action, reward, 0
        store.put_rows(rows, self._packed(obs))
        self.t += len(rows)

    def add(self, action: Array, reward: Array, terminated: Any, truncated: Any, final: list, envs: Envs) -> None:
        """What a step brought, as `Envs.step` returns it, and the observations the next one starts from."""
        t, store = self.t, self.store
        slot = t % self._slots
        store.action[slot], store.reward[slot] = action, reward
        flags: Any = 0
        if final:
            flags = TERMINATED * terminated + TRUNCATED * truncated
            for i, obs in final:
                if not terminated[i]:
                    store.put_aside(self._key(t * self.num_envs + i, FINAL), self._packed(obs))
        if 0 in envs.valid.tobytes():
            flags, self._skipped = np.where(envs.valid, flags, NO_TRANSITION), True
        store.flags[slot] = flags
        store.put_row(t)
        self.t = t + 1
        self.observe(envs.obs)
        if t >= self.rows and t - self._forgot >= 256:
            self._forgot = t
            store.forget(self._key(self._reach * self.num_envs, STACK))

    def cut(self, obs: Array) -> None:
        """New episodes have begun with `obs`, without a step: the newest row was the last of its episodes."""
        e = (self.t - 1) * self.num_envs + np.arange(self.num_envs)
        if self.t:
            slot = (self.t - 1) % self._slots
            going = np.flatnonzero(self.store.flags[slot] == 0)
            for i, last in zip(going, self.observations(e[going] + self.num_envs)):
                self.store.put_aside(self._key(int(e[i]), FINAL), self._packed(last))
            self.store.flags[slot, going] = TRUNCATED
            self.store.put_row(self.t - 1)
        self.reopen(obs)

    def reopen(self, obs: Array) -> None:
        """The next step starts from `obs` and from nothing that was seen before."""
        self._open = np.empty(0)
        self.observe(obs)

    def _packed(self, obs: Array) -> Array:
        """Observations as a row keeps them."""
        return obs.argmax(-1) if self.states else obs

    def _unpacked(self, kept: Any) -> Array:
        return (kept[..., None] == np.arange(self.states)).astype(np.float32) if self.states else kept

    def _key(self, e: int, kind: int) -> int:
        """Keys of what is kept aside ascend with time: the stacks of a row, its final observations, the next row."""
        t, i = divmod(e, self.num_envs)
        return (2 * t + kind) * self.num_envs + i

    # -- out -----------------------------------------------------------------------------------------------------

    def sample(
        self, rng: np.random.Generator, size: int, beta: float = 1.0, scale: Callable[[Array], Array] | None = None
    ) -> dict[str, Array]:
        """`size` transitions drawn with replacement: uniformly, or by priority with importance weights (`beta`).

        obs, action, reward (of up to n steps, discounted; each through `scale`), next_obs (the true successor of the
        last step; anything where that terminated), terminated, discount (gamma^m), and with priorities weight.
        """
        batch: dict[str, Array] = {}
        if self.priorities:
            self._rank_new_rows()
            self._sampled, batch["weight"] = self.priorities.sample(rng, size, beta)
            e = self._newest_at(self._sampled)
        else:
            e = self._draw(rng, size)
        return batch | self.transitions(e, scale)

    def transitions(self, e: Array, scale: Callable[[Array], Array] | None = None) -> dict[str, Array]:
        """The transitions `e`, see `sample`."""
        N, ring, store, end = self.num_envs, self._ring, self.store, self.t * self.num_envs
        rewards, all_flags = store.reward.reshape(-1), store.flags.reshape(-1)
        at = e % ring
        reward, flags = rewards.take(at), all_flags.take(at)
        reward = scale(reward) if scale else reward
        last, steps = e, np.ones(len(e), np.int64)
        for k in range(1, self.n_step):
            on = np.flatnonzero((flags == 0) & (last + N < end) & (steps == k))
            if not len(on):
                break
            last = last.copy() if last is e else last
            last[on] += N
            steps[on] += 1
            at_last = last[on] % ring
            more = rewards.take(at_last)
            reward[on] += self._gammas[k] * (scale(more) if scale else more)
            flags[on] = all_flags.take(at_last)
        next_obs = self.observations(last + N)
        for j in np.flatnonzero(flags == TRUNCATED):
            next_obs[j] = self._unpacked(store.aside(self._key(int(last[j]), FINAL)))
        return {
            "obs": self.observations(e),
            "action": store.action.reshape(-1, *self._action_shape).take(at, 0).astype(self._action_dtype),
            "reward": reward,
            "next_obs": next_obs,
            "terminated": (flags & TERMINATED).astype(bool),
            "discount": self._gammas.take(steps),
        }

    def recent(self, count: int) -> dict[str, Array]:
        """obs, reward, done, valid of the newest `count` rows (fewer where the buffer is shorter), time first."""
        t = np.arange(max(self.t - count, self.first), self.t)
        slots = t % self._slots
        e = (t[:, None] * self.num_envs + np.arange(self.num_envs)).reshape(-1)
        obs = self.observations(e)
        return {
            "obs": obs.reshape(len(t), self.num_envs, *obs.shape[1:]),
            "reward": self.store.reward[slots],
            "done": (self.store.flags[slots] & (TERMINATED | TRUNCATED)).astype(bool),
            "valid": self.store.flags[slots] != NO_TRANSITION,
        }

    def observations(self, e: Array) -> Array:
        """What was seen before step e, as the environment gave it: a new array [len(e), ...]."""
        if not self.frames:
            return self._unpacked(self.store.obs(e))
        k, c, N = self.frames, self.channels, self.num_envs
        age = self.store.age.reshape(-1).take(e % self._ring).astype(np.int64)
        back = np.minimum(np.arange(k - 1, -1, -1), age[:, None])
        frames = self.store.obs((e[:, None] - N * back).reshape(-1))
        obs = frames.reshape(len(e), k * c, *frames.shape[2:])
        for j in np.flatnonzero(age < k - 1):
            a = int(age[j])
            began = self.store.aside(self._key(int(e[j]) - N * a, STACK))
            if began is not None:
                obs[j, : (k - 1 - a) * c] = began[a * c : (k - 1) * c]
        return obs

    def _draw(self, rng: np.random.Generator, size: int) -> Array:
        low, high = self.first * self.num_envs, self.t * self.num_envs
        e = rng.integers(low, high, size)
        if self._skipped:
            flags = self.store.flags.reshape(-1)
            while len(bad := np.flatnonzero(flags.take(e % self._ring) == NO_TRANSITION)):
                e[bad] = rng.integers(low, high, len(bad))
        return e

    # -- priorities ----------------------------------------------------------------------------------------------

    def _rank_new_rows(self) -> None:
        """New rows are given the highest priority so far; those that can no longer be sampled none."""
        assert self.priorities is not None
        N, ring, ranked = self.num_envs, self._ring, self.priorities.ranked
        self.priorities.clear(np.arange(max(0, ranked - self.rows) * N, min(ranked, self.first) * N) % ring)
        new = np.arange(max(ranked, self.first) * N, self.t * N) % ring
        self.priorities.admit(new[self.store.flags.reshape(-1).take(new) != NO_TRANSITION])
        self.priorities.ranked = self.t

    def rerank(self, td_error: Array) -> None:
        """The errors of the minibatch that was sampled last."""
        assert self.priorities is not None
        self.priorities.update(self._sampled, td_error)

    def _newest_at(self, index: Array) -> Array:
        """The transition that is in the ring at `index`."""
        first = self.first * self.num_envs
        return first + (index - first) % self._ring

    # -- saved and restored --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        if self.priorities:
            self._rank_new_rows()
        self.store.forget(self._key(self._reach * self.num_envs, STACK))
        return {
            "t": self.t,
            "lanes": self.num_envs,
            "began": self._began,
            "age": self._age.copy(),
            "open": self.observations(self.t * self.num_envs + np.arange(self.num_envs)) if self._began else None,
            "store": self.store.state(self._reach, self.t),
            "priorities": self.priorities.state_dict() if self.priorities else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["lanes"] != self.num_envs:
            raise ValueError(f"num_envs={self.num_envs}: the saved buffer has {state['lanes']} lanes")
        self.t, self._began = int(state["t"]), bool(state["began"])
        self._age[:] = state["age"]
        store = state["store"]
        if self.states and "obs" in store and store["obs"].ndim > 2:  # of a version that kept the vectors
            store = {**store, **{name: self._packed(store[name]) for name in ("obs", "aside")}}
        self.store.load(store, self._reach, self.t)
        self._skipped = bool((self.store.flags == NO_TRANSITION).any())
        if self.priorities:
            self.priorities.load_state_dict(state["priorities"])
        if self._began:  # the open row
            obs = np.array(state["open"])
            self.store.put_obs(self.t, obs[:, -self.channels :] if self.frames else self._packed(obs))
            self.store.age[self.t % self._slots] = self._age
            self._open = obs
