"""When Python looks for garbage that holds itself.

Starting a run makes some 200,000 objects, nearly all of them modules' that stay. To look through them again and again
while they are imported, and once more at the end, was a fifth of the CPU time of torch's import.
"""

import gc

SELDOM = 50_000  # new objects between two looks; Python's own number is 700
_usual = gc.get_threshold()


def seldom() -> None:
    """From here on, for a command of this process's own."""
    gc.set_threshold(SELDOM)


def as_usual() -> None:
    """Before training, whose garbage may hold much memory: look as often as before, but not at what is there now."""
    if gc.get_threshold()[0] == SELDOM:
        gc.freeze()
        gc.set_threshold(*_usual)
