"""Hyper-parameters that change during a run: plain floats in, a plain float out, nothing remembered.

A schedule is a function of progress = done / total, in [0, 1] (beyond, it holds its end), so a resumed run
lands on the value it left.  The learning rate of update u = 0, 1, ..., U - 1 is `linear(u / U, lr)`: lr at
the first update, lr / U at the last.
"""


def constant(progress: float, initial: float = 1.0) -> float:
    """initial, whatever the progress.

    >>> constant(0.5, 2.0)
    2.0
    """
    return initial


def linear(progress: float, initial: float = 1.0, final: float = 0.0) -> float:
    """Straight from initial to final, both exact at their ends.

        x = (1 - p) initial + p final,   p = progress clamped to [0, 1]

    Learning rate: `linear(updates_done / num_updates, lr)` (CleanRL's anneal_lr).  Epsilon-greedy:
    `linear(step / exploration_steps, 1.0, 0.05)`.

    >>> [linear(progress, 1.0, 0.2) for progress in (0.0, 0.5, 2.0)]
    [1.0, 0.6, 0.2]
    """
    p = min(max(progress, 0.0), 1.0)
    return (1 - p) * initial + p * final
