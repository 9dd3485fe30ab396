"""A page for each file of the repository that other pages point to, each line of it at a place: #L-12."""

import html
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

ROOT = Path(__file__).resolve().parents[2]
LIGHT, DARK = (HtmlFormatter(style=style).get_style_defs("pre") for style in ("default", "github-dark"))
STYLE = f"""body {{ margin: 0 1rem; font-family: system-ui, sans-serif; }} pre {{ font-size: 13px; line-height: 1.5; }}
pre a {{ color: #767676; text-decoration: none; user-select: none; }} pre a:target {{ background: #fd5; color: #000; }}
{LIGHT}
@media (prefers-color-scheme: dark) {{ :root {{ color-scheme: dark; }} {DARK} body {{ background: #0d1117; }} }}"""
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{file}</title>
<meta name="viewport" content="width=device-width"><style>{style}</style></head>
<body><h3><a href="{home}index.html">rlx</a> / {file}</h3><pre>{text}</pre></body></html>
"""
wanted: set[str] = set()


def address(place: str) -> str:
    """Where the site has file:line, from its top; "": there is no such file."""
    file, _, line = place.partition(":")
    if not (ROOT / file).is_file():
        return ""
    wanted.add(file)
    return f"source/{file}.html{f'#L-{line}' if line else ''}"


def link(place: str) -> str:
    """Markdown, for a page one folder down."""
    found = address(place)
    return f"[`{place}`](../{found})" if found else f"`{place}`"


def page(file: str) -> str:
    """The HTML of a file."""
    text = (ROOT / file).read_text(encoding="utf-8")
    try:
        lexer = get_lexer_for_filename(file, text, stripnl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    lines = highlight(text, lexer, HtmlFormatter(nowrap=True)).splitlines()
    numbered = "\n".join(f'<a id="L-{i}" href="#L-{i}">{i:4d}</a>  {line}' for i, line in enumerate(lines, 1))
    home = "../" * (file.count("/") + 1)
    return PAGE.format(file=html.escape(file), home=home, style=STYLE, text=numbered)
