"""The answer to `rlx explain WORDS`: the page of what the words name."""

from collections.abc import Sequence

from rlx.base.errors import UserError, choices_hint
from rlx.explain import keys, metrics


def answer(words: Sequence[str]) -> list[str]:
    """Lines for people; those that begin with four blanks are laid out already. Raises UserError."""
    name = " ".join(words)
    if name in metrics.meanings():
        return metrics.explain(name)
    if key := keys.find(name):
        return keys.explain(key)
    raise UserError(f"explain {name}: nothing of that name{choices_hint(name, [*metrics.meanings(), *keys.every()])}")
