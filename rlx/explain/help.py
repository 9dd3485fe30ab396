"""The page of `rlx train --help` with what each key means behind its value."""

import re
import textwrap

from rlx.explain import keys

BEGIN, END = "== Or set any value", "Examples:"
COLUMN = 32  # of the comments
KEY = re.compile(r"(?P<indent> *)(?P<key>[\w.-]+):(?: |$)")
PRESETS = re.compile(r"^preset: (.*)$", re.MULTILINE)  # too many to list
LEAST = 100  # columns, however narrow the terminal: it wraps


def annotated(page: str, columns: int) -> str:
    """The page, its values in YAML with comments as long as there is room for."""
    head, begin, rest = page.partition(BEGIN)
    head = PRESETS.sub(_counted, head)
    body, end, tail = rest.partition(END)
    if not begin or not end:
        return page
    lines = _commented(body.rstrip().splitlines(), _texts(body), max(LEAST, columns))
    more = "rlx explain algo.lr    the range of a key, what more and less of it do, the paper's value"
    return "\n".join([f"{head}{begin}{lines[0]}", *lines[1:], "", more, "", f"{end}{tail}"])


def _counted(names: re.Match[str]) -> str:
    count = len([name for name in names[1].split(", ") if name != "none"])
    return (
        f"preset: ALGO_ENV or ALGO_TASK; algo= and env= choose it (none: no preset); rlx list presets shows all {count}"
    )


def _commented(lines: list[str], texts: dict[str, str], width: int) -> list[str]:
    """`key: value` lines with the texts of their dotted names."""
    sections: list[tuple[int, str]] = []  # that are open: their indent and name
    for i, line in enumerate(lines):
        if found := KEY.match(line):
            indent = len(found["indent"])
            sections = [(at, name) for at, name in sections if at < indent]
            sections.append((indent, found["key"]))
            text = texts.get(".".join(name for _, name in sections), "")
            room = width - max(COLUMN, len(line) + 2) - 4
            if text and room > 20:
                lines[i] = f"{line:<{COLUMN}}  # {textwrap.shorten(text, room, placeholder=' ...')}"
    return lines


def _texts(body: str) -> dict[str, str]:
    """What each key means in the sections that were chosen."""
    names = re.finditer(r"^(\w+):\n  name: ([\w-]+)", body, re.MULTILINE)
    chosen = {found[1]: found[2] for found in names if found[1] in keys.SECTIONS}
    known = keys.top("language" if "task" in chosen else "control")
    for group in keys.SECTIONS:
        option = chosen.get(group) or ("mlp" if group == "model" else "")
        known |= {f"{group}.{name}": key for name, key in keys.of(group, option).items()}
    return {name: key.summary for name, key in known.items()}
