"""What to know beside a comparison: what else the sides differ in, what so few seeds are worth. Never imports torch."""

from collections.abc import Sequence

from rlx.analysis.compare.result import ENOUGH, ComparisonData, Pair, Place, Side
from rlx.analysis.curves.curves import Curve
from rlx.rundir import query
from rlx.rundir.provenance import Provenance
from rlx.rundir.query import differing

FEW = 10  # seeds below which a note says what intervals of so few are worth
MANY = 4  # differing keys that a note names
IDLE = ("checkpoint_every", "env.workers", "env.step_timeout", "eval_env.workers", "eval_env.step_timeout")  # no score
VERSIONS = ("rlx", "python", "torch", "numpy", "gymnasium", "transformers")


def notes(comparison: ComparisonData) -> list[str]:
    return [
        *(note for side in comparison.sides for note in _pooled(side, comparison.names)),
        *(note for pair in comparison.pairs for note in _unlike(pair, comparison.names)),
        *_worth(comparison),
    ]


def _pooled(side: Side, names: dict[Place, str]) -> list[str]:
    notes = []
    several = dict.fromkeys(curve.path.absolute().parent for curve in side.curves)
    grids = [path.name for path in several if any((path / name).is_file() for name in ("sweep.json", "study.json"))]
    if len(grids) > 1:
        notes.append(f"{side.name} pools the runs of {len(grids)} sweeps: {_few(sorted(grids))}")
    for place in names:
        if keys := _differing(side.on(place)):
            return [*notes, f"{side.name} pools runs that differ in {_few(keys)}"]
    return notes


def _differing(curves: Sequence[Curve]) -> list[str]:
    """The keys that may change a score."""
    return [key for key in differing([curve.config for curve in curves]) if key not in IDLE]


def _unlike(pair: Pair, names: dict[Place, str]) -> list[str]:
    """What else differs between two sides."""
    a, b = pair.first, pair.second
    who, lines = f"{a.name} and {b.name}", []
    if empty := [side.name for side in (a, b) if not side.curves]:
        return [f"{name} has no finished run to compare" for name in empty]
    if not pair.results:
        return [f"{who} have no environment or task in common"]
    if both := {path.resolve() for path in a.paths} & {path.resolve() for path in b.paths}:
        lines.append(f"{who} share {len(both)} run{'s' * (len(both) > 1)}")
    keys: list[str] = []
    for place, name in names.items():
        of, on = a.on(place), b.on(place)
        if of and on:
            keys += [key for key in _differing((*of, *on)) if _values(of, key) != _values(on, key)]
            one, other = (_steps(curves) for curves in (of, on))
            if one != other:
                where = f" on {name}" if len(names) > 1 else ""
                lines.append(f"{who} were trained for different steps{where}: {one} and {other}")
    keys = list(dict.fromkeys(keys))
    named = "algo.name" in keys
    one_sided = _keys(a.curves) ^ _keys(b.curves) if named else set()  # a key that only one of two algorithms has
    rest = [key for key in keys if not (key.startswith(("algo.", "model.")) and key in one_sided)]
    rest = [key for key in rest if key not in ("total_steps", "algo.name", "algo.implementation")]
    if len(rest) > (0 if named else 1):
        lines.append(f"{who} differ in {', '.join(rest)}{' too' if named else ''}")
    return [*lines, *_code(pair, who), *_versions(pair, who)]


def _code(pair: Pair, who: str) -> list[str]:
    """The files that both sides have run and that were not the same."""
    sides = [[Provenance.read(curve.path).hashes for curve in side.curves] for side in (pair.first, pair.second)]
    first, second = ({name for hashes in side for name in hashes} for side in sides)
    changed = [
        name
        for name in sorted(first & second)
        if len({hashes[name] for side in sides for hashes in side if name in hashes}) > 1
    ]
    return [f"{who} ran different code: {_few(changed)}"] if changed else []


def _versions(pair: Pair, who: str) -> list[str]:
    parts = []
    both = [[Provenance.read(curve.path) for curve in side.curves] for side in (pair.first, pair.second)]
    for key in VERSIONS:
        one, other = ({str((record.versions or {}).get(key)) for record in side} for side in both)
        if one != other:
            parts.append(f"{key} {'/'.join(sorted(one))} and {'/'.join(sorted(other))}")
    one, other = ({str((record.git or {}).get("commit"))[:10] for record in side} for side in both)
    if one != other:
        parts.append("git commit")
    return [f"{who} were made by different versions: {', '.join(parts)}"] if parts else []


def _values(curves: Sequence[Curve], key: str) -> set[str]:
    return {query.value_text(curve.config.get(key)) for curve in curves}


def _keys(curves: Sequence[Curve]) -> set[str]:
    return {key for curve in curves for key in curve.config}


def _steps(curves: Sequence[Curve]) -> str:
    """The step counts of some runs, all of them: 8000, or 8000/16000."""
    steps = {curve.config.get("total_steps") for curve in curves}
    return "/".join(str(step) for step in sorted(steps, key=lambda step: step if isinstance(step, int) else 0))


def _few(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - MANY} more" if len(keys) > MANY else ""
    return f"{', '.join(keys[:MANY])}{more}"


def _worth(comparison: ComparisonData) -> list[str]:
    """What the intervals and the verdicts are worth."""
    counts = [len(side.scores(place)) for side in comparison.sides for place in comparison.names if side.scores(place)]
    notes = []
    if tiny := [count for count in counts if count < ENOUGH]:
        notes.append(f"fewer than {ENOUGH} seeds ({min(tiny)}): too few for an interval, so only the scores are shown")
    if few := [count for count in counts if 1 < count < FEW]:
        notes.append(
            f"fewer than {FEW} seeds ({min(few)}): the intervals are Student's, because a plain bootstrap of 3, 5, 10 "
            "seeds covers 75, 89, 94 % instead of 95; if some seeds fail altogether, these cover less, too "
            "(docs/comparing.md)"
        )
    verdicts = sum(len(pair.results) for pair in comparison.pairs)
    if verdicts > 4:
        notes.append(
            f"{verdicts} verdicts at 95 % each: about {verdicts / 20:.1g} of them would be wrong by chance alone"
        )
    return notes
