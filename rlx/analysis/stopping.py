"""Runs that ended at the first evaluation good enough (stop_at): their scores flatter. Never imports torch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlx.base.errors import UserError

WHY = "stopping at the first good evaluation flatters the score"


def check(groups: Mapping[str, Iterable[Mapping[str, Any]]], verb: str) -> list[str]:
    """A note where the runs of these configurations stopped so. Raises UserError where they are mixed with others."""
    by_name = {name: sorted({_limit(config) for config in configs}) for name, configs in groups.items()}
    limits = sorted({limit for each in by_name.values() for limit in each})
    if not limits or limits == [""]:
        return []
    if len(limits) > 1:
        words = {name: " and ".join(limit or "no stop_at" for limit in each) for name, each in by_name.items()}
        listed = "; ".join(f"{name}: {limit}" for name, limit in words.items())
        raise UserError(f"{verb}: {WHY}, so runs with stop_at are not mixed with others ({listed})")
    return [f"every run ended at its first evaluation of {limits[0].partition('=')[2]} or more ({limits[0]}): {WHY}"]


def said(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note where some did, each shown by itself."""
    limits = sorted({_limit(config) for config in configs} - {""})
    return [f"runs with {limit} ended at their first evaluation that reached it: {WHY}" for limit in limits]


def _limit(config: Mapping[str, Any]) -> str:
    limit = config.get("stop_at")
    return "" if limit is None else f"stop_at={limit:g}"
