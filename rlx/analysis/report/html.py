"""Cells, tables and numbers of a report's page. All text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

BAD = ("failed", "killed")


def table(heads: Sequence[tuple[str, str]], rows: Iterable[str]) -> str:
    """`heads`: names, and n for numbers; a click on one sorts."""
    head = "".join(f'<th data-sort=""{_class(kind)}>{escape(name)}</th>' for name, kind in heads)
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'


def cell(text: Any, kind: str = "", value: Any = None) -> str:
    """A cell; `value` is what it is sorted by, where that is not its text."""
    given = "" if value is None else f' data-v="{escape(str(value))}"'
    return f"<td{_class(kind)}{given}>{escape(str(text))}</td>"


def raw(html: str, kind: str = "", value: Any = None) -> str:
    """A cell of what is HTML already."""
    given = "" if value is None else f' data-v="{escape(str(value))}"'
    return f"<td{_class(kind)}{given}>{html}</td>"


def figure(title: str, inside: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{inside}</figure>" if inside else ""


def state(name: str) -> str:
    return f'<span class="bad">{escape(name)}</span>' if name in BAD else escape(name)


def states(found: Mapping[str, int]) -> str:
    """3 finished, 1 failed"""
    return ", ".join(
        f'<span class="bad">{count} {escape(name)}</span>' if name in BAD else f"{count} {escape(name)}"
        for name, count in found.items()
    )


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def seconds(value: float) -> str:
    if value < 100:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 5400 else f"{value / 3600:.1f} h"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
