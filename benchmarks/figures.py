"""Medians and quartiles, and ratios between servers that were measured in turns."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median of some values and the quartiles around it."""

    low: float
    median: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread | None:
    """Sum values up, None when there are none; of one value the quartiles are the value itself."""
    if not values:
        return None
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low, middle, high, len(values))


def ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Divide round by round, where both have a figure: what else a machine does in a round falls on both.

    Args:
        ours: the figure of each round.
        theirs: the same of another server.
    """
    return [ours[turn] / theirs[turn] for turn in sorted(ours.keys() & theirs.keys()) if theirs[turn]]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of the values that at least `share` percent of them do not exceed (nearest rank).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there is no percentile of no values")
    rank = -(-len(values) * share // 100)
    return sorted(values)[max(int(rank), 1) - 1]


def rotate(names: Sequence[str], turn: int) -> list[str]:
    """Return the names in the order of one round: each comes first in turn, and every second round runs backwards."""
    shift = turn // 2 % len(names) if names else 0
    order = [*names[shift:], *names[:shift]]
    return order[::-1] if turn % 2 else order
