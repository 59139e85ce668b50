"""The hand-overs of the engine: whatever two threads do at the same moment, no request waits for nothing.

Each test runs one thread's part up to every instruction in turn, has the other thread's whole part happen there, and
goes on. Nothing sleeps here.
"""

from __future__ import annotations

import errno
import select
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import pytest

from tests.unit.interruption import Interruption, instructions_of
from wizgy import engine as engine_module
from wizgy.connection import Connection, State
from wizgy.engine import AGAIN, BUSY, CHANGED, LONGEST_POLL, SLOW_STREAK, Engine, Notice, Return, Timers
from wizgy.errors import StartError
from wizgy.listeners import Listener
from wizgy.sink import flush_all
from wizgy.sources import check_keywords

LONG = 10.0
"""Seconds in which anything at all must have happened."""


class Scripted:
    """As much of a connection as the engine looks at.

    Attributes:
        responded: how often the application ran.
        inside: called in the application.
        is_due: whether a turn finds a whole request.
    """

    def __init__(self) -> None:
        self.claim = threading.Lock()
        self.descriptor = 99
        self.state = State.HEAD
        self.pending = 0
        self.queued = self.readable = self.hung_up = self.again = False
        self.output = self
        self.waiting = self.broken = False
        self.responded = self.advanced = 0
        self.inside: Callable[[], object] = lambda: None
        self.is_due = False
        self.deadline = 0.0
        self.scheduled: int | None = None

    def advance(self) -> bool:
        self.advanced += 1
        self.readable = self.again = False
        return self.is_due

    def respond(self, come_out: object) -> float:
        self.responded += 1
        self.inside()
        return 0.0

    def close(self) -> None:
        self.state = State.CLOSED


def scripted() -> Any:
    """A connection of a test; as `Any`, since it is a `Connection` to the engine and a script to the test."""
    return Scripted()


@pytest.fixture
def notices() -> list[Notice]:
    """What the engine has told its process."""
    return []


@pytest.fixture
def engine(notices: list[Notice]) -> Iterator[Engine]:
    """An engine that has no threads but those of the test, and one place in the application."""
    it = Engine(
        lambda environ, start_response: [], check_keywords({"threads": 1}, embedded=True), [], notify=notices.append
    )
    yield it
    it.close()


def renew(engine: Engine, connection: Any) -> None:
    """Bring an engine to the state in which a leader is about to take a turn."""
    for waiting in engine._ready, engine._offers, engine._due, engine._places, engine._standbys:
        cast(Any, waiting).clear()
    engine._places.append(None)
    engine._connections[connection.descriptor] = connection
    engine._polling = False
    engine._wake.clear()


@pytest.mark.parametrize("offset", instructions_of(Engine._let_go.__code__))
def test_event_while_the_owner_lets_go(engine: Engine, offset: int) -> None:
    """An event that comes while the owner of a connection lets go of it gives it a turn, there or in the queue."""
    connection = scripted()
    renew(engine, connection)
    connection.claim.acquire()
    event = partial(engine._take_turn, connection, CHANGED)
    with Interruption(Engine._let_go.__code__, offset, event) as interruption:
        engine._let_go(connection)
    if not interruption.happened:
        event()
    assert connection.advanced or (99, AGAIN) in engine._ready
    assert not connection.claim.locked()


@pytest.mark.parametrize("offset", instructions_of(Engine._take_turn.__code__))
def test_owner_that_lets_go_during_an_event(engine: Engine, offset: int) -> None:
    """The same from the other side: the owner lets go at any moment of the leader's turn."""
    connection = scripted()
    renew(engine, connection)
    connection.claim.acquire()
    owner_has_it = [True]

    def let_go() -> None:
        if owner_has_it.pop():
            engine._let_go(connection)

    with Interruption(Engine._take_turn.__code__, offset, let_go) as interruption:
        engine._take_turn(connection, CHANGED)
    if not interruption.happened:
        let_go()
    assert connection.advanced or (99, AGAIN) in engine._ready
    assert not connection.claim.locked()


