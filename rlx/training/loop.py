"""The one outer loop: logs, evaluates, checkpoints, stops when it is asked to.

An algorithm is a generator of `(step, metrics)`; everything that outlives the process is written here, between two
of its steps. A run is therefore exactly its configuration plus the state in its last checkpoint.
"""

import contextlib
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml

from rlx import __version__
from rlx.base import garbage, process, stopwatch
from rlx.base.errors import UserError
from rlx.base.files import guarded
from rlx.base.files.atomic import CannotWrite, own_directory, own_file, write_atomically
from rlx.base.signals import (
    GRACE,
    REACHED,
    TIME_UP,
    Interrupted,
    Paused,
    Pruned,
    RunFailed,
    Signals,
    StoppedAtOnce,
    name_of,
)  # fmt: skip
from rlx.base.streams import others_on_stderr
from rlx.base.text import escaped
from rlx.config import registry
from rlx.config.keys import config_hash, hparams
from rlx.config.schema import Config, seconds
from rlx.loggers.loggers import TENSORBOARD, LoggedRun, Loggers, names
from rlx.run import Evaluation, Run, measured
from rlx.rundir import films, layout, provenance
from rlx.rundir.checkpoint import Checkpoints, Found, weights_sha256
from rlx.rundir.layout import LastEvaluation, NotItsOwn, OwnFiles, Status
from rlx.rundir.metrics import MetricsLog, MetricsTable, strip_time
from rlx.rundir.provenance import Provenance
from rlx.rundir.tensorboard import Dashboard
from rlx.training import code_record, device as devices, distributed, init_from

HEARTBEAT = 5.0  # seconds
Progress = Callable[[int, Mapping[str, Any]], None]


