"""What a policy thinks of the states of an environment, as a map: of every state of a table, beside the optimum, or
over two dimensions of a Box. How it is drawn is in `map_picture`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rlx.base import global_rngs
from rlx.base.errors import UserError
from rlx.config.schema import Algo
from rlx.control import evaluate
from rlx.control.config import ControlConfig
from rlx.control.policy import Judgement, judge, make_one
from rlx.envs.single import make_env
from rlx.envs.spaces import kind_of, mask_size
from rlx.tabular.mdp import ARROWS, MDP, directions, transition_table, value_iteration

MOST = 5_000  # states of a table
SIDE = 61  # points a side, of two dimensions of a Box
FINITE = 1e3  # a bound beyond it is none


class NoMap(UserError):
    """There is nothing to draw, and why."""


@dataclass
class States:
    """The states of a table: what the policy knows of them, and what is best in them."""

    known: Judgement
    action: np.ndarray  # [S], the greedy one
    best_q: np.ndarray | None  # [S, A], exact
    mdp: MDP | None
    actions: list[str]  # their names

    @property
    def value(self) -> np.ndarray | None:
        return self.known.get("value")

    def words(self) -> str:
        """What there is on the map."""
        known = [name for name in ("value", "q", "probability", "visits") if name in self.known]
        optimum = "; the optimum" if self.best_q is not None else ""
        return f"{len(self.action)} states: {', '.join(known) or 'greedy action'}{optimum}"

    def table(self) -> list[dict[str, Any]]:
        """A row for each state: {state, cell, action, V, Q, pi, visits, V*, Q*}, what is not known left out; Q, pi and
        Q* are {action: number}."""
        q, visits = self.known.get("q"), self.known.get("visits")
        rows = []
        for s in range(len(self.action)):
            row: dict[str, Any] = {"state": s}
            if self.letters:
                row["cell"] = self.letters[s]
            row["action"] = self.actions[int(self.action[s])]
            if self.value is not None:
                row["V"] = float(self.value[s])
            for name, numbers in (("Q", q), ("pi", self.known.get("probability"))):
                if numbers is not None:
                    row[name] = dict(zip(self.actions, map(float, numbers[s])))
            if visits is not None:
                row["visits"] = int(visits[s].sum())
            if self.best_q is not None:
                row["V*"] = float(self.best_q[s].max())
                row["Q*"] = dict(zip(self.actions, map(float, self.best_q[s])))
            rows.append(row)
        return rows

    @property
    def letters(self) -> str:
        """Of each state, where states are the cells of a grid."""
        return "".join(self.mdp.layout) if self.mdp and self.mdp.layout else ""

    @property
    def open(self) -> np.ndarray:
        """[S]: whether there is a choice to be made."""
        if self.letters:
            return np.array([letter in " S.F" for letter in self.letters])
        return np.ones(len(self.action), bool)


class Plane(NamedTuple):
    """Two dimensions of what is observed."""

    names: tuple[str, str]
    low: tuple[float, float]
    high: tuple[float, float]
    observe: Callable[[np.ndarray, np.ndarray], np.ndarray]  # x [N], y [N] -> observations [N, D]
    actions: tuple[str, ...] = ()


@dataclass
class Surface:
    """What is thought at SIDE x SIDE points of a plane: rows from high to low y."""

    plane: Plane
    known: Judgement
    action: np.ndarray  # [SIDE * SIDE, ...]
    discrete: int | None  # how many actions
    path: np.ndarray | None = None  # [T, 2]: an episode

    def words(self) -> str:
        value = "value and policy" if "value" in self.known else "policy"
        return f"{value} over {self.plane.names[0]} and {self.plane.names[1]}"

    def table(self) -> list[dict[str, Any]]:
        raise NoMap("--table: states cannot be counted here; rlx draw RUN draws two dimensions of them")


def build(policy: Any, cfg: ControlConfig[Algo], dims: Sequence[int] | None = None) -> States | Surface:
    """The map of a policy, which may have a method `judge`. `dims`: two dimensions of the observation, else those that
    are known to say most. Raises NoMap."""
    envs = make_one(cfg.env)
    envs.close()
    kind, shape = kind_of(envs.raw_observation_space), envs.observation_space.shape or ()
    masked = mask_size(envs.action_space)
    if kind in ("Discrete", "OneHot") and dims is None:
        return _states(policy, cfg, shape[0] - masked, masked)
    if len(shape) != 1:
        raise NoMap(f"env.id={cfg.env.id}: observations are images; a map needs states of a table or a vector")
    plane, path = _plane(policy, cfg, shape[0] - masked, dims)
    return _surface(policy, plane, path, masked, getattr(envs.action_space, "n", None))


# -- tables ------------------------------------------------------------------------------------------------------


def _states(policy: Any, cfg: ControlConfig[Algo], count: int, masked: int) -> States:
    if count > MOST:
        raise NoMap(f"env.id={cfg.env.id}: has {count:,} states; a map shows at most {MOST:,}")
    obs = np.concatenate([np.eye(count, dtype=np.float32), np.ones((count, masked), np.float32)], 1)
    mdp, best = _exact(cfg)
    if mdp and len(mdp.start) != count:
        mdp = best = None
    known = judge(policy, obs)
    num = next((len(known[name][0]) for name in ("q", "probability") if name in known), 0)
    num = mdp.mean_reward.shape[1] if mdp else num or int(np.max(policy(obs))) + 1
    looks = directions(mdp) if mdp and mdp.layout else []
    words = {"↑": "up", "→": "right", "↓": "down", "←": "left"}
    names = [words.get(look, str(a)) for a, look in enumerate(looks)] or [str(a) for a in range(num)]
    names = own if len(own := _action_names(make_env(cfg.env))) == num else names
    return States(known, np.asarray(policy(obs)), best, mdp, names)


_known: dict[str, tuple[MDP | None, np.ndarray | None]] = {}  # of the environment last asked for: it takes a while


def _exact(cfg: ControlConfig[Algo]) -> tuple[MDP | None, np.ndarray | None]:
    """The environment's transition table and Q*, where it has one."""
    gamma = getattr(cfg.algo, "gamma", None)
    if (key := f"{cfg.env} {gamma}") not in _known:
        mdp = transition_table(cfg.env)
        _known.clear()
        _known[key] = mdp, optimal_values(mdp, gamma) if mdp and gamma is not None else None
    return _known[key]