@pytest.mark.parametrize("offset", instructions_of(Engine._poll.__code__))
def test_turn_that_is_asked_for_while_the_leader_goes_to_poll(engine: Engine, offset: int) -> None:
    """A connection that asks for a turn is seen by the leader before it waits, or interrupts its waiting."""
    connection = scripted()
    renew(engine, connection)
    connection.claim.acquire()
    connection.again = True
    timeouts: list[float] = []

    class Recording:
        rearms = False

        def poll(self, timeout: float) -> list[tuple[int, int]]:
            timeouts.append(timeout)
            is_woken = bool(select_read(engine._wake.descriptor))
            assert timeout == 0.0 or is_woken or not interruption.happened
            return []

        def close(self) -> None:
            pass

    engine._poller = cast(Any, Recording())
    engine._next_round = 1e12
    interruption = Interruption(Engine._poll.__code__, offset, lambda: engine._let_go(connection))
    with interruption:
        engine._poll()
    assert len(timeouts) == 1
    assert (99, AGAIN) in engine._ready or not interruption.happened


def select_read(descriptor: int) -> bool:
    """Whether a descriptor can be read."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


@pytest.mark.parametrize("offset", instructions_of(Engine._call.__code__))
def test_place_that_comes_back_while_a_request_looks_for_one(engine: Engine, offset: int) -> None:
    """A request for which there is no place is run by the thread that gives one back, or by the one that looked."""
    connection = scripted()
    renew(engine, connection)
    connection.claim.acquire()
    engine._places.clear()  # another thread is in the application ...
    with Interruption(Engine._call.__code__, offset, engine._leave) as interruption:  # ... and comes out of it
        engine._call(connection)
    if not interruption.happened:
        engine._leave()
    assert connection.responded == 1
    assert len(engine._places) == 1
    assert not engine._due


@pytest.mark.parametrize("offset", instructions_of(Engine._leave.__code__))
def test_request_that_comes_while_a_place_is_given_back(engine: Engine, offset: int) -> None:
    """The same from the other side: the request comes at any moment at which a thread gives its place back."""
    connection = scripted()
    renew(engine, connection)
    connection.claim.acquire()
    engine._places.clear()
    with Interruption(Engine._leave.__code__, offset, lambda: engine._call(connection)) as interruption:
        engine._leave()
    assert connection.responded == interruption.happened
    assert len(engine._places) == 1
    assert not engine._due


@pytest.mark.parametrize("slow", [0, SLOW_STREAK])
@pytest.mark.parametrize("is_taken", [False, True])
def test_offer(engine: Engine, *, is_taken: bool, slow: int) -> None:
    """A thread leads after a call exactly if no other has taken its offer meanwhile."""
    connection = scripted()
    renew(engine, connection)
    connection.claim.acquire()
    engine._slow_calls = slow
    woken = threading.Lock()
    woken.acquire()
    engine._standbys.append(woken)
    if is_taken:
        connection.inside = engine._offers.pop
    assert engine._call(connection) is not is_taken
    assert not engine._offers
    assert woken.acquire(False) == bool(slow)


class Watched(Engine):
    """Tells whether the watcher wakes a standby, and stops then."""

    wakes = 0

    def _wake_standby(self) -> bool:
        self.wakes += 1
        self._offers.clear()  # as the standby would take it
        self._stopping = True
        self._activity.set()
        return True


@pytest.mark.parametrize("offset", instructions_of(Engine._watch.__code__))
def test_call_that_begins_while_the_watcher_goes_to_sleep(monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    """Whenever a leader enters a long call, the watcher has its offer taken; it does not sleep over it."""
    monkeypatch.setattr(engine_module, "sleep", lambda seconds: None)
    engine = Watched(lambda environ, start_response: [], check_keywords({}, embedded=True), [])
    engine._watching = True
    connection = scripted()
    connection.claim.acquire()
    entered, go_on = threading.Event(), threading.Event()

    def stay() -> None:
        entered.set()
        assert go_on.wait(LONG)

    connection.inside = stay
    leader = threading.Thread(target=engine._call, args=(connection,))

    def call() -> None:
        leader.start()
        assert entered.wait(LONG)

    waits: list[bool] = []
    real = engine._activity.wait

    def wait(timeout: float = -1) -> bool:
        if not interruption.happened:
            call()
            interruption.happened = True
        waits.append(real(LONG))
        return waits[-1]

    monkeypatch.setattr(engine._activity, "wait", wait)
    interruption = Interruption(Engine._watch.__code__, offset, call)
    with interruption:
        engine._watch()
    assert all(waits)
    assert engine.wakes
    go_on.set()
    leader.join(LONG)
    engine.close()


@pytest.mark.parametrize("offset", instructions_of(Engine._stand_by.__code__))
def test_thread_that_goes_to_stand_by_as_the_engine_stops(engine: Engine, offset: int) -> None:
    """A thread that goes to stand by while the engine stops does not wait for ever."""

    def stop() -> None:
        engine._stopping = True
        engine._wake_all()

    def stand_by() -> None:
        with Interruption(Engine._stand_by.__code__, offset, stop) as interruption:
            engine._stand_by()
        happened.append(interruption.happened)

    happened: list[bool] = []
    thread = threading.Thread(target=stand_by, daemon=True)
    thread.start()
    while thread.is_alive() and not engine._standbys:
        thread.join(0.001)
    stop()  # for an instruction that is not reached before the wait
    thread.join(LONG)
    assert not thread.is_alive()


def test_standby_that_misses_an_offer(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    """A thread that looks for an offer a moment too early is woken for it by the watcher."""
    monkeypatch.setattr(engine_module, "sleep", lambda seconds: None)
    led = threading.Event()

    def lead() -> None:
        led.set()
        engine._stopping = True
        engine._wake_all()

    monkeypatch.setattr(engine, "_lead", lead)
    real = engine._stand_by

    def stand_by() -> None:
        if not engine._offers:
            engine._offers.append(None)  # after the thread has looked, and before anybody could wake it
            engine._wake_standby()
        real()

    monkeypatch.setattr(engine, "_stand_by", stand_by)
    thread = threading.Thread(target=engine._serve)
    thread.start()
    engine._watch()
    thread.join(LONG)
    assert led.is_set()


@pytest.mark.parametrize("fails", ["_end_connections", "_wake_all", "close"])
def test_stop_is_told_whatever_happens(
    engine: Engine, notices: list[Notice], monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """The process learns that its engine has stopped, also where something goes wrong on the way."""

    def fail() -> None:
        raise RuntimeError(fails)

    with monkeypatch.context() as patch:
        patch.setattr(engine, fails, fail)
        engine._stop_threads()
    assert notices == [Notice.STOPPED]
    assert engine.wait(0)


@pytest.mark.parametrize("offset", instructions_of(Engine._end_connections.__code__))
def test_thread_that_comes_out_as_the_engine_stops(engine: Engine, notices: list[Notice], offset: int) -> None:
    """A thread may take the last request that waits, at any moment of the stop."""
    connection = scripted()
    renew(engine, connection)
    del engine._connections[connection.descriptor]
    connection.claim.acquire()
    engine._due.append(connection)
    with Interruption(Engine._end_connections.__code__, offset, engine._leave):
        engine._stop_threads()
    assert notices == [Notice.STOPPED]
    assert connection.responded or connection.state is State.CLOSED


@pytest.mark.parametrize("offset", instructions_of(Timers.take_expired.__code__))
@pytest.mark.parametrize("deadline", [1.5, 50.0])
def test_deadline_that_moves_while_it_is_looked_at(offset: int, deadline: float) -> None:
    """A deadline that its owner moves at any moment of the look at it is neither lost nor reverted."""
    timers, one = Timers(), scripted()
    timers.set(one, 1.0)
    timers.seconds_to_next(0.0)
    with Interruption(Timers.take_expired.__code__, offset, lambda: timers.set(one, deadline)) as interruption:
        expired = timers.take_expired(1.2)
    if expired:  # it counts only if it still is over under the claim, see `_expire`
        assert one.deadline == (deadline if interruption.happened else 1.0)
    if not expired or one.deadline > 1.2:
        assert timers.take_expired(51.0) == [one]
    assert timers.take_expired(100.0) == []


@pytest.mark.parametrize("offset", instructions_of(Timers.set.__code__))
def test_look_at_a_deadline_while_it_moves(offset: int) -> None:
    """The same from the other side: the leader looks at any moment at which the owner moves the deadline."""
    timers, one = Timers(), scripted()
    timers.set(one, 1.0)
    timers.seconds_to_next(0.0)
    expired: list[Connection] = []
    with Interruption(Timers.set.__code__, offset, lambda: expired.extend(timers.take_expired(1.2))):
        timers.set(one, 50.0)
    assert one.deadline == 50.0
    assert timers.take_expired(51.0) == [one]
    assert timers.take_expired(100.0) == []


@pytest.mark.parametrize("where", ["_let_go", "_leave"])
def test_fault_after_another_thread_has_taken_over(engine: Engine, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """There is one leader, or one offer, after any fault in wizgy itself."""
    connection = scripted()
    renew(engine, connection)
    connection.claim.acquire()
    connection.inside = engine._offers.pop

    def fail(*arguments: object) -> None:
        raise SystemExit(f"in {where}")

    with monkeypatch.context() as patch:
        patch.setattr(engine, where, fail)
        assert engine._call(connection) is False
    assert not engine._offers


def test_fault_of_the_leader(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader goes on after a fault, whatever is raised, and not without a pause."""
    pauses: list[float] = []
    monkeypatch.setattr(engine_module, "sleep", pauses.append)
    faults: list[BaseException] = [ValueError(), SystemExit(), KeyboardInterrupt(), GeneratorExit()]

    def lead() -> None:
        if faults:
            raise faults.pop()
        engine._stopping = True

    monkeypatch.setattr(engine, "_lead", lead)
    engine._offers.append(None)
    engine._serve()
    assert len(pauses) == 4
    assert not engine._threads


