"""What tells two runs apart: configuration, what computed them, and outcome. Never imports torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.base.errors import UserError
from rlx.config import keys
from rlx.config.nested import flatten
from rlx.rundir import query, reader
from rlx.rundir.layout import LastEvaluation
from rlx.rundir.metrics import MetricsTable
from rlx.rundir.provenance import Provenance

WHERE = ("runs_dir", "run_dir", "run", "name")  # where a run is, not what it is
ORIGIN = ("device", "threads", "host", "machine", "versions", "git")


def build(first: Path, second: Path) -> dict[str, Any]:
    """{a, b, config, same_config, same_seed, code, origin, outcome, same_weights}; each difference is [of a, of b].

    code: sha256 of files, modules of plug-ins and data that are not rlx's. same_config: nothing differs but the seed
    and what never changes a result (config.keys). same_weights: bit for bit, null where one has none. Raises UserError.
    """
    configs = [query.raw_config(path) for path in (first, second)]
    for path, config in zip((first, second), configs):
        if not config:
            raise UserError(f"{path}: config.yaml is unreadable")
    shown = [reader.show(path) for path in (first, second)]
    records = [Provenance.read(path) for path in (first, second)]
    weights = [row["weights_sha256"] for row in shown]
    config = {key: both for key, both in _differences(*configs).items() if key.partition(".")[0] not in WHERE}
    outcomes = [_outcome(path, row) for path, row in zip((first, second), shown)]
    return {
        "a": str(first), "b": str(second), "config": config,
        "same_config": not keys.curve(config), "same_seed": configs[0].get("seed") == configs[1].get("seed"),
        "code": _differences(*(record.hashes for record in records)),
        "origin": _differences(*({key: getattr(record, key) for key in ORIGIN} for record in records)),
        "outcome": {key: [outcome[key] for outcome in outcomes] for key in outcomes[0]},
        "same_weights": weights[0] == weights[1] if all(weights) else None,
    }  # fmt: skip


def _outcome(path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    seconds = [line.get("time/time_elapsed") for line in MetricsTable(path).rows("time/time_elapsed")]
    return {
        "status": row["status"], "step": row["step"], "eval": LastEvaluation.of(row["eval"]).comparable,
        "seconds": seconds[-1] if seconds else None, "weights_sha256": row["weights_sha256"],
    }  # fmt: skip


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """{dotted key: [value in the first, value in the second]}; null where it is not there."""
    one, other = flatten(first), flatten(second)
    return {
        key: [one.get(key), other.get(key)]
        for key in dict.fromkeys([*one, *other])
        if json.dumps(one.get(key), default=str) != json.dumps(other.get(key), default=str)
    }
