"""rlx check algo NAME: does an algorithm learn what can be learnt, and is its run what rlx promises of a run?

    trains      a short run ends; its metrics are finite numbers, its clock grows to total_steps
    learns      a probe environment with an analytic answer (rlx.check.probes), by the algorithm's own values
    resume      killed -9 twice and resumed, the run equals one never stopped, bit for bit
    twice       a seed gives the same run again, another seed another one
    evaluation  the saved policy is the one that was evaluated
    nan         a reward, and a weight, that is NaN ends the run and reaches no checkpoint
    engine      recorded and ordinary torch compute the same

An algorithm of the language world: the same on a small task, but for learns and the reward.
"""

import functools
import json
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlx.base.errors import UserError
from rlx.check.findings import Check, Failed, killed, separately
from rlx.config import registry
from rlx.config.facts import Facts
from rlx.rundir.metrics import read_metrics, strip_time

Compose = Callable[[list[str]], dict[str, Any]]  # words of rlx train -> a configuration
PROBES = "rlx.check.probes"
# By the kinds of (observations, actions) that an algorithm serves: the probe, and the mean reward of a step at best.
PROBE = {
    ("Discrete", "Discrete"): "Signs", ("Box", "Discrete"): "Match", ("Box", "Box"): "Aim",
    ("Box", "MultiDiscrete"): "Levers", ("Box", "MultiBinary"): "Bits",
}  # fmt: skip
BEST = {"Signs": 1.0, "Match": 1.0, "Aim": 0.0, "Levers": 3.0, "Bits": 3.0}
WORST = {"Signs": -1.0, "Match": -1.0, "Aim": -2.0, "Levers": 0.0, "Bits": 0.0}
CONTROL = [
    "preset=none", "experiment=none", "env=gym", "video=false", "tensorboard=false", "log_every=1", "eval_episodes=5",
]  # fmt: skip
LANGUAGE = [
    "preset=none", "experiment=none", "task=parity", "tensorboard=false", "log_every=1", "eval_prompts=8", "samples=2",
    "task.length=3", "model.num_layers=1", "model.d_model=8", "model.num_heads=2",
]  # fmt: skip
FEW = {"num_pairs": 64, "num_rankings": 64}  # of what a language algorithm samples before it begins
ITERATIONS = 6  # of a short run
MOST, PATIENCE = 200_000, 15.0  # steps in which a probe is to be learnt; seconds after which no longer run is begun


