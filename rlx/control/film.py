"""A short film of one episode, rendered and encoded in a process of its own.

What a renderer does to that process, a crash or a hang, costs the film and not the run. The policy stays in this
process, wherever its weights are: observations come through a pipe, actions go back.
"""

import contextlib
import io
import math
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
from rlx.control import evaluate
from rlx.control.evaluate import Act
from rlx.envs.single import EnvConfig
from rlx.envs.workers import leave_with_parent

SECONDS = 60.0  # for all of it
STEPS, EVERY, FRAMES, WIDTH, FPS = 500, 5, 40, 240, 12  # at most; a frame every EVERY steps, or less often
START = "fork" if sys.platform == "linux" else "spawn"  # elsewhere the system's libraries do not survive a fork

Film = tuple[bytes, int, int]  # a GIF, its width and its height


class NoFilm(Exception):
    """Why, in one line."""


def film(act: Act, cfg: EnvConfig, seed: int, length: float = 0.0) -> Film:
    """Of the episode of the play seed, of about this length. Raises NoFilm."""
    every = max(EVERY, math.ceil(min(length, STEPS) / FRAMES))
    context = cast(Any, mp.get_context(START))
    here, there = context.Pipe()
    maker = context.Process(target=_make, args=(there, cfg, seed, every, own_code.folder()), daemon=True)
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
            here.send(act(value))
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


def _make(pipe: Connection, cfg: EnvConfig, seed: int, every: int, folder: Path) -> None:
    """The process: one episode, whose actions come from the other end."""
    own_code.stand_in(folder)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=leave_with_parent, daemon=True).start()

    def act(obs: Any) -> Any:
        pipe.send(("act", obs))
        return pipe.recv()

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        try:
            pipe.send(("film", _filmed(act, cfg, seed, every)))
        except (Exception, SystemExit) as error:
            raised = f"SystemExit: {error}" if isinstance(error, SystemExit) else str(error)
            pipe.send(("error", (raised.splitlines() or [type(error).__name__])[0]))


def _filmed(act: Act, cfg: EnvConfig, seed: int, every: int) -> Film:
    frames, _, _ = evaluate.render_episode(act, cfg, seed, STEPS, every, WIDTH, most=FRAMES, plainly=True)
    evaluate.save_gif(frames, buffer := io.BytesIO(), FPS)
    return buffer.getvalue(), frames[0].width, frames[0].height
