"""The supervisor's bookkeeping, where two things happen at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wizgy.config import Config
from wizgy.supervisor import SelfPipe, Supervisor, Worker


def application() -> Any:
    """No application is needed here."""
    raise AssertionError


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """A supervisor that has forked nothing yet."""
    it = Supervisor(application, Config(), [])
    it._selector.register(it._signals.descriptor, 1)
    yield it
    it._selector.close()
    it._signals.close()
    os.close(it._lifeline)
    os.close(it._lifeline_end)


def send(supervisor: Supervisor, number: signal.Signals) -> None:
    """Have a signal arrive."""
    os.write(supervisor._signals._sender, bytes([number]))


@pytest.mark.parametrize("status_first", [True, False])
def test_death_and_end_of_pipe_at_once(supervisor: Supervisor, status_first: bool) -> None:
    """A worker whose death and whose pipe's end are seen together is buried once, and its exit status counts."""
    status, status_end = os.pipe()
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(3)"]) as child:
        worker = supervisor._workers[child.pid] = Worker(child.pid, status)
        supervisor._selector.register(status, 1, worker)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        events: list[Callable[[], None]] = [
            lambda: os.close(status_end),
            lambda: send(supervisor, signal.SIGCHLD),
        ]
        for event in events if status_first else reversed(events):
            event()
        supervisor._wait()
    assert supervisor._workers == {}
    assert supervisor._exit_code == 3


def test_self_pipe_never_blocks() -> None:
    """More signals than a pipe holds are dropped, not waited for."""
    pipe = SelfPipe()
    try:
        with pytest.raises(BlockingIOError):
            while True:
                os.write(pipe._sender, bytes([signal.SIGHUP]) * 4096)
        assert set(pipe.read()) == {signal.SIGHUP}
    finally:
        pipe.close()


def test_self_pipe_reads_what_came() -> None:
    """The signals that came are read in order, and only once."""
    pipe = SelfPipe()
    try:
        os.write(pipe._sender, bytes([signal.SIGTERM, signal.SIGCHLD]))
        assert pipe.read() == [signal.SIGTERM, signal.SIGCHLD]
        assert pipe.read() == []
    finally:
        pipe.close()
