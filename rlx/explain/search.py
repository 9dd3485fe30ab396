"""Which page answers a question: plain scoring of words.

A page has a title (its names) and a text. A word of the question counts log(pages / pages that have it), three times in
a title and once in a text; a page whose whole title is in the question gains as much again. Long texts count less. A
question most of which no page has a word for has no answer.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from rlx.explain import algorithms, comments, functions, glossary, keys, metrics

IDLE = """
a about all am an and any are as at be been but by can could did do does done explain for from get go goes going got had
happen happens has have how i if in is it its just learn learned learns learnt let look looks me mean means my need no
not of on or our rlx say says should so something suddenly tell than that the their them then there these they thing
this to train training up use used want was we were what when where which while who whose why will with work works
would you your
"""
STOP = frozenset(IDLE.split())
ENDINGS = ("isation", "ization", "ising", "izing", "ations", "ation", "ings", "ing", "ies", "ed", "es", "ly", "e", "s")
TITLE, TEXT, WHOLE = 3.0, 1.0, 2.0


class Page(NamedTuple):
    name: str  # what rlx explain knows it by
    titles: tuple[frozenset[str], ...]
    text: Counter[str]


@cache
def stem(word: str) -> str:
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def words(text: str) -> list[str]:
    """The stems of a text, without what says nothing."""
    text = re.sub(r"\b(on|off)[ -]?policy\b", r"\1policy", text.lower())  # neither is about policies as such
    return [stem(word) for word in re.findall(r"[a-z0-9]+", text) if word not in STOP]


def _page(name: str, titles: Iterable[str], text: str) -> Page:
    return Page(name, tuple(frozenset(words(title)) for title in titles), Counter(words(text)))


def _pages() -> Iterator[Page]:
    """One a page."""
    for term in glossary.terms().values():
        yield _page(term.name, (term.name, *term.also), term.text)
    for name in algorithms.names():
        said = algorithms.lesson(name) if name not in keys.options("algo") or not keys.is_variant(name) else {}
        wrong = " ".join(said.get("wrong", ())) if isinstance(said.get("wrong"), tuple) else ""
        head = " ".join(algorithms.head(name))
        yield _page(name, (name, head.partition(".")[0]), f"{head} {said.get('what', '')} {wrong}")
    for name, listed in metrics.meanings().items():
        yield _page(name, (name, name.rpartition("/")[2]), " ".join(one.text for one in listed))
    for name, texts in keys.texts().items():
        plain = [comments.parts_of(text) for text in texts]
        yield _page(name, (name, name.rpartition(".")[2]), " ".join(" ".join(each.values()) for each in plain))
    for group in ("env", "task"):
        for name, path in keys.options(group).items():
            yield _page(name, (name,), " ".join(comments.head(path)))
    for name, found in functions.equations().items():
        yield _page(name, (name,), " ".join(one.doc.partition("\n\n")[0] for one in found))


def search(question: Sequence[str], most: int = 5) -> list[str]:
    """The names of the pages that answer best, the best first; [] where most of it is unknown."""
    wanted = Counter(words(" ".join(question)))
    pages = [*_pages()]
    having = Counter(
        word for page in pages for word in {*page.text, *(each for title in page.titles for each in title)}
    )
    worth = {word: math.log(1 + len(pages) / having[word]) for word in wanted if word in having}
    unknown = len([word for word in wanted if word not in having]) * math.log(1 + len(pages))
    if unknown > sum(worth.values()):
        return []
    mean = sum(page.text.total() for page in pages) / len(pages)
    scored = sorted(((_score(page, worth, mean), page.name) for page in pages), key=lambda each: -each[0])
    return [*dict.fromkeys(name for score, name in scored if score > 0)][:most]


def _score(page: Page, worth: dict[str, float], mean: float) -> float:
    best = 0.0
    for title in page.titles:
        hit = sum(worth[word] for word in title if word in worth)
        whole = WHOLE if title and title <= {*worth} else len({*title} & {*worth}) / max(1, len(title))
        best = max(best, TITLE * hit * whole)
    length = 0.5 + 0.5 * page.text.total() / mean
    counts = {word: page.text[word] for word in worth if page.text[word]}
    return best + TEXT * sum(worth[word] * count / (count + length) for word, count in counts.items()) * 2
