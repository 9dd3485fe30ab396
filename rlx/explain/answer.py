"""The answer to `rlx explain WORDS`: the page of what the words name, else the page that answers them best."""

import difflib
from collections.abc import Callable, Iterator, Sequence

from rlx.base.errors import UserError
from rlx.explain import algorithms, choices, functions, glossary, keys, metrics
from rlx.explain.runs import story

Page = Callable[[], list[str]]
INDEX = """rlx explain ppo                      an algorithm: equations, keys, code, what to watch, what goes wrong
rlx explain algo.clip_coef           a key of the configuration
rlx explain train/approx_kl          a metric
rlx explain gae                      an equation
rlx explain bellman                  a term
rlx explain cartpole                 an environment, a task or a preset
rlx explain why is my entropy gone   a question
rlx explain latest                   a run: what happened, what held it back, what to try next"""


def answer(words: Sequence[str]) -> list[str]:
    """Lines for people; those that begin with four blanks are laid out already. Raises UserError."""
    name = " ".join(words).strip()
    if not name:
        return index()
    if len(words) == 1 and (run := story.path_of(name)):
        return story.explain(run)
    if pages := [*named(name)]:
        return [line for i, page in enumerate(pages) for line in ([""] * bool(i) + page())]
    near = difflib.get_close_matches(name.lower(), names(), n=3, cutoff=0.75)
    if len(words) > 2 or not near and (len(words) > 1 or name.isalpha()):  # and not algo.something
        from rlx.explain.search import search

        verbatim = [word for word in words if set(word) & set("_./") and any(named(word))]
        if hits := [*dict.fromkeys([*verbatim, *search(words)])]:
            also = [f"also: {', '.join(f'rlx explain {hit}' for hit in hits[1:])}"] if hits[1:] else []
            return [*answer([hits[0]]), "", *also]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "rlx explain lists what there is"
    raise UserError(f"explain {name}: nothing of that name; {hint}")


def names() -> list[str]:
    """Everything that has a page."""
    lists = (algorithms.names(), metrics.meanings(), functions.equations(), keys.texts(), glossary.names())
    return [*dict.fromkeys(name for listed in (*lists, choices.names()) for name in listed)]


def named(name: str) -> Iterator[Page]:
    """The pages of that name."""
    if (algo := name.removeprefix("algo=")) in algorithms.names():
        yield lambda: algorithms.explain(algo)
    if term := glossary.find(name):
        yield lambda: glossary.explain(term)
    listed, key = metrics.meanings(), keys.find(name)
    if key and name not in listed:
        yield lambda: keys.explain(key)
    if metric := name if name in listed else next((each for each in listed if each.endswith(f"/{name}")), None):
        yield lambda: metrics.explain(metric)
    equation = name.rpartition(".")[2]
    if equation in functions.equations():
        yield lambda: functions.explain(equation)
    if key and name in listed:
        yield lambda: keys.explain(key)
    if choice := choices.find(name):
        yield lambda: choices.explain(*choice)


def index() -> list[str]:
    """What there is to ask for."""
    groups = {
        "algorithms": algorithms.names(),
        "equations": [*functions.equations()],
        "metrics": [*metrics.meanings()],
        "terms": [*glossary.terms()],
        "keys": [*keys.texts()],
    }
    lines = [*(f"    {line}" for line in INDEX.splitlines()), ""]
    return lines + [line for title, listed in groups.items() for line in (f"{title}: {', '.join(listed)}", "")][:-1]
