"""What an HTML page says, for tests."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """A page's tables, row by row as texts, and the titles in each row; AssertionError where its tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.titles: list[list[str]] = []
        self.all: list[str] = []  # text outside of <style>
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
            self.titles.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if title := dict(attrs).get("title"):
            self.titles[-1].append(title)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.all.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
