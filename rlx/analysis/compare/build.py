"""Sides of runs against one another: a score and its interval on each environment, and what each pair's difference is
worth. Returns of different environments are never averaged, only the probability of improvement. Never imports torch.
"""

import itertools
import string
from collections.abc import Sequence
from pathlib import Path

from rlx.analysis import statistics, stopping
from rlx.analysis.compare import notes as caveats
from rlx.analysis.compare.result import ENOUGH, ComparisonData, Pair, Place, Result, Side, possible
from rlx.analysis.curves import scores
from rlx.analysis.curves.build import group, label
from rlx.analysis.curves.curves import full_keys
from rlx.analysis.statistics import Estimate
from rlx.base.errors import UserError
from rlx.rundir import query, reader
from rlx.rundir.query import place_names


def build(
    sides: Sequence[str | Sequence[str]], metric: str = "eval", by: Sequence[str] = (), lower: bool = False
) -> ComparisonData:
    """Everything that is printed. Each word is a side: a run, a directory of runs, a pattern of either. Where there is
    one word only, or keys `by`, or every word is a single run, the runs are grouped by their configuration instead.
    A list of words is one side, too.

    Raises UserError.
    """
    groups = [query.find([side] if isinstance(side, str) else side) for side in sides]
    words = [side if isinstance(side, str) else _together(side) for side in sides]
    every = list(dict.fromkeys(path for paths in groups for path in paths))
    metric = scores.full_metric(every, metric)
    notes: list[str] = []
    single = len(words) > 2 and all(len(paths) == 1 and reader.is_run(Path(word)) for word, paths in zip(words, groups))
    if by or single or len(words) == 1:
        chosen = _grouped(every, metric, by, notes)
        if single:
            notes.append("each word is one run, so they are grouped by configuration (quote a pattern: it is one side)")
    else:
        chosen = [_side(i, word, paths, metric, notes) for i, (word, paths) in enumerate(zip(words, groups))]
    if all(not side.curves for side in chosen):
        hint = " (--metric takes any key of metrics.jsonl)" if metric == "eval" else ""
        raise UserError(f"compare {' '.join(words)}: no finished run has {metric}; {'; '.join(notes)}{hint}")
    if len(chosen) < 2:
        raise UserError(f"compare {' '.join(words)}: there is only one side; name another one (rlx compare 'A*' 'B*')")
    notes += stopping.check({side.name: [curve.config for curve in side.curves] for side in chosen}, "compare")
    names = place_names(curve.place for side in chosen for curve in side.curves)
    result = ComparisonData(metric, lower, chosen, names, notes=notes)
    result.pairs = [_pair(a, b, names, lower) for a, b in itertools.combinations(chosen, 2)]
    result.notes += caveats.notes(result)
    return result


# -- which sides -----------------------------------------------------------------------------------------------


def _side(index: int, word: str, paths: list[Path], metric: str, notes: list[str]) -> Side:
    curves, remarks = scores.read(paths, metric)
    name = _name(index)
    notes += [f"{name}: {remark}" for remark in remarks]
    return Side(name, word, curves, paths)


def _grouped(paths: list[Path], metric: str, by: Sequence[str], notes: list[str]) -> list[Side]:
    """By configuration; on several environments, whose presets differ, by algorithm."""
    curves, remarks = scores.read(paths, metric)
    notes += remarks
    if not curves:
        return []
    keys = full_keys(by, curves)
    if not keys and len({curve.place for curve in curves}) > 1:
        keys = ["algo.name"]
    lines = group(curves, keys)
    label(lines, keys)
    return [
        Side(_name(i), line.label.rpartition(" (")[0], line.curves, [curve.path for curve in line.curves])
        for i, line in enumerate(lines)
    ]


def _together(words: Sequence[str]) -> str:
    return f"{words[0]} and {len(words) - 1} more" if len(words) > 1 else words[0]


def _name(index: int) -> str:
    letters = string.ascii_uppercase
    return letters[index] if index < len(letters) else f"S{index + 1}"


# -- what comes of two sides -----------------------------------------------------------------------------------


