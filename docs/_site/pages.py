"""The generated pages of the site, each from its one source, as `rlx explain` reads it."""

import ast
import html
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import formulas
import measured
import notebooks
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sources import link

from rlx.config import registry
from rlx.explain import algorithms as explained, comments, functions, glossary, keys, metrics, source

ROOT = Path(__file__).resolve().parents[2]


def algorithms() -> list[str]:
    """Their names, each followed by its variants."""
    names = [name for name in explained.names() if explained.file_of(name)]
    return sorted(names, key=lambda name: (keys.base_of("algo", name), keys.is_variant(name), name))


def everything() -> dict[str, str]:
    """Path -> Markdown."""
    pages = {f"algorithms/{name}.md": algorithm(name) for name in algorithms()}
    pages |= {f"notebooks/{name}.md": notebooks.page(name) for name in notebooks.names()}
    return pages | {f"reference/{name}.md": make() for name, (_, make) in REFERENCE.items()}


# -- an algorithm --------------------------------------------------------------------------------------------------


def algorithm(name: str) -> str:
    path, said = explained.file_of(name), explained.lesson(name)
    assert path
    base, implementation, top = keys.base_of("algo", name), keys.implementation(name), explained.head(name)
    doc = source.docstring(path)
    lines = [f"# {name}", "", _text(" ".join(top)), ""]
    if base != name:
        changes = explained.changes(name)
        lines += [f"A variant of [{base}]({base}.md): it is that algorithm with `{changes}`.", ""]
    lines += [_text(said.get("what", doc.partition("\n\n")[0])), ""]
    lines += [f"**Kind**: {explained.kind(name)}. **Where it learns**: {_text(explained.spaces(name))}.", ""]
    lines += ["```sh", *explained.commands(name, base, said), "```", ""]
    lines += ["## Equations and pseudocode", "", *_equations_called(path), *_beside(doc, path), *_symbols(name)]
    lines += ["## What to watch", ""]
    for metric in explained.strings(said, "watch"):
        if one := metrics.of(metric, implementation):
            lines.append(f"- {_metric_link(metric)}: {_text(one.definition)} *Healthy*: {_text(one.healthy)}")
    wrong = explained.strings(said, "wrong")
    lines += ["", "## What goes wrong", "", *[f"- {_text(one)}" for one in wrong], ""] if wrong else [""]
    lines += measured.results(name)
    lines += ["## Keys", "", *_key_table(keys.of("algo", name).values()), ""]
    own = [one for listed in metrics.meanings().values() for one in listed if one.owner == implementation]
    if own:
        lines += ["## Metrics of its own", "", "| metric | meaning | healthy |", "|---|---|---|"]
        lines += [f"| {_metric_link(one.name)} | {_text(one.definition)} | {_text(one.healthy)} |" for one in own]
        lines.append("")
    if left := re.search(r"Left out: (.*?)(?=\n\n|\Z)", doc, re.DOTALL):
        lines += ["## What was left out", "", _text(left[1]), ""]
    return "\n".join(lines)


def _beside(doc: str, path: Path) -> list[str]:
    """The head of the file, which is the pseudocode, and the loop."""
    defined = (node for node in source.tree_of(path).body if isinstance(node, ast.FunctionDef))
    loop = next(node for node in defined if node.name == "train")
    code = "\n".join(source.text_of(path).splitlines()[loop.lineno - 1 : loop.end_lineno])
    shown = highlight(code, PythonLexer(), HtmlFormatter(nowrap=True))
    return [
        f"What the file says, and its loop: {link(source.near(path, loop.lineno))}.", "", '<div class="beside">',
        f"<pre>{_kept(html.escape(doc))}</pre>", f'<pre class="highlight">{_kept(shown)}</pre>', "</div>", "",
    ]  # fmt: skip


def _kept(text: str) -> str:
    """Text for a block of HTML, which an empty line would end."""
    return re.sub(r"^(?=$)", "&#8203;", text.rstrip(), flags=re.MULTILINE)


def _symbols(name: str) -> list[str]:
    rows = [
        f"| {symbol} | `{key.name}={key.comment.value if key.comment else ''}` "
        f"| {_text(comments.symbol_of(key.summary)[1])} |"
        for symbol, key in explained.symbols(name).items()
    ]
    return ["| symbol | key | meaning |", "|---|---|---|", *rows, ""] if rows else []


