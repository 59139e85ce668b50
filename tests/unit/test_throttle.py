"""A notice that repeats itself: a few are logged, the others counted."""

from __future__ import annotations

import pytest

from wizgy import throttle
from wizgy.throttle import Throttle


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 5.0  # seconds since a machine has started, which may be few
        monkeypatch.setattr(throttle, "monotonic", lambda: self.now)


def test_a_few_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first few of a kind are logged in each interval, whatever there is of other kinds."""
    clock = Clock(monkeypatch)
    limited = Throttle(2, interval=60)
    assert [limited.admits("a") for _ in range(4)] == [True, True, False, False]
    assert limited.admits("b")
    clock.now += 59.9
    assert not limited.admits("a")
    clock.now += 0.2
    assert limited.admits("a")


def test_the_others_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its interval is over, a kind tells once how many were not logged; a kind without any says nothing."""
    clock = Clock(monkeypatch)
    limited = Throttle(1, interval=60)
    assert limited.take_withheld() == {}
    for kind in "aaab":
        limited.admits(kind)
    assert limited.take_withheld() == {}
    clock.now += 61
    assert limited.take_withheld() == {"a": 2}
    assert limited.take_withheld() == {}
    assert limited.admits("a")


def test_the_end_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends tells the number before the interval is over."""
    Clock(monkeypatch)
    limited = Throttle()
    assert [limited.admits(), limited.admits()] == [True, False]
    assert limited.take_withheld(early=True) == {"": 1}