def refuse_threads(monkeypatch: pytest.MonkeyPatch, begins: str) -> None:
    """Let the system have no thread for those whose names begin so, as at pids.max."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith(begins):
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("name", ["wizgy-0", "wizgy-3", "wizgy-watcher"])
def test_engine_that_has_not_all_its_threads_does_not_start(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With a thread less than it needs an engine would stop serving at some time: it says so at once."""
    refuse_threads(monkeypatch, name)
    engine = Engine(lambda environ, start_response: [], check_keywords({"threads": 3}, embedded=True), [])
    before = threading.active_count()
    ready: list[bool] = []
    with pytest.raises(StartError, match="3 threads cannot be started"):
        engine.start(lambda: ready.append(True))
    assert not ready
    for thread in threading.enumerate():
        if thread.name.startswith("wizgy-") and thread.name != "wizgy-log":
            thread.join(LONG)
    assert threading.active_count() <= before + 1  # the log's
    engine.close()


def test_stuck_is_told_before_anything_can_fail(monkeypatch: pytest.MonkeyPatch, notices: list[Notice]) -> None:
    """The process learns of a stuck thread, where no answer can be sent and no thread takes its place."""
    refuse_threads(monkeypatch, "wizgy-successor")
    config = check_keywords({"threads": 1, "request_timeout": 1}, embedded=True)
    engine = Engine(lambda environ, start_response: [], config, [], notify=notices.append)
    engine._give_up(scripted(), "its stack")  # which has no `give_up`
    assert notices == [Notice.STUCK]
    engine.close()


