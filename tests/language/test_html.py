"""How completions are shown: every text as it is, in TensorBoard's table and on the page, and colours that tell."""

from __future__ import annotations

import re
import string
from html import unescape

import pytest
from reading import Reader
from tensorboard.plugin_util import markdown_to_safe_html

from rlx.language.show import html as page
from rlx.language.show.html import CompletionRow, Part

TRICKS = [
    "a|b||c", "`code` ``x``", "<script>alert(1)</script>", "&lt; &amp; &#65;", "**bold** _it_ ~~x~~", "[a](b) ![c](d)",
    "# head", "- item", "1. one", "\\| \\` \\\\", "'\"", "  two  spaces  ", "", "---", "| --- |", string.printable[:95],
]  # fmt: skip
BREAKERS = ["\n", "\r\n", "\t", "\x00", "\x7f", "\u202e", "\u2028", "\ud800", "\ufeff"]


def parts(*texts: str, ended: bool = True) -> list[Part]:
    """A prompt for each text, which is also its completion."""
    return [
        Part(x, [CompletionRow(x, [*x, *([""] if ended else [])], ended, {}, {"ratio": [1.0] * (len(x) + ended)})])
        for x in texts
    ]


# -- the table ---------------------------------------------------------------------------------------------------


def test_tensorboard_renders_every_text_as_it_is() -> None:
    """By TensorBoard's own Markdown and sanitiser."""
    html = markdown_to_safe_html(page.markdown({"run": "a/b_c"}, parts(*TRICKS)))
    rows = Reader(html).rows
    assert rows[0] == ["prompt", "completion"]
    seen = [[cell.replace("\xa0", " ") for cell in row] for row in rows[1:]]
    assert seen == [[text, f"{text} end" if text else "end"] for text in TRICKS]
    assert "\xa0\xa0two\xa0\xa0spaces\xa0\xa0" in unescape(html)  # a browser keeps these
    assert "<script" not in html and "<code" not in html and "<strong>bold" not in html


@pytest.mark.parametrize("breaker", BREAKERS)
def test_a_character_that_breaks_lines_or_turns_text_is_a_sign(breaker: str) -> None:
    text = page.visible(f"a{breaker}b")
    assert len(text) == 2 + len(breaker) and text[0] == "a" and text[-1] == "b" and breaker not in text
    rows = Reader(markdown_to_safe_html(page.markdown({}, parts(f"a{breaker}b", "c")))).rows
    assert [row[0] for row in rows[1:]] == [text, "c"]
    page.html({"run": "r", "step": "1"}, {}, parts(f"a{breaker}b")).encode()


# -- the page ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ended", [True, False])
def test_the_page_is_well_formed_and_shows_every_text_as_it_is(ended: bool) -> None:
    tricky = {"run": "<b>|&amp;", "step": "1", "seed": "1"}
    html = page.html(tricky, {"<i>": 1.0, "kl": 0.25, "text": "left out"}, parts(*TRICKS, ended=ended))
    told = Reader(html)
    stop = "end" if ended else "cut"
    assert [row[0] for row in told.rows[1:]] == [text or "none" for text in TRICKS]
    assert [row[1] for row in told.rows[1:]] == [f"{text}{stop}" for text in TRICKS]
    glyphs = "".join(unescape(text) for text in re.findall(r"<b[^>]*>([^<]*)</b>", html))
    assert glyphs == "".join("\xa0" + text.replace(" ", "\u2423") + stop for text in TRICKS)
    assert {"<b>|&amp;", "<i>", "kl", "0.25"} <= set(told.all)
    assert html.count("<title>") == html.count("<table>") == 1 and "prefers-color-scheme: dark" in html


def shades(**heat: list[float]) -> list[list[str]]:
    """The colours of each token of a completion."""
    tokens = len(next(iter(heat.values())))
    html = page.html({"run": "r", "step": "1"}, {}, [Part("", [CompletionRow("", [""] * tokens, False, {}, heat)])])
    cells = re.findall(r'<i title="[^"]*"><b>[^<]*</b>(.*?)</i>', html)
    assert len(cells) == tokens
    return [re.findall(r'<u(?: class="(\w+)")?></u>', cell) for cell in cells]


def test_colours_grow_with_the_number_and_tell_its_side() -> None:
    assert shades(advantage=[2.0, 1.0, 0.0, -1.0, -2.0]) == [["p10"], ["p5"], [""], ["n5"], ["n10"]]
    assert shades(ratio=[4.0, 2.0, 1.0, 0.5, 0.25]) == [["p10"], ["p5"], [""], ["n5"], ["n10"]]  # logarithmic
    assert shades(KL=[0.0, 0.5, 1.0]) == [[""], ["p5"], ["p10"]]


def test_rounding_errors_and_what_is_no_number_have_no_colour_of_their_own() -> None:
    assert shades(ratio=[1.0001, 0.9999]) == [[""], [""]]  # .05 is the least that has the full colour
    assert shades(advantage=[float("nan"), float("inf"), float("-inf"), 3.0]) == [[""], ["p10"], ["n10"], ["p10"]]
    assert shades(ratio=[0.0, float("inf"), 2.0]) == [["n10"], ["p10"], ["p10"]]
