"""What others wrote does nothing to a terminal."""

import pytest

from rlx.base.errors import UserError
from rlx.base.text import escaped
from rlx.cli import exit_codes, printing

TEXTS = {
    "37+58=590": "37+58=590",
    "a\nb\tc": "a\\nb\\tc",
    "\x1b[31mred": "\\x1b[31mred",
    "\x07\r\x9b": "\\x07\\r\\x9b",
    "a\u202eb\u200b\u2028": "a\\u202eb\\u200b\\u2028",
    "\ud800": "\\ud800",
    "\u00e9 \u6f22 \U0001f642": "\u00e9 \u6f22 \U0001f642",
}


@pytest.mark.parametrize("text", TEXTS)
def test_what_moves_turns_or_hides_is_escaped(text: str) -> None:
    assert escaped(text) == TEXTS[text]


def test_errors_and_what_others_wrote_into_a_run_are_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    for text in TEXTS:
        exit_codes.code_of(UserError(text))
        printing.details({"error": text, "notices": [text], "metrics": {text: text}, "command": [text], "policy": text})
        printing.listing([{"status": text, "algo": text, "env": text, "seed": 1, "step": 1, "run": text, "eval": None}])
    for text in capsys.readouterr():
        assert all(line.isprintable() for line in text.split("\n"))


def test_samples_are_printed_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    completions = [{"text": text, "logprob": -1.0, "ended": True} for text in TEXTS]
    printing.sampled([{"prompt": "\x1b]0;title\x07", "completions": completions}])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(TEXTS) and all(line.isprintable() for line in lines)
    assert lines[2].endswith("\\x1b]0;title\\x07\\x1b[31mred")
