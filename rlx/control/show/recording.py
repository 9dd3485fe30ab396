"""An episode of a policy as it was played: every frame, what was seen, done and earned, and what the policy thought."""

import contextlib
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from rlx.base import extras, global_rngs
from rlx.base.errors import UserError
from rlx.base.pages.canvas import FAINT, INK, PAPER, font
from rlx.control import evaluate
from rlx.control.policy import Judgement, judge
from rlx.control.show.map_picture import ACTIONS, number
from rlx.envs.episodes import PLAY
from rlx.envs.single import EnvConfig, draw_plainly
from rlx.envs.spaces import EnvError

FPS = 30.0  # of an environment that does not say how fast it is
FASTEST, SLOWEST = 50.0, 7.0  # frames a second of a GIF: viewers slow down what is faster; below it, nothing moves
WIDTH = 400  # pixels of a frame
LINE, CELL, MARGIN = 16, 42, 56  # pixels of a line below the picture, of an action's number, of their name before them
MOST = 18  # actions whose numbers are written


class FilmStep(NamedTuple):
    obs: np.ndarray
    action: Any
    reward: float


@dataclass
class Recording:
    steps: list[FilmStep] = field(default_factory=list)
    frames: list[Image.Image] = field(default_factory=list)  # one more than steps, where `every` is 1
    total: float = 0.0
    fps: float = FPS  # steps a second of the environment
    every: int = 1  # steps between two frames

    def rows(self, one_hot: bool) -> list[dict[str, Any]]:
        """{step, s, a, r} of each step; s of a table is the state's number."""
        rows = []
        for t, step in enumerate(self.steps):
            s = int(step.obs.argmax()) if one_hot else [round(float(x), 4) for x in step.obs.ravel()]
            rows.append({"step": t, "s": s, "a": np.asarray(step.action).tolist(), "r": step.reward})
        return rows


def record(
    policy: Callable[..., np.ndarray], cfg: EnvConfig, seed: int, max_steps: int, width: int | None = None,
    stochastic: bool = False, name: str = "", most: int | None = None, length: float = 0.0, plainly: bool = False,
) -> Recording:  # fmt: skip
    """The episode of a play seed; with a `width` its frames are drawn, and below each what was thought and earned.

    `most`: that many frames at most. Of an episode with more steps (`length`: about how many) only every k-th is drawn,
    at least SLOWEST a second of the environment's time; where these are too many, the film ends before the episode.
    `plainly`: see `draw_plainly`.
    """
    rng = np.random.default_rng([seed, 3]) if stochastic else None
    mode = "rgb_array" if width is not None else None
    made, lines = Recording(), 0
    with global_rngs.seeded(seed), closing(evaluate._opened(cfg, PLAY, seed, max_steps, mode=mode)) as envs:
        if plainly and width is not None:
            draw_plainly(envs.envs[0], width)
        obs = envs.reset()
        fps = (envs.envs[0].metadata or {}).get("render_fps")
        made.fps = float(fps) if isinstance(fps, int | float) and fps > 0 else FPS
        coarsest = max(1, int(made.fps / SLOWEST))
        made.every = 1 if most is None else min(coarsest, max(1, math.ceil(length / most)))
        while True:
            over = envs.results[0] is not None
            if width is not None and (over or len(made.steps) % made.every == 0):
                full = most is not None and len(made.frames) >= most and not over
                cut = full and 2 * made.every > coarsest
                thought = {} if over else {key: value[0] for key, value in judge(policy, obs).items()}
                lines = lines or _lines(thought, width)
                words = f"{name}{': ' if name else ''}step {len(made.steps)}  return {made.total:.5g}"
                words += "  goes on" if cut else ""
                made.frames.append(_framed(_picture(envs.envs[0], cfg, width), words, thought, lines))
                if cut:
                    return made
                if full:
                    del made.frames[1::2]
                    made.every *= 2
            if over:
                return made
            action = policy(obs, rng) if rng is not None else policy(obs)
            seen = obs[0].copy()
            reward = float(envs.step(action)[0][0])
            made.total += reward
            made.steps.append(FilmStep(seen, action[0], reward))


