"""How completions are shown: a Markdown table for TensorBoard, and a page with the same table and a heat map of tokens.

    advantage            of each token, as estimated (a whitening over a minibatch is not in it)
    ratio                pi / pi_old of each token: pi as it is after the update, pi_old the policy that drew it
    KL                   k3(pi, pi_ref) of each token, where there is a reference
    implicit reward      of DPO, beta (log pi - log pi_ref) of each token; they add up to the completion's

The page refers to nothing outside itself: some 6 kB, and about 140 bytes for each token shown.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

END, CUT = "end", "cut"  # how a completion stops


class Scale(NamedTuple):
    """How the numbers of tokens become colours: `position` of 0 is colourless, the largest shown has the full one, or
    what `least` is at if all are smaller."""

    symbol: str
    meaning: str
    least: float
    form: str
    position: Callable[[float], float] = float
    value: Callable[[float], float] = float  # its inverse


SCALES = {
    "advantage": Scale("A", "of the token, before any whitening over a minibatch", 0.1, "+.3f"),
    "ratio": Scale(
        "r", "pi after the update / pi that drew the token", math.log(1.05), ".3f",
        lambda ratio: math.log(ratio) if ratio > 0 else -math.inf, math.exp,
    ),
    "KL": Scale("KL", "k3 of pi after the update against the reference, nats", 0.01, ".4f"),
    "implicit reward": Scale("R", "beta (log pi - log pi_ref) of the token", 0.01, "+.3f"),
}  # fmt: skip


@dataclass
class Row:
    """A completion: its text, a text for each token (that of the end is empty), its columns in the table, and what
    SCALES names of each token."""

    text: str
    tokens: list[str]
    ended: bool
    columns: dict[str, str]
    heat: dict[str, list[float]]


@dataclass
class Part:
    """A prompt with its completions."""

    prompt: str
    rows: list[Row]


# -- as text -----------------------------------------------------------------------------------------------------


def visible(text: str) -> str:
    """With a sign for each character that has none, or that would turn or break the text around it."""
    return "".join(_sign(c) if unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" else c for c in text)


def _sign(c: str) -> str:
    return chr(0x2400 + ord(c)) if ord(c) < 32 else "\u2421" if ord(c) == 127 else "\ufffd"


def escaped(text: str) -> str:
    """For a cell of a Markdown table: all but letters and digits as character references, which neither Markdown nor
    HTML gives a meaning; a space as one that is kept."""
    return "".join(c if c.isalnum() else f"&#{160 if c == ' ' else ord(c)};" for c in visible(text))


def markdown(facts: Mapping[str, str], parts: Sequence[Part]) -> str:
    """A table as TensorBoard shows it."""
    names = ["prompt", "completion", *parts[0].rows[0].columns]
    lines = [
        ", ".join(f"{name} {escaped(value)}" for name, value in facts.items()),
        "",
        f"| {' | '.join(names)} |",
        f"|{' --- |' * len(names)}",
    ]
    for part in parts:
        for row in part.rows:
            stop = f"**{END if row.ended else CUT}**"
            cells = [escaped(part.prompt), f"{escaped(row.text)} {stop}", *map(escaped, row.columns.values())]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# -- as a page ---------------------------------------------------------------------------------------------------

LEVELS = 10  # shades of a colour
HUES = {"p": "38 116 189", "n": "214 100 20"}  # above and below; blue and orange, which all eyes tell apart

STYLE = """
:root { --paper: #fff; --ink: #1c1e21; --faint: #667; --line: #d8dae0; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e4e6ea; --faint: #9aa; --line: #3a3e46; } }
body { background: var(--paper); color: var(--ink); font: 14px/1.45 system-ui, sans-serif; margin: 1.5em; }
h1 { font-size: 1.25em; margin: 0 0 .3em; }
p, dl { margin: .3em 0; } .faint, dt, th { color: var(--faint); font-weight: normal; }
dl { display: flex; flex-wrap: wrap; gap: .1em 1.4em; } dl div { display: flex; gap: .4em; } dd { margin: 0; }
table { border-collapse: collapse; margin-top: 1em; }
th, td { text-align: left; vertical-align: top; padding: .3em .9em .3em 0; }
tbody { border-top: 1px solid var(--line); } dd, td, code { font-variant-numeric: tabular-nums; }
code, b { font: 14px/20px ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
em, .stop { font: italic 12px/20px system-ui, sans-serif; color: var(--faint); } em { margin-left: .3em; }
.heat { line-height: 0; min-width: 12em; }
i { display: inline-block; vertical-align: top; font-style: normal; margin: 0 1px 3px 0; min-width: 28px; }
i b { display: block; text-align: center; height: 20px; } i.key { min-width: 22px; }
u { display: block; height: 10px; margin-top: 1px; text-decoration: none; background: rgb(128 128 128 / .12);
    font: 9px/10px system-ui, sans-serif; color: var(--faint); }
i.key u { background: none; } .scale { display: inline-flex; vertical-align: middle; margin: 0 .4em; }
.scale u { width: 9px; height: 12px; margin: 0; }
"""


def html(facts: Mapping[str, str], metrics: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """One page with the table and the heat map; a token's numbers appear where the mouse rests on it."""
    heat = parts[0].rows[0].heat
    largest = {name: _largest(name, parts) for name in heat}
    names = ["prompt", "completion", *parts[0].rows[0].columns, "tokens"]
    head = "".join(f"<th>{name}</th>" for name in names)
    known = {name: f"{value:.4g}" for name, value in metrics.items() if isinstance(value, int | float)}
    title = f"step {facts['step']} of {facts['run']}"
    colours = "".join(
        f"u.{side}{level} {{ background: rgb({hue} / {level / LEVELS}); }}\n"
        for side, hue in HUES.items()
        for level in range(1, LEVELS + 1)
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">',
            f"<title>{_text(title)}</title>\n<style>{STYLE}{colours}</style>\n</head>\n<body>",
            "<h1>Completions of the last batch</h1>",
            _list(facts),
            _list(known),
            *(_legend(name, largest[name]) for name in heat),
            f"<table>\n<thead><tr>{head}</tr></thead>",
            *(_body(part, largest) for part in parts),
            "</table>\n</body>\n</html>",
        ]
    )


def _text(text: str) -> str:
    return escape(visible(text))


def _list(facts: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>' for k, v in facts.items())}</dl>"


def _largest(name: str, parts: Sequence[Part]) -> float:
    """The position that has the full colour."""
    found = [abs(SCALES[name].position(x)) for part in parts for row in part.rows for x in row.heat[name]]
    return max([SCALES[name].least, *filter(math.isfinite, found)])


def _shade(position: float, largest: float) -> str:
    """The class of a colour; none for what is hardly different from 0, or is no number."""
    level = 0 if math.isnan(position) else round(LEVELS * max(-1.0, min(1.0, position / largest)))
    return f' class="{"p" if level > 0 else "n"}{abs(level)}"' if level else ""


def _legend(name: str, largest: float) -> str:
    scale = SCALES[name]
    levels = range(0 if name == "KL" else -LEVELS, LEVELS + 1)  # only that is never negative
    strip = "".join(f"<u{_shade(level, LEVELS)}></u>" for level in levels)
    low, high = (format(scale.value(x), scale.form) for x in (0.0 if name == "KL" else -largest, largest))
    words = f"{scale.symbol}: {name} {scale.meaning}" if scale.symbol != name else f"{name}: {scale.meaning}"
    return f'<p>{low}<span class="scale">{strip}</span>{high} &nbsp; <span class="faint">{words}</span></p>'


def _body(part: Part, largest: Mapping[str, float]) -> str:
    lines = []
    asked = f"<code>{_text(part.prompt)}</code>" if part.prompt else "<em>none</em>"
    for number, row in enumerate(part.rows):
        prompt = f'<td rowspan="{len(part.rows)}">{asked}</td>' if not number else ""
        said = f"<td><code>{_text(row.text)}</code><em>{END if row.ended else CUT}</em></td>"
        cells = "".join(f"<td>{_text(value)}</td>" for value in row.columns.values())
        key = f'<i class="key"><b>&nbsp;</b>{"".join(f"<u>{SCALES[name].symbol}</u>" for name in row.heat)}</i>'
        tokens = "".join(_cell(row, t, largest) for t in range(len(row.tokens)))
        cut = "" if row.ended else f'<i><b class="stop">{CUT}</b></i>'
        lines.append(f'<tr>{prompt}{said}{cells}<td class="heat">{key}{tokens}{cut}</td></tr>')
    return "<tbody>\n" + "\n".join(lines) + "\n</tbody>"


def _cell(row: Row, t: int, largest: Mapping[str, float]) -> str:
    """A token with a coloured bar for each of its numbers."""
    stop = row.ended and t == len(row.tokens) - 1
    shown = f'<b class="stop">{END}</b>' if stop else f"<b>{_text(row.tokens[t]).replace(' ', '&#9251;')}</b>"
    tip = "&#10;".join(f"{name} {x[t]:{SCALES[name].form}}" for name, x in row.heat.items())
    bars = "".join(f"<u{_shade(SCALES[name].position(x[t]), largest[name])}></u>" for name, x in row.heat.items())
    return f'<i title="{tip}">{shown}{bars}</i>'