def _equations_called(path: Path) -> list[str]:
    """Each as a formula, with its function and where the algorithm calls it."""
    lines = []
    for call in functions.calls(path):
        blocks = re.findall(r"(?:^    .*\n?)+", call.function.doc, re.MULTILINE)
        title = f"{call.function.path.stem}.{call.function.name}"
        what = _text(functions.first_sentence(call.function.doc).rstrip(":."))
        lines += [f"[{title}](../reference/equations.md#{_anchor(call.function)}): {what}, at {link(call.place)}.", ""]
        lines += [formula, ""] if (formula := formulas.mathml(blocks[0]) if blocks else None) else []
    return lines


def _key_table(listed: Iterable[keys.Key]) -> list[str]:
    lines = ["| key | default | range | meaning |", "|---|---|---|---|"]
    for key in listed:
        parts = comments.parts_of(key.text)
        value = f"`{key.comment.value}`" if key.comment and key.comment.value else ""
        effects = [f"*{part.capitalize()}*: {_text(parts[part])}." for part in comments.PARTS if part in parts]
        what = _text(parts.get("what", "")) + "." * bool(effects)
        cells = [f"`{key.name}`", value.replace("|", "\\|"), _text(key.field.range if key.field else "")]
        lines.append(f"| {' | '.join([*cells, ' '.join([what, *effects])])} |")
    return lines


# -- the reference -------------------------------------------------------------------------------------------------


def metrics_page() -> str:
    lines = ["# Metrics", "", "What each value of metrics.jsonl and TensorBoard means: `rlx explain METRIC`.", ""]
    for name, listed in sorted(metrics.meanings().items()):
        lines += [f"## {name} {{ #{_slug(name)} }}", ""]
        for one in listed:
            owner = f"[{one.owner}](../algorithms/{one.owner}.md): " if one.owner in algorithms() else ""
            lines += [f"{owner}{_text(one.definition)}", ""]
            lines += [f"*Healthy*: {_text(one.healthy)} *If not*: {_text(one.otherwise)} ({link(one.place)})", ""]
    return "\n".join(lines)


def equations_page() -> str:
    lines = ["# Equations", "", "Each is a pure function of `rlx.functional`: `rlx explain gae`.", ""]
    grouped: dict[str, list[source.Function]] = {}
    for listed in functions.equations().values():
        for function in listed:
            grouped.setdefault(function.path.stem, []).append(function)
    for module, listed in sorted(grouped.items()):
        lines += [f"## {module}", "", *_doc(source.docstring(listed[0].path)), ""]
        for function in sorted(listed, key=lambda one: one.line):
            signature = f"{function.name}({', '.join(function.arguments)})"
            lines += [f"### {module}.{function.name} {{ #{_anchor(function)} }}", "", f"`{signature}`", ""]
            lines += [*_doc(function.doc), ""]
            users = {name: call for name, call in functions.users(function) if name in algorithms()}
            callers = [f"[{name}](../algorithms/{name}.md) ({link(call.place)})" for name, call in users.items()]
            lines += [f"Called by {', '.join(callers)}." if callers else "", f"In {link(function.place)}.", ""]
    return "\n".join(lines)


def glossary_page() -> str:
    lines = ["# Glossary", "", "`rlx explain bellman` prints one of these.", ""]
    for term in sorted(glossary.terms().values(), key=lambda term: term.name.lower()):
        also = f"*Also*: {', '.join(term.also)}. " if term.also else ""
        lines += [f"## {term.name}", "", _text(term.text), "", f"{also}Try it: `{term.command}`", ""]
    return "\n".join(lines)


def keys_page() -> str:
    lines = ["# Keys of the configuration", "", "`key=value` on the command line; `rlx explain KEY`.", ""]
    for world in ("control", "language"):
        lines += [f"## Every run: {world}", "", *_key_table(keys.top(world).values()), ""]
    for group in ("env", "task", "model"):
        for option in sorted(keys.options(group)):
            listed = keys.of(group, option)
            lines += [f"## {group}={option}", "", *_key_table(listed.values()), ""] if listed else []
    return "\n".join(lines)


def presets_page() -> str:
    """What is tuned, and what each promises."""
    lines = ["# Presets", "", "`algo=X env=Y` picks the preset of the pair; `preset=none` leaves it out.", ""]
    for path in sorted((registry.conf_dir() / "preset").glob("*.yaml")):
        text = path.read_text(encoding="utf-8").rstrip()
        lines += [f"## {path.stem}", "", "```yaml", text, "```", ""]
    return "\n".join(lines)


