"""How far a function's tapes are trusted: which calls are compared with ordinary torch, and what counts as equal.

Compared are the calls 1, 2, 10, 100 and every 1,000th of each tape. The first ones find a wrong lowering, the later
ones what a recording cannot see: a Python number that changes, a tensor that is replaced by another one. Where a
comparison fails, ordinary torch is used from then on, and the notice counts the calls since the last good one: they
may have been wrong.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Literal

from torch import Tensor

from rlx.engine import kernels

Engine = Literal["auto", "native", "tape", "torch"]
NUMPY = "tape"  # the name of the engine without kernels
GRADIENTS = "gradients"  # compared with their own largest value, however small that is
TOLERANCE = 1e-3  # float32 and other kernels: about 1e-6
NATIVE_TOLERANCE = 1e-4  # 1e-5 of the largest value
NUDGE = 1e-5
EARLY, EVERY = (1, 2, 10, 100), 1000  # the calls that are compared


class Calls:
    """The calls of one tape."""

    def __init__(self, made: int = 0) -> None:
        self.reset(made)

    def reset(self, made: int) -> None:
        later = [call for call in EARLY if call > made]
        self.made, self.due = made, later[0] if later else (made // EVERY + 1) * EVERY

    def plain(self) -> bool:
        """Count a call that is not to be compared. False, and nothing counted, if this one is."""
        if self.made + 1 >= self.due:
            return False
        self.made += 1
        return True

    @property
    def room(self) -> int:
        """How many calls may be made in one go before one is to be compared."""
        return self.due - self.made - 1

    def agreed(self) -> None:
        """Count a call that was compared."""
        self.reset(self.made + 1)

    @property
    def doubtful(self) -> int:
        """Calls since the last that was compared."""
        compared = [0, *(call for call in EARLY if call <= self.made), self.made // EVERY * EVERY]
        return self.made - max(compared)


class Trust:
    """Whether a function runs from tapes (`taping`), with which `kernels`, and the calls of each.

    `able`: whether it could, were it asked to (`engine`). All of it belongs to the state of a run: one that is resumed
    compares, and falls back, at the calls at which one never stopped would, and it goes on with the engine that it had,
    or its notice says that bits will differ. One limit remains. Its tapes are recorded anew and hold a changed Python
    number at once, the old ones hold it from the next comparison on: between a change and the comparison that finds it
    the two may differ.
    """

    def __init__(self, engine: Engine, able: bool) -> None:
        self.taping, self.notice = able and engine != "torch", ""
        wanted = self.taping and engine != NUMPY
        self.kernels = kernels.load() if wanted else None
        if wanted and self.kernels is None:
            self.notice = f"numpy instead of the native kernels: {kernels.problem()}"
        self._calls: dict[str, Calls] = {}
        self._lacking: set[str] = set()

    @property
    def engine(self) -> str:
        """What runs the function: the identity of the kernels, numpy's "tape", or "torch"."""
        return self.kernels.identity if self.kernels else NUMPY if self.taping else "torch"

    @property
    def described(self) -> str:
        """The engine, and which operations have no kernel and keep a function to numpy."""
        lacking = ", ".join(sorted(self._lacking)) if self.kernels else ""
        return f"{self.engine}; numpy for: {lacking}" if lacking else self.engine

    def lacks(self, operation: str) -> None:
        """There is no kernel for one of a function ("": there are for all)."""
        self._lacking |= {operation} - {""}

    @property
    def tolerance(self) -> float:
        return NATIVE_TOLERANCE if self.kernels else TOLERANCE

    def calls(self, tape: str) -> Calls:
        return self._calls.setdefault(tape, Calls())

    def refuses(self, why: str) -> None:
        """The function cannot be taped."""
        self._stop(f"ordinary torch instead of the tape: {why}")

    def disagrees(self, why: str) -> None:
        """A comparison failed: every call of every tape since its last good one is in doubt."""
        doubtful = sum(calls.doubtful for calls in self._calls.values())
        self.refuses(f"{why}; the {doubtful:,} calls before may have been wrong" if doubtful else why)

    def _stop(self, notice: str) -> None:
        self.taping, self.kernels, self.notice = False, None, notice
        for calls in self._calls.values():
            calls.due = 0  # none is plain any more

    def state_dict(self) -> dict[str, Any]:
        calls = {tape: calls.made for tape, calls in self._calls.items()}
        return {"taping": self.taping, "notice": self.notice, "calls": calls, "engine": self.engine}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Also of an older checkpoint, that counted compared calls alone or nothing, and knew numpy alone."""
        self._goes_on_with(str(state.get("engine", NUMPY)))
        counts = state.get("calls", state.get("compared", {}))
        for tape in {*self._calls, *counts}:
            self.calls(tape).reset(counts.get(tape, 0))
        if self.taping and not state.get("taping", True):
            self._stop(state.get("notice", ""))

    def _goes_on_with(self, before: str) -> None:
        if before in (NUMPY, "torch"):
            self.kernels = None
        elif self.taping and before != self.engine:
            self.notice = f"begun with the engine '{before}', goes on with '{self.engine}': rounding will differ"


def disagreement(
    got: Mapping[str, Tensor],
    want: Mapping[str, Tensor],
    nudged: Callable[[float], Mapping[str, Tensor]],
    tolerance: float = TOLERANCE,
) -> tuple[str, float] | None:
    """The first of a tape's results that differs from torch's by more than rounding, and by how much; else None.

    `nudged(factor)` computes torch's anew with parameters or inputs times `factor`. It is asked only where something
    differs: what a factor of 1 + 1e-5 changes as much is rounding too (a value at the edge of a clip, a tie of an
    argmax, a gradient that is the difference of nearly equal numbers).
    """
    if list(got) != list(want):
        return "set of results", inf
    errors = {name: distance(got[name], want[name], name == GRADIENTS) for name in want}
    if all(error <= tolerance for error in errors.values()):
        return None
    for factor in (1 + NUDGE, 1 - NUDGE):
        for name, result in nudged(factor).items():
            errors[name] -= 2 * distance(result, want[name], name == GRADIENTS)
    wrong = [name for name, error in errors.items() if not error <= tolerance]
    return (wrong[0], distance(got[wrong[0]], want[wrong[0]], wrong[0] == GRADIENTS)) if wrong else None


def distance(got: Tensor, want: Tensor, relative: bool = False) -> float:
    """The largest |got - want| / (|want| + 0.1 max(1, largest |want|)), without the 1 if `relative`; of whole numbers
    the share that differs. Equal infinities and NaNs do not differ."""
    if got.shape != want.shape:
        return inf
    equal = (got == want) | ((got != got) & (want != want))
    if equal.all():
        return 0.0
    if not want.is_floating_point():
        return 1 - float(equal.double().mean())
    got, want = got.detach().double(), want.detach().double()
    size = want.abs().nan_to_num(0.0, 0.0)
    largest = size.max() if relative else size.max().clamp(min=1.0)
    error = (got - want).abs() / (size + 0.1 * largest)
    return float(error.nan_to_num(inf, inf).masked_fill(equal, 0.0).max())