class Subject:
    """An algorithm, and short runs of it in a directory."""

    def __init__(self, name: str, compose: Compose, directory: Path, words: tuple[str, ...] = ()) -> None:
        self.name, self.compose, self.directory, self.words = name, compose, directory, words
        implementation = str(registry.values("algo", name).get("implementation"))
        registry.algorithm(implementation)  # what is wrong with it is said at once
        self.facts: Facts = registry.facts(implementation)
        self.language = self.facts.world == "language"
        self.start: list[str] = []  # the words that name runs to start from

    @functools.cached_property
    def probe(self) -> str:
        for (observations, actions), probe in PROBE.items():
            sees, acts = self.facts.observations, self.facts.actions
            if (sees is None or observations in sees) and (acts is None or actions in acts):
                return probe
        raise Failed(f"no probe has the spaces that it serves ({self.facts.observations}, {self.facts.actions})")

    def raw(self, *words: str) -> dict[str, Any]:
        place = LANGUAGE if self.language else [*CONTROL, f"env.id={PROBES}:{self.probe}-v0", f"env.name={self.probe}"]
        own = registry.values("algo", self.name)
        few = [f"algo.{key}={value}" for key, value in FEW.items() if key in own]
        always = [f"algo={self.name}", *place, *few, f"runs_dir={self.directory}", *self.start, *self.words]
        return self.compose([*always, *words])

    def train(self, *words: str, progress: Any = None, name: str | None = None) -> Path:
        from rlx.training import runner

        parent = self.directory if name else None
        raw, silent = self.raw("eval_required=true", *words), progress or (lambda *_: None)
        return runner.start(raw, ["rlx", "check"], silent, parent=parent, name=name)[0]

    def apart(self, *words: str) -> Path:
        return Path(separately(lambda: str(self.train(*words))))

    @functools.cached_property
    def iteration(self) -> int:
        """The steps of one: as many as the first one takes."""
        for total in (1, 2_000, 20_000, 200_000):
            try:
                path = self.apart(f"total_steps={total}", "eval_every=0", "checkpoint_every=0")
            except UserError as error:
                if "total_steps" not in str(error):
                    raise
                continue
            steps = [row["step"] for row in read_metrics(path / "metrics.jsonl")]
            return max(steps[0] if steps else total, -(-total // ITERATIONS))
        raise Failed("it refuses runs of 1 to 200,000 steps")

    @functools.cached_property
    def short(self) -> list[str]:
        """A run of some iterations, with evaluations and checkpoints in between."""
        size = self.iteration
        return [f"total_steps={ITERATIONS * size}", f"eval_every={2 * size}", f"checkpoint_every={size}"]

    @functools.cached_property
    def whole(self) -> Path:
        """A short run, never stopped."""
        return self.apart(*self.short)

    def begin(self) -> None:
        """Make the runs that it starts from, if it needs any."""
        if not self.language:
            return
        first = Subject("sft", self.compose, self.directory, ("algo.lr=1e-2", "task.sft_stop=0"))
        for _ in range(2):
            try:
                separately(lambda: self.check_only())
                return
            except UserError as error:
                if "init=null" in str(error):
                    self.start.append(f"init={first.apart('total_steps=60', 'eval_every=0')}")
                elif "reward_model" in str(error):
                    model = Subject("reward_model", self.compose, self.directory, tuple(self.start))
                    self.start.append(f"algo.reward_model={model.apart('total_steps=4', 'eval_every=0')}")
                else:
                    raise

    def check_only(self) -> None:
        from rlx.training import runner

        runner.ready(self.raw("total_steps=20000"), [])


def checks(name: str, compose: Compose, directory: Path, words: tuple[str, ...] = ()) -> Iterator[Check]:
    """`words`: further ones of rlx train, to make the runs smaller."""
    subject = Subject(name, compose, directory, words)
    subject.begin()
    yield "trains", functools.partial(trains, subject)
    if not subject.language:
        yield "learns", functools.partial(learns, subject)
    yield "resume", functools.partial(resumes, subject)
    yield "twice", functools.partial(twice, subject)
    yield "evaluation", functools.partial(evaluates, subject)
    yield "nan", functools.partial(stops_at_nan, subject)
    yield "engine", functools.partial(engines_agree, subject)


# -- the checks ------------------------------------------------------------------------------------------------


def trains(subject: Subject) -> str:
    rows = [strip_time(row) for row in read_metrics(subject.whole / "metrics.jsonl")]
    total = ITERATIONS * subject.iteration
    for row in rows:
        for key, value in row.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise Failed(f"{key} is {value} at step {row['step']}: metrics are finite numbers")
    steps = [row["step"] for row in rows]
    if steps != sorted(steps):
        raise Failed(f"the clock runs back: steps {steps}")
    early = [row for row in rows if not any(key.startswith("eval/") for key in row)]
    if not early:
        raise Failed("it yielded no metrics")
    ended = "" if steps[-1] >= total else f" (it was done before {total:,})"
    return (
        f"{len(early)} iterations to step {steps[-1]:,}{ended}, {len({key for row in rows for key in row}) - 1} metrics"
    )


def learns(subject: Subject) -> str:
    """The greedy policy's share of the way from the worst to the best mean reward."""
    probe, total, end = subject.probe, max(4_000, 12 * subject.iteration), time.monotonic() + PATIENCE
    while True:
        path = subject.apart(f"total_steps={total}", f"eval_every={total}", "checkpoint_every=0", "eval_episodes=100")
        row = [row for row in read_metrics(path / "metrics.jsonl") if "eval/mean_reward" in row][-1]
        mean = row["eval/mean_reward"] / row["eval/mean_ep_length"]
        share = (mean - WORST[probe]) / (BEST[probe] - WORST[probe])
        if share > 0.95:
            return f"{probe}: {mean:.3g} a step, {BEST[probe]:.3g} at best, in {total:,} steps"
        if total >= MOST or time.monotonic() > end:
            break
        total = min(MOST, 4 * total)
    raise Failed(
        f"{probe}: {mean:.3g} a step after {total:,} steps; {BEST[probe]:.3g} is right (see {probe} in {PROBES})"
    )


def result(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """What two equal runs have in common."""
    status = json.loads((path / "status.json").read_text())
    if status["status"] != "finished":
        raise Failed(f"the run is {status['status']}: {status.get('error')}")
    return status["weights_sha256"], [strip_time(row) for row in read_metrics(path / "metrics.jsonl")]


def die_at(step: int) -> Callable[..., None]:
    """A progress callback that kills its process when the run gets there."""
    return lambda now, _metrics: os.kill(os.getpid(), signal.SIGKILL) if now >= step else None


def resumes(subject: Subject) -> str:
    from rlx.training import runner

    size, path = subject.iteration, subject.directory / "killed"

    def resume(progress: Any = None) -> None:
        runner.resume(path, runner.read_config(path), ["rlx", "resume"], progress or (lambda *_: None))

    killed(lambda: subject.train(*subject.short, progress=die_at(2 * size), name="killed"))
    killed(lambda: resume(die_at(4 * size)))
    separately(resume)
    one, other = result(subject.whole), result(path)
    if one[1] != other[1]:
        raise Failed(f"its metrics differ from those of a run never stopped: {_first_difference(one[1], other[1])}")
    if one[0] != other[0]:
        raise Failed("its weights differ from those of a run never stopped, its metrics do not")
    return "killed -9 twice and resumed: equal to a run never stopped, bit for bit"


def _first_difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> str:
    for first, second in zip(one, other):
        for key in first:
            if first[key] != second.get(key):
                return f"{key} at step {first['step']} {second.get(key)} instead of {first[key]}"
    return f"{len(other)} rows instead of {len(one)}"


def twice(subject: Subject) -> str:
    one, again, other = result(subject.whole), result(subject.apart(*subject.short)), None
    if one != again:
        raise Failed(f"seed 1 gave two results: {_first_difference(one[1], again[1])} (is all chance of run.rng?)")
    other = result(subject.apart(*subject.short, "seed=2"))
    if other[0] == one[0]:
        return "note: seed 1 gives the same run twice, and seed 2 the same weights as seed 1"
    return "seed 1 gives the same run twice, seed 2 another one"


def evaluates(subject: Subject) -> str:
    def look() -> list[Any]:
        import torch

        from rlx.training import runner

        cfg, module, run = runner.open_run(subject.whole)
        torch.manual_seed(0)  # another state of chance than the run had: a policy that is not restored is another one
        if subject.language:
            how = {} if hasattr(module, "evaluate") else {"k": 1}
            return [runner.report(cfg, module, run, cfg.eval_prompts, cfg.seed, **how)]  # type: ignore[attr-defined]
        policy = runner.world_of(cfg).load_policy(cfg, module, run)
        report = functools.partial(runner.evaluate_policy, policy, cfg)
        sampled = [report(3, 5, stochastic=True)["returns"] for _ in range(2)]
        return [report(cfg.eval_episodes, cfg.seed), sampled]  # type: ignore[attr-defined]

    seen = separately(look)
    recorded = json.loads((subject.whole / "status.json").read_text())["evaluation"]
    if subject.language:
        both = set(seen[0]) & set(recorded)
        if wrong := [key for key in both if seen[0][key] != recorded[key]]:
            raise Failed(
                f"{wrong[0]} of the saved policy is {seen[0][wrong[0]]}, its evaluation said {recorded[wrong[0]]}"
            )
        return f"the saved policy is the one that was evaluated ({len(both)} numbers)"
    if seen[0]["mean"] != recorded["mean_reward"]:
        raise Failed(
            f"the saved policy has a return of {seen[0]['mean']:.6g}, its evaluation {recorded['mean_reward']:.6g}"
        )
    if seen[1][0] != seen[1][1]:
        raise Failed("--stochastic with one seed gave two results (are actions drawn from the generator it is given?)")
    return f"the saved policy is the one that was evaluated (return {recorded['mean_reward']:.3g})"


def stops_at_nan(subject: Subject) -> str:
    from rlx.base.signals import RunFailed

    def planted() -> None:
        import torch

        from rlx.run import Run

        real = Run.track
        modules: list[torch.nn.Module] = []

        def track(self: Run, **objects: Any) -> None:
            real(self, **objects)
            modules.extend(thing for thing in objects.values() if isinstance(thing, torch.nn.Module))

        def progress(step: int, _metrics: Mapping[str, Any]) -> None:
            if step >= 3 * subject.iteration:
                tensors = [*modules[0].parameters(), *modules[0].buffers()]
                tensors[0].data.view(-1)[0] = float("nan")

        Run.track = track  # type: ignore[method-assign]
        subject.train(*subject.short, "eval_every=0", progress=progress, name="planted")

    try:
        separately(planted)
    except RunFailed as failure:
        if "finite" not in str(failure):
            raise Failed(f"a weight that is NaN ended the run by {failure}") from None
    else:
        raise Failed("a weight that is NaN did not end the run (is the module tracked?)")
    steps = [
        int(re.findall(r"\d+", file.name)[0]) for file in (subject.directory / "planted" / "checkpoints").iterdir()
    ]
    if [step for step in steps if step >= 3 * subject.iteration]:
        raise Failed("a weight that is NaN is in a checkpoint")
    if subject.language or "a transition table" in subject.facts.needs:  # it plans, and sees no sampled reward
        return "a weight that is NaN ends the run and reaches no checkpoint"
    try:
        subject.apart(*subject.short, f"env.wrappers=[{{name: {PROBES}:NanReward, kwargs: {{at: 3}}}}]")
    except (RunFailed, UserError) as failure:  # in the run, or in the trial before it
        if "the reward is nan" not in str(failure):
            raise Failed(f"a reward that is NaN ended the run by {failure}") from None
    else:
        raise Failed("a reward that is NaN did not end the run")
    return "a reward and a weight that are NaN end the run and reach no checkpoint"


def engines_agree(subject: Subject) -> str:
    if "engine" not in subject.raw()["algo"]:
        return "note: it has no key engine (auto, tape, torch), so there is nothing to compare"
    size = subject.iteration
    few = [f"total_steps={max(2 * size, size + 1)}", "eval_every=0", "checkpoint_every=0"]
    if size * 2 < 2_000 and not subject.language:
        few = subject.short[:1] + few[1:]
    one, other = (result(subject.apart(*few, f"algo.engine={engine}"))[1] for engine in ("auto", "torch"))
    first, second = one[0], other[0]  # rounding grows from iteration to iteration
    for key in (key for key in first if key.startswith("train/") or key == "loss"):
        if not math.isclose(first[key], second[key], rel_tol=1e-2, abs_tol=1e-3):
            raise Failed(f"{key} at step {first['step']}: {first[key]:.6g} recorded, {second[key]:.6g} by torch")
    return "recorded and ordinary torch compute the same first iteration"
