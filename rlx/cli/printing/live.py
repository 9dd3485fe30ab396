"""The live line of a run."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rlx.base.paths import near
from rlx.config import registry


@contextlib.contextmanager
def _to_the_end(number: int) -> Iterator[None]:
    """A run goes on when nobody reads stream 1 or 2 any more (`rlx train | head`)."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


class Live:
    """The live line: %, ETA, steps/s, and how it goes. A terminal gets one line that changes, a file a line each tenth
    of the run."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty() and not os.environ.get("CI")
        self._begin(0, {})

    def _begin(self, total: int, formats: Mapping[str, str]) -> None:
        self.formats = formats  # of the metrics that say how it goes
        self.total, self.shown, self.tenth, self.width = total, 0.0, -1, 0

    @_to_the_end(1)
    def announce(self, cfg: Any, _path: Path, device: str) -> None:
        self.finish()
        self._begin(cfg.total_steps, registry.facts(cfg.algo.implementation).shown)
        where = getattr(cfg.place, "id", cfg.place.name)
        print(f"{cfg.algo.name} on {where}, seed {cfg.seed}, {cfg.total_steps:,} steps, device {device}")
        if init := getattr(cfg, "init", None):
            print(f"from {near(Path(init))}")
        if (expect := cfg.expect).score is not None:
            seconds = f", about {expect.seconds:g} s" if expect.seconds else ""
            steps = f" at {expect.steps:,} steps" if expect.steps else ""
            print(f"tuned preset: expect {expect.score:g}{steps}{seconds} ({expect.source or 'no source given'})")
        sys.stdout.flush()

    def passed(self, path: Path) -> None:
        """A run of a chain that goes on with another."""
        self.finish()
        with _to_the_end(1):
            print(f"run: {near(path)}", flush=True)

    def watching(self, grid: Any) -> AbstractContextManager[None]:
        """A grid while it runs."""
        from rlx.cli.printing.grid import watching

        return watching(grid)

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        now, tenth = time.monotonic(), 10 * step // self.total
        due = now - self.shown > 0.2 if self.terminal else tenth > self.tenth
        if not due and step < self.total:
            return
        self.shown, self.tenth = now, tenth
        rate = metrics.get("time/fps") or 0.0
        left = max(0.0, (self.total - step) / rate) if rate else 0.0
        parts = [
            f"{min(100, 100 * step // self.total):3d}%",
            f"{step:,} steps",
            f"{rate:,.0f} steps/s",
            f"ETA {_clock(left)}",
        ]
        here = {name: text for name, text in self.formats.items() if metrics.get(name) is not None}
        if metrics.get("eval/greedy_accuracy") != metrics.get("eval/score"):  # a task that has no right answer
            here.pop("eval/greedy_accuracy", None)
        parts += [text.format(metrics[name]) for name, text in here.items()]
        self._print("  ".join(parts))

    @_to_the_end(2)
    def _print(self, line: str) -> None:
        if self.terminal:
            columns = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
            print("\r" + line[:columns].ljust(min(self.width, columns)), end="", file=sys.stderr, flush=True)
            self.width = len(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def finish(self) -> None:
        if self.terminal and self.width:
            print(file=sys.stderr)
            self.width = 0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