class Broken:
    """A listener whose socket something else has closed, or that has no room.

    Args:
        number: the error of `accept`.
    """

    server_name, port = "x", 0

    def __init__(self, number: int) -> None:
        self.number = number
        self.sock = self
        self.accepts = 0

    def fileno(self) -> int:
        return 1_000_000

    def accept(self) -> tuple[object, tuple[str, str]]:
        self.accepts += 1
        if self.accepts > 1000:
            raise BlockingIOError
        raise OSError(self.number, "refused")


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EFAULT])
def test_listener_that_is_broken(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    """A listening socket that fails for good is asked once, the log says why, and the engine counts as stuck."""
    listener = Broken(number)
    engine = Engine(lambda e, s: [], check_keywords({}, embedded=True), cast("list[Listener]", [listener]))
    engine._accepting = True
    assert engine._accept(cast(Listener, listener)), "nothing more comes"
    assert listener.accepts == 1
    assert not engine._accepting
    assert engine.is_polling()
    assert engine._broken_since is not None
    engine._broken_since -= 100
    assert not engine.is_polling()
    engine.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_system_that_has_no_room(number: int) -> None:
    """Without a descriptor the engine waits, and is as it should be."""
    listener = Broken(number)
    engine = Engine(lambda e, s: [], check_keywords({}, embedded=True), cast("list[Listener]", [listener]))
    engine._accepting = True
    assert not engine._accept(cast(Listener, listener))
    assert (listener.accepts, engine._accepting, engine._broken_since) == (1, False, None)
    engine.close()


def test_client_that_was_gone_before_it_was_accepted() -> None:
    """The error of one client does not hold up the others."""
    listener = Broken(errno.ECONNABORTED)
    engine = Engine(lambda e, s: [], check_keywords({}, embedded=True), cast("list[Listener]", [listener]))
    engine._accepting, engine._accept_batch = True, 64
    engine._accept(cast(Listener, listener))
    assert (listener.accepts, engine._accepting) == (64, True)
    engine.close()


def run_elsewhere(engine: Engine, inside: Callable[[], object]) -> tuple[threading.Thread, threading.Event]:
    """Have another thread run a request, up to the end of `inside`; what it waits for then ends it."""
    connection = scripted()
    connection.claim.acquire()
    there, go_on = threading.Event(), threading.Event()

    def stay() -> None:
        inside()
        there.set()
        assert go_on.wait(LONG)

    def serve() -> None:
        engine._threads.add(threading.get_ident())
        connection.inside = stay
        engine._places.pop()
        engine._run(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    assert there.wait(LONG)
    return thread, go_on


def is_lost(engine: Engine) -> bool:
    """Whether the engine counts as one in which no thread can run the application, after a while of that."""
    engine._calls_seen = -1
    engine._is_lost(0.0)
    return engine._is_lost(LONGEST_POLL)


def test_place_whose_thread_is_gone(engine: Engine) -> None:
    """A place is lost when its thread has ended without giving it back, and not while that is in the application."""
    assert not is_lost(engine), "the place is free"
    thread, go_on = run_elsewhere(engine, lambda: None)
    assert not is_lost(engine), "the application runs"
    go_on.set()
    thread.join(LONG)
    assert is_lost(engine)
    engine._places.append(None)
    assert not is_lost(engine), "the place is free again"


def test_thread_that_waits_for_its_client_has_no_place(engine: Engine) -> None:
    """A thread that waits outside of the application is not the one that has the place that was lost meanwhile."""
    waits, client_reads, back = threading.Event(), threading.Event(), threading.Event()
    engine._waits[-1] = True  # no other thread is started

    def wait() -> None:
        waits.set()
        assert client_reads.wait(LONG)

    def send() -> None:
        engine._wait_outside(wait)
        back.set()

    connection = scripted()
    connection.inside = send
    connection.claim.acquire()

    def serve() -> None:
        engine._threads.add(threading.get_ident())
        engine._places.pop()
        engine._run(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    assert waits.wait(LONG)
    assert not is_lost(engine), "its place is free"
    engine._places.pop()  # by a thread that is gone
    assert is_lost(engine)
    engine._places.append(None)
    client_reads.set()
    assert back.wait(LONG)
    thread.join(LONG)
    assert not engine._outside


def warnings_of(engine: Engine, now: float, caplog: pytest.LogCaptureFixture) -> int:
    """How often it was said that requests wait, by a look at that time."""
    caplog.clear()
    engine._notice_waiting(now)
    flush_all()
    return caplog.text.count("in the application for")


def test_requests_that_wait_for_a_thread(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """The log says once a minute that requests wait, once no thread has come out of the application for a while."""
    engine._due.append(scripted())
    assert warnings_of(engine, 100.0, caplog) == 0
    assert warnings_of(engine, 99.9 + BUSY, caplog) == 0
    engine._calls += 1
    assert warnings_of(engine, 100.0 + BUSY, caplog) == 0, "a request was served meanwhile"
    assert warnings_of(engine, 100.1 + 2 * BUSY, caplog) == 1
    assert warnings_of(engine, 100.2 + 2 * BUSY, caplog) == 0
    engine._due.clear()


def test_response_that_goes_on_shows_that_threads_come_out(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """A thread that comes back from its client and gets a place counts, as a request that is begun does."""
    back = Return()
    engine._places.clear()
    engine._due.append(back)
    assert warnings_of(engine, 100.0, caplog) == 0
    engine._leave()
    back.wait_for_place()
    engine._due.append(scripted())
    assert warnings_of(engine, 100.1 + BUSY, caplog) == 0
    engine._due.clear()
