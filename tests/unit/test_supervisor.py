"""The supervisor's bookkeeping, where two things happen at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wizgy.child import Child, Stage, describe_end
from wizgy.config import Config
from wizgy.generation import Generation
from wizgy.link import Order, Report, make_link
from wizgy.signals import SelfPipe
from wizgy.supervisor import LONGEST_BACK_OFF, LONGEST_SILENCE, Supervisor


def load(config: Config) -> Any:
    """No application is needed here."""
    raise AssertionError


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor that has forked nothing yet."""
    monkeypatch.setattr("wizgy.log.configure", lambda *settings: None)
    config = Config(bind=(), workers=2)
    it = Supervisor(load, lambda: config, Generation(config, [], None))
    it._selector.register(it._signals.descriptor, 1)
    yield it
    it._selector.close()
    it._signals.close()


def send(supervisor: Supervisor, number: signal.Signals) -> None:
    """Have a signal arrive."""
    os.write(supervisor._signals._sender, bytes([number]))


class RecordedChild(Child):
    """A worker that there is none of: keeps the signals that it would get.

    Args:
        pid: any number.
        generation: what it was started with.
    """

    def __init__(self, pid: int, generation: Generation) -> None:
        link, self.far_end = make_link()
        super().__init__(pid, link, generation)
        self.signals: list[signal.Signals] = []

    def signal(self, number: signal.Signals) -> None:
        """Keep it."""
        self.signals.append(number)

    def is_stopped(self) -> bool:
        """It runs."""
        return False


@pytest.fixture
def adopt(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RecordedChild]]:
    """Give the supervisor a worker in some stage."""
    children: list[RecordedChild] = []

    def add(stage: Stage, generation: Generation | None = None) -> RecordedChild:
        child = RecordedChild(1_000_000 + len(children), generation or supervisor._serving)
        child.stage, child.was_ready = stage, stage is not Stage.STARTING
        supervisor._children[child.pid] = child
        children.append(child)
        return child

    monkeypatch.setattr(supervisor, "_spawn", lambda generation: add(Stage.STARTING, generation))
    supervisor._announced, supervisor._one_goes_ahead = True, False
    yield add
    for child in children:
        child.link.close()
        child.far_end.close()


Adopt = Callable[..., RecordedChild]


@pytest.mark.parametrize("end_first", [True, False])
def test_death_and_end_of_pipe_at_once(supervisor: Supervisor, end_first: bool) -> None:
    """A worker whose death and whose pipe's end are seen together is buried once, and its exit status counts."""
    link, far_end = make_link()
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(3)"]) as process:
        child = supervisor._children[process.pid] = Child(process.pid, link, supervisor._serving)
        supervisor._selector.register(link.reader, 1, child)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        far_end.send(Report.FAILED)
        events: list[Callable[[], None]] = [far_end.close, lambda: send(supervisor, signal.SIGCHLD)]
        for event in events if end_first else reversed(events):
            event()
        supervisor._wait()
    assert supervisor._children == {}
    assert supervisor._exit_code == 3


def test_predecessor_serves_until_its_successor_is_ready(supervisor: Supervisor, adopt: Adopt) -> None:
    """A worker that wants to be replaced is told to finish when another one is ready, and not before."""
    old, other = adopt(Stage.RETIRING), adopt(Stage.READY)
    supervisor._adjust()
    (new,) = supervisor._in_stage(Stage.STARTING)
    supervisor._adjust()
    assert supervisor._in_stage(Stage.RETIRING) == [old]
    assert len(supervisor._children) == 3
    new.stage = Stage.READY
    supervisor._adjust()
    assert supervisor._in_stage(Stage.DRAINING) == [old]
    assert old.far_end.read() == bytes([Order.RETIRE])
    assert old.signals == other.signals == []


def test_trial_takes_over_when_its_worker_is_ready(supervisor: Supervisor, adopt: Adopt) -> None:
    """A reload starts one worker; when it is ready the old ones leave one by one, as the new ones become ready."""
    old = [adopt(Stage.READY), adopt(Stage.READY), adopt(Stage.STARTING)]
    supervisor._reload()
    supervisor._adjust()
    trial = supervisor._trial
    (first,) = (child for child in supervisor._children.values() if child.generation is trial)
    assert isinstance(first, RecordedChild)
    supervisor._adjust()
    assert [child.stage for child in old] == [Stage.READY, Stage.READY, Stage.DRAINING]  # one too many
    first.far_end.send(Report.READY)
    supervisor._read_reports(first)
    assert supervisor._serving is trial
    supervisor._adjust()
    assert [child.stage for child in old[:2]] == [Stage.DRAINING, Stage.RETIRING]
    (second,) = supervisor._in_stage(Stage.STARTING)
    second.stage = Stage.READY
    supervisor._adjust()
    assert old[1].stage is Stage.DRAINING


