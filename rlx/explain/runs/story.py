"""`rlx explain RUN`: a run in words, from its files alone."""

import contextlib
import shlex
from pathlib import Path

from rlx.explain.runs.record import Record
from rlx.explain.runs.rules import Advice, findings

PARTS = {  # of a run's time
    "time/env": "environments", "time/act": "acting", "time/learn": "learning", "time/eval": "evaluation",
    "time/log": "logging",
}  # fmt: skip
OWN = ("hydra.run.dir", "runs_dir")  # words of a command that say where that run is


def path_of(word: str) -> Path | None:
    """The run directory that a word names. Raises UserError for latest where there is none."""
    if word.partition(":")[0] == "latest":
        from rlx.rundir import reader

        return reader.resolve(word)
    path = Path(word)
    with contextlib.suppress(OSError, ValueError):
        return path if (path / "run.json").is_file() and (path / "config.yaml").is_file() else None
    return None


def explain(path: Path) -> list[str]:
    """The page of a run. Raises UserError where its configuration cannot be read."""
    return [f"run: {path}", *tell(Record.read(path), str(path))]


def tell(record: Record, name: str = "RUN") -> list[str]:
    """The same of a run as data."""
    heard = [finding for _, finding in findings(record)]
    lines = [_what(record), _solved(record), *_promise(record)]
    if heard:
        lines += ["", "what held it back:", *(f"- {finding.text}" for finding in heard)]
    elif record.rows and not record.solved and _ended(record):
        lines += ["", "what held it back: no rule of rlx explain applies"]
    if parts := _time(record):
        lines += ["", parts]
    return [*lines, "", "what to try next:", *(f"    {line}" for line in _next(record, heard, name))]


def _ended(record: Record) -> bool:
    return record.status.get("status") == "finished"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _what(record: Record) -> str:
    state, error = str(record.status.get("status", "unknown")), record.status.get("error")
    seconds = record.series("time/time_elapsed")
    spent = f" in {seconds.last:,.1f} s" if seconds else ""
    total = record.number("total_steps")
    of_total = f" of {total:,.0f}" if total and record.steps < total else ""
    what = f"{record.algorithm} on {record.place}, seed {record.value('seed')}"
    return f"{what}: {state} after {record.steps:,}{of_total} steps{spent}{f' ({error})' if error else ''}"


def solved(path: Path) -> str:
    """The line on its score."""
    return _solved(Record.read(path))


def _solved(record: Record) -> str:
    """Solved when, and steady or not."""
    scores = record.judged
    if not scores:
        return "no score yet: nothing was evaluated and no episode ended"
    best = max(range(len(scores)), key=lambda i: scores.values[i])
    last = f"{_number(scores.last)} at the end"
    most = f"{_number(scores.values[best])} at best (step {scores.steps[best]:,})"
    if record.target is None:
        return f"score: {last}, {most}, {_number(scores.values[0])} at first"
    first = next((i for i, value in enumerate(scores.values) if record.reached(value)), None)
    target = f"target {_number(record.target)}"
    if first is None:
        return f"not solved: {last}, {most}, {target}"
    after = scores.values[first:]
    steady = sum(map(record.reached, after)) / len(after)
    how = "steady since" if steady == 1 else f"reached in {steady:.0%} of the scores since"
    if not record.solved:
        return f"solved at step {scores.steps[first]:,} and lost again: {last}, {target}"
    return f"solved at step {scores.steps[first]:,}, {how}: {last}, {target}"


def _promise(record: Record) -> list[str]:
    """Did it keep what its preset promised?"""
    score, steps, seconds = (record.number(f"expect.{key}") for key in ("score", "steps", "seconds"))
    if score is None or not record.judged:
        return []
    source = record.value("expect.source")
    after = f" after {steps:,.0f} steps" if steps else ""
    promise = f"{_number(score)}{after}{f' in {seconds:g} s' if seconds else ''}"
    if record.target is None:
        verdict = f"open, the run has no {record.value('expect.metric')}"
    elif record.solved:
        verdict = "kept"
    elif steps and record.steps < 0.95 * steps:
        verdict = f"open, it ran {record.steps / steps:.0%} of those steps"
    else:
        verdict = "not kept"
    return [f"promise: {promise} ({source}): {verdict}" if source else f"promise: {promise}: {verdict}"]


def _time(record: Record) -> str:
    shares = {name: series.last for key, name in PARTS.items() if (series := record.series(key))}
    whole = record.series("time/time_elapsed")
    if not shares or not whole:
        return ""
    longest = sorted(shares.items(), key=lambda item: -item[1])
    rows = (f"{name} {share * whole.last:.1f} s ({share:.0%})" for name, share in longest)
    return f"where the time went: {', '.join(rows)}"


def _next(record: Record, heard: list[Advice], name: str) -> list[str]:
    """Commands: the first remedy, then seeds where all is well."""
    words = _words(record)
    if remedy := next((finding.words for finding in heard if finding.words), ()):
        return [shlex.join(["rlx", "train", *_with(words, remedy)]), f"rlx compare {shlex.quote(name)} latest"]
    if not _ended(record):
        return [f"rlx resume {shlex.quote(name)}"]
    if record.solved or record.is_language:
        watch = "rlx eval" if record.facts.scores else "rlx sample" if record.is_language else "rlx play"
        return [f"{watch} {shlex.quote(name)}", shlex.join(["rlx", "train", "-m", *_with(words, ("seed=1,2,3",))])]
    total = record.number("total_steps") or record.steps
    return [f"rlx resume {shlex.quote(name)} total_steps={int(2 * total)}"]


def _words(record: Record) -> list[str]:
    """What was typed behind rlx train."""
    command = record.about.get("command")
    words = [str(word) for word in command[2:]] if isinstance(command, list) else []
    words = [word for word in words if "=" in word and word.partition("=")[0] not in OWN]
    chosen = {word.partition("=")[0] for word in words}
    place = record.place.partition("=")[0]
    missing = {"algo": f"algo={record.algorithm}", place: record.place}
    return [*(word for key, word in missing.items() if key not in chosen and "experiment" not in chosen), *words]


def _with(words: list[str], changes: tuple[str, ...]) -> list[str]:
    """The words, with others in place of those of the same key."""
    keys = {word.partition("=")[0] for word in changes}
    return [*(word for word in words if word.partition("=")[0] not in keys), *changes]
