"""What the command line prints: the live line of a run, its final table, lists of runs. Never imports torch."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# -- a run in progress -----------------------------------------------------------------------------------------


class Live:
    """The live line: %, ETA, steps/s, and how it goes. A terminal gets one line that changes, a file a line each tenth
    of the run."""

    # the metrics that say how it goes, and how they are written
    SHOWN = {
        "rollout/ep_rew_mean": "return {:.1f}",
        "loss": "loss {:.3f}",
        "reward": "reward {:.3f}",
        "eval/greedy_accuracy": "greedy accuracy {:.3f}",
    }

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty() and not os.environ.get("CI")
        self._begin(0)

    def _begin(self, total: int) -> None:
        self.total, self.shown, self.tenth, self.width = total, 0.0, -1, 0

    def announce(self, cfg: Any, path: Path, device: str) -> None:
        with _to_the_end(1):
            self._announce(cfg, device)

    def _announce(self, cfg: Any, device: str) -> None:
        self.finish()
        self._begin(cfg.total_steps)
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
        here = {name: text for name, text in self.SHOWN.items() if metrics.get(name) is not None}
        if "reward" in here:
            here.pop("loss", None)
        if metrics.get("eval/greedy_accuracy") != metrics.get("eval/score"):  # a task that has no right answer
            here.pop("eval/greedy_accuracy", None)
        parts += [text.format(metrics[name]) for name, text in here.items()]
        self._print("  ".join(parts))

    def _print(self, line: str) -> None:
        with _to_the_end(2):
            self._show(line)

    def _show(self, line: str) -> None:
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


@contextlib.contextmanager
def _to_the_end(number: int) -> Iterator[None]:
    """A run goes on when nobody reads stream 1 or 2 any more (`rlx train | head`)."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


# -- what came of it -------------------------------------------------------------------------------------------


def finished(path: Path, found: Mapping[str, Any]) -> None:
    """The final table, the next commands, and the run's path as the last line."""
    from rlx.analysis import runs

    rows = [*_evaluation(found["evaluation"] or {}), *_numbers(found["metrics"])]
    width = max((len(key) for key, _ in rows), default=0)
    print()
    for key, value in rows:
        print(f"  {key:<{width}}  {value}")
    name = quoted(path)
    if runs.place(path) == "task":
        print(f"\nnext: rlx eval {name} --prompts 1000\n      rlx sample {name}\n      rlx dash")
    else:
        print(f"\nnext: rlx eval {name} --episodes 100\n      rlx play {name} --gif out.gif\n      rlx dash")
    print(f"run: {near(path)}")