def optimal_values(mdp: MDP, gamma: float) -> np.ndarray | None:
    """Q*(s, a) [S, A]: discounted without a time limit, or undiscounted within it, at an episode's first step. None
    where neither is finite."""
    if gamma < 1:
        return value_iteration(mdp, gamma)
    if mdp.limit is None:
        return None
    q = np.zeros(mdp.mean_reward.shape)
    for _ in range(mdp.limit):
        q = mdp.backup(q.max(-1))
    return q


def compass(states: States) -> list[int] | None:
    """Of each action of a grid which of up, right, down, left it is; None where some is none of these."""
    if not states.letters or states.mdp is None:
        return None
    arrows = list(ARROWS.values())
    looks = directions(states.mdp)
    return [arrows.index(look) for look in looks] if all(look in arrows for look in looks) else None


# -- two dimensions of a Box -------------------------------------------------------------------------------------


def _at(dims: Sequence[int], rest: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def observe(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        obs = np.tile(rest.astype(np.float32), (len(x), 1))
        obs[:, dims[0]], obs[:, dims[1]] = x, y
        return obs

    return observe


def _pendulum(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(x), np.sin(x), y], 1).astype(np.float32)


PLANES = {
    "CartPoleEnv": Plane(
        ("pole angle, rad (cart at rest in the middle)", "pole velocity, rad/s"), (-0.25, -2.0), (0.25, 2.0),
        _at((2, 3), np.zeros(4)), ("push left", "push right"),
    ),
    "MountainCarEnv": Plane(
        ("position", "velocity"), (-1.2, -0.07), (0.6, 0.07), _at((0, 1), np.zeros(2)), ("left", "none", "right")
    ),
    "Continuous_MountainCarEnv": Plane(
        ("position", "velocity"), (-1.2, -0.07), (0.6, 0.07), _at((0, 1), np.zeros(2)), ("force",)
    ),
    "PendulumEnv": Plane(("angle, rad (0: upright)", "velocity, rad/s"), (-np.pi, -8.0), (np.pi, 8.0), _pendulum,
                         ("torque",)),
}  # fmt: skip


def _plane(
    policy: Any, cfg: ControlConfig[Algo], size: int, dims: Sequence[int] | None
) -> tuple[Plane, np.ndarray | None]:  # fmt: skip
    """Which plane, and an episode in it where one had to be played to see where states are."""
    env = make_env(cfg.env)
    env.close()
    known = None if dims is not None or cfg.env.wrappers else PLANES.get(type(env.unwrapped).__name__)
    if known and known.observe(np.zeros(1), np.zeros(1)).shape[1] == size:
        return known, None
    names = getattr(env.unwrapped, "observation_names", None) or [f"observation {i}" for i in range(size)]
    given = "--dims=" if dims is not None else f"env.id={cfg.env.id}: map_dims="
    dims = dims if dims is not None else getattr(env.unwrapped, "map_dims", (0, 1) if size == 2 else None)
    if dims is None:
        raise NoMap(f"env.id={cfg.env.id}: observations have {size} dimensions; --dims I,J says which two (from 0 on)")
    if len(dims) != 2 or dims[0] == dims[1] or not all(0 <= i < size for i in dims):
        wanted = f"two different dimensions from 0 to {size - 1}"
        raise NoMap(f"{given}{','.join(map(str, dims))}: must be {wanted}, e.g. --dims 0,1")
    space: Any = env.observation_space
    low, high = (np.asarray(getattr(space, side, np.full(size, np.inf)), float).ravel() for side in ("low", "high"))
    path, rest = None, np.zeros(size)
    if size > 2 or not (np.abs([low, high]) < FINITE).all():
        seen = _episode(policy, cfg)
        path, rest = seen[:, dims], np.median(seen, 0)
        room = 0.1 * np.maximum(np.ptp(seen, 0), 1e-3)
        low, high = seen.min(0) - room, seen.max(0) + room
    i, j = dims
    held = ", the others at their medians" if size > 2 else ""
    axes, observe = (f"{names[i]}{held}", names[j]), _at(dims, rest)
    return Plane(axes, (low[i], low[j]), (high[i], high[j]), observe, tuple(_action_names(env))), path


def _action_names(env: Any) -> list[str]:
    """What an environment calls its actions, where it says so."""
    env.close()
    return [str(name) for name in getattr(env.unwrapped, "action_names", None) or ()]


def _episode(policy: Any, cfg: ControlConfig[Algo]) -> np.ndarray:
    """What is observed in an episode of the policy [T, D]."""
    seen: list[np.ndarray] = []

    def act(obs: np.ndarray) -> np.ndarray:
        seen.append(obs[0].copy())
        return policy(obs)

    with global_rngs.seeded(cfg.seed):
        evaluate.evaluate(act, cfg.judged_in, 1, cfg.seed, num_envs=1, max_steps=1000)
    return np.array(seen)


def _surface(policy: Any, plane: Plane, path: np.ndarray | None, masked: int, discrete: int | None) -> Surface:
    x, y = (np.linspace(low, high, SIDE) for low, high in zip(plane.low, plane.high))
    columns, rows = np.meshgrid(x, y[::-1])
    obs = plane.observe(columns.ravel(), rows.ravel())
    obs = np.concatenate([obs, np.ones((len(obs), masked), np.float32)], 1) if masked else obs
    lines = np.split(obs, SIDE)  # one at a time: the whole plane at once would take 10 MB
    known = [judge(policy, line) for line in lines]
    joined = {name: np.concatenate([each[name] for each in known]) for name in known[0]}
    return Surface(plane, joined, np.concatenate([np.asarray(policy(line)) for line in lines]), discrete, path)
