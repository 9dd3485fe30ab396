"""Metrics: what the tables MEANINGS of the modules that yield them say.

MEANINGS = {"train/approx_kl": "Definition [unit]. Healthy: values. If not: what to do."}
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rlx.config import own_code
from rlx.explain import source

ROOMS = ("training", "control", "language", "tabular")  # whose modules yield metrics, beside the algorithms


class MetricMeaning(NamedTuple):
    name: str
    definition: str
    healthy: str
    otherwise: str
    path: Path
    owner: str  # an implementation; "": any algorithm

    @property
    def text(self) -> str:
        return f"{self.definition} {self.healthy} {self.otherwise}"

    @property
    def place(self) -> str:
        """Where it is made, else where it is explained."""
        text, last = source.text_of(self.path), re.escape(self.name.rpartition("/")[2])
        code, table = source.without(source.without(text, "MEANINGS"), "LESSON"), text.rfind(f'"{self.name}"')
        forms = (rf'"{re.escape(self.name)}"', rf'["/]{last}"|\b{last}=(?!=)')
        made = next(filter(None, (re.search(form, code) for form in forms)), None)
        return source.near(self.path, source.line_of(text, made.start() if made else table))


def meanings() -> dict[str, list[MetricMeaning]]:
    """What there is to say of each metric, by one or more owners."""
    return _meanings(own_code.folder())


@cache
def _meanings(_folder: Path) -> dict[str, list[MetricMeaning]]:
    known: dict[str, list[MetricMeaning]] = {}
    for owner, path in _files():
        table = source.literal(path, "MEANINGS")
        for name, text in table.items() if isinstance(table, dict) else ():
            if isinstance(name, str) and isinstance(text, str):
                known.setdefault(name, []).append(parse(name, text, path, owner))
    return known


def _files() -> Iterator[tuple[str, Path]]:
    for room in ROOMS:
        for path in sorted((source.RLX / room).rglob("*.py")):
            if "\nMEANINGS" in source.text_of(path):
                yield "", path
    yield from source.algorithm_files().items()


def parse(name: str, text: str, path: Path, owner: str = "") -> MetricMeaning:
    definition, _, rest = text.partition(" Healthy: ")
    healthy, _, otherwise = rest.partition(" If not: ")
    return MetricMeaning(name, definition, healthy, otherwise, path, owner)


def of(name: str, implementation: str = "") -> MetricMeaning | None:
    """What a metric means in the runs of an algorithm."""
    listed = meanings().get(name, [])
    return next((one for owner in (implementation, "") for one in listed if one.owner == owner), None)


def explain(name: str) -> list[str]:
    """The page of a metric."""
    lines = []
    for one in meanings()[name]:
        lines += [f"{name}, a metric{f' of {one.owner}' if one.owner else ''}", f"what: {one.definition}"]
        lines += [f"healthy: {one.healthy}", f"if not: {one.otherwise}", f"where: {one.place}", ""]
    return [*lines, f"see it: rlx plot latest --metric {name}"]