def _pair(a: Side, b: Side, names: dict[Place, str], lower: bool) -> Pair:
    shared = [place for place in sorted(names, key=lambda place: place[1:]) if a.on(place) and b.on(place)]
    results = [_result(a, b, place, names[place], lower) for place in shared]
    if len(results) > 1:
        results.append(_overall(a, b, results))
    return Pair(a, b, results)


def _result(a: Side, b: Side, place: Place, name: str, lower: bool) -> Result:
    """In one environment the interval of the difference decides: it covers what it claims from two seeds on, and may
    tell sides apart where no ranking of so few could."""
    x, y = a.scores(place), b.scores(place)
    difference = statistics.difference(x, y, a.strata(place), b.strata(place))
    improvement = statistics.improvement(y, x) if lower else statistics.improvement(x, y)
    result = Result(name, (len(x), len(y)), improvement, possible(place, [*x, *y], difference, difference=True))
    gain = -difference.value if lower else difference.value
    fixed = max(x) == min(x) and max(y) == min(y) and gain and min(result.seeds) > 2
    apart = difference.known and (difference.low or 0.0) * (difference.high or 0.0) > 0
    if apart or fixed:
        result.better = a.name if gain > 0 else b.name
    elif difference.error:
        result.needed = difference.seeds_needed(*result.seeds)
    result.verdict = _verdict(result, a, b, gain) if difference.error or fixed else _fixed(x, y)
    return result


def _fixed(x: list[float], y: list[float]) -> str:
    """The verdict on a difference whose spread is unknown."""
    if min(len(x), len(y)) == 1:
        return "one seed does not show the spread between seeds; start with 5 seeds per side (seed=1,2,3,4,5)"
    if max(x) > min(x) or max(y) > min(y):
        return "no verdict: every configuration has a single run, so the spread between seeds is unknown"
    return f"equal: every seed scored {x[0]:g}" if x[0] == y[0] else "not distinguishable with 2 seeds, which agree"


def _overall(a: Side, b: Side, results: Sequence[Result]) -> Result:
    """Over several environments the probability of improvement decides: it has no unit."""
    estimate = statistics.mean_improvement([result.improvement for result in results])
    seeds = min(min(each.seeds) for each in results), max(max(each.seeds) for each in results)
    total = Result(f"all {len(results)}", seeds, estimate, None)
    if estimate.low is not None and estimate.high is not None and (estimate.low > 0.5 or estimate.high < 0.5):
        total.better = a.name if estimate.value > 0.5 else b.name
    elif estimate.known:
        total.needed = statistics.improvement_seeds(estimate.value, seeds[0], len(results))
    total.verdict = _verdict(total, a, b, estimate.value - 0.5)
    return total


def _verdict(result: Result, a: Side, b: Side, gain: float) -> str:
    few, many = sorted(result.seeds)
    seeds = f"{few} seed{'s' * (few > 1)}" if few == many or not result.difference else f"{few} and {many} seeds"
    if result.better:
        other = b.name if result.better == a.name else a.name
        improvement = result.improvement
        if result.better == b.name:
            improvement = Estimate(1 - improvement.value, 1 - (improvement.high or 0.0), 1 - (improvement.low or 0.0))
        return f"{result.better} is better than {other} (probability of improvement {interval(improvement, few)})"
    if not result.improvement.known:
        return "no verdict: on some environment one side has a single seed, so the spread between seeds is unknown"
    if not gain:
        return f"not distinguishable with {seeds}: the observed difference is 0"
    needed = (f"about {result.needed}" if result.needed else f"more than {statistics.CAP}") + " seeds per side"
    return f"not distinguishable with {seeds}; {needed} would settle it, if the true difference equals the observed one"


def interval(estimate: Estimate, seeds: int = ENOUGH) -> str:
    """.93 [.81, 1.00]; of fewer seeds than ENOUGH the value alone."""

    def short(value: float) -> str:
        return f"{value:.2f}".removeprefix("0") if value < 0.995 else f"{value:.2f}"

    if estimate.low is None or estimate.high is None or seeds < ENOUGH:
        return short(estimate.value)
    return f"{short(estimate.value)} [{short(estimate.low)}, {short(estimate.high)}]"
