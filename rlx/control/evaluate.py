"""Play episodes with a fixed policy, for scores and for pictures.

Evaluation episode k is seeded with SeedSequence([seed, 1, 0, k]), play with [seed, 2, 0, 0]: never an episode
of training. Rewards are raw and games whole: the wrappers clip_reward and episodic_life are left out.
"""

import contextlib
import copy
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import gymnasium as gym
import numpy as np
from PIL import Image

from rlx.base import global_rngs
from rlx.config.plugins import name_of
from rlx.envs.batch import NO_LIMIT
from rlx.envs.episodes import EVALUATION, LONGEST, PLAY, Episode
from rlx.envs.single import EnvConfig, make_env, reset_options, time_limit
from rlx.envs.sync import SyncEnvs, close
from rlx.envs.wrappers import TRAINING_ONLY

Act = Callable[[np.ndarray], np.ndarray]


@dataclass
class EvalResult:
    """One entry per episode, in episode order; successes where the environment reports them, else None."""

    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    successes: list[float | None] = field(default_factory=list)
    cut: str = ""  # where nothing but LONGEST ended an episode: one line that says so


class _Evaluation(SyncEnvs):
    """Each lane takes the next episode nobody has begun; without one it idles."""

    def __init__(self, *args: Any, episodes: int, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.results: list[Episode | None] = [None] * episodes
        self._begun = 0

    def _begin(self, i: int) -> None:
        if self._begun < len(self.results):
            self._episode[i] = self._begun
            self._begun += 1
            self._start[i], self._return[i] = self._t, 0.0
            self._reset_lane(i, self._seed_of(i, 0))
        else:
            self._start[i] = NO_LIMIT  # counts from there: the time limit never comes
            last: Any = (self._results[i][0], 0.0, False, False, {})
            self._steps[i] = lambda action: last

    def _record(self, i: int, episode: Episode) -> None:
        self.results[self._episode[i]] = episode


TRAIL = 2000  # steps of an episode that are played again


class Kept:
    """The environments of an evaluation, kept for the next one where a used one was shown to be as good as new.

    For that, the episode that the first one has begun with is played again in it: the same seed and actions must give
    the same bits, all through it.
    """

    def __init__(self) -> None:
        self.environments: list[gym.Env] = []
        self._refused = False

    @contextmanager
    def opened(self, make: Callable[..., _Evaluation]) -> Iterator[_Evaluation]:
        """The evaluation that `make` makes of `used` environments, or of new ones."""
        used, self.environments = self.environments, []
        envs = make(used=used)
        trail = None if used or self._refused else _Trail(envs)
        try:
            yield envs
            self._refused = self._refused or (trail is not None and not trail.leads_back())
            if not self._refused:
                self.environments = envs.envs
        finally:
            if not self.environments:
                envs.close()

    def close(self) -> None:
        for env in self.environments:
            close(env, "an evaluation's environment")
        self.environments = []


class _Trail:
    """The first episode of the first lane: its actions, and a sum of what each of its steps gave."""

    def __init__(self, envs: _Evaluation) -> None:
        self._envs, self._actions, self._seen = envs, list[Any](), list[int]()
        step = envs._steps[0]

        def noted(action: Any) -> Any:
            result = step(action)
            if envs._episode[0] == 0 and envs.results[0] is None and len(self._actions) < TRAIL:
                self._actions.append(copy.deepcopy(action))
                self._seen.append(self._sum(result))
            return result

        envs._steps[0] = noted

    def _sum(self, result: Any) -> int:
        obs = result[0] if self._envs._encode is None else self._envs._encode(result[0])
        outcome = np.array([float(value) for value in result[1:4]])
        return zlib.crc32(np.ascontiguousarray(obs).tobytes() + outcome.tobytes())

    def leads_back(self) -> bool:
        envs, env = self._envs, self._envs.envs[0]
        if envs._unseeded is not None:
            return False
        envs._episode[0] = 0
        with contextlib.suppress(Exception):
            envs._reset_lane(0, envs._seed_of(0, 0))
            return [self._sum(env.step(action)) for action in self._actions] == self._seen
        return False


def evaluate(
    act: Act,
    cfg: EnvConfig,
    episodes: int,
    seed: int,
    num_envs: int = 8,
    max_steps: int | None = None,
    kept: Kept | None = None,
) -> EvalResult:
    """Play `episodes` whole episodes with act(obs [N, ...]) -> action [N, ...] (see rlx.envs.spaces). `kept`: of an
    earlier evaluation with the same arguments.

    Episode k is the same whatever num_envs is. max_steps cuts an episode; one of an environment without a limit is cut
    after LONGEST steps: a policy may well walk in circles for ever.
    """
    if episodes < 1:
        return EvalResult()
    make = partial(_opened, cfg, EVALUATION, seed, max_steps, episodes, min(num_envs, episodes))
    with global_rngs.seeded(seed), kept.opened(make) if kept else closing(make()) as envs:
        obs = envs.reset()
        while None in envs.results:
            envs.step(act(obs))
    returns, lengths, successes = zip(*[result for result in envs.results if result is not None])
    cut = f"{cfg.id} has no time limit: an evaluation episode that did not end was cut after {LONGEST:,} steps "
    cut += "(eval_env.max_episode_steps=1000 cuts earlier)"
    unlimited = not max_steps and not time_limit(cfg, envs.envs[0]) and LONGEST in lengths
    return EvalResult(list(returns), list(lengths), list(successes), cut if unlimited else "")


def watch_episode(act: Act, cfg: EnvConfig, seed: int, max_steps: int | None = None) -> tuple[float, int]:
    """(raw return, length) of the episode of a play seed, in a window where there is a display."""
    with (
        global_rngs.seeded(seed),
        closing(_opened(cfg, PLAY, seed, max_steps, mode="human" if has_display() else None)) as envs,
    ):
        obs = envs.reset()
        while envs.results[0] is None:
            envs.step(act(obs))
    total, length, _ = envs.results[0]
    return total, length


def has_display() -> bool:
    """Whether a window can be opened here."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def save_gif(frames: list[Image.Image], path: str | Path | IO[bytes], fps: float = 30.0, colours: int = 128) -> None:
    """An endless GIF; one palette, taken from four of the frames, serves all of them."""
    if not frames:
        raise ValueError("save_gif needs at least one frame")
    frames = [frame.convert("RGB") for frame in frames]
    few = [frames[len(frames) * k // 4] for k in range(4)]
    strip = Image.new("RGB", (few[0].width, sum(frame.height for frame in few)))
    for k, frame in enumerate(few):
        strip.paste(frame, (0, sum(other.height for other in few[:k])))
    palette = strip.quantize(colours)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    # GIF counts in hundredths of a second, and viewers slow down what is below two.
    first.save(path, "GIF", save_all=True, append_images=rest, duration=max(20, round(100 / fps) * 10), loop=0)


def _opened(
    cfg: EnvConfig,
    domain: int,
    seed: int,
    max_steps: int | None,
    episodes: int = 1,
    num_envs: int = 1,
    mode: str | None = None,
    used: Sequence[gym.Env] = (),
) -> _Evaluation:
    """Environments of the whole game, the `used` ones or new ones: resets as the configuration wants them, and nothing
    to restore."""
    cfg = replace(cfg, wrappers=[item for item in cfg.wrappers if name_of(item) not in TRAINING_ONLY])
    environments = list(used) or [make_env(cfg, mode) for _ in range(num_envs)]
    limits = [limit for limit in (time_limit(cfg, environments[0]), max_steps) if limit]
    return _Evaluation(
        cfg.id, environments, episodes=episodes, domain=domain, seed=seed, replay=False, options=reset_options(cfg),
        limit=min(limits, default=LONGEST if domain == EVALUATION else None), seed_once=cfg.seeding == "once",
    )  # fmt: skip
