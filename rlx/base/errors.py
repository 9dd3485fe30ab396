"""What the user can put right: one line that names the key, the value and the choices. The command line exits 2."""

import difflib
from collections.abc import Iterable
from typing import Any

MANY = 12  # more choices than this are not listed where one of them is close
LONG = 300  # nor are those that would fill more characters than this, where a command lists them


class UserError(ValueError):
    """The user's input is wrong; the message is one line."""


class ConfigError(UserError):
    """A configuration that cannot be run."""


def closest(name: str, choices: Iterable[str], cutoff: float = 0.65) -> str | None:
    """The choice that was probably meant. Upper and lower case count as equal; a beginning counts as close."""
    lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=cutoff)
    if not close and len(name) > 2:
        close = [choice for choice in lower if choice.startswith(name.lower())]
    return lower[close[0]] if close else None


def did_you_mean(name: str, choices: Iterable[str], prefix: str = "") -> str:
    """'; did you mean ...?' where one of the choices is close, else nothing."""
    close = closest(name, choices)
    return f"; did you mean '{prefix}{close}'?" if close else ""


def choices_hint(name: str, choices: Iterable[str], prefix: str = "", more: str = "", where: str = "") -> str:
    """The close choice (with its prefix, to be copied) and the list of all of them, or `where` to find it if it is
    long; and `more`."""
    names = sorted(choices)
    close, text = did_you_mean(name, names, prefix), ", ".join(names)
    unlisted = not names or (close and len(names) > MANY) or (where and len(text) > LONG)
    listed = where if unlisted else f"there are: {text}"
    inside = "; ".join(part for part in (listed, more) if part)
    return f"{close} ({inside})" if inside else close


def shown(value: Any) -> str:
    """A value as YAML and the command line write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    text = text if len(text) <= 240 else f"{text[:237]}..."  # a path is not cut: it may be part of a command
    return text if text and text == text.strip() else f"'{text}'"
