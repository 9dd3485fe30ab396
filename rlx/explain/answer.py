"""The answer to `rlx explain WORDS`: the page of what the words name."""

from collections.abc import Callable, Iterator, Sequence

from rlx.base.errors import UserError, choices_hint
from rlx.explain import algorithms, functions, keys, metrics

Page = Callable[[], list[str]]


def answer(words: Sequence[str]) -> list[str]:
    """Lines for people; those that begin with four blanks are laid out already. Raises UserError."""
    name = " ".join(words)
    if page := next(_named(name), None):
        return page()
    known = [*algorithms.names(), *metrics.meanings(), *functions.equations(), *keys.every()]
    hint = choices_hint(name, known, where="rlx explain lists what there is")
    raise UserError(f"explain {name}: nothing of that name{hint}")


def _named(name: str) -> Iterator[Page]:
    """The pages of that name, what is meant most probably first."""
    if name in algorithms.names():
        yield lambda: algorithms.explain(name)
    if name in metrics.meanings():
        yield lambda: metrics.explain(name)
    if name.rpartition(".")[2] in functions.equations():
        yield lambda: functions.explain(name.rpartition(".")[2])
    if key := keys.find(name):
        yield lambda: keys.explain(key)
    if whole := next((metric for metric in metrics.meanings() if metric.endswith(f"/{name}")), None):
        yield lambda: metrics.explain(whole)
