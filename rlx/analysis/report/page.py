"""The page of a report: one HTML file that refers to nothing outside itself. What it holds is in report."""

from __future__ import annotations

import base64
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from rlx import __version__
from rlx.analysis.curves import build as plot
from rlx.analysis.report import charts
from rlx.analysis.report import media as films
from rlx.analysis.report import search as report_study
from rlx.analysis.report.build import One, Report, Row, environment
from rlx.analysis.report.html import cell, figure, number, raw, seconds, state, states, table
from rlx.analysis.report.style import SCRIPT, STYLE
from rlx.rundir import query as reading

LARGEST = 6_000_000  # bytes of a film that is put into the page
FEW = 6  # configurations that stand side by side; more stand one below the other
SHOWN = 12  # commands that are not folded away
SAFE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def html(report: Report) -> str:
    """The whole page."""
    parts = [
        _head(report),
        *map(report_study.html, report.studies),
        _results(report),
        _curves(report),
        _differences(report),
    ]
    parts += [_media(report), _failures(report), _repeat(report)]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f'<meta http-equiv="Content-Security-Policy" content="{SAFE}">',
            f"<title>{escape(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            *(part for part in parts if part),
            f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
        ]
    )


def _head(report: Report) -> str:
    runs = [run for row in report.rows for run in row.runs]
    count = f"{len(runs)} run{_s(runs)} of {len(report.rows)} configuration{_s(report.rows)}"
    where = ", ".join(report.places)
    came_of = states(Counter(run.status for run in runs))
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    notes = "".join(f'<p class="faint">{escape(note)}</p>' for note in report.notes)
    return (
        f"<h1>{escape(report.title)}</h1>\n<p>{count} on {escape(where)}: {came_of}</p>\n"
        f'<p class="faint">{escape(" ".join(report.words))}, {made}, rlx {__version__}</p>{notes}'
    )


# -- results -----------------------------------------------------------------------------------------------------


def _results(report: Report) -> str:
    several = len(report.places) > 1
    heads = [("#", "n"), *([("where", "")] if several else []), ("configuration", ""), ("seeds", "n"), ("IQM", "n")]
    heads += [("95 % interval", "n"), ("best seed", "n"), ("worst seed", "n"), ("steps", "n"), ("wall time", "n")]
    colours = _colours(report)
    rows = [_result(row, colours[row.number], several) for row in report.rows]
    return (
        f'<h2>Results</h2>\n<p class="faint">Score: the last evaluation (without one, the last '
        f"{escape(report.metric)}). IQM: mean of the middle half of the seeds that finished. Wall time: over all "
        f"seeds.</p>\n{table([*heads, ('runs', '')], rows)}"
    )


def _result(row: Row, colour: int | None, several: bool) -> str:
    found, scored = row.estimate, row.scored
    swatch = "" if colour is None else f'<span class="swatch c{colour}"></span>'
    steps, spent = max(run.step for run in row.runs), sum(run.seconds for run in row.runs)
    cells = [
        cell(row.number, "n"),
        *([cell(row.place)] if several else []),
        raw(swatch + escape(row.label), "label", row.label),
        cell(len({str(run.seed) for run in row.runs}), "n"),
        cell(number(found.value), "n", found.value) if found else cell("", "n"),
        cell(f"{number(found.low)} to {number(found.high)}", "n", found.low)
        if found and found.known
        else cell("", "n"),
        _seed(scored[:1]),
        _seed(scored[-1:]),
        cell(charts.short(steps), "n", steps),
        cell(seconds(spent), "n", spent),
        raw(states(row.statuses)),
    ]
    return "".join(cells)


def _seed(found: Sequence[One]) -> str:
    if not found:
        return cell("", "n")
    seed = f'<span class="faint" title="{escape(str(found[0].path))}">(s{escape(str(found[0].seed))})</span>'
    return raw(f"{number(found[0].score)} {seed}", "n", found[0].score)


def _failures(report: Report) -> str:
    """Every run that did not come to its end, with the reason. What a search has pruned stands with its trials."""
    rows = [
        cell(row.number, "n") + cell(run.path.name) + raw(state(run.status)) + cell(f"{run.step:,}", "n", run.step)
        + cell(run.error or "", "error")
        for row in report.rows
        for run in row.runs
        if run.status not in ("finished", "pruned")
    ]  # fmt: skip
    heads = [("#", "n"), ("run", ""), ("status", ""), ("step", "n"), ("why", "")]
    return f"<h2>Runs that did not finish</h2>\n{table(heads, rows)}" if rows else ""


# -- curves ------------------------------------------------------------------------------------------------------


def _colours(report: Report) -> dict[int, int | None]:
    """A colour for each name, the same everywhere; of more names than colours, for the best of each place."""
    names = list(dict.fromkeys(row.label for row in report.rows))
    if len(names) <= charts.COLOURS:
        return {row.number: names.index(row.label) for row in report.rows}
    found: dict[int, int | None] = {}
    for place in report.places:
        for index, row in enumerate(row for row in report.rows if row.place == place):
            found[row.number] = index if index < charts.COLOURS else None
    return found


