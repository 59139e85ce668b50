"""Keeps a trouble that repeats itself from filling a log: a few lines of each kind, then their number."""

from __future__ import annotations

from typing import Final

from wizgy.primitives import RLock, monotonic

INTERVAL: Final = 60.0
"""Seconds for which a kind of notice is counted."""


class Throttle:
    """Lets the first few notices of a kind through in each interval, and counts the others. Any thread may call it.

    Args:
        most: how many are let through.
        interval: the seconds, from the first of them on.
    """

    def __init__(self, most: int = 1, interval: float = INTERVAL) -> None:
        self._most = most
        self._interval = interval
        self._lock = RLock()
        self._counts: dict[str, tuple[float, int]] = {}  # kind: when its interval ends, and how many there were

    def admits(self, kind: str = "") -> bool:
        """Count a notice of a kind; returns whether it is to be logged.

        Args:
            kind: one of a bounded number of texts, none of which a client can choose.
        """
        now = monotonic()
        with self._lock:
            ends, count = self._counts.get(kind, (0.0, 0))
            if now >= ends:
                ends, count = now + self._interval, 0
            self._counts[kind] = (ends, count + 1)
            return count < self._most

    def take_withheld(self, *, early: bool = False) -> dict[str, int]:
        """The kinds whose interval is over, each with how many notices were not logged; they are counted from 0 again.

        Args:
            early: whether to take those whose interval is not over, too.
        """
        if not self._counts:
            return {}
        now = monotonic()
        with self._lock:
            over = {kind: count for kind, (ends, count) in self._counts.copy().items() if early or now >= ends}
            for kind in over:
                self._counts.pop(kind, None)
        return {kind: count - self._most for kind, count in over.items() if count > self._most}
