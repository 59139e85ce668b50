"""Deadlines in slots: none is early, none is lost, and moving one away costs nothing."""

from __future__ import annotations

from typing import cast
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizgy.connection import Connection, State
from wizgy.engine import Timers

SLOT = 1 / Timers.SLOTS


class Scheduled:
    """As much of a connection as the timers look at."""

    def __init__(self) -> None:
        self.deadline = 0.0
        self.scheduled: int | None = None
        self.state = State.HEAD


def connection() -> Connection:
    """Something that has a deadline."""
    return cast(Connection, Scheduled())


def test_expires_after_its_deadline() -> None:
    """A connection expires once, not before its deadline and at most a slot after it."""
    timers, one = Timers(), connection()
    timers.set(one, 5.05)
    assert timers.take_expired(5.04) == []
    assert timers.take_expired(5.05 + SLOT) == [one]
    assert timers.take_expired(100.0) == []


def test_later_deadline_stays_in_its_slot() -> None:
    """Moving a deadline away changes no slot until the old one comes up."""
    timers, one = Timers(), connection()
    timers.set(one, 1.0)
    timers.seconds_to_next(0.0)
    slot = one.scheduled
    assert slot is not None
    for deadline in range(2, 50):
        timers.set(one, float(deadline))
    assert one.scheduled == slot
    assert timers.take_expired(2.0) == []
    assert one.scheduled is not None
    assert timers.take_expired(48.0) == []
    assert timers.take_expired(49.2) == [one]


def test_earlier_deadline_counts() -> None:
    """A deadline that is moved nearer is kept, and the old slot expires nothing."""
    timers, one = Timers(), connection()
    timers.set(one, 50.0)
    timers.set(one, 1.0)
    assert timers.take_expired(1.2) == [one]
    timers.set(one, 70.0)
    assert timers.take_expired(60.0) == []
    assert timers.take_expired(70.2) == [one]


def test_closed_connections_cost_no_memory() -> None:
    """What is closed is let go of by the next poll, not when its slot comes up: there may be many (fault 22)."""
    timers, one, other = Timers(), connection(), connection()
    timers.set(one, 50.0)
    timers.set(one, 40.0)
    timers.set(other, 40.0)
    timers.seconds_to_next(0.0)
    one.state = State.CLOSED
    timers.forget(one)
    timers.forget(one)
    gone = ref(one)
    del one
    timers.seconds_to_next(0.0)
    assert gone() is None
    assert timers.take_expired(60.0) == [other]


def test_closed_connections_are_forgotten() -> None:
    """A connection that is closed does not expire."""
    timers, one = Timers(), connection()
    timers.set(one, 1.0)
    one.state = State.CLOSED
    assert timers.take_expired(2.0) == []


@pytest.mark.parametrize(("deadline", "expected"), [(None, 0.5), (0.2, 0.3), (9.0, 0.5), (-5.0, 0.0)])
def test_seconds_to_next(deadline: float | None, expected: float) -> None:
    """The wait ends when the next slot does, after half a second at most, and is never negative."""
    timers = Timers()
    if deadline is not None:
        timers.set(connection(), deadline)
    assert timers.seconds_to_next(0.0) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 20)), max_size=30))
def test_any_order_of_deadlines(moves: list[tuple[int, float]]) -> None:
    """Whatever deadlines are set in whatever order, each connection expires once, by its last deadline."""
    timers, connections = Timers(), [connection() for _ in range(4)]
    last: dict[int, float] = {}
    for index, deadline in moves:
        timers.set(connections[index], deadline)
        last[index] = deadline
    expired: dict[int, float] = {}
    for step in range(210):
        now = step * SLOT
        for one in timers.take_expired(now):
            index = next(i for i, other in enumerate(connections) if other is one)
            assert index not in expired
            expired[index] = now
    assert set(expired) == set(last)
    for index, now in expired.items():
        assert last[index] <= now <= last[index] + 2 * SLOT
