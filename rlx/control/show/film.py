"""A short film of one episode, as `recording` makes it, rendered and encoded in a process of its own.

A film has FRAMES frames at most, at the environment's own speed: of an episode of more steps every k-th frame, but
seven a second at least, and where these are too many the film ends before the episode and says so. One of more than
BYTES, which an environment with a noisy picture makes, loses every second frame, and again.

What a renderer does to that process, a crash or a hang, costs the film and not the run. The policy stays in this
process, wherever its weights are: observations come through a pipe, actions go back.
"""

import contextlib
import io
import multiprocessing as mp
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from rlx.base.signals import STOPPING, name_of
from rlx.config import own_code
from rlx.control.evaluate import Act
from rlx.control.policy import Judgement, judge
from rlx.control.show import recording
from rlx.envs.single import EnvConfig
from rlx.envs.workers import leave_with_parent

SECONDS = 60.0  # for all of it
STEPS, FRAMES, WIDTH, COLOURS, BYTES = 1000, 50, 240, 64, 100_000  # at most
START = "fork" if sys.platform == "linux" else "spawn"  # elsewhere the system's libraries do not survive a fork

Film = tuple[bytes, int, int]  # a GIF, its width and its height


class NoFilm(Exception):
    """Why, in one line."""


def film(act: Act, cfg: EnvConfig, seed: int, length: float = 0.0) -> Film:
    """Of the episode of the play seed, of about this length. Raises NoFilm."""
    context = cast(Any, mp.get_context(START))
    here, there = context.Pipe()
    maker = context.Process(target=_make, args=(there, cfg, seed, length, own_code.folder()), daemon=True)
    maker.start()
    there.close()  # so that its death is an end of file here
    deadline = time.monotonic() + SECONDS
    try:
        while here.poll(max(0.0, deadline - time.monotonic())):
            kind, value = here.recv()
            if kind == "film":
                return cast(Film, value)
            if kind == "error":
                raise NoFilm(value)
            here.send(_answer(act, kind, value))
        raise NoFilm(f"it took longer than {SECONDS:g} s")
    except (EOFError, OSError):
        maker.join(2.0)
        code = maker.exitcode or 0
        how = f"was killed by {name_of(-code)}" if code < 0 else f"ended with exit code {code}"
        raise NoFilm(f"the process that renders it {how}") from None
    finally:
        maker.kill()
        maker.join(5.0)
        here.close()


def _answer(act: Act, kind: str, obs: Any) -> Any:
    try:
        return act(obs) if kind == "act" else judge(act, obs)
    except Exception as error:
        raise NoFilm(_line(error)) from error


class _Elsewhere:
    """The policy, at the other end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __call__(self, obs: Any) -> Any:
        return self._ask("act", obs)

    def judge(self, obs: Any) -> Judgement:
        return self._ask("judge", obs)

    def _ask(self, what: str, obs: Any) -> Any:
        self._pipe.send((what, obs))
        return self._pipe.recv()


def _make(pipe: Connection, cfg: EnvConfig, seed: int, length: float, folder: Path) -> None:
    """The process: one episode, whose actions come from the other end."""
    own_code.stand_in(folder)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        try:
            pipe.send(("film", _filmed(_Elsewhere(pipe), cfg, seed, length)))
        except (Exception, SystemExit) as error:
            pipe.send(("error", _line(error)))


def _line(error: BaseException) -> str:
    raised = f"SystemExit: {error}" if isinstance(error, SystemExit) else str(error)
    return (raised.splitlines() or [type(error).__name__])[0]


def _filmed(act: Act, cfg: EnvConfig, seed: int, length: float) -> Film:
    made = recording.record(act, cfg, seed, STEPS, WIDTH, most=FRAMES, length=length, plainly=True)
    while True:
        recording.write_gif(made, buffer := io.BytesIO(), colours=COLOURS)
        if len(gif := buffer.getvalue()) <= BYTES or len(made.frames) <= 2:
            return gif, made.frames[0].width, made.frames[0].height
        made.frames = [*made.frames[:-1:2], made.frames[-1]]
        made.every *= 2
