"""The page of a report: one HTML file that refers to nothing outside itself. What it holds is in build, how it looks in
templates."""

import base64
import contextlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rlx import __version__
from rlx.analysis import numbers
from rlx.analysis.curves import build
from rlx.analysis.curves.draw import STEPS
from rlx.analysis.report import charts
from rlx.analysis.report.build import One, Report, Row, environment
from rlx.base import guarded, pages
from rlx.rundir import films, query, reader
from rlx.rundir.metrics import is_number

TEMPLATES = Path(__file__).parent / "templates"
LARGEST = 6_000_000  # bytes of a film that is put into the page
LONGEST = 20_000  # characters of samples or of a drawing


class Panel(NamedTuple):
    """An environment or task, what was drawn of it, and whose lines these are."""

    place: str
    coloured: list[Row]
    grey: int  # how many others
    charts: list[charts.Chart]


class Look(NamedTuple):
    """A film (base64) or a text of a run."""

    place: str
    caption: str
    film: str = ""
    text: str = ""


def html(report: Report) -> str:
    """The whole page."""
    colours = _colours(report)
    return pages.render(
        TEMPLATES, "report.html.jinja", report=report, colours=colours, panels=_panels(report, colours),
        caption=_caption(report.plots), keys=query.differing([row.config for row in report.rows]),
        looks=[look for place in report.places if (look := _look(report, place))],
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
            pictures.append(charts.curves(curves, STEPS[lines[0][0].kind], picture.metric))
        if pictures:
            coloured = [drawn[number] for number in sorted(drawn) if colours[number] != "grey"]
            panels.append(Panel(place, coloured, len(drawn) - len(coloured), pictures))
    return panels


def _caption(plots: Sequence[build.Plot]) -> str:
    bands = {line.band for drawn in plots for lines in drawn.panels.values() for line in lines}
    if not bands - {None}:
        return "One seed a line."
    words = {"bootstrap95": "95 % bootstrap interval of the mean from 5 seeds on", "min-max": "lowest to highest seed"}
    return f"Line: mean over seeds. Band: {', else '.join(text for kind, text in words.items() if kind in bands)}."


# -- films and samples -------------------------------------------------------------------------------------------


def _look(report: Report, place: str) -> Look | None:
    """Of an environment or task the last film or samples of its best run that has some."""
    runs = [run for row in report.rows if row.place == place for run in row.scored]
    runs.sort(key=lambda run: -(run.score or 0.0))
    return next((look for run in runs[:10] if (look := _look_of(run, place))), None)


def _look_of(run: One, place: str) -> Look | None:
    what = f"{run.path}, score {numbers.number(run.score)}"
    if (film := films.last(run.path)) and len(film[1]) <= LARGEST:
        return Look(place, f"step {film[0]:,} of {what}", film=base64.b64encode(film[1]).decode())
    if samples := _last_samples(run.path):
        step, text = samples
        return Look(
            place, f"samples at step {step:,} of {what}: reward, then prompt and completion", text=text[:LONGEST]
        )
    if drawing := reader.drawing(run.path):
        return Look(place, f"the policy of {what}", text=drawing[:LONGEST])
    return None


def _last_samples(run: Path) -> tuple[int, str] | None:
    """(step, text) of the last samples of a language run."""
    for path in sorted((run / "samples").glob("*.txt"), reverse=True):
        with contextlib.suppress(guarded.Damaged):
            if re.fullmatch("[0-9]+", path.stem):
                return int(path.stem), guarded.text(path, errors="replace")
    return None
