"""The first lines of an algorithm's YAML say where a default leaves the paper that they cite."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

KEY = re.compile(r"^(\w+): +(\S+) +#.*; paper: (.*)$", re.MULTILINE)
NUMBER = r"[-+]?(?:\d[\d,_]*\.?\d*|\.\d+)(?:e[-+]?\d+)?"
FILES = sorted(Path("conf/algo").glob("*.yaml"))


def number(text: str) -> float:
    return float(re.sub("[,_]", "", text))


def leaves(value: str, paper: str) -> bool:
    """Is the value another than the paper's in its comment: .99; .96 to .99; .003, .01; true for Atari; none?"""
    if value in ("true", "false"):
        return paper.startswith(("true", "false")) and not paper.startswith(value)
    if not re.fullmatch(NUMBER, value) or not re.match(rf"{NUMBER}|none", paper):
        return False
    if span := re.match(rf"({NUMBER}) to ({NUMBER})", paper):
        return not number(span[1]) <= number(value) <= number(span[2])
    listed = re.match(rf"(?:{NUMBER}(?![\w]), )*{NUMBER}(?= \(|$)", paper) or re.match(NUMBER, paper)
    values = [0.0] if listed is None else [number(one) for one in listed[0].split(", ")]
    return number(value) not in values


def paper_line(text: str) -> str:
    """What the head of such a file has to say."""
    apart = [(key, value, paper) for key, value, paper in KEY.findall(text) if leaves(value, paper)]
    texts = [f"{key} {value} ({re.split(r', |;| [(]', paper)[0].rstrip(',')})" for key, value, paper in apart]
    return f"# Not the paper's: {', '.join(texts)}." if texts else ""


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_the_head_says_where_a_default_leaves_the_paper(path: Path) -> None:
    text = path.read_text()
    assert paper_line(text) in text.split("\nname:")[0]


@pytest.mark.parametrize(
    "value, paper, apart",
    [
        (".99", ".99", False), ("0.1", ".02 (1M of 50M)", True), ("0.97", ".96 to .99", False), ("10", "none", True),
        ("0", "none", False), ("100_000", "100,000", False), ("0.01", ".003, .01, .03 (table 1)", False),
        ("0.95", ".999, .95 is usual", True), ("false", "true for Atari", True), ("5e-4", "1e-6, for 7 billion", True),
        ("0.2", "no value, .2 is PPO's", False), ("1e-4", "sampled from 1e-4", False),
    ],
)  # fmt: skip
def test_leaves_reads_the_comments(value: str, paper: str, apart: bool) -> None:
    assert leaves(value, paper) == apart
