"""rlx for notebooks and scripts: train, load, runs, compare, by the same code as the commands.

    import rlx

    view = rlx.train("algo=ppo env=cartpole", seed=3)
    view.status, view.score              "finished", 500.0
    view.policy([0.0, 0.0, 0.0, 0.0])    an action; of a batch, an array
    view.metrics()["rollout/ep_rew_mean"]

The caller's process is left as it was: threads, torch's and numpy's settings and generators, the environment, signal
handlers, warnings, a Hydra in progress. Calls of several threads wait for one another. Ctrl-C writes a checkpoint and
is KeyboardInterrupt. A mistake is a UserError of one line; RunFailed is a failure inside, its traceback in the run's
rlx.log. Nothing here imports torch before a policy or a training run needs it.

Left out: grids and searches (`rlx train -m`, `rlx sweep`): a loop over seeds is a grid here.
"""

import contextlib
import io
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from rlx.analysis.compare import result
from rlx.base.errors import ConfigError, UserError
from rlx.base.files.paths import near
from rlx.base.signals import Interrupted, RunFailed
from rlx.config.kind import COUNTS
from rlx.config.nested import flatten
from rlx.rundir import home, index, layout, query, reader
from rlx.rundir.filter import select
from rlx.rundir.layout import Status
from rlx.rundir.metrics import MetricsTable

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Columns", "Comparison", "Episode", "RunFailed", "RunView", "UserError", "compare", "load", "runs", "train",
]  # fmt: skip
Words = str | Sequence[str]
Progress = Callable[[int, Mapping[str, Any]], None]
Side = Union[str, Path, "RunView", Iterable[Union[str, Path, "RunView"]]]


def train(words: Words = "", *, quiet: bool = False, progress: Progress | None = None, **keys: Any) -> "RunView":
    """Train one run to its end, as `rlx train WORDS` does; returns what came of it.

    `words`: key=value as on the command line, one string or a list. `keys`: more of them (seed=3, env="cartpole",
    algo={"lr": 1e-3}, runs_dir=...). How it goes is printed on stderr, unless `quiet`; `progress(step, metrics)` hears
    of every step that is logged. Raises UserError before anything is written, RunFailed, KeyboardInterrupt.
    """
    listed = _words(words, keys)
    with _guest("train"):
        from rlx.launch import launch

        live = _live(quiet, progress)
        try:
            outcome = launch.train(listed, live)
        finally:
            live.finish()
    return RunView(near(outcome.runs[-1][0]))


def load(
    run: str | Path = "latest", *, checkpoint: str = "latest", runs_dir: str | Path | None = None, trust: bool = False
) -> "RunView":
    """A run directory, latest (the newest under runs_dir, or where runs are) or latest:ALGO.

    `checkpoint`: latest, best, final or a step, which the policy is of. `trust`: run the code of a run's own that this
    machine has not recorded. Raises UserError.
    """
    path = reader.resolve(str(run), Path(runs_dir) if runs_dir is not None else None)
    return RunView(path, checkpoint, trust)


def runs(
    words: str | Path | Sequence[str] = (), *, where: str | Sequence[str] | Mapping[str, Any] = ()
) -> list["RunView"]:
    """Runs, oldest first: those below directories, of patterns ("runs/**"), or all there are, for which all conditions
    of `where` hold: "algo=ppo", ["lr>=1e-3", "status=finished"], {"algo.name": "ppo"}. Raises UserError."""
    names = [str(words)] if isinstance(words, str | Path) else list(words)
    if isinstance(where, Mapping):
        where = [f"{key}={value}" for key, value in where.items()]
    where = [where] if isinstance(where, str) else list(where)
    if not names and not reader.find(home.runs_dir()):
        return []
    entries = [index.entry(path) for path in query.find(names)]
    return [RunView(entry.path) for entry in select(entries, where)]


def compare(*sides: Side, metric: str = "eval", by: str | Sequence[str] = (), lower: bool = False) -> "Comparison":
    """Is one side better than another, as `rlx compare` answers; print it. A side is a directory, a pattern or a list
    of runs; one alone is grouped by configuration, or by the keys `by`. Raises UserError."""
    from rlx.analysis.compare import build

    words = [str(side) if isinstance(side, str | Path | RunView) else [str(run) for run in side] for side in sides]
    keys = [key for key in by.split(",") if key] if isinstance(by, str) else list(by)
    return Comparison(**vars(build.build(words, metric, keys, lower)))


