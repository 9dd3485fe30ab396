"""What the user can put right: one line that names the key, the value and the choices. The command line exits 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """The user's input is wrong; the message is one line."""


class ConfigError(UserError):
    """A configuration that cannot be run."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """'; did you mean ...?' where one of the choices is close, else nothing."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
