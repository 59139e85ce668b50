"""Who decides when a thread comes out of the application just as it is given up."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from wizgy.connection import Connection
from wizgy.overseer import Dismissed, Overseer

CONNECTION = cast(Connection, object())


def test_thread_that_comes_out_in_time() -> None:
    """A thread that has come out is not given up, and may say so twice."""
    overseer = Overseer(1.0)
    come_out = overseer.enter(CONNECTION, 10.0)
    come_out()
    come_out()
    overseer.dismiss_overdue(100.0, lambda connection, stack: pytest.fail("it was given up"))


def test_thread_that_is_given_up_leaves_its_connection_alone() -> None:
    """A thread that comes out while it is given up waits until that is done, and then learns of it."""
    overseer = Overseer(1.0)
    order: list[str] = []
    entered, at_the_end = threading.Event(), threading.Event()

    def work() -> None:
        come_out = overseer.enter(CONNECTION, 10.0)
        entered.set()
        at_the_end.wait()
        try:
            come_out()
        except Dismissed:
            order.append("dismissed")

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()

    def dismiss(connection: Connection, stack: str) -> None:
        assert connection is CONNECTION
        assert "at_the_end.wait()" in stack
        at_the_end.set()
        thread.join(0.2)
        order.append("done")

    overseer.dismiss_overdue(10.9, lambda connection, stack: pytest.fail("it is too early"))
    overseer.dismiss_overdue(11.0, dismiss)
    thread.join()
    assert order == ["done", "dismissed"]


def test_the_next_call_of_a_thread_is_another_one() -> None:
    """A thread that is in the application again has its time from the beginning."""
    overseer = Overseer(1.0)
    first = overseer.enter(CONNECTION, 10.0)
    first()
    given_up: list[Any] = []
    second = overseer.enter(CONNECTION, 11.5)
    overseer.dismiss_overdue(12.0, lambda connection, stack: given_up.append(stack))
    assert given_up == []
    second()
