"""The one place where an error becomes one line on stderr and an exit code.

0 done, 1 a failure inside, 2 the user's input, 130 and 143 interrupted (SIGINT, SIGTERM).
"""

import errno
import os
import re
import sys
from typing import Any

from rlx.base.errors import UserError, choices_hint, closest, shown
from rlx.base.files.paths import near
from rlx.base.signals import Interrupted, RunFailed
from rlx.base.text import escaped
from rlx.cli import printing


def say(message: str, code: int = 2) -> int:
    """One line on stderr, whatever the message holds."""
    print(f"rlx: error: {escaped(' '.join(str(message).split()))}", file=sys.stderr)
    return code


def code_of(error: BaseException) -> int:
    """Print what happened in one line; where there is a run, its path is the last line of stdout as always."""
    if isinstance(error, UserError):
        return say(str(error))
    if isinstance(error, Interrupted):
        again = error.again or f"rlx resume {printing.quoted(error.path)}"
        print(escaped(f"rlx: {error}; go on with: {again}"), file=sys.stderr)
        print(f"run: {near(error.path)}")
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return say("interrupted", 130)
    if isinstance(error, RunFailed):
        path = near(error.path)
        log = f" (traceback in {path}/rlx.log)" if (error.path / "rlx.log").is_file() else ""
        say(f"{error}{log}", 1)
        print(f"run: {path}")
        return 1
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return say(
            f"{shown(error.filename)}: no such file or directory: a name of {_longest(error.filename)} characters"
        )
    if isinstance(error, FileNotFoundError) and not _has_working_directory():
        return say("the working directory no longer exists (cd to another)")
    return say(f"{type(error).__name__}: {error} (RLX_DEBUG=1 shows the traceback)", 1)


def _longest(path: Any) -> int:
    return max(map(len, os.fspath(path).split("/")))


def _has_working_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


# -- Typer's complaints ----------------------------------------------------------------------------------------


def usage(error: Any) -> str:
    """Typer's usage error as one line in the style of rlx."""
    command = error.ctx.command_path if error.ctx else "rlx"
    text, kind, help = error.format_message(), type(error).__name__, f"{command} --help"
    if match := re.match(r"No such command '(.*?)'", text):
        verbs = [name for name, verb in error.ctx.command.commands.items() if not verb.hidden]
        return f"{shown(match[1])}: no such command{choices_hint(match[1], verbs, where='rlx --help lists all')}"
    if kind == "NoSuchOption":
        names = [name for param in error.ctx.command.params for name in param.opts if name.startswith("--")]
        close = closest(error.option_name.lstrip("-"), [name[2:] for name in [*names, "--help"]])
        hint = f"; did you mean --{close}?" if close else ""
        return f"{error.option_name}: no such option of {command}{hint} ({help})"
    if kind == "BadOptionUsage":
        return f"{error.option_name}: {'needs a value' if 'requires' in text else 'takes no value'}"
    if kind == "MissingParameter" and error.param is not None:
        name, meaning = error.param.metavar or error.param.name, error.param.help.rstrip(".")
        return f"{command}: {name} is missing: {meaning[:1].lower()}{meaning[1:]} ({help})"
    if kind == "BadParameter" and error.param is not None:
        fault = error.__cause__.errors()[0] if hasattr(error.__cause__, "errors") else {"msg": error.message}
        value = f"={shown(fault['input'])}" if "input" in fault else ""
        return f"{error.param.opts[0]}{value}: {_wanted(fault)}"
    if match := re.search(r"unexpected extra argument.*? \((.*)\)$", text):
        return f"{command}: unexpected argument: {match[1]} ({help})"
    return f"{text} ({help})"


def _wanted(fault: dict[str, Any]) -> str:
    """Pydantic's message in the words that configurations use."""
    limits = fault.get("ctx", {})
    for name, sign in (("ge", ">="), ("le", "<=")):
        if name in limits:
            return f"must be {sign} {limits[name]}"
    return "must be a whole number" if fault.get("type", "").startswith("int") else str(fault["msg"])
