"""Pages from templates: what is put into them stays text, what they lack is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from rlx.base.pages.render import render


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.html.jinja").write_text('{% include "look.css" %}<p title="{{ text }}">{{ text }}</p>')
    return tmp_path


def test_whatever_is_put_into_a_page_stays_text(folder: Path) -> None:
    page = render(folder, "a.html.jinja", text="<b>\"'&")
    assert page.endswith('<p title="&lt;b&gt;&#34;&#39;&amp;">&lt;b&gt;&#34;&#39;&amp;</p>')


def test_a_value_that_a_template_lacks_is_an_error(folder: Path) -> None:
    with pytest.raises(UndefinedError, match="'text' is undefined"):
        render(folder, "a.html.jinja")


def test_every_page_has_the_shared_look(folder: Path) -> None:
    assert ":root { --paper: #fff;" in render(folder, "a.html.jinja", text="")
