"""How a run in progress is shown: a live line, nothing, or JSON."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Literal

from rlx.base.files.paths import near
from rlx.cli.printing.outcomes import finished
from rlx.config import promise, registry
from rlx.rundir.layout import read_config
from rlx.rundir.metrics import finite
from rlx.rundir.provenance import Provenance


@contextlib.contextmanager
def _to_the_end(number: int) -> Iterator[None]:
    """A run goes on when nobody reads stream 1 or 2 any more (`rlx train | head`)."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


How = Literal["lines", "quiet", "json"]


class Live:
    """The live line: %, ETA, steps/s, and how it goes. A terminal gets one line that changes, a file a line each tenth
    of the run. `how`: these lines, nothing, or JSON objects with an "event". `head`: where it says what is trained.
    `also` hears of every step that is logged; `verbose`: losses in the final table, too."""

    def __init__(
        self,
        how: How = "lines",
        head: IO[str] | None = None,
        also: Callable[[int, Mapping[str, Any]], None] | None = None,
        verbose: bool = False,
    ) -> None:
        self.how, self.head, self.also, self.verbose = how, head, also, verbose
        self.terminal = how == "lines" and sys.stderr.isatty() and not os.environ.get("CI")
        self._begin(0, {})

    def _begin(self, total: int, formats: Mapping[str, str]) -> None:
        self.formats = formats  # of the metrics that say how it goes
        self.total, self.shown, self.tenth, self.width = total, 0.0, -1, 0

    def announce(self, cfg: Any, path: Path, device: str) -> None:
        self.finish()
        self._begin(cfg.total_steps, registry.facts(cfg.algo.implementation).shown)
        self._event("begun", run=str(near(path)), algo=cfg.algo.name, seed=cfg.seed, total_steps=cfg.total_steps)
        if self.how == "lines":
            with contextlib.redirect_stdout(self.head or sys.stdout):
                self._heading(cfg, path, device)

    @staticmethod
    @_to_the_end(1)
    def _heading(cfg: Any, path: Path, device: str) -> None:
        where = getattr(cfg.place, "id", cfg.place.name)
        print(f"{cfg.algo.name} on {where}, seed {cfg.seed}, {cfg.total_steps:,} steps, device {device}")
        if init := getattr(cfg, "init", None):
            print(f"from {near(Path(init))}")
        for line in promise.lines(read_config(path), Provenance.read(path).command or []):
            print(line)
        sys.stdout.flush()

    def passed(self, path: Path) -> None:
        """A run of a chain that goes on with another."""
        self.finish()
        with _to_the_end(1):
            print(f"run: {near(path)}", flush=True)

    def watching(self, grid: Any) -> AbstractContextManager[None]:
        """A grid while it runs."""
        if self.how != "lines":
            return contextlib.nullcontext()
        from rlx.cli.printing.grid import watching

        return watching(grid)

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        if self.also:
            self.also(step, metrics)
        if self.how == "quiet":
            return
        now, tenth = time.monotonic(), 10 * step // self.total
        due = now - self.shown > 0.2 if self.terminal else tenth > self.tenth or self.how == "json"
        if not due and step < self.total:
            return
        self.shown, self.tenth = now, tenth
        rate = metrics.get("time/fps") or 0.0
        left = max(0.0, (self.total - step) / rate) if rate else 0.0
        if self.how == "json":
            self._event("step", step=step, total_steps=self.total, seconds_left=round(left, 1), metrics=metrics)
            return
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
    def _event(self, name: str, metrics: Mapping[str, Any] | None = None, **about: Any) -> None:
        """A line for programs, where they listen."""
        if self.how == "json":
            about |= {} if metrics is None else {"metrics": {key: finite(value) for key, value in metrics.items()}}
            print(json.dumps({"event": name, **about}), file=sys.stderr, flush=True)

    @_to_the_end(2)
    def _print(self, line: str) -> None:
        if self.terminal:
            columns = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
            print("\r" + line[:columns].ljust(min(self.width, columns)), end="", file=sys.stderr, flush=True)
            self.width = len(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def ended(self, path: Path, outcome: Mapping[str, Any]) -> None:
        """A run that came to its end; its path is the last line of stdout."""
        if self.how == "lines":
            finished(path, outcome, self.verbose)
            return
        self._event("ended", run=str(near(path)), **{key: outcome[key] for key in ("evaluation", "weights_sha256")})
        print(f"run: {near(path)}")

    def finish(self) -> None:
        if self.terminal and self.width:
            print(file=sys.stderr)
            self.width = 0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
