"""How completions are shown: a Markdown table for TensorBoard, and a page with the same table and a heat map of tokens.

    advantage            of each token, as estimated (a whitening over a minibatch is not in it)
    ratio                pi / pi_old of each token: pi as it is after the update, pi_old the policy that drew it
    KL                   k3(pi, pi_ref) of each token, where there is a reference
    implicit reward      of DPO, beta (log pi - log pi_ref) of each token; they add up to the completion's

The page refers to nothing outside itself: some 6 kB, and about 140 bytes for each token shown.
"""

import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rlx.base.pages.render import render

TEMPLATES = Path(__file__).parent / "templates"
LEVELS = 10  # shades of a colour
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
class CompletionRow:
    """A completion: its text, a text for each token (that of the end is empty), its columns in the table, and what
    SCALES names of each token."""

    text: str
    tokens: list[str]
    ended: bool
    columns: dict[str, str]
    heat: dict[str, list[float]]

    @property
    def stop(self) -> str:
        return END if self.ended else CUT


@dataclass
class Part:
    """A prompt with its completions."""

    prompt: str
    rows: list[CompletionRow]


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
            cells = [escaped(part.prompt), f"{escaped(row.text)} **{row.stop}**", *map(escaped, row.columns.values())]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# -- as a page ---------------------------------------------------------------------------------------------------


class Legend(NamedTuple):
    low: str
    high: str
    shades: list[str]
    meaning: str


def html(facts: Mapping[str, str], metrics: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """One page with the table and the heat map."""
    largest = {name: _largest(name, parts) for name in parts[0].rows[0].heat}
    return render(
        TEMPLATES, "completions.html.jinja", facts=facts, parts=parts, scales=SCALES, levels=LEVELS, visible=visible,
        metrics={name: f"{value:.4g}" for name, value in metrics.items() if isinstance(value, int | float)},
        legends=[_legend(name, position) for name, position in largest.items()],
        tokens=lambda row: _tokens(row, largest),
    )  # fmt: skip


def _largest(name: str, parts: Sequence[Part]) -> float:
    """The position that has the full colour."""
    positions = [abs(SCALES[name].position(x)) for part in parts for row in part.rows for x in row.heat[name]]
    return max([SCALES[name].least, *filter(math.isfinite, positions)])


def _shade(position: float, largest: float) -> str:
    """The class of a colour; none for what is hardly different from 0, or is no number."""
    level = 0 if math.isnan(position) else round(LEVELS * max(-1.0, min(1.0, position / largest)))
    return f"{'p' if level > 0 else 'n'}{abs(level)}" if level else ""


def _legend(name: str, largest: float) -> Legend:
    scale = SCALES[name]
    least = 0 if name == "KL" else -LEVELS  # only that is never negative
    low, high = (format(scale.value(largest * level / LEVELS), scale.form) for level in (least, LEVELS))
    meaning = f"{scale.symbol}: {name} {scale.meaning}" if scale.symbol != name else f"{name}: {scale.meaning}"
    return Legend(low, high, [_shade(level, LEVELS) for level in range(least, LEVELS + 1)], meaning)


def _tokens(row: CompletionRow, largest: Mapping[str, float]) -> Iterator[tuple[str, str, list[str]]]:
    """Each token: its text, its numbers, and the shades of these."""
    for t, token in enumerate(row.tokens):
        tip = "\n".join(f"{name} {x[t]:{SCALES[name].form}}" for name, x in row.heat.items())
        shades = [_shade(SCALES[name].position(x[t]), largest[name]) for name, x in row.heat.items()]
        yield visible(token).replace(" ", "\u2423"), tip, shades
