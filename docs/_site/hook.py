"""What mkdocs calls while it builds the site: generated pages, formulas, links to files that are no pages.

Formulas ($...$ and $$...$$ in LaTeX) become MathML here; the pages need no script for them.
"""

import html
import re
import sys
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import notebooks
import pages
import sources

FENCE = re.compile(r"(^ *```.*?^ *```$|^(?: {4}[^\n]*\n?)+|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\w$\\])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\w$])", re.DOTALL)
OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+(?!results|index)[\w./-]+)\)")


def on_config(config: Any) -> Any:
    """Add the generated pages to the navigation."""
    for section in config["nav"]:
        if "Algorithms" in section:
            section["Algorithms"] += [{name: f"algorithms/{name}.md"} for name in pages.algorithms()]
        if "How to" in section:
            section["How to"].append(
                {"Three notebooks": [{notebooks.title(name): f"notebooks/{name}.md"} for name in notebooks.names()]}
            )
        if "Reference" in section:
            section["Reference"] = [{title: f"reference/{name}.md"} for name, (title, _) in pages.REFERENCE.items()]
            section["Reference"].append({"Equation, function, algorithm": "equation-table.md"})
    return config


def on_files(files: Any, config: Any) -> Any:
    for path, text in pages.everything().items():
        files.append(File.generated(config, path, content=text))
    _add_sources(files, config)
    return files


def _add_sources(files: Any, config: Any) -> None:
    """Pages of the files that something points to by now."""
    for file in sorted(sources.wanted):
        if files.get_file_from_path(path := f"source/{file}.html") is None:
            files.append(File.generated(config, path, content=sources.page(file)))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Formulas outside code; a link to a file of the repository goes to its text."""
    root = Path(config["docs_dir"])
    here = root / Path(page.file.src_uri).parent

    def named(link: re.Match[str]) -> str:
        path = (here / link[2]).resolve()
        if path.is_relative_to(root):
            return link[0]
        name = str(path.relative_to(root.parent))
        place = sources.address(f"{name}/__init__.py" if path.is_dir() else name)
        up = "../" * page.file.src_uri.count("/")
        return f"[{link[1]}]({up}{place})" if place else f"{link[1]} (`{name}`)"

    pieces = FENCE.split(markdown)
    for i in range(0, len(pieces), 2):
        pieces[i] = FORMULA.sub(_mathml, OUTSIDE.sub(named, pieces[i]))
    _add_sources(files, config)
    return "".join(pieces)


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """A page without sections needs no room for their list: its tables are wide."""
    if not any(title.children for title in page.toc):
        page.meta.setdefault("hide", ["toc"])
    return content


def _mathml(formula: re.Match[str]) -> str:
    block = formula[1] is not None
    text = latex2mathml.converter.convert(
        html.unescape(formula[1] or formula[2]), display="block" if block else "inline"
    )
    return f"\n\n{text}\n\n" if block else f"<span>{text}</span>"  # a line may begin with it