def _curves(report: Report) -> str:
    colours, found = _colours(report), []
    for place in report.places:
        rows = {row.identity: row for row in report.rows if row.place == place}
        figures, drawn = [], dict[int, Row]()
        for picture in report.plots:
            lines = [(rows[line.curves[0].identity], line) for line in picture.panels.get(place, ())]
            if all(len(line.x) == 1 for _, line in lines) and len(report.plots) > 1:
                continue  # a single evaluation, which the table has
            drawn |= {row.number: row for row, _ in lines}
            given = [
                charts.Curve(row.label, colours[row.number], line.x, line.mean, line.low, line.high)
                for row, line in lines
            ]
            unit = {"env": "environment steps", "task": "optimiser steps"}[lines[0][0].kind]
            figures.append(figure(picture.metric, charts.curves(given, unit, picture.metric)))
        if figures:
            heading = f"<h3>{escape(place)}</h3>\n" if len(report.places) > 1 else ""
            legend = _legend([drawn[number] for number in sorted(drawn)], colours)
            found.append(f'{heading}{legend}\n<div class="charts">{"".join(figures)}</div>')
    if not found:
        return ""
    return f'<h2>Learning curves</h2>\n<p class="faint">{escape(_caption(report.plots))}</p>\n' + "\n".join(found)


def _legend(rows: Sequence[Row], colours: Mapping[int, int | None]) -> str:
    named = [row for row in rows if colours[row.number] is not None]
    words = [f'<span><i class="c{colours[row.number]}"></i><b>{escape(row.label)}</b></span>' for row in named]
    if grey := len(rows) - len(named):
        words.append(f'<span class="faint">grey: {grey} more</span>')
    return f'<div class="legend">{"".join(words)}</div>'


def _caption(plots: Sequence[plot.Plot]) -> str:
    bands = {line.band for drawn in plots for lines in drawn.panels.values() for line in lines}
    if not bands - {None}:
        return "One seed a line."
    words = {"bootstrap95": "95 % bootstrap interval of the mean from 5 seeds on", "min-max": "lowest to highest seed"}
    return f"Line: mean over seeds. Band: {', else '.join(text for kind, text in words.items() if kind in bands)}."


# -- configurations ----------------------------------------------------------------------------------------------


def _differences(report: Report) -> str:
    configs = [row.config for row in report.rows]
    keys = reading.differing(configs)
    if not keys:
        return ""
    texts = [{key: reading.value_text(config[key]) if key in config else "" for key in keys} for config in configs]
    if len(configs) <= FEW:
        heads = [("key", ""), *((f"{row.number} {row.label}", "") for row in report.rows)]
        rows = [raw(f"<code>{escape(key)}</code>") + "".join(cell(text[key]) for text in texts) for key in keys]
    else:
        heads = [("#", "n"), *((key, "") for key in keys)]
        numbers = [cell(row.number, "n") for row in report.rows]
        rows = [first + "".join(cell(text[key]) for key in keys) for first, text in zip(numbers, texts)]
    return f"<h2>What the configurations differ in</h2>\n{table(heads, rows)}"


# -- films and samples -------------------------------------------------------------------------------------------


def _media(report: Report) -> str:
    """Of each environment or task the last film or samples of its best run that has some."""
    found = []
    for place in report.places:
        runs = [run for row in report.rows if row.place == place for run in row.scored]
        runs.sort(key=lambda run: -(run.score or 0.0))
        shown = next((text for run in runs[:10] if (text := _look(run))), "")
        if shown:
            heading = f"<figcaption>{escape(place)}</figcaption>" if len(report.places) > 1 else ""
            found.append(f"<figure>{heading}{shown}</figure>")
    return f'<h2>The best run</h2>\n<div class="media">{"".join(found)}</div>' if found else ""


def _look(run: One) -> str:
    what = f"{escape(str(run.path))}, score {number(run.score)}"
    if (film := films.last_film(run.path)) and len(film[1]) <= LARGEST:
        data = base64.b64encode(film[1]).decode()
        image = f'<img alt="an episode of the best run" src="data:image/gif;base64,{data}">'
        return f"<figcaption>step {film[0]:,} of {what}</figcaption>{image}"
    if samples := films.last_samples(run.path):
        head = f"<figcaption>samples at step {samples[0]:,} of {what}: reward, then prompt and completion</figcaption>"
        return f"{head}<pre>{escape(samples[1][:20_000])}</pre>"
    if drawing := films.drawing(run.path):
        return f"<figcaption>the policy of {what}</figcaption><pre>{escape(drawing[:20_000])}</pre>"
    return ""


# -- where it comes from -----------------------------------------------------------------------------------------


def _repeat(report: Report) -> str:
    found = {
        shlex.join(str(word) for word in run.record["command"]): None
        for row in report.rows
        for run in row.runs
        if isinstance(run.record.get("command"), list)
    }
    lines = list(found)
    listed = f"<pre>{escape(chr(10).join(lines[:SHOWN]))}</pre>" if lines else ""
    if lines[SHOWN:]:
        rest = escape("\n".join(lines[SHOWN:]))
        listed += f"<details><summary>{len(lines) - SHOWN} more</summary><pre>{rest}</pre></details>"
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in environment(report.rows).items())
    again = f"<h3>Commands</h3>\n{listed}" if listed else ""
    return f"<h2>Where it comes from</h2>\n<dl>{facts}</dl>\n{again}"


def _s(found: Sequence[Any]) -> str:
    return "" if len(found) == 1 else "s"