def _numbers(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    return [
        (f"{prefix}{key}", f"{value:.6g}") for key, value in sorted(found.items()) if isinstance(value, int | float)
    ]


def _evaluation(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "mean_reward" in found:
        text = f"{found['mean_reward']:.2f} +- {found['std_reward']:.2f} over {found['episodes']} episodes"
        return [("eval/mean_reward", text)]
    return _numbers({key: found[key] for key in found if key not in ("step", "score", "seed")}, "eval/")


def evaluated(found: Mapping[str, Any], seed: int) -> None:
    """`rlx eval`."""
    if "returns" in found:
        print(f"{found['mean']:.2f} +- {found['std']:.2f} over {found['n']} episodes (seed {seed})")
        return
    several = {f"{name}@{k}": share for name in ("pass", "maj") for k, share in found.get(f"{name}_at", {}).items()}
    for key, value in [*_numbers(found), *_numbers(several)]:
        print(f"  {key:<17}  {value}")


def sampled(found: Sequence[Mapping[str, Any]]) -> None:
    """`rlx sample`: log-prob, prompt and completion, one line each."""
    for row in found:
        for said in row["completions"]:
            text = f"{row['prompt']}{said['text']}".replace("\n", "\\n")
            print(f"{said['logprob']:9.3f}  {text}{'' if said['ended'] else ' (cut)'}")


def sweep(directory: Path, jobs: Sequence[Mapping[str, Any]], planned: int | None, error: str | None) -> bool:
    """A line for each job, how many finished, and the sweep's path as the last line. True if all finished."""
    from rlx.analysis import runs

    same = set.intersection(*(set(job["overrides"]) for job in jobs)) if jobs else set()
    lines = [("job", "status", "eval", "", "")]
    for job in jobs:
        path = directory / str(job["run"])
        found: dict[str, Any] = runs.show(path) if path.is_dir() else {"status": "not started", "eval": None}
        swept = " ".join(word for word in job["overrides"] if word not in same)
        lines.append((str(job["run"]), found["status"], score(found), swept, str(job["error"] or "")))
    for path in runs.find(directory):  # what came to no end, because its process did
        if path.name not in [job["run"] for job in jobs]:
            found = runs.show(path)
            lines.append((path.name, found["status"], score(found), "", str(found["error"] or "")))
    print()
    if len(lines) > 1:
        table(lines, right=(2,))
    done = sum(job["error"] is None for job in jobs)
    count = max(planned or 0, len(jobs))
    if lost := count - len(jobs):
        print(f"{lost} did not come to an end: {error or 'a worker was killed?'}")
    print(f"{done} of {count} jobs finished")
    print(f"run: {near(directory)}")
    return done == count and error is None


def quoted(path: Path | str) -> str:
    """A path as the shell takes it."""
    return shlex.quote(str(near(Path(path))))


def near(path: Path) -> Path:
    """The path from the working directory, where that is above it."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path


# -- runs that are there ---------------------------------------------------------------------------------------


def score(row: Mapping[str, Any]) -> str:
    try:
        found = row["eval"]
        return f"{found['score']:.3f}" if "task" in row else f"{found['mean_reward']:.2f}"
    except (TypeError, KeyError, ValueError):  # not evaluated, or a damaged file
        return "-"


def ranking(row: Mapping[str, Any]) -> float:
    """A run's score in its last evaluation, to sort by."""
    found = score(row)
    return float("-inf") if found == "-" else float(found)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def place_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Where a run of `rlx ls` learns: env or task, and its name."""
    place = "task" if "task" in row else "env"
    return place, str(row.get(place))


def heading(places: Iterable[str]) -> str:
    """Of a column of environments, tasks or both."""
    return "/".join(sorted(set(places))) or "env"


def listing(rows: Iterable[Mapping[str, Any]]) -> None:
    """`rlx ls`."""
    rows = list(rows)
    lines = [("status", "algo", heading(place_of(row)[0] for row in rows), "seed", "step", "eval", "run")]
    for row in rows:
        named = (row["status"], str(row["algo"]), place_of(row)[1], str(row["seed"]))
        lines.append((*named, _number(row["step"]), score(row), row["run"]))
    table(lines, right=(3, 4, 5))


def details(found: Mapping[str, Any]) -> None:
    """`rlx show`."""
    for key, value in found.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, inner in value.items():
                print(f"  {name}: {_number(inner)}")
        elif key == "policy":
            print("policy:", *(f"  {line}" for line in value.splitlines()), sep="\n")
        elif key == "command" and value:
            print(f"command: {shlex.join(str(word) for word in value)}")
        elif isinstance(value, list):
            print(f"{key}: {'; '.join(str(item) for item in value) or '-'}")
        else:
            print(f"{key}: {'-' if value is None else _number(value)}")


def table(lines: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


NOTES = 6  # of a plot, at most


def plotted(found: Any, out: Path) -> None:
    """`rlx plot`."""
    lines = [(heading(found.kinds.values()), "line", "last", "range of seeds")]
    for name, group in found.panels.items():
        for line in group:
            last = [curve.y[-1] for curve in line.curves]
            lines.append((name, line.label, f"{line.mean[-1]:.6g}", f"{min(last):.6g} to {max(last):.6g}"))
    table(lines, right=(2,))
    if found.notes:
        more = f"; and {len(found.notes) - NOTES} more" if len(found.notes) > NOTES else ""
        print(f"note: {'; '.join(found.notes[:NOTES])}{more}")
    print(f"{out}: {found.metric}")
