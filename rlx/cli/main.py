"""The command line's entry: every way out is an exit code, and nothing slow is imported before it is needed."""

import gc
import os
import re
import sys
import warnings
from typing import Any, NoReturn

from rlx.base import garbage
from rlx.base.streams import end_stdout
from rlx.base.text import escaped


def main() -> NoReturn:
    """Run one command."""
    garbage.seldom()
    _open_streams()
    if sys.argv[1:2] in (["train"], ["resume"]) and _follows():
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # torchrun: the first process says it all
    if sys.argv[1:2] != ["complete"]:
        sys.argv[1:] = _without_place(sys.argv[1:])
    try:
        code = _quick(sys.argv[1:2], sys.argv[2:]) if _is_quick(sys.argv[1:]) else _run()
    except BrokenPipeError:  # `| head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    else:
        end_stdout()
    gc.freeze()  # the process ends: no more looking for garbage
    sys.exit(code)


def _without_place(words: list[str]) -> list[str]:
    """Without the words that say where runs are, of which every verb may have some."""
    from rlx.base.errors import UserError
    from rlx.rundir import home

    try:
        return home.take(words)
    except UserError as error:
        from rlx.cli import exit_codes

        sys.exit(exit_codes.say(str(error)))


def _is_quick(words: list[str]) -> bool:
    """Is it answered without Typer? A person waits for it, or a <TAB>."""
    return words[:1] == ["complete"] or words[:1] == ["explain"] and not any(word.startswith("-") for word in words)


def _quick(verb: list[str], words: list[str]) -> int:
    if verb == ["complete"]:
        return _complete(words)
    from rlx.cli.explaining import explain

    return explain(words)


def _open_streams() -> None:
    """A stream that is closed (`rlx train >&-`) is /dev/null: else the next file to be opened would take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115


def _follows() -> bool:
    """Is this one of torchrun's processes, and not the first? (Variables alone do not make it one: those that meet have
    an address.) What is no number is said by training.distributed."""
    rank, count = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    return "MASTER_ADDR" in os.environ and rank.isdigit() and count.isdigit() and int(rank) > 0 and int(count) > 1


def _run() -> int:
    import typer

    from rlx.cli import exit_codes
    from rlx.cli.verbs import app, errors

    warnings.showwarning = _warning  # type: ignore[assignment]
    warnings.filterwarnings("ignore", module=r"gymnasium\.envs\.registration")  # rlx's own errors say the same
    warnings.filterwarnings(
        "ignore", message="The value of the smallest subnormal"
    )  # rlx flushes them; numpy before 2.4
    stdout = sys.stdout
    try:
        code: Any = app(prog_name="rlx", standalone_mode=False)
        with errors():
            if sys.stdout is not None:  # None: `rlx ls >&-`
                sys.stdout.flush()
    except SystemExit:
        if sys.stdout is stdout:
            raise
        sys.stdout = stdout  # Typer replaces it when it meets a closed pipe, and exits with 1
        raise BrokenPipeError from None
    except typer.Abort:
        return 130
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):  # Typer's usage errors have one
            raise
        return exit_codes.say(exit_codes.usage(error))
    return code if isinstance(code, int) else 0


_warned: set[str] = set()


def _warning(message: Warning | str, category: type[Warning], *_where: Any, **_more: Any) -> None:
    """What other packages warn of, as one line, once; deprecations are for those who write programs (where one matters,
    rlx's own error says it)."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(message)).split()).removeprefix("WARN: ")
    if not issubclass(category, DeprecationWarning | PendingDeprecationWarning) and text not in _warned:
        _warned.add(text)
        print(f"rlx: warning: {escaped(text)}", file=sys.stderr)


def _complete(words: list[str]) -> int:
    """The candidates for the last word, one a line: what the completion scripts call at each <TAB>."""
    from rlx.cli.completion import candidates

    for candidate in candidates(words[1:] if words[:1] == ["--"] else words):
        print(candidate)
    sys.stdout.flush()
    return 0
