"""The page of a report: one HTML file that refers to nothing outside itself. What it holds is in build, how it looks in
templates."""

import base64
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, cast

from rlx import __version__
from rlx.analysis import numbers
from rlx.analysis.compare import build as compare
from rlx.analysis.curves import build
from rlx.analysis.curves.draw import STEPS
from rlx.analysis.names import readable
from rlx.analysis.report import charts
from rlx.analysis.report.build import One, Report, Row, environment
from rlx.analysis.statistics import Estimate
from rlx.base.files import guarded
from rlx.base.pages.render import render
from rlx.rundir import films, query, reader
from rlx.rundir.metrics import MetricsTable, is_number

TEMPLATES = Path(__file__).parent / "templates"
LARGEST = 6_000_000  # bytes of a film that is put into the page
HEATS = 12  # heat maps of tokens
LONGEST = 20_000  # characters of samples or of a drawing


class Panel(NamedTuple):
    """An environment or task, what was drawn of it, and whose lines these are."""

    place: str
    coloured: list[Row]
    grey: int  # how many others
    charts: list[charts.Chart]


class Shown(NamedTuple):
    """Films (what it is, base64), a map (SVG, base64) or a text of a run."""

    place: str
    caption: str
    films: Sequence[tuple[str, str]] = ()
    text: str = ""
    map: str = ""


def html(report: Report) -> str:
    """The whole page."""
    colours = _colours(report)
    return render(
        TEMPLATES, "report.html.jinja", report=report, colours=colours, panels=_panels(report, colours),
        caption=_caption(report.plots),
        looks=[one for place in report.places for find in (_films_of, _map_of) if (one := _shown(report, place, find))],
        heats=_heats(report), named=_named, interval=_between, improvement=compare.interval,
        environment=environment(report.rows), made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        version=__version__, charts=charts, number=numbers.number, short=numbers.short, seconds=numbers.seconds,
        value_text=query.value_text, is_number=is_number,
    )  # fmt: skip


# -- curves ------------------------------------------------------------------------------------------------------


def _colours(report: Report) -> dict[int, str]:
    """A colour for each name, the same everywhere; of more names than colours, for the best of each place."""
    names = list(dict.fromkeys(row.label for row in report.rows))
    if len(names) <= charts.COLOURS:
        return {row.number: f"c{names.index(row.label)}" for row in report.rows}
    places = [[row for row in report.rows if row.place == place] for place in report.places]
    return {row.number: f"c{i}" if i < charts.COLOURS else "grey" for rows in places for i, row in enumerate(rows)}


def _panels(report: Report, colours: Mapping[int, str]) -> list[Panel]:
    panels = []
    for place in report.places:
        rows = {row.identity: row for row in report.rows if row.place == place}
        pictures, drawn = [], dict[int, Row]()
        for picture in report.plots:
            lines = [(rows[line.curves[0].identity], line) for line in picture.panels.get(place, ())]
            if all(len(line.x) == 1 for _, line in lines) and len(report.plots) > 1:
                continue  # a single evaluation, which the table has
            drawn |= {row.number: row for row, _ in lines}
            curves = [
                charts.Polyline(row.label, colours[row.number], line.x, line.mean, line.low, line.high)
                for row, line in lines
            ]
            if not curves:
                continue
            levels = _levels([row for row, _ in lines], picture.metric)
            pictures.append(charts.curves(curves, STEPS[lines[0][0].kind], picture.metric, levels))
        if pictures:
            coloured = [drawn[number] for number in sorted(drawn) if colours[number] != "grey"]
            panels.append(Panel(place, coloured, len(drawn) - len(coloured), pictures))
    return panels


def _levels(rows: Sequence[Row], metric: str) -> list[tuple[float, str]]:
    """What the preset promises and the exact optimum, of a metric that is judged by them."""
    path = rows[0].runs[0].path
    if metric not in reader.facts(path).metrics or metric.endswith("loss"):
        return []
    known: dict[float, str] = {}
    promised = query.raw_config(path).get("expect.score")
    if is_number(promised):
        known[float(cast(float, promised))] = f"promised by the preset: {numbers.number(promised)}"
    for optimum in MetricsTable(path).rows("exact/optimum"):
        if is_number(value := optimum.get("exact/optimum")):
            known[float(cast(float, value))] = f"exact optimum: {numbers.number(value)}"
            break
    return list(known.items())


def _caption(plots: Sequence[build.Plot]) -> str:
    bands = {line.band for drawn in plots for lines in drawn.panels.values() for line in lines}
    if not bands - {None}:
        return "One line per seed."
    words = {"bootstrap95": "95 % bootstrap interval of the mean from 5 seeds on", "min-max": "lowest to highest seed"}
    return f"Line: mean over seeds. Band: {', else '.join(text for kind, text in words.items() if kind in bands)}."


# -- films and samples -------------------------------------------------------------------------------------------


def _shown(report: Report, place: str, find: Callable[[One, str], Shown | None]) -> Shown | None:
    """Of an environment or task the last film, map or samples of its best run that has some."""
    runs = [run for row in report.rows if row.place == place for run in row.scored]
    runs.sort(key=lambda run: -(run.score or 0.0))
    return next((look for run in runs[:10] if (look := find(run, place))), None)


def _map_of(run: One, place: str) -> Shown | None:
    with contextlib.suppress(guarded.Damaged):
        svg = guarded.data(run.path / "map.svg")
        if svg.startswith(b"<svg") and len(svg) <= LARGEST:
            what = f"values and policy of {run.path} by state"
            return Shown(place, what, map=base64.b64encode(svg).decode())
    return None


def _heats(report: Report) -> list[tuple[int, str]]:
    """The heat maps of tokens of a single run, at most HEATS of them over its length: (step, page)."""
    if len(report.runs) != 1:
        return []
    pages = []
    for path in sorted((report.runs[0].path / "samples").glob("step_*.html")):
        with contextlib.suppress(guarded.Damaged):
            if digits := re.fullmatch("step_([0-9]+)", path.stem):
                pages.append((int(digits[1]), guarded.text(path, errors="replace")))
    count = min(HEATS, len(pages))
    return [pages[round(i * (len(pages) - 1) / max(1, count - 1))] for i in range(count)]


def _named(metric: str) -> str:
    """mean return (training) (rollout/ep_rew_mean)"""
    name = readable(metric)
    return name if name == metric else f"{name} ({metric})"


def _between(estimate: Estimate) -> str:
    return f" [{numbers.number(estimate.low)}, {numbers.number(estimate.high)}]" if estimate.known else ""


def _films_of(run: One, place: str) -> Shown | None:
    what = f"{run.path}, score {numbers.number(run.score)}"
    if strip := [film for film in films.strip(run.path) if len(film[1]) <= LARGEST]:
        shown = [
            (f"step {step:,}{'' if step else ', untrained'}", base64.b64encode(gif).decode()) for step, gif in strip
        ]
        return Shown(place, what, shown)
    if samples := _last_samples(run.path):
        step, text = samples
        return Shown(
            place, f"samples at step {step:,} of {what}: reward, then prompt and completion", text=text[:LONGEST]
        )
    if drawing := reader.drawing(run.path):
        return Shown(place, f"the policy of {what}", text=drawing[:LONGEST])
    return None


def _last_samples(run: Path) -> tuple[int, str] | None:
    """(step, text) of the last samples of a language run."""
    for path in sorted((run / "samples").glob("*.txt"), reverse=True):
        with contextlib.suppress(guarded.Damaged):
            if re.fullmatch("[0-9]+", path.stem):
                return int(path.stem), guarded.text(path, errors="replace")
    return None
