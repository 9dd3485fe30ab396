"""What docs/results has of an algorithm: a table, a dot a seed, curves."""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def results(name: str) -> list[str]:
    """A row and a curve for each environment with cells in docs/results."""
    lines: list[str] = []
    for folder in sorted((RESULTS / name).glob("*/")):
        cells = [json.loads(path.read_text()) for path in sorted(folder.glob("seed_*.json"))]
        means = [cell["mean"] for cell in cells if "mean" in cell]
        if not means:
            continue
        middle, steps = statistics.median(means), next(cell["steps"] for cell in cells if "mean" in cell)
        seconds = statistics.median(cell["seconds"] for cell in cells if "mean" in cell)
        lines.append(
            f"| {folder.name} | {len(cells)} | {steps:,} | {middle:.4g} | {min(means):.4g} to {max(means):.4g} "
            f"| {seconds:.0f} |"
        )
    if not lines:
        return []
    head = ["## Measured here", "", "Final policy, 100 fresh episodes a seed (tables: the exact value); how: "]
    head[-1] += "[results](../results/README.md)."
    table = [
        "| environment | seeds | steps | median return | worst to best seed | seconds |",
        "|---|---|---|---|---|---|",
    ]
    return [*head, "", *table, *lines, "", *_intervals(name), *_curves(name), ""]


def _intervals(name: str) -> list[str]:
    """A picture an environment: a dot a seed, the interval of the interquartile mean, the target."""
    cells = [each for each in json.loads((RESULTS / "summary.json").read_text()) if each["algo"] == name]
    pictures = []
    for each in cells:
        files = sorted((RESULTS / name / each["env"]).glob("seed_*.json"))
        scores = [cell["mean"] for cell in (json.loads(path.read_text()) for path in files) if "mean" in cell]
        pictures.append(_dots(each, scores))
    if not pictures:
        return []
    words = "Dots: the final policies of the seeds. Bar: 95 % interval of their interquartile mean. Dashed: the target."
    return [words, "", '<div class="seeds">', *pictures, "</div>", ""]


def _dots(cell: Mapping[str, Any], scores: list[float]) -> str:
    target = cell["threshold"]
    low, high = cell["interval"] or (cell["iqm"], cell["iqm"])
    least, most = min([*scores, low, target]), max([*scores, high, target])

    def x(value: float) -> float:
        return 10 + 500 * (value - least) / ((most - least) or 1.0)

    title = f"{cell['env']}: {cell['passed']} of {cell['seeds']} seeds at {target:g} after {cell['steps']:,} steps"
    dots = "".join(f'<circle cx="{x(score):.1f}" cy="32" r="4"/>' for score in scores)
    return (
        f'<svg viewBox="0 0 520 62" role="img" aria-label="{title}"><text x="10" y="12">{title}</text>'
        f'<line class="axis" x1="10" x2="510" y1="32" y2="32"/>'
        f'<rect x="{x(low):.1f}" y="25" width="{max(2.0, x(high) - x(low)):.1f}" height="14"/>'
        f'<line class="target" x1="{x(target):.1f}" x2="{x(target):.1f}" y1="19" y2="45"/>{dots}'
        f'<text x="10" y="58">{least:,.5g}</text><text x="510" y="58" text-anchor="end">{most:,.5g}</text></svg>'
    )


def _curves(name: str) -> list[str]:
    """A small picture an environment: the mean over seeds of the training return, and its range."""
    pictures = []
    for folder in sorted((RESULTS / name).glob("*/")):
        cells = [json.loads(path.read_text()) for path in sorted(folder.glob("seed_*.json"))]
        curves = [cell["curve"] for cell in cells if len(cell.get("curve") or ()) > 1]
        if curves:
            pictures.append(_picture(folder.name, curves))
    return ['<div class="curves">', *pictures, "</div>"] if pictures else []


def _picture(title: str, curves: list[list[list[float]]]) -> str:
    start, end = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    steps = [start + (end - start) * i / 60 for i in range(61)]
    seeds = [[_at(curve, step) for step in steps] for curve in curves]
    low, high = [min(column) for column in zip(*seeds)], [max(column) for column in zip(*seeds)]
    bottom, top = min(low), max(high)

    def points(values: Iterable[float]) -> list[str]:
        span = (top - bottom) or 1.0
        return [f"{44 + 250 * i / 60:.1f},{110 - 90 * (value - bottom) / span:.1f}" for i, value in enumerate(values)]

    mean = [statistics.fmean(column) for column in zip(*seeds)]
    words = f"{title}: mean training return of {len(curves)} seeds from {mean[0]:.4g} to {mean[-1]:.4g}"
    return (
        f'<svg viewBox="0 0 300 130" role="img" aria-label="{words}"><text x="44" y="12">{title}</text>'
        f'<text x="40" y="24" text-anchor="end">{top:.4g}</text><text x="40" y="112" text-anchor="end">{bottom:.4g}'
        f'</text><text x="294" y="126" text-anchor="end">{end:,.0f} steps</text>'
        f'<polygon points="{" ".join(points(high) + points(low)[::-1])}"/>'
        f'<polyline points="{" ".join(points(mean))}"/></svg>'
    )


def _at(curve: list[list[float]], step: float) -> float:
    """The last value before a step."""
    return next((value for at, value in reversed(curve) if at <= step), curve[0][1])