class Comparison(result.ComparisonData):
    """What `rlx compare` prints, by `print`; its parts are `sides`, `pairs` and `notes`, all of it `to_json()`."""

    def __str__(self) -> str:
        from rlx.cli import printing

        page = io.StringIO()
        with contextlib.redirect_stdout(page):
            printing.compared(self)
        return page.getvalue().rstrip("\n")

    __repr__ = __str__


class Columns(dict[str, "np.ndarray"]):
    """Metrics by name: a row for each step, NaN where a metric has no value there; "step" is the clock."""

    def to_frame(self) -> Any:
        """A pandas.DataFrame whose index is the step. Raises UserError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UserError("to_frame: pandas is not installed (pip install pandas)") from None
        return pandas.DataFrame(dict(self)).set_index("step")


class Episode(NamedTuple):
    """One episode that a policy has played."""

    total: float  # the return, of raw rewards
    length: int  # steps


class RunView:
    """A run directory: what the run is, how it stands and what it has learnt. It is read anew at each question."""

    def __init__(self, path: str | Path, checkpoint: str = "latest", trust: bool = False) -> None:
        self.path = Path(path)
        self._checkpoint, self._trust = checkpoint, trust
        self._policy: Any = None

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__

    def __repr__(self) -> str:
        score = "" if self.score is None else f", score {self.score:.6g}"
        return f"<rlx run {self.path}: {self.status}, step {self.step:,}{score}>"

    # -- what is there -----------------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, section by section: view.config["algo"]["lr"]. Raises UserError where it is damaged."""
        return layout.read_config(self.path)

    @property
    def status(self) -> str:
        """running, finished, failed, interrupted, pruned, killed or damaged."""
        return Status.read(self.path).state

    @property
    def step(self) -> int:
        return Status.read(self.path).step

    @property
    def score(self) -> float | None:
        """Of the last evaluation; None without one."""
        return Status.read(self.path).score

    def to_json(self) -> dict[str, Any]:
        """What `rlx show --json` prints: {run, algo, env or task, seed, step, status, weights_sha256, eval, ...}."""
        return index.entry(self.path).row

    def metrics(self) -> Columns:
        """What was logged, as columns of numpy arrays."""
        import numpy as np

        rows: dict[int, dict[str, Any]] = {}
        for row in MetricsTable(self.path).rows():
            rows.setdefault(row["step"], {}).update(row)
        names = dict.fromkeys(["step", *(name for row in rows.values() for name in row)])
        return Columns({name: _column(np, [row.get(name) for row in rows.values()]) for name in names})

    # -- what was learnt ---------------------------------------------------------------------------------------

    @property
    def policy(self) -> Any:
        """The policy of the checkpoint: view.policy(obs) is the action for one observation as the environment gives it,
        or an array of actions for a batch, without chance (rng=numpy.random.default_rng(0): drawn). Of a language run
        view.policy("37+58=") is the likeliest completion, and of a list of prompts a list. Raises UserError."""
        if self._policy is None:
            with _guest(), _inner(self) as (runner, cfg, module, run):
                policy = runner.world_of(cfg).load_policy(cfg, module, run)
                self._policy = runner.world_of(cfg).raw_policy(policy, cfg)
        return self._policy

    def eval(self, n: int | None = None, *, seed: int = 0, device: str | None = None, **how: Any) -> dict[str, Any]:
        """The policy on `n` fresh episodes (10) or held-out prompts (256), as `rlx eval --json` has it: {mean, std, n,
        returns}, or the accuracies. `how`: stochastic=True; of a language run k, the samples of a prompt."""
        with _guest(), _inner(self, device) as (runner, cfg, module, run):
            return dict(runner.report(cfg, module, run, n or COUNTS[cfg.PLACE], seed, **how))

    def play(
        self,
        gif: str | Path | None = None,
        *,
        seed: int = 0,
        steps: int = 1000,
        fps: float | None = None,
        stochastic: bool = False,
    ) -> Episode:
        """One episode, in a window or as a .gif or .mp4 at the environment's own speed (or `fps`). Raises UserError, of
        a language run too (see `policy`)."""
        from rlx.base.files.paths import check_out
        from rlx.control.show import recording

        if reader.place(self.path) == "task":
            raise UserError(f"play: {self.path} is a language-model run; view.policy(prompt) completes prompts")
        if gif is not None:
            check_out(Path(gif), (".gif", ".mp4"), "gif")
        with _guest(), _inner(self) as (runner, cfg, module, run):
            world = runner.world_of(cfg)
            policy = world.load_policy(cfg, module, run)
            if gif is None:
                return Episode(*world.watch(policy, cfg, seed, steps, stochastic))
            made = recording.record(policy, cfg.judged_in, seed, steps, recording.WIDTH, stochastic)
            recording.write(made, Path(gif), fps)
            return Episode(made.total, len(made.steps))

    # -- going on ----------------------------------------------------------------------------------------------

    def resume(
        self, words: Words = "", *, quiet: bool = False, progress: Progress | None = None, **keys: Any
    ) -> "RunView":
        """Go on, exactly as if it had never stopped; with changes (total_steps=200_000) from here on. Returns itself.
        Raises as `train`."""
        listed = _words(words, keys)
        with _guest("resume"):
            from rlx.launch import launch

            live = _live(quiet, progress)
            try:
                launch.resume(self.path, listed, live, self._trust)
            finally:
                live.finish()
                self._policy = None
        return self


