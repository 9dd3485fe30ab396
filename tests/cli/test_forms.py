"""Tables as CSV, LaTeX and Markdown."""

from __future__ import annotations

import csv
import io

import pytest

from rlx.base.errors import UserError
from rlx.cli.printing import text

LINES = [("algo", "step", "note"), ("q_learning", "200,000", 'a, "b" | 5 %')]


@pytest.fixture(autouse=True)
def plain_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "form", "text")


def printed(form: str, capsys: pytest.CaptureFixture[str]) -> str:
    text.use_form({form: True})
    text.table(LINES, right=(1,))
    return capsys.readouterr().out


def test_a_csv_is_read_back_as_it_was_and_its_numbers_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.reader(io.StringIO(printed("csv", capsys))))
    assert rows == [["algo", "step", "note"], ["q_learning", "200000", 'a, "b" | 5 %']]


def test_signs_that_latex_and_markdown_would_read_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    latex = printed("latex", capsys)
    assert r"q\_learning & 200,000 & a, \"b\" | 5 \% \\".replace('\\"', '"') in latex
    assert latex.startswith(r"\begin{tabular}{lrl}")
    assert printed("markdown", capsys).splitlines() == [
        "| algo | step | note |",
        "| --- | ---: | --- |",
        '| q_learning | 200,000 | a, "b" \\| 5 % |',
    ]


def test_two_forms_at_once_are_refused() -> None:
    with pytest.raises(UserError, match="^--csv and --latex: choose one of them$"):
        text.use_form({"csv": True, "latex": True})