def command_line_page() -> str:
    import typer

    from rlx.cli import app as base

    command: Any = typer.main.get_command(base.app)
    lines = ["# Command line", "", "`rlx VERB --help` prints the same.", ""]
    context = command.make_context("rlx", ["doctor"], resilient_parsing=True)
    for name in command.list_commands(context):
        lines += _verb(f"rlx {name}", command.get_command(context, name), context)
    return "\n".join(lines)


def _verb(name: str, command: Any, parent: Any, level: int = 2) -> list[str]:
    if command.hidden:
        return []
    lines = [f"{'#' * level} {name}", "", *_doc(inspect.cleandoc(command.help or "")), ""]
    if name == "rlx train":  # Hydra prints the rest of its page
        lines += ["```text", *_train_help(), "```", ""]
    rows = []
    for option in command.params:
        spelled = ", ".join([*option.opts, *option.secondary_opts]) if option.param_type_name == "option" else ""
        rows.append(f"| `{spelled or (option.name or '').upper()}` | {_text(getattr(option, 'help', '') or '')} |")
    lines += ["| argument | meaning |", "|---|---|", *rows, ""] if rows else []
    for each in getattr(command, "commands", {}):
        lines += _verb(f"{name} {each}", command.commands[each], parent, level + 1)
    return lines


def _train_help() -> list[str]:
    """What its page says besides the configuration."""
    page = (registry.conf_dir() / "hydra" / "help" / "rlx.yaml").read_text(encoding="utf-8")
    parts = re.split(r"^\w+: \|\n", page, flags=re.MULTILINE)[1:3]
    return "\n".join(textwrap.dedent(part) for part in parts).strip().splitlines()


def api_page() -> str:
    """The public names of rlx/api.py, from their docstrings."""
    path = source.RLX / "api.py"
    lines = ["# Python", ""]
    if not path.is_file():
        return "\n".join([*lines, "`rlx.functional` holds the equations: [equations](equations.md)."])
    lines += [*_doc(source.docstring(path)), ""]
    for node in source.tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            lines += _definition(node, "rlx.", 2)
    return "\n".join(lines)


def _definition(node: Any, prefix: str, level: int) -> list[str]:
    signature = f"({ast.unparse(node.args)})" if isinstance(node, ast.FunctionDef) else ""
    lines = [f"{'#' * level} {prefix}{node.name}", ""]
    lines += [f"```python\n{prefix}{node.name}{signature}\n```", ""] if signature else []
    lines += [*_doc(ast.get_docstring(node) or ""), ""]
    for each in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
            lines += _definition(each, f"{node.name}.", level + 1)
    return lines


REFERENCE: Mapping[str, tuple[str, Callable[[], str]]] = {
    "command-line": ("Command line", command_line_page),
    "keys": ("Keys", keys_page),
    "metrics": ("Metrics", metrics_page),
    "equations": ("Equations", equations_page),
    "python": ("Python", api_page),
    "presets": ("Presets", presets_page),
    "glossary": ("Glossary", glossary_page),
}


# -- text ----------------------------------------------------------------------------------------------------------


def _doc(doc: str) -> list[str]:
    """A docstring as Markdown: equations are formulas; what else is indented, and examples, are code."""
    lines: list[str] = []
    for block in re.split(r"\n{2,}", doc):
        rows = block.splitlines()
        if block.startswith("\b\n"):  # help that is not to be wrapped
            lines += ["```text", *rows[1:], "```", ""]
            continue
        if block.startswith(">>>"):
            lines += ["```pycon", *rows, "```", ""]
            continue
        for is_code, group in itertools.groupby(rows, lambda row: row.startswith(" ")):
            listed = [*group]
            formula = formulas.mathml("\n".join(listed)) if is_code else None
            code = ["```text", *textwrap.dedent("\n".join(listed)).splitlines(), "```"]
            lines += [formula] if formula else code if is_code else [_text(" ".join(listed))]
            lines.append("")
    return lines


def _text(text: str) -> str:
    """Plain text whose signs are no Markdown."""
    pieces = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(
        piece if i % 2 else re.sub(r"[*_<>\[\]#$|]", lambda sign: f"&#{ord(sign[0])};", piece)
        for i, piece in enumerate(pieces)
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _anchor(function: source.Function) -> str:
    return _slug(f"{function.path.stem}-{function.name}")


def _metric_link(name: str) -> str:
    known = name in metrics.meanings()
    return f"[{_text(name)}](../reference/metrics.md#{_slug(name)})" if known else _text(name)
