"""rlx check task NAME: would a language model stumble over this task?

made       it can be made
prompts    they are of its alphabet and not too long, drawn the same by the same seed, held-out ones apart
answers    the right completion is of its symbols, fits into max_new and earns the most
wrong      a changed answer earns less
rewards    whatever a model writes earns a finite number
offers     what it gives besides a reward, and which algorithms that serves
speed      prompts and rewards a second
"""

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from rlx.check.findings import Check, Failed, one_line
from rlx.config import registry, schema
from rlx.language.tasks import make_task, task_module
from rlx.language.tasks.base import Task, is_held_out, score

PROMPTS = 256
GIVES = ("answer", "text", "pairs", "step_rewards")


def make(name: str, values: Mapping[str, Any]) -> Task:
    """The task of a YAML of task=. Raises ConfigError."""
    module = task_module(schema.implementation({"task": values}, "task", "task=add2"))
    return make_task(schema.section(module.Config, {"name": name, **values}, "task"))


def checks(name: str, values: Mapping[str, Any]) -> Iterator[Check]:
    def made() -> str:
        task = make(name, values)
        return f"prompts of up to {task.prompt_length} characters, completions of up to {task.max_new} tokens"

    yield "made", made
    for check in (prompts, answers, wrong, rewards, offers, speed):
        yield check.__name__, functools.partial(_on, check, name, values)


def _on(check: Callable[[Task], str], name: str, values: Mapping[str, Any]) -> str:
    return check(make(name, values))


def _drawn(task: Task, seed: int = 1, held_out: bool = False) -> list[str]:
    return task.prompts(np.random.default_rng(seed), PROMPTS, held_out)


def prompts(task: Task) -> str:
    drawn = _drawn(task)
    for prompt in drawn:
        if strange := set(prompt) - set(task.alphabet):
            raise Failed(f"prompt {prompt!r} has {', '.join(map(repr, sorted(strange)))}, which its alphabet lacks")
        if len(prompt) > task.prompt_length:
            raise Failed(
                f"prompt {prompt!r} has {len(prompt)} characters, more than prompt_length={task.prompt_length}"
            )
    if drawn != _drawn(task):
        raise Failed("seed 1 gave two sets of prompts (all chance must come from the generator that draw is given)")
    if not task.splits:
        return f"note: fewer than 64 different prompts, so none is held out ({len(set(drawn))} of {PROMPTS} differ)"
    both = set(drawn) & set(_drawn(task, 2, held_out=True))
    if both:
        raise Failed(f"prompt {sorted(both)[0]!r} is handed out for training and held out")
    assert not any(map(is_held_out, drawn))
    return f"{len(set(drawn))} of {PROMPTS} differ; training and held-out ones are apart; a seed draws the same again"


def answers(task: Task) -> str:
    if not hasattr(task, "answer"):
        return "note: it knows no right answer"
    for prompt in _drawn(task):
        answer = task.answer(prompt)
        if not isinstance(answer, str):
            raise Failed(f"the answer to {prompt!r} is {answer!r}, not a string")
        if strange := set(answer) - set(task.symbols):
            raise Failed(f"answer {answer!r} to {prompt!r} has {sorted(strange)[0]!r}, which its symbols lack")
        if len(answer) + 1 > task.max_new:
            raise Failed(f"answer {answer!r} and its end do not fit into max_new={task.max_new}")
        if task.answer(prompt) != answer:
            raise Failed(f"the answer to {prompt!r} is not always the same")
        if not task.correct(prompt, answer, True) or task.reward(prompt, answer, True) != 1.0:
            raise Failed(f"the right answer {answer!r} to {prompt!r} earns {task.reward(prompt, answer, True)}, not 1")
    return f"{PROMPTS} answers earn 1 and fit into max_new={task.max_new}"


def wrong(task: Task) -> str:
    if not hasattr(task, "pairs"):
        return "note: it has no pairs of a right and a wrong answer"
    for prompt, chosen, rejected in task.pairs(np.random.default_rng(1), PROMPTS):
        if not task.reward(prompt, rejected, True) < task.reward(prompt, chosen, True):
            raise Failed(f"{rejected!r} earns as much as {chosen!r} in answer to {prompt!r}")
    return f"{PROMPTS} changed answers earn less"


def rewards(task: Task) -> str:
    rng, symbols = np.random.default_rng(1), sorted(set(task.alphabet))
    drawn = _drawn(task)
    lengths = rng.integers(0, task.max_new + 1, len(drawn))
    texts = ["".join(rng.choice(symbols, length)) if length else "" for length in lengths]
    for ended in (True, False):
        scored = score(task, drawn, texts, [ended] * len(drawn))
        bad = [i for i, value in enumerate(scored["reward"]) if not math.isfinite(value)]
        if bad:
            raise Failed(f"{texts[bad[0]]!r} earns {scored['reward'][bad[0]]} in answer to {drawn[bad[0]]!r}")
    mean = float(scored["reward"].mean())
    return f"{2 * len(drawn)} random texts, empty ones too, earn finite numbers ({mean:.3g} on average)"


def offers(task: Task) -> str:
    given = [name for name in GIVES if hasattr(task, name)]
    names = [name for name in registry.algorithms_of("language") if set(_needs(name)) <= set(given)]
    return f"{', '.join(['reward', *given])}: serves {', '.join(names)}"


def _needs(algo: str) -> tuple[str, ...]:
    return registry.facts(str(registry.values("algo", algo).get("implementation"))).needs


def speed(task: Task) -> str:
    start, rng = time.perf_counter(), np.random.default_rng(1)
    count = 0
    while time.perf_counter() - start < 0.5:
        drawn = task.prompts(rng, 64)
        score(task, drawn, ["" for _ in drawn], [True] * len(drawn))
        count += 64
    return one_line(f"{count / (time.perf_counter() - start):,.0f} prompts and rewards a second")