# -- words -------------------------------------------------------------------------------------------------------


def _words(words: Words, keys: Mapping[str, Any]) -> list[str]:
    """The words of a command. Raises ConfigError for flags, which are the command line's."""
    from rlx.search.params import word

    listed = shlex.split(words) if isinstance(words, str) else [str(each) for each in words]
    if flag := next((each for each in listed if each.startswith("-")), None):
        raise ConfigError(f"{flag}: a flag of the command line; here only key=value")
    values = flatten(_as_data(keys))
    for key, value in values.items():
        if not isinstance(value, str | int | float | list | dict | None):
            raise ConfigError(
                f"{key}: {type(value).__name__} is no value of a configuration, which has words, numbers and lists; "
                "what is yours is named: 'env.id': './my_env.py:MyEnv'"
            )
    return [*listed, *(word(key, value) for key, value in values.items())]


def _as_data(value: Any) -> Any:
    """Paths, runs, tuples and the numbers of numpy as configurations have them."""
    if isinstance(value, Mapping):
        return {str(key): _as_data(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_data(each) for each in value]
    if isinstance(value, Path | RunView):
        return str(value)
    return value.item() if hasattr(value, "item") else value


def _column(np: Any, values: list[Any]) -> Any:
    """Numbers as an array of them, NaN for none; anything else as objects."""
    numbers = [float(value) if value in ("Infinity", "-Infinity") else value for value in values]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in numbers):
        return np.array(numbers, np.int64)
    if all(value is None or isinstance(value, int | float) for value in numbers):
        return np.array([np.nan if value is None else value for value in numbers], np.float64)
    return np.array(values, object)


# -- as a guest --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _guest(verb: str = "") -> Iterator[None]:
    """rlx in the caller's process; a signal that stopped a run is the caller's again."""
    from rlx.launch.composing import aside
    from rlx.training.caller import as_it_was

    stop = None
    with as_it_was(), aside():
        try:
            yield
        except Interrupted as stopped:
            stop = stopped
    if stop is None:
        return
    number = stop.code - 128
    if number != signal.SIGINT and threading.current_thread() is threading.main_thread():
        signal.raise_signal(number)
    raise KeyboardInterrupt(f"{stop}; go on with: rlx.load({str(stop.path)!r}).resume()") from None


@contextlib.contextmanager
def _inner(view: RunView, device: str | None = None) -> Iterator[tuple[Any, Any, Any, Any]]:
    """The run of a view's checkpoint, opened."""
    from rlx.training import runner

    cfg, module, run = runner.open_run(view.path, view._checkpoint, device, view._trust)
    yield runner, cfg, module, run


def _live(quiet: bool, progress: Progress | None) -> Any:
    from rlx.cli.printing.live import Live

    return Live("quiet" if quiet else "lines", sys.stderr, progress)