def say(text: str) -> None:
    """One line on stderr, if anyone still reads it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"rlx: {escaped(text)}", file=sys.stderr)


class Loop:
    """One run, new or resumed, from a checkpoint or from nothing, to its end."""

    def __init__(
        self,
        path: Path,
        cfg: Config,
        module: ModuleType,
        device: torch.device,
        checkpoints: Checkpoints,
        progress: Progress,
        signals: Signals,
    ) -> None:
        self.path, self.cfg, self.module, self.device = path, cfg, module, device
        self.world = registry.world(cfg.algo.implementation)
        self.checkpoints, self.progress, self.signals = checkpoints, progress, signals
        self.saved: tuple[str, int] | None = None  # kind and step of the newest checkpoint
        self.step = 0
        self.evaluation: LastEvaluation | None = None
        self._shown = 0  # notices
        self._beat = self._since = self._began = time.perf_counter()  # _began: the iteration
        self._saving = 0.0  # seconds of the last checkpoint
        self._spent = dict(stopwatch.spent)
        self._state: dict[str, Any] | None = None  # of the run, at this step

    @others_on_stderr()
    def execute(self, checkpoint: Found | None) -> dict[str, Any]:
        """Train to the end; returns the last evaluation, the last metrics, the hash of the weights.

        Raises RunFailed, Interrupted, Pruned, or a UserError if the checkpoint does not fit.
        """
        devices.prepare(self.cfg.threads)
        garbage.as_usual()
        try:
            self._open(checkpoint)
            try:
                return self._train()
            except (UserError, Interrupted, Paused, Pruned, StoppedAtOnce, NotItsOwn):
                raise
            except BaseException:
                self.dashboard.hparams_end("failure")
                raise
            finally:
                self.run.close()
                self.dashboard.close()
                self.log.close()
        except UserError as error:
            if checkpoint is None:
                self._last_words("failed", error=str(error))
            raise
        except (Interrupted, Pruned) as stop:
            self._last_words("pruned" if isinstance(stop, Pruned) else "interrupted", error=str(stop))
            raise
        except Paused as pause:
            say(f"note: {pause}")
            self._last_words("interrupted", error=str(pause))
            return {"evaluation": self._evaluated(), "metrics": self.metrics, "weights_sha256": None}
        except StoppedAtOnce as stop:
            newest = f"the newest checkpoint is of step {self.saved[1]:,}" if self.saved else "there is no checkpoint"
            text = f"stopped at once by {stop.why}, at step {self.step:,} ({newest})"
            self._last_words("interrupted", error=text)
            raise Interrupted(stop.number, self.path, text, self.saved and self.saved[1]) from None
        except BaseException as error:
            line = escaped((str(error).splitlines() or [""])[0])
            if isinstance(error, KeyboardInterrupt):  # a signal is none here
                line = f"raised by the environment or the algorithm at step {self.step:,}"
            message = line if isinstance(error, CannotWrite | NotItsOwn) else f"{type(error).__name__}: {line}"
            text = traceback.format_exc()
            self._to_log(text)
            self._last_words("failed", error=message, traceback=text)
            raise RunFailed(message, self.path) from error

    def _open(self, checkpoint: Found | None) -> None:
        state = checkpoint.state if checkpoint else None
        own = state["runner"] if state else {}
        self.best = own.get("best")
        self.evaluation = LastEvaluation.of(own["evaluation"]) if own.get("evaluation") else None
        self.metrics: dict[str, Any] = own.get("metrics", {})
        self.elapsed = own.get("elapsed", 0.0)
        self._limit = seconds(self.cfg.max_time) if self.cfg.max_time else float("inf")
        self._owed: str | None = own.get("owed")  # the hash of the weights whose evaluation is
        self._state = state.pop("run") if state else None  # it goes as soon as the run moves on
        self.run = Run(self.path, self.device, self.cfg.seed, self._state, init_from.saved)
        if not state and (begin := getattr(self.world, "begin", None)):
            begin(self.cfg, self.run)
        if not state and self.cfg.eval_every and hasattr(self.world, "beginning"):
            self.run.begun = self._film_beginning
        self.saved = (checkpoint.kind, checkpoint.step) if checkpoint else None
        self.step = self.first = self.run.step
        self._mapped: float | None = (
            self.first if state else -math.inf
        )  # the step of the newest map; None: there is none
        self._drawn = self.first if state else None  # the step of the newest drawing in TensorBoard
        try:
            self.log = MetricsLog(self.path / "metrics.jsonl", offset=own.get("metrics_offset", 0))
        except ValueError as error:
            raise UserError(str(error)) from None
        self.files = OwnFiles(self.path)
        raw = layout.read_config(self.path)
        self._config = guarded.text(self.path / layout.CONFIG)
        recorded = Provenance.load(self.path)
        about = LoggedRun(self.path, "/".join(self.path.parts[-3:]), raw, self.cfg.seed, recorded.command or [])
        self.loggers = Loggers(self.cfg.logger, about, self.step, lambda: self._count_failed("loggers"))
        drawn = TENSORBOARD in names(self.cfg.logger, self.cfg.tensorboard)
        began = any(self.path.glob("events.out.tfevents.*"))
        self.dashboard = (Dashboard if drawn else _NoDashboard)(
            self.path, purge_step=self.first + 1 if state else 0 if began else None
        )
        row = hparams(raw)
        self.dashboard.hparams_start(row, config_hash(row))
        if drawn and not state:
            self._describe(raw, recorded)
        self._alive(now=True)

    def _describe(self, raw: Mapping[str, Any], recorded: Provenance) -> None:
        listed = "\n".join(f"    {name} {version}" for name, version in (recorded.versions or {}).items())
        text = provenance.scrub(yaml.safe_dump(dict(raw), sort_keys=False))
        self.dashboard.text("config", f"```yaml\n{text}\n```")
        self.dashboard.text("command", f"    {' '.join(recorded.command or [])}")
        self.dashboard.text("versions", listed)
        self.dashboard.text("metrics", self._meanings())

    def _meanings(self) -> str:
        """What each metric means: the tables MEANINGS of the modules of its world, then the algorithm's own."""
        rooms = ["rlx.training.", f"{self.world.__name__.rpartition('.')[0]}."]
        if any(str(getattr(part, "__module__", "")).startswith("rlx.tabular.") for part in vars(self.module).values()):
            rooms.append("rlx.tabular.")
        tables = [
            getattr(module, "MEANINGS", None)
            for module in (
                *(each for name, each in [*sys.modules.items()] if name.startswith(tuple(rooms))),
                self.module,
            )
        ]
        known = {str(name): str(text) for table in tables if isinstance(table, dict) for name, text in table.items()}
        return "\n\n".join(f"**{name}**: {text}" for name, text in sorted(known.items()))

    def _train(self) -> dict[str, Any]:
        cfg, before = self.cfg, self.first
        if self._owed is not None:  # before anything of the run moves on
            for row in MetricsTable(self.path).rows():
                if row["step"] == self.step:
                    self.loggers.log(self.step, {key: value for key, value in row.items() if key != "step"})
            self._evaluate(self.step)
            self._checkpoint(*self.saved or ("step", self.step))
            self._owed = None
        if self._reached(self.step):
            return self._end()
        with contextlib.closing(self.module.train(cfg, self.run)) as steps:  # however the loop is left
            for step, metrics in steps:
                self.step, self._state = step, None
                lengthy = self._took_long()
                last = step >= cfg.total_steps
                if step > 1.01 * cfg.total_steps:
                    self.run.notice(f"{step:,} steps: total_steps={cfg.total_steps:,} rounded up to whole iterations")
                if last or _due(before, step, cfg.log_every):
                    self._log(step, {**measured(metrics), **self._times(step)})
                saved = last or _due(before, step, cfg.checkpoint_every)
                kind = "final" if last else "step"
                if cfg.eval_every and (last or _due(before, step, cfg.eval_every)):
                    if saved:  # what the evaluation may do to this process costs no training
                        self._checkpoint(kind, step, owed=True)
                    self._evaluate_or_owe(kind, step)
                if saved or lengthy:
                    self._checkpoint(kind, step)
                if before == self.first:
                    self._loaded()
                before = step
                self._notices()
                self._alive()
                if (why := distributed.agree(self._asked(step))) and not last:
                    if why == REACHED:
                        break
                    self._stop(step, why)
                self._began = time.perf_counter()
        return self._end()

    def _asked(self, step: int) -> int:
        """The signal that asks it to stop, TIME_UP, REACHED, or 0."""
        if self.signals.asked:
            return self.signals.asked
        if self._reached(step):
            return REACHED
        return TIME_UP if time.perf_counter() - self._since >= self._limit else 0

    def _reached(self, step: int) -> bool:
        """Has the evaluation of this step the score at which the run ends?"""
        score = self.evaluation.comparable if self.evaluation and self.evaluation.step == step else None
        return self.cfg.stop_at is not None and score is not None and score >= self.cfg.stop_at

    def _end(self) -> dict[str, Any]:
        """The run has finished."""
        if reached := self._reached(self.step):
            self.run.notice(f"stop_at={self.cfg.stop_at:g}: reached by the evaluation of step {self.step:,}")
        self._finish()
        self.files.check()
        weights = weights_sha256(self.run.parameters())
        self.dashboard.hparams_end("success")
        self._status("finished", weights_sha256=weights, stopped_at=self.cfg.stop_at if reached else None)
        self.loggers.finish("finished")
        return {"evaluation": self._evaluated(), "metrics": self.metrics, "weights_sha256": weights}

    def _loaded(self) -> None:
        """Record the code that came with the first step, and what computes."""
        self.files.check()
        with contextlib.suppress(OSError):  # a full disk stops the run where it loses something
            self._engines()
            code_record.refresh(
                self.path, layout.read_config(self.path), self.world.packages(self.cfg), self.world.PATHS
            )

    def _engines(self) -> None:
        if engines := {name: thing.engine for name, thing in self.run.tracked.items() if hasattr(thing, "engine")}:
            provenance.update(self.path, engine=engines)

    def _finish(self) -> None:
        """What the end still lacks where the algorithm, or the process after the last step, stopped early."""
        if self.step < self.cfg.total_steps and not self._reached(self.step):
            self.run.notice(f"done at step {self.step:,}, before total_steps={self.cfg.total_steps:,}")
        evaluated = self.evaluation.step if self.evaluation else None
        if self.cfg.eval_every and self.step < self.cfg.total_steps and evaluated != self.step:
            self._evaluate(self.step)
        if self.saved != ("final", self.step):
            self._checkpoint("final", self.step)
        self._notices()
        with contextlib.suppress(OSError):
            self._engines()  # now of all that was recorded

    def _evaluate_or_owe(self, kind: str, step: int) -> None:
        """An evaluation that is stopped at once is owed: the run's own state is that of this step."""
        try:
            self._evaluate(step)
        except StoppedAtOnce:
            if self.run.exact_anywhere and self.saved != (kind, step):
                self._checkpoint(kind, step, owed=True)
            raise

    def _took_long(self) -> bool:
        """Was this iteration so long that a signal in the next one will not wait for its end? Then what there is now is
        saved, unless that takes long itself."""
        seconds = time.perf_counter() - self._began
        return self.run.exact_anywhere and seconds > max(GRACE, 20 * self._saving)

    def _stop(self, step: int, number: int) -> None:
        """Leave, with a checkpoint of this very step where one is allowed (see Run.exact_anywhere)."""
        self.signals.heard = True
        if self.run.exact_anywhere and (self.saved is None or self.saved[1] != step):
            self._checkpoint("step", step)
        over = number == TIME_UP
        text = f"max_time={self.cfg.max_time}: over at step {step:,}" if over else ""
        text = text or f"interrupted by {name_of(number)} at step {step:,}"
        saved = self.saved[1] if self.saved else None
        if saved != step:
            back = f"the checkpoint of step {saved:,}" if saved is not None else "the beginning"
            text += f" (these environments cannot be saved mid-interval; resume restarts from {back})"
        if over:
            raise Paused(f"{text}; rlx resume goes on")
        raise Interrupted(number, self.path, text, saved)

    # -- what is written ---------------------------------------------------------------------------------------

    def _times(self, step: int) -> dict[str, float]:
        spent = time.perf_counter() - self._since
        shares = stopwatch.shares(self._spent, spent)
        return {
            "time/fps": round((step - self.first) / spent, 1) if spent else 0.0,
            "time/time_elapsed": round(self.elapsed + spent, 3),
            **{f"time/{part}": round(share, 4) for part, share in shares.items()},
        }

    @stopwatch.part("log")
    def _log(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.metrics = strip_time(metrics)
        self._write(step, metrics)
        try:
            self.progress(step, {**metrics, **{f"eval/{k}": v for k, v in (self._evaluated() or {}).items()}})
        except OSError:  # nobody reads the terminal any more
            self.progress = lambda *_: None

    def _write(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.files.check()
        try:
            self.log.write(step, metrics)
        except OSError as error:
            raise CannotWrite(self.log.path, len(str(metrics)), error) from error
        self.dashboard.scalars(step, metrics)
        self.loggers.log(step, metrics)

    @stopwatch.part("eval", whole=True)
    def _evaluate(self, step: int) -> None:
        try:
            evaluation = self.world.evaluation(self.cfg, self.module, self.run)
        except (Exception, SystemExit) as error:
            if self.cfg.eval_required:
                raise
            self._not_evaluated(step, error)
            return
        self.evaluation = LastEvaluation.of({"step": step, **evaluation.summary})
        self._write(step, evaluation.metrics)
        self._film(evaluation, step)
        kept = [] if (text := evaluation.text) is None else [("samples", f"{step:012d}.txt", text, _verbatim(text))]
        if self.run.exhibit and (shown := self.run.exhibit()):
            kept.append(("completions", f"step_{step:09d}.html", shown.html, shown.markdown))
        for tag, name, text, markdown in kept:
            own_directory(self.path / "samples")
            write_atomically(self.path / "samples" / name, f"{text}\n".encode(), durable=False)
            self.dashboard.text(tag, markdown, step)
        if self.best is None or evaluation.summary["score"] > self.best:
            self.best = evaluation.summary["score"]
            self._checkpoint("best", step)
        if evaluation.gif:
            films.keep(self.path, (0, step, *self.checkpoints.steps("best")), self.cfg.total_steps / 2)

    def _not_evaluated(self, step: int, error: BaseException) -> None:
        """A side task does not end the main work: it is said and counted, and the run has no score."""
        self.evaluation = None
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        say(f"warning: the evaluation at step {step} failed ({reason}); training goes on")
        self._to_log("".join(traceback.format_exception(error)))
        self._count_failed("evaluations")

    @stopwatch.part("eval", whole=True)
    def _film_beginning(self) -> None:
        """A film of step 0. Where it cannot be made, the run goes on as it would have."""
        try:
            self._film(self.world.beginning(self.cfg, self.module, self.run), 0)
        except Exception as error:
            self.run.notice(f"no video of step 0: {' '.join(f'{type(error).__name__}: {error}'.split())}")

    def _film(self, evaluation: Evaluation, step: int) -> None:
        """Into videos/ and TensorBoard. A run goes on without, and says so once."""
        if evaluation.no_film:
            self.run.notice(f"no video: {evaluation.no_film}")
            self._no_more_films()
        if not evaluation.gif:
            return
        gif, width, height = evaluation.gif
        self.dashboard.image_gif("eval/video", gif, width, height, step)
        try:
            films.write(self.path, step, gif)
        except OSError as error:
            say(f"warning: no more films ({error}); training goes on")
            self._no_more_films()

    def _no_more_films(self) -> None:
        self.run.films = False
        self._count_failed("films")

    def _count_failed(self, what: str) -> None:
        if not self._lost:
            with contextlib.suppress(OSError):
                provenance.count_failed(self.path, what)

    @stopwatch.part("log")
    def _checkpoint(self, kind: str, step: int, owed: bool = False) -> None:
        """`owed`: the evaluation of this step comes after it; a resume begins with that."""
        self.files.check()
        if names := self.run.not_finite():
            raise FloatingPointError(f"{names[0]} is not finite at step {step:,}: no checkpoint is made of that")
        if self._state is None:  # once a step: where environments cannot be replayed, it starts new episodes
            self._state = self.run.state_dict()
        if not owed:  # a step is told once, with its evaluation
            self.loggers.flush()
        try:
            offset = self.log.sync()
        except OSError as error:
            raise CannotWrite(self.log.path, 0, error) from error
        weights = self._owed or weights_sha256(self.run.parameters())
        own = {
            **({"owed": weights} if owed else {}),
            "best": self.best,
            "evaluation": self._evaluated(),
            "metrics": self.metrics,
            "elapsed": self.elapsed + time.perf_counter() - self._since,
            "metrics_offset": offset,
            "metrics_sha256": self.log.sha256,
            "config": self._config,
        }
        if not self._owed and (drawing := getattr(self.module, "drawing", None)):
            self._draw(drawing(self.cfg, self.run), step)
        began = time.perf_counter()
        self.checkpoints.save(kind, step, {"run": self._state, "runner": own}, weights_sha256=weights, rlx=__version__)
        self.saved, self._saving = (kind, step), time.perf_counter() - began
        self._alive(now=True)
        if not self._owed:  # it plays an episode, which may go wrong: what was learned is saved
            self._map(step, kind == "final")

    def _draw(self, text: str | None, step: int) -> None:
        """An algorithm's picture of what it has learnt, in plain text: for `rlx show` and TensorBoard."""
        if text is None:
            return
        write_atomically(self.path / "policy.txt", f"{text}\n".encode(), durable=False)
        if self._drawn != step:  # a step may have several checkpoints
            self._drawn = step
            self.dashboard.text("policy", _verbatim(text), step)

    def _map(self, step: int, last: bool) -> None:
        """What its policy thinks of states, as a picture: map.svg, and in TensorBoard. Ten in a run are enough."""
        if self._mapped in (step, None) or not hasattr(self.world, "picture") or not getattr(self.cfg, "video", True):
            return
        if not last and step < self._mapped + self.cfg.total_steps / 10:
            return
        try:
            canvas = self.world.picture(self.cfg, self.module, self.run)
        except Exception as error:  # a side task never kills the main work
            self.run.notice(f"no map: {type(error).__name__}: {error}")
            canvas = None
        self._mapped = step if canvas else None
        if canvas:
            write_atomically(self.path / "map.svg", canvas.svg().encode(), durable=False)
            if isinstance(self.dashboard, Dashboard):
                self.dashboard.image_gif("map", canvas.png(1), canvas.width, canvas.height, step)

    def _notices(self) -> None:
        new, self._shown = self.run.notices[self._shown :], len(self.run.notices)
        if new:
            for text in new:
                say(f"note: {text}")
            self.files.check()
            provenance.add_notices(self.path, new)

    def _alive(self, now: bool = False) -> None:
        if now or time.perf_counter() - self._beat > HEARTBEAT:
            self._beat = time.perf_counter()
            self.files.check()
            with contextlib.suppress(OSError):  # a full disk stops the run where it loses something
                self._status("running", durable=False)

    def _evaluated(self) -> dict[str, Any] | None:
        """The last evaluation as it is written down."""
        return self.evaluation.to_json() if self.evaluation else None

    @property
    def _lost(self) -> bool:
        """Is the directory another's, so that no word may be left there?"""
        return hasattr(self, "files") and self.files.lost is not None

    def _to_log(self, text: str) -> None:
        log = self.path / "rlx.log"
        if not self._lost:
            with contextlib.suppress(OSError), open(log, "a", encoding="utf-8", opener=own_file) as file:
                file.write(f"{process.now()}\n{provenance.scrub(text)}\n")

    def _last_words(self, status: str, **more: Any) -> None:
        if not self._lost:
            with contextlib.suppress(OSError):
                self._status(status, **more)
        if hasattr(self, "loggers"):  # not where the run could not be opened
            self.loggers.finish(status)

    def _status(self, status: str, durable: bool = True, **more: Any) -> None:
        Status(
            status=status,
            step=self.step,
            total_steps=self.cfg.total_steps,
            checkpoint=self.saved[1] if self.saved else None,
            evaluation=self.evaluation,
            **process.me(),
            **more,
        ).beat(self.path, durable)


def _verbatim(text: str) -> str:
    """Markdown that shows a text as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _due(before: int, now: int, every: int) -> bool:
    return every > 0 and now // every > before // every


class _NoDashboard:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_, **__: None


# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "step": (
        "The clock of a run: environment steps over all environments, or optimiser steps of a language model. "
        "Healthy: ends at total_steps. If not: a run ends earlier where its algorithm says it is done (sft at "
        "task.sft_stop) or was interrupted; rlx resume goes on."
    ),
    "time/fps": (
        "Steps a second since the run (or its resumption) began, evaluation included. Healthy: thousands for "
        "CartPole on one core; see docs/performance.md. If not: device=cpu and threads=1 for small networks; "
        "env.backend=async for slow environments."
    ),
    "time/time_elapsed": (
        "Seconds of computing so far, over all resumptions. Healthy: about `expect.seconds` in the end. If not: "
        "read `time/fps`; other processes on the machine, frequent evaluations (eval_every) or films (video) take "
        "the rest."
    ),
    "time/env": (
        "Share of the run's time (since it was resumed) in the environments. Healthy: the largest for slow "
        "simulators, a small one for CartPole. If not: env.backend=async steps them in processes, more algo.num_envs "
        "steps them together."
    ),
    "time/act": (
        "Share of the run's time in choosing actions or sampling tokens. Healthy: below that of learning. If not: more "
        "algo.num_envs share one forward pass."
    ),
    "time/learn": (
        "Share of the run's time in gradient steps. Healthy: the largest of a small environment's run. If not: fewer "
        "epochs or larger minibatches; engine=auto runs a recorded step by compiled kernels."
    ),
    "time/eval": (
        "Share of the run's time in evaluation, films included. Healthy: below a tenth of the run. If not: a larger "
        "eval_every, fewer eval_episodes, video=false."
    ),
    "time/log": (
        "Share of the run's time in writing metrics and checkpoints. Healthy: below a twentieth of the run. If not: a "
        "larger log_every or checkpoint_every; tensorboard=false."
    ),
}