def _picture(env: Any, cfg: EnvConfig, width: int) -> Image.Image:
    try:
        frame = env.render()
    except Exception as error:
        raise EnvError(f"env.id={cfg.id}: cannot render: {type(error).__name__}: {error}") from error
    if not isinstance(frame, np.ndarray):
        raise EnvError(f"env.id={cfg.id}: render gave no picture; it may have no rgb_array mode")
    image = Image.fromarray(np.ascontiguousarray(frame, np.uint8))
    image = image if image.mode == "RGB" else image.convert("RGB")  # which copies even if it is
    if image.width == width:
        return image
    return image.resize(
        (width, max(1, round(image.height * width / image.width))), Image.Resampling.BILINEAR, reducing_gap=1.0
    )


def _numbers(thought: Judgement) -> tuple[str, np.ndarray]:
    """What is written of each action: its probability or its value, where either is known and they are few."""
    for key, label in (("probability", "pi(a|s)"), ("q", "Q(s, a)")):
        if key in thought and len(thought[key]) <= MOST:
            return label, np.asarray(thought[key], float)
    return "", np.zeros(0)


def _lines(thought: Judgement, width: int) -> int:
    """Below the picture."""
    return 1 + math.ceil(len(_numbers(thought)[1]) / _columns(width))


def _columns(width: int) -> int:
    return max(1, (width - MARGIN - 2) // CELL)


def _framed(picture: Image.Image, words: str, thought: Judgement, lines: int) -> Image.Image:
    """The picture with lines below it: step, return and V(s); pi(a|s) or Q(s, a) with a bar for each action."""
    if "value" in thought:
        words += f"  V(s) {number(float(thought['value']))}"
    framed = Image.new("RGB", (picture.width, picture.height + lines * LINE + 6), PAPER)
    framed.paste(picture, (0, 0))
    draw, top = ImageDraw.Draw(framed), picture.height + 3
    size = next((size for size in (12, 11, 10, 9) if font(size).getlength(words) <= picture.width - 8), 8)
    draw.text((4, top), words, INK, font(size))
    label, values = _numbers(thought)
    draw.text((4, top + LINE), label, FAINT, font(11))
    columns = min(len(values), _columns(picture.width))
    for a, value in enumerate(values):
        room = (picture.width - MARGIN - 2) / columns
        x, y = MARGIN + a % columns * room, top + (1 + a // columns) * LINE
        if label.startswith("pi"):
            draw.rectangle((x, y + 2, x + max(1.0, float(value) * (room - 6)), y + LINE - 2), (205, 222, 238))
        best = value == np.nanmax(values)
        draw.text((x + 2, y), f"{a}: {number(float(value))}", ACTIONS[0] if best else FAINT, font(11))
    return framed


def side_by_side(recordings: Sequence[Recording]) -> Recording:
    """Several at once, each until the longest has ended."""
    count = max(len(one.frames) for one in recordings)
    frames = []
    for t in range(count):
        parts = [one.frames[min(t, len(one.frames) - 1)] for one in recordings]
        whole = Image.new("RGB", (sum(p.width for p in parts) + 8 * (len(parts) - 1), parts[0].height), PAPER)
        for i, part in enumerate(parts):
            whole.paste(part, (sum(p.width + 8 for p in parts[:i]), 0))
        frames.append(whole)
    return Recording(frames=frames, fps=recordings[0].fps, every=recordings[0].every)


def write(made: Recording, path: Path, fps: float | None = None) -> None:
    """A GIF or an MP4 at the environment's own speed. A GIF of a faster one than FASTEST leaves frames out."""
    if path.suffix.lower() == ".mp4":
        _write_mp4(made, path, fps or made.fps)
    else:
        write_gif(made, path, fps)


def write_gif(made: Recording, to: Path | IO[bytes], fps: float | None = None, colours: int = 128) -> None:
    fps = fps or made.fps / made.every
    every = math.ceil(fps / FASTEST)
    frames = [*made.frames[:-1:every], made.frames[-1]]
    evaluate.save_gif(frames, to, fps / every, colours)


def _write_mp4(made: Recording, path: Path, fps: float) -> None:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError:
        raise UserError(f"--out={path}: imageio_ffmpeg is not installed ({extras.install('film')})") from None
    width, height = (2 * (side // 2) for side in made.frames[0].size)  # codecs want even sides
    with contextlib.closing(
        imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, macro_block_size=2)
    ) as film:
        film.send(None)
        for frame in made.frames:
            film.send(np.ascontiguousarray(np.asarray(frame)[:height, :width]))
