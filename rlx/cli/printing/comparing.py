"""`rlx diff` and `rlx compare`."""

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from rlx.base.errors import shown
from rlx.cli.printing import text
from rlx.cli.printing.text import heading, table

FIRST = 12  # characters of a hash


def differences(diff: Mapping[str, Any]) -> None:
    """`rlx diff`."""
    print(f"A  {diff['a']}\nB  {diff['b']}\n")
    seeds = "the same seed" if diff["same_seed"] else "another seed"
    same = "same configuration" if diff["same_config"] else "configurations differ"
    code = f"other code ({', '.join(diff['code'])}); " if diff["code"] else ""
    print(f"{same}, {seeds}; {code}{_weights(diff['same_weights'])}")
    for title, part in (("configuration", diff["config"]), ("code", diff["code"]), ("made by", diff["origin"])):
        if part:
            print()
            table([(title, "A", "B"), *((key, _short(one), _short(other)) for key, (one, other) in part.items())])
    print()
    table(
        [("outcome", "A", "B"), *((key, _short(one), _short(other)) for key, (one, other) in diff["outcome"].items())]
    )


def _weights(same: bool | None) -> str:
    if same is None:
        return "at least one has no weights"
    return "weights equal bit for bit" if same else "weights differ"


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = shown(value).splitlines()[0] if str(value).strip() else "''"
    hexadecimal = len(text) >= 40 and set(text) <= set("0123456789abcdef")
    return text[:FIRST] if hexadecimal else text


def compared(comparison: Any) -> None:
    """`rlx compare`."""
    from rlx.analysis.compare import build
    from rlx.analysis.compare.result import ENOUGH

    prose = text.form == "text"
    side_, label_ = ("", "") if prose else ("side", "configuration")
    kinds = heading(kind for kind, *_ in comparison.names)
    lines = [(side_, kinds, "seeds", "IQM", "95 % interval", "mean", "worst", label_)]
    for side in comparison.sides:
        for i, (name, of) in enumerate(side.summary(comparison.names, comparison.lower)):
            at = of["iqm"]
            between = _interval(at) if of["seeds"] >= ENOUGH else " ".join(f"{x:.4g}" for x in sorted(of["scores"]))
            numbers = (f"{at.value:.4g}", between, f"{of['mean']:.4g}", f"{of['worst']:.4g}")
            called = (side.name, side.label) if not i or not prose else ("", "")  # for a program every row is whole
            lines.append((called[0], name, str(of["seeds"]), *numbers, called[1]))
        if not side.curves:
            lines.append((side.name, "-", "0", "-", "-", "-", "-", side.label))
    say = print if prose else partial(print, file=sys.stderr)  # a table for a program is a table alone
    say(f"{comparison.metric}, {'lower' if comparison.lower else 'higher'} is better")
    table(lines, right=(2, 3, 5, 6))
    for pair in comparison.pairs:
        who = f"{pair.first.name} against {pair.second.name}"
        say(f"\n{who}")
        rows = [("" if prose else who, "IQM difference", "P(improvement)", "" if prose else "verdict")]
        for result in pair.results:
            few, difference = min(result.seeds), result.difference
            between = f" {_interval(difference)}" if difference and few >= ENOUGH else ""
            apart = "-" if difference is None else f"{difference.value:+.4g}{between}"
            rows.append((result.place, apart, build.interval(result.improvement, few), result.verdict))
        if not prose:
            print()
        if pair.results:
            table(rows)
        else:
            print("nothing to compare")
    for note in comparison.notes:
        say(f"{'' if note is not comparison.notes[0] else chr(10)}note: {note}")


def _interval(estimate: Any) -> str:
    return f"[{estimate.low:.4g}, {estimate.high:.4g}]" if estimate.known else "-"
