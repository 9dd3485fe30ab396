"""A grid or a search as TensorBoard shows it: a band for each configuration, as `rlx plot` draws it, and a table of
what became of the runs. Never imports torch."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rlx.analysis.curves import build, configurations
from rlx.base.errors import UserError
from rlx.rundir import reader, tensorboard_grid
from rlx.rundir.layout import Status
from rlx.rundir.tensorboard_grid import harmless, tags


@harmless()
def write(directory: Path) -> None:
    """Write the bands, their charts and the table beside the runs under `directory`; again, and they are replaced.
    Never raises. Without events of runs (tensorboard=false) there is nothing to show them beside."""
    runs = reader.find(directory)
    if not any(any(path.glob("events.out.tfevents.*")) for path in runs):
        return
    configs, _ = configurations.read(runs)
    names = _file_names(configs)
    charts: dict[str, list[str]] = {}  # environment or task: metrics
    rows: dict[str, dict[int, dict[str, float]]] = {}  # configuration: step: tag: value
    for metric in dict.fromkeys(name for path in runs for name in reader.facts(path).metrics):
        try:
            picture = build.build(runs, metric)
        except UserError:  # no run has it
            continue
        for place, lines in picture.panels.items():
            charts.setdefault(place, []).append(metric)
            for line in lines:
                steps = rows.setdefault(names[line.curves[0].identity], {})
                for x, *values in zip(line.x, line.mean, line.low or line.mean, line.high or line.mean):
                    steps.setdefault(round(x), {}).update(zip(tags(place, metric), values))
    tensorboard_grid.bands(directory, rows, charts, _table(configs))


def _table(configs: Sequence[configurations.Configuration]) -> str:
    """As Markdown: a crash is a line here, even where other seeds of its configuration went well."""
    lines = ["| where | configuration | mean of the last evaluations | runs | first error |", "|---|---|---|---|---|"]
    for one in configs:
        statuses = [Status.read(path) for path, _ in one.runs]
        scores = [status.score for status in statuses if status.score is not None]
        states = Counter(status.state for status in statuses)
        error = next((status.error for status in statuses if status.error), "")
        mean = f"{sum(scores) / len(scores):.6g}" if scores else ""
        came = ", ".join(f"{count} {state}" for state, count in states.items())
        lines.append(f"| {' | '.join(map(_cell, (one.place, one.label, mean, came, error[:300])))} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r"[|\\`*_\[\]<>&\n\r]", lambda sign: f"&#{ord(sign[0])};", text)


def _file_names(configs: Sequence[configurations.Configuration]) -> dict[str, str]:
    """A directory's name for each configuration; one label in several places is one directory."""
    taken: dict[str, str] = {}
    for label in dict.fromkeys(one.label for one in configs):
        plain = re.sub(r"[^\w=.,+-]+", "_", label.replace(", ", ",")).strip("._")[:100] or "all"
        free = (plain if i == 1 else f"{plain}_{i}" for i in itertools.count(1))
        taken[label] = next(name for name in free if name not in taken.values())
    return {one.identity: taken[one.label] for one in configs}