def test_fault_in_a_reload(supervisor: Supervisor, adopt: Adopt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while settings are read anew, those that serve go on."""
    child = adopt(Stage.READY)
    monkeypatch.setattr(supervisor, "_configure", lambda: 1 // 0)
    supervisor._handle(signal.SIGHUP)
    assert (supervisor._trial, supervisor._exit_code, child.stage) == (None, None, Stage.READY)


def test_fewer_are_wanted(supervisor: Supervisor, adopt: Adopt) -> None:
    """Of workers that are too many those go first that are not ready, then the oldest."""
    oldest, youngest, starting = adopt(Stage.READY), adopt(Stage.READY), adopt(Stage.STARTING)
    supervisor._adjust()
    assert (oldest.signals, youngest.signals, starting.signals) == ([], [], [signal.SIGTERM])
    supervisor._handle(signal.SIGTTOU)
    supervisor._adjust()
    assert (oldest.stage, youngest.stage) == (Stage.DRAINING, Stage.READY)
    assert (oldest.far_end.read(), oldest.signals) == (bytes([Order.RETIRE]), [])
    supervisor._handle(signal.SIGTTOU)
    supervisor._adjust()
    assert youngest.stage is Stage.READY


def test_silent_worker_is_given_up(supervisor: Supervisor, adopt: Adopt) -> None:
    """Ticks without a report count against a worker that serves; a report ends the count."""
    child = adopt(Stage.READY)
    for _ in range(3):
        for _ in range(LONGEST_SILENCE):
            supervisor._tick()
        assert child.stage is Stage.READY
        child.far_end.send(Report.ALIVE)
        supervisor._read_reports(child)
    for _ in range(LONGEST_SILENCE + 1):
        supervisor._tick()
    assert child.stage is Stage.KILLED
    assert child.signals == [signal.SIGUSR2]
    supervisor._adjust()
    assert len(supervisor._in_stage(Stage.STARTING)) == 2
    assert child.kill_at is not None
    child.kill_at -= 100
    supervisor._wait()
    assert child.signals == [signal.SIGUSR2, signal.SIGKILL]


def test_worker_that_hears_shows_its_stacks_by_itself(supervisor: Supervisor, adopt: Adopt) -> None:
    """Where only the engine of a worker hangs, its main thread is told to log the stacks, before it is killed."""
    child = adopt(Stage.READY)
    for _ in range(LONGEST_SILENCE + 1):
        child.far_end.send(Report.DEAF)
        supervisor._read_reports(child)
        supervisor._tick()
    assert child.stage is Stage.KILLED
    assert (child.far_end.read(), child.signals) == (bytes([Order.SHOW]), [])


def test_pause_of_the_supervisor_is_no_silence(supervisor: Supervisor, adopt: Adopt) -> None:
    """When the supervisor itself was stopped for long, one tick passes, and no worker is given up for it."""
    child = adopt(Stage.READY)
    for _ in range(LONGEST_SILENCE):
        supervisor._tick_at -= 3600
        supervisor._wait()
    assert child.stage is Stage.READY


def test_back_off_grows_up_to_a_bound(supervisor: Supervisor) -> None:
    """Each failed start doubles the time to the next, up to ten seconds."""
    for _ in range(20):
        supervisor._delay_spawning()
    assert supervisor._back_off == LONGEST_BACK_OFF


@pytest.mark.parametrize(
    ("exit_code", "memory", "expected"),
    [
        (0, False, "exited 0"),
        (3, False, "exited 3"),
        (-11, False, "was killed by SIGSEGV"),
        (-9, False, "was killed by SIGKILL"),
        (-9, True, "was killed by the kernel because memory ran out"),
        (-40, False, "was killed by signal 40"),
    ],
)
def test_cause_of_death(exit_code: int, memory: bool, expected: str) -> None:
    """The end of a worker is told by its exit status, the name of the signal, or the want of memory."""
    assert describe_end(exit_code, memory=memory).startswith(expected)


def test_link_carries_both_ways_and_never_blocks() -> None:
    """Messages go both ways; a full pipe loses them, and the end of the other process is noticed."""
    near, far = make_link()
    assert near.read() == b""
    far.send(Report.READY)
    far.send(Report.ALIVE)
    assert near.read() == bytes([Report.READY, Report.ALIVE])
    near.send(Order.RETIRE)
    assert far.read() == bytes([Order.RETIRE])
    for _ in range(100_000):
        far.send(Report.ALIVE)
    far.close()
    while data := near.read():
        assert set(data) == {Report.ALIVE}
    assert data is None
    near.send(Order.RETIRE)
    near.close()


def test_link_with_no_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the second pipe cannot be made the first is closed again."""
    before = len(os.listdir("/proc/self/fd"))
    pipes = [os.pipe()]

    def make_pipe() -> tuple[int, int]:
        if pipes:
            return pipes.pop()
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe", make_pipe)
    with pytest.raises(OSError, match="Too many"):
        make_link()
    assert len(os.listdir("/proc/self/fd")) == before


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
