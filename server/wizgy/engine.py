"""The selector and the threads that run applications.

One thread at a time is the leader. It waits for events, reads requests and runs the application of a complete
request itself: in CPython a hand-off between threads costs more than parsing the request. While it is inside
of the application it *offers* the leadership, and whoever takes the offer goes on with the polling:

- the thread itself, when the call returns and nobody took it: the usual end of a quick call;
- a standby thread that the watcher wakes, when one call has lasted a whole tick;
- a standby thread that is woken before the call, when the last few calls have been slow;
- any other thread that comes out of a call.

So a quick application runs at the speed of one thread, and a slow one gets all of them. There is always either
one leader or one offer. `deque.append` and `deque.pop` are atomic, so an offer is taken once.

Sockets belong to the selector. A thread of an application waits for a client only where no more may be kept for it
(see `wizgy.output`), since all code of a response runs in one thread. Meanwhile its place is another's.
"""

from __future__ import annotations

import errno
import heapq
import os
import select
import selectors
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from functools import partial
from os import read, write
from typing import TYPE_CHECKING, Final, Protocol

from wizgy import forked, standard
from wizgy.config import Config
from wizgy.connection import CLOSED, IDLE_DRAINING, LINGER_DRAINING, Connection, Service, State
from wizgy.errors import StartError
from wizgy.listeners import Listener
from wizgy.locks import Counter, Latch, Wakeup
from wizgy.log import ErrorStream, Trace, logger, open_access_log
from wizgy.output import disown_temporary_files
from wizgy.overseer import Dismissed, Overseer, describe_places, runs_any
from wizgy.primitives import (
    Lock,
    RLock,
    Selector,
    Thread,
    epoll,
    get_ident,
    localtime,
    monotonic,
    poll,
    sleep,
    strftime,
    time,
)
from wizgy.sink import start_writers
from wizgy.throttle import Throttle
from wizgy.wsgi import Application, Environ, server_environ

if TYPE_CHECKING:  # it takes a while to import, and few servers need it
    from ssl import SSLContext

SLOW: Final = 0.001
"""Seconds after which a call of the application counts as slow."""
LONGEST_TICK: Final = 0.010
TICK_GROWTH: Final = 1.02
"""The watcher looks every `SLOW` seconds when a call was slow of late, and ever more rarely, up to `LONGEST_TICK`, when
none was: waking takes the interpreter's lock from the leader, which at every millisecond costs it 7 % of its time."""
QUIET: Final = 0.050
"""Seconds without a call after which the watcher sleeps."""
WAITS_PER_THREAD: Final = 4
"""How many threads may wait for clients, for each that may be in the application. They only wait where neither memory
nor disk may keep more for the client; a thread costs some 100 KiB."""
SLOW_STREAK: Final = 3
"""Slow calls in a row after which the leadership is passed on before the next. An average would do worse: one
call that the system interrupted would make many quick ones pay for a hand-off, which slows them in turn."""
FULL: Final = 0.020
"""Seconds with every place in the application taken after which other processes are left to accept."""
ACCEPT_BATCH: Final = 64
"""The most connections to accept before others have their turn."""
SPARE_DESCRIPTORS: Final = 64
"""File descriptors that are left for the application, its files and the spools."""
ACCEPT_PAUSE: Final = 0.1
"""Seconds to wait when the system has no descriptor left, or a listening socket is broken."""
NO_ROOM: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""Errors of `accept` that say that the system has no room for a connection now."""
GONE: Final = frozenset(
    number
    for number, name in errno.errorcode.items()
    if name in ("ECONNABORTED", "EPERM", "EPROTO", "ENOPROTOOPT", "EOPNOTSUPP", "ETIMEDOUT", "ENONET")
    or name.startswith(("ENET", "EHOST"))
)
"""Errors of `accept` that are the client's, which was gone before it was accepted, or the network's (accept(2))."""

QUIET_DRAIN: Final = 1.0
"""Seconds for which a server stops without saying what it waits for."""
LONGEST_WAIT: Final = 0.5
"""The most seconds to poll at a time. A new connection wakes one process only; where that is stopped or killed before
it accepts, the connection waits for as long until another process looks."""
STALL: Final = 2 * LONGEST_WAIT
"""Seconds without a look at the deadlines after which this process counts as one that did not run: it was stopped, or
C code held the interpreter's lock."""
LENIENCE: Final = 2.0
"""Seconds for which no deadline counts then: what clients were waited for may be there, or be on its way since they
have an answer again."""
LONGEST_POLL: Final = 5.0
"""Seconds after which the engine counts as stuck: without a poll, with a listening socket that is broken, or with every
place in the application lost."""
BUSY: Final = 3.0
"""Seconds after which it is said that requests wait and no thread comes out of the application."""
CHANGED: Final = 1
"""A bit of every event."""
HANG_UP: Final = 0x2000 | 0x10 | 0x08
"""The bits of an event that say that the client sends no more: EPOLLRDHUP, EPOLLHUP, EPOLLERR."""

AGAIN: Final = 1 << 32
"""A bit that no event has: the turn is one that the connection has asked for itself."""
OVERDUE: Final = 1 << 33
"""Another: the deadline has passed. What comes of that is decided when the socket has been looked at once more."""

NEVER: Final = 1 << 62
"""A number of calls that is not reached."""

FAULT: Final = "A fault in wizgy itself, please report it."
FAULT_PAUSE: Final = 0.1
"""Seconds to wait after one, so that one that does not pass takes neither the processor nor the log."""


class Notice(IntEnum):
    """What an engine tells the process that it is in."""

    ENOUGH = 1  # it has run the application as often as it should
    CLOSED = 2  # it has closed the listening sockets: what comes now is for others
    STUCK = 3  # a thread is in the application for longer than --request-timeout
    STOPPED = 4


class Poller(Protocol):
    """Tells which sockets have something to do: connections once for each change, listeners while it lasts.

    Attributes:
        rearms: whether `rearm` must be called at all.
    """

    rearms: bool

    def add_listener(self, descriptor: int) -> None:
        """Watch a listening socket or the waking end of a pipe."""

    def remove(self, descriptor: int) -> None:
        """Watch it no more."""

    def add_connection(self, descriptor: int) -> None:
        """Watch a connection for both directions."""

    def rearm(self, descriptor: int, wants_write: bool) -> None:
        """The connection waits again. Called by its owner, in any thread."""

    def forget(self, descriptor: int) -> None:
        """The connection is about to be closed. Called by its owner, in any thread."""

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait up to `timeout` seconds: descriptors, each with bits, `HANG_UP` among them."""

    def close(self) -> None:
        """Free what the system holds for it. Only `rearm` and `forget` may be called after this."""


class EpollPoller:
    """Edge-triggered epoll: a connection is registered once, and nothing is re-armed for a request."""

    rearms = False

    def __init__(self) -> None:
        self._epoll = epoll()
        self.poll = self._epoll.poll

    def add_listener(self, descriptor: int) -> None:
        """Watch a listening socket or the waking end of a pipe; one connection wakes one of the processes that do."""
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def remove(self, descriptor: int) -> None:
        """Watch it no more; it may be closed already."""
        with suppress(OSError):
            self._epoll.unregister(descriptor)

    def add_connection(self, descriptor: int) -> None:
        """Watch a connection for both directions."""
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)

    def rearm(self, descriptor: int, wants_write: bool) -> None:
        """Nothing to do: every change is reported, once."""

    def forget(self, descriptor: int) -> None:
        """Nothing to do: the kernel forgets a descriptor that is closed."""

    def close(self) -> None:
        """Close the epoll."""
        self._epoll.close()


class SelectorPoller:
    """Whatever else the system has. A connection is watched for one event at a time.

    Args:
        wake: interrupts `poll`, so that what other threads asked for takes effect.
    """

    rearms = True

    def __init__(self, wake: Wake) -> None:
        self._selector = Selector()
        self._asked: deque[tuple[int, int]] = deque()
        self._wake = wake

    def add_listener(self, descriptor: int) -> None:
        """Watch a listening socket or the waking end of a pipe."""
        self._selector.register(descriptor, selectors.EVENT_READ, "always")

    def remove(self, descriptor: int) -> None:
        """Watch it no more; it may be closed already."""
        with suppress(KeyError, OSError, ValueError):
            self._selector.unregister(descriptor)

    def add_connection(self, descriptor: int) -> None:
        """Watch a connection; the first turn looks at it anyway."""

    def rearm(self, descriptor: int, wants_write: bool) -> None:
        """Watch a connection for its next event."""
        self._asked.append((descriptor, selectors.EVENT_WRITE if wants_write else selectors.EVENT_READ))
        self._wake.set()

    def forget(self, descriptor: int) -> None:
        """Watch a connection no more."""
        self._asked.append((descriptor, 0))
        self._wake.set()

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait up to `timeout` seconds."""
        while self._asked:
            descriptor, events = self._asked.popleft()
            if descriptor in self._selector.get_map():
                self._selector.unregister(descriptor)
            if events:
                try:
                    self._selector.register(descriptor, events)
                except (OSError, ValueError):
                    pass  # closed meanwhile
        found = []
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._selector.unregister(key.fd)
            found.append((key.fd, CHANGED | HANG_UP))  # unknown, so whoever reads looks for the end of input
        return found

    def close(self) -> None:
        """Close the selector."""
        self._selector.close()


class Wake:
    """Interrupts the leader's waiting. Any thread may call `set`, also after `close`."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._closed = False
        self._receiver, self._sender = os.pipe()
        os.set_blocking(self._receiver, False)
        os.set_blocking(self._sender, False)
        self.descriptor = self._receiver

    def set(self) -> None:
        """Make the descriptor readable."""
        with self._lock:
            if self._closed:
                return
            try:
                write(self._sender, b"\0")
            except BlockingIOError:
                pass  # it is readable already

    def clear(self) -> None:
        """Make it not readable."""
        try:
            read(self._receiver, 4096)
        except BlockingIOError:
            pass

    def disown(self) -> None:
        """In a process just forked: close both ends; who held the lock is not there."""
        self._closed = True
        os.close(self._receiver)
        os.close(self._sender)

    def close(self) -> None:
        """Close both ends; a thread that comes late finds them closed, and not another file in their place."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._receiver)
                os.close(self._sender)


class Timers:
    """The deadlines of all connections, in slots of a tenth of a second.

    Moving a deadline further away, which every request does, costs one comparison: the connection stays in its
    slot, and is put into a later one when that slot comes up. So idle connections cost nothing until then.
    """

    SLOTS: Final = 10  # per second

    def __init__(self) -> None:
        self._slots: dict[int, set[Connection]] = {}
        self._order: list[int] = []
        # Only the leader puts connections into slots. Others leave a note, which takes no lock.
        self._notes: deque[Connection] = deque()

    # Any thread may call it.
    def set(self, connection: Connection, deadline: float) -> None:
        """Replace a connection's deadline, in seconds of the monotonic clock."""
        connection.deadline = deadline
        # After that: the leader takes it out of its slot before it looks at the deadline, so one of the two sees the
        # other.
        scheduled = connection.scheduled
        if scheduled is None or deadline * self.SLOTS < scheduled - 1:
            self._notes.append(connection)

    # Any thread may call it.
    def forget(self, connection: Connection) -> None:
        """Let go of a connection that is closed, with the next poll: with its head it may be large."""
        self._notes.append(connection)

    def _take_notes(self) -> None:
        for _ in range(len(self._notes)):
            connection = self._notes.popleft()
            self._remove(connection)
            if connection.state is not CLOSED:
                self._put(connection, int(connection.deadline * self.SLOTS) + 1)

    # Called by the leader.
    def put_off(self, connection: Connection, until: float) -> None:
        """Look at a deadline again that has passed, in seconds of the monotonic clock; it stays what it is."""
        self._remove(connection)
        self._put(connection, int(max(connection.deadline, until) * self.SLOTS) + 1)

    def _remove(self, connection: Connection) -> None:
        if connection.scheduled is not None:
            self._slots[connection.scheduled].discard(connection)
            connection.scheduled = None

    def _put(self, connection: Connection, slot: int) -> None:
        connection.scheduled = slot
        if slot in self._slots:
            self._slots[slot].add(connection)
        else:
            self._slots[slot] = {connection}
            heapq.heappush(self._order, slot)

    # Called by the leader.
    def seconds_to_next(self, now: float) -> float:
        """Seconds until the next slot, at most `LONGEST_WAIT`: another thread may set an earlier deadline meanwhile."""
        if self._notes:
            self._take_notes()
        if not self._order:
            return LONGEST_WAIT
        return min(max(self._order[0] / self.SLOTS - now, 0.0), LONGEST_WAIT)

    # Called by the leader.
    def take_expired(self, now: float) -> list[Connection]:
        """The connections whose deadline has passed."""
        self._take_notes()
        expired: list[Connection] = []
        while self._order and self._order[0] <= now * self.SLOTS:
            slot = heapq.heappop(self._order)
            for connection in self._slots.pop(slot):
                connection.scheduled = None  # first: who sets a deadline from here on leaves a note
                if connection.state is CLOSED:
                    continue
                if connection.deadline > now:
                    self._put(connection, int(connection.deadline * self.SLOTS) + 1)
                else:
                    expired.append(connection)
        return expired


class Return:
    """A thread that has waited for its client and wants a place in the application again."""

    def __init__(self) -> None:
        self._turn = Lock()
        self._turn.acquire()

    def wait_for_place(self) -> None:
        """Wait until another thread gives it its place."""
        self._turn.acquire()

    def give_place(self) -> None:
        """Called once, by the thread that does."""
        self._turn.release()

    close = give_place
    """Called when the engine stops: what the thread sends then goes nowhere."""


class Engine:
    """Serves an application on listening sockets, with a number of threads.

    Args:
        application: the WSGI application.
        config: the settings.
        listeners: the listening sockets; the engine closes them when it drains, once nothing waits in them.
        multiprocess: whether other processes serve the same application.
        poller: for tests; by default the best that the system has.
        notify: called with what its process should know, in any thread.
        tls: the certificates, or None to serve without TLS.
    """

    def __init__(
        self,
        application: Application,
        config: Config,
        listeners: list[Listener],
        *,
        multiprocess: bool = False,
        poller: Poller | None = None,
        notify: Callable[[Notice], None] = lambda notice: None,
        tls: SSLContext | None = None,
    ) -> None:
        self._config = config
        self._notify = notify
        self._listeners = {listener.sock.fileno(): listener for listener in listeners}
        self._errors = ErrorStream(logger)
        self._environs = {
            descriptor: server_environ(
                name=listener.server_name,
                port=str(listener.port or (443 if tls else 80)),
                scheme="https" if tls else "http",
                errors=self._errors,
                multithread=config.threads > 1,
                multiprocess=multiprocess,
            )
            for descriptor, listener in self._listeners.items()
        }
        self._timers = Timers()
        self._service = Service(
            _mount(application, config.url_prefix) if config.url_prefix else application,
            config,
            logger,
            open_access_log(config),
            Trace() if config.trace else None,
            self._timers,
            self._forget,
            self._wait_outside,
        )
        self._connect = choose_connection(config, tls)
        self._maker = os.getpid()
        self._wake = Wake()
        self._poller: Poller = poller or self._choose_poller()
        self._connections: dict[int, Connection] = {}
        self._given_up: set[Connection] = set()  # those whose threads are stuck in the application
        self._most_connections = config.max_connections or most_connections()
        self._accepting = False
        self._shares = multiprocess  # others accept from the same sockets
        self._full = False  # whether every place in the application has been taken for a while
        self._aside = False  # whether new connections are left to others therefore
        self._left_waiting = False  # whether some waited at the last look for all that
        self._accept_batch = 1  # one at a time until more come than that: to look for another in vain costs as much
        self._accept_again = 0.0  # when to try again after the system had no descriptor left
        self._throttle = Throttle()
        self._turns = self._turns_seen = 0  # how many there were, now and when somebody last asked
        self._broken_since: float | None = None  # when `accept` began to fail for good
        self._calls_seen, self._lost_since = -1, 0.0  # `_calls` when a thread could last run applications, and when
        self._calls_waited, self._waits_since = -1, 0.0  # `_calls` when a request began to wait for a thread, and when
        self._busy = Throttle()
        self._ready: deque[tuple[int, int]] = deque()  # descriptors that have something to do, and their events
        self._polling = False
        self._next_round = monotonic()  # when to look again after what is looked after now and then
        self._lenient_until = 0.0  # when deadlines count again, after this process did not run for a while

        self._offers: deque[None] = deque()  # the first is made when all threads are there
        self._standbys: deque[Lock] = deque()
        self._places: deque[None] = deque([None] * config.threads)  # for threads in the application
        self._due: deque[Connection | Return] = deque()  # claimed ones for which there was no place
        # For threads that wait for clients; whether there is another thread for the place that it leaves.
        self._waits: deque[bool] = deque([False] * (WAITS_PER_THREAD * config.threads))
        self._threads: set[int] = set()  # those that run applications, and lead
        self._outside: set[int] = set()  # those of them that wait for a client, or for a place after that
        self._calls = 0  # about: threads that run at once may lose some, so it only tells that there were any
        self._counter = Counter() if config.max_requests else None
        self._enough = most_calls(config.max_requests, config.max_requests_jitter)
        self._overseer = Overseer(config.request_timeout) if config.request_timeout else None
        self._slow_calls = 0  # in a row, about
        self._watching = False
        self._activity = Wakeup()  # of the watcher

        self._drain_at: float | None = None
        self._drain_began = 0.0
        self._has_told = False  # what a stop waits for
        self._stopping = False
        self._stopped = Latch()

    def _choose_poller(self) -> Poller:
        return EpollPoller() if epoll is not None else SelectorPoller(self._wake)

    # Called once.
    def start(self, ready: Callable[[], None] = lambda: None) -> None:
        """Accept connections and serve them in threads of the engine's own.

        Args:
            ready: called when all is prepared, before the first connection is accepted.

        Raises:
            StartError: the system has no threads for it.
        """
        start_writers()
        if self._maker != os.getpid():  # made before a fork: what it waits with is shared with the process that made it
            self._wake = Wake()
            self._poller = self._choose_poller()
        forked.own(self.disown)
        self._poller.add_listener(self._wake.descriptor)
        self._start_accepting()
        try:
            # One more than may be in the application: while all of those are, it polls for them.
            for number in range(self._config.threads + 1):
                self._start_thread(self._serve, f"wizgy-{number}")
            self._start_thread(self._watch, "wizgy-watcher")
        except (RuntimeError, MemoryError) as error:
            self._stopping = True
            self._wake_all()
            raise StartError(
                f"{self._config.threads} threads cannot be started ({error}). Lower --threads or --workers, or raise "
                "the limit of processes (ulimit -u, pids.max, TasksMax)."
            ) from None
        ready()
        self._offers.append(None)
        self._wake_standby()
        self._activity.set()  # where none stood by yet, the watcher wakes one that does

    def _start_thread(self, do: Callable[[], None], name: str) -> None:
        Thread(do, name).start()

    # Any thread may call it.
    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the engine has stopped; False after `timeout` seconds."""
        return self._stopped.wait(timeout)

    # Any thread may call it.
    def drain(self, idle_grace: float = IDLE_DRAINING) -> None:
        """Accept what waits, answer what was asked, then stop; after the graceful timeout stop anyway.

        A second call with a shorter grace hastens the first. Where nobody takes its place, `be_unready` comes first.

        Args:
            idle_grace: seconds for which a connection stays open on which nothing has been asked, since its
                request may be on the way; at most the keep-alive timeout.
        """
        self._service.keepalive_timeout = min(self._service.keepalive_timeout, idle_grace)
        self._service.draining = True
        if self._drain_at is None:
            self._drain_at = monotonic() + self._config.graceful_timeout
        self._drain_began = 0.0  # all connections are looked at again
        self._wake.set()

    # Any thread may call it.
    def be_unready(self) -> None:
        """Answer from now on that the server is not ready, while it still serves."""
        self._service.ready = False

    # Any thread may call it.
    def is_polling(self) -> bool:
        """Whether the engine works as it should.

        A thread polls, or has taken turns since the last call; a broken listening socket has not been all that there
        was to accept from for a while; and not every place in the application is lost.
        """
        turns, self._turns_seen = self._turns_seen, self._turns
        now = monotonic()
        polls = turns != self._turns or now - self._service.now < LONGEST_POLL
        accepts = self._broken_since is None or now - self._broken_since < LONGEST_POLL
        return polls and accepts and not self._is_lost(now)

    def _is_lost(self, now: float) -> bool:
        """Whether no thread has been able to run the application for a while: those that had the places are gone.

        One that is in the application is none of those, however long it stays there.
        """
        calls = self._calls
        if calls != self._calls_seen or self._places or runs_any(self._with_places(), Engine._run.__code__):
            self._calls_seen, self._lost_since = calls, now
        return now - self._lost_since >= LONGEST_POLL

    def _with_places(self) -> set[int]:
        """The threads that may have a place in the application."""
        threads = self._threads - self._outside
        return threads if self._overseer is None else threads - self._overseer.dismissed

    # Any thread may call it.
    def stop(self) -> None:
        """Stop at once."""
        self._stopping = True
        self._wake.set()

    # Called by the leader when it has stopped, or by whoever made an engine that never started.
    def close(self) -> None:
        """Free what the engine holds, besides the listeners."""
        forked.release(self.disown)
        self._poller.close()
        self._wake.close()
        if self._service.access_log is not None:
            self._service.access_log.close()
        if self._service.trace is not None:
            self._service.trace.close()

    # Called in a process just forked, by the one thread that is in it.
    def disown(self) -> None:
        """Close what is the parent's, and see to it that no code of the engine goes on here."""
        names = [listener.sock.getsockname() for listener in self._listeners.values()]
        self._stopping = True
        self._poller.close()
        self._wake.disown()
        for connection in [*self._connections.values(), *self._given_up]:
            connection.disown()
            forked.disable(connection, forked.ForkedConnection)
        for listener in self._listeners.values():
            listener.disown()
        forked.close_accepted(names)
        disown_temporary_files()
        forked.disable(self, forked.ForkedEngine)

    def _serve(self) -> None:
        """What each thread does: lead, or stand by."""
        self._threads.add(get_ident())
        while not self._stopping:
            try:
                self._offers.pop()
            except IndexError:
                self._stand_by()
                continue
            try:
                self._lead()
            except Dismissed:
                break
            except BaseException:  # noqa: BLE001 - whatever it was, some thread must go on polling
                logger.exception(FAULT)  # it comes from one that leads: `_call` lets nothing else through
                sleep(FAULT_PAUSE)
                self._offers.append(None)
        self._threads.discard(get_ident())

    def _serve_in_place(self) -> None:
        """What a thread does that takes the place of another in the application, which is stuck there."""
        self._threads.add(get_ident())
        try:
            self._leave()
        except Dismissed:
            self._threads.discard(get_ident())
        else:
            self._serve()

    def _stand_by(self) -> None:
        turn = Lock()
        turn.acquire()
        self._standbys.append(turn)
        # Whoever stops wakes those that are on the list by then. One that misses an offer here is woken by the watcher,
        # which does not sleep while there is one.
        if not self._stopping:
            turn.acquire()

    def _wake_standby(self) -> bool:
        """Wake a thread that stands by, if one does; else all are in the application, or about to look for an offer."""
        try:
            self._standbys.pop().release()
        except IndexError:
            return False
        return True

    def _wake_all(self) -> None:
        """End the waiting of all threads, since the engine stops."""
        self._activity.set()
        while self._wake_standby():
            pass

    def _watch(self) -> None:
        """Wake a standby when one call has lasted a whole tick."""
        tick = SLOW
        while not self._stopping:
            calls = self._calls
            quiet = 0.0
            while quiet < QUIET:
                sleep(tick)
                if self._calls != calls:
                    calls = self._calls
                    quiet = 0.0
                    tick = min(tick * TICK_GROWTH, LONGEST_TICK)
                elif self._offers:
                    self._wake_standby()
                    tick = SLOW
                else:
                    quiet += tick
                    if quiet >= FULL and self._shares and not (self._places or self._aside):
                        self._full = True
                        self._wake.set()
            self._watching = False
            # In this order: who makes an offer looks at `_watching` after that, so one of the two sees the other.
            if not self._offers:
                self._activity.wait()
            self._watching = True

    def _lead(self) -> None:
        """Poll and serve, until another thread has taken the leadership or the engine stops."""
        ready, connections = self._ready, self._connections
        while not self._stopping:
            for _ in range(len(ready)):  # what comes back meanwhile waits until the others have had their turn
                try:
                    descriptor, events = ready.popleft()
                except IndexError:  # others have led meanwhile
                    break
                self._turns += 1
                connection = connections.get(descriptor)
                if not (self._attend(descriptor) if connection is None else self._take_turn(connection, events)):
                    return
            if not self._stopping:  # it may have come to that meanwhile
                self._poll()
        self._stop_threads()

    def _poll(self) -> None:
        """Wait for events and put them into the queue."""
        self._polling = True
        # A thread that puts a connection back after this looks at `_polling` and interrupts the waiting.
        timeout = 0.0 if self._ready else self._timers.seconds_to_next(monotonic())
        if self._aside:
            timeout = min(timeout, 1 / Timers.SLOTS)
        self._ready.extend(self._poller.poll(timeout))
        self._polling = False
        if timeout and not self._ready and self._accepting:
            # One that another process was woken for, and did not live to accept.
            for listener in self._listeners.values():
                self._accept(listener)
        now = self._service.now = monotonic()
        if now >= self._next_round:
            self._go_round(now)

    def _take_turn(self, connection: Connection, events: int) -> bool:
        """Serve a connection that has something to do.

        Returns:
            Whether this thread leads still.
        """
        if events & AGAIN:
            connection.queued = False
        if not connection.claim.acquire(False) and not self._leave_to_owner(connection, events):
            return True
        events |= connection.pending
        connection.pending = 0
        if events & ~AGAIN:
            connection.readable = True
            if events & HANG_UP:
                connection.hung_up = True
        try:
            due = connection.advance()
        except Exception:  # noqa: BLE001 - one connection's fault is not the others'
            logger.exception(FAULT)
            connection.close()
            due = False
        if due:
            return self._call(connection)
        if events & OVERDUE:
            if not connection.again:
                connection.expire()
            self._await_again(connection)
        self._let_go(connection)
        return True

    def _leave_to_owner(self, connection: Connection, events: int) -> bool:
        """Tell the thread that owns a connection of events; returns whether this thread owns it now after all."""
        connection.pending |= events
        if connection.output.waiting:
            if connection.flush(overdue=bool(events & OVERDUE)):
                self._queue(connection)  # the selector tells only once that the client takes more
            if events & OVERDUE and not connection.output.broken:
                self._await_again(connection)
        # Its owner looks at `pending` after it has let go, which may have been just before.
        return connection.claim.acquire(False)

    def _await_again(self, connection: Connection) -> None:
        """Look at the deadline of a connection again that has lived through it, at the next round if it has passed."""
        if connection.state is not CLOSED and connection.scheduled is None:
            self._timers.put_off(connection, self._next_round)

    def _let_go(self, connection: Connection) -> None:
        """End a turn."""
        if connection.state is CLOSED:
            return
        again = connection.again
        if self._poller.rearms and not again:
            self._poller.rearm(connection.descriptor, bool(connection.output.waiting))
        connection.claim.release()
        if again or connection.pending:
            self._queue(connection)
            if self._polling:  # the leader waits, if it is another thread
                self._wake.set()

    def _queue(self, connection: Connection) -> None:
        """Give a connection another turn, behind the others.

        Once: each event gives a turn too, and if all of them asked for another, the turns of a client that sends
        without pause would become ever more.
        """
        if not connection.queued:
            connection.queued = True
            self._ready.append((connection.descriptor, AGAIN))

    def _call(self, connection: Connection | None) -> bool:
        """Run the application for one request, or leave that to the next thread that comes out of it.

        Args:
            connection: what has the request; None for what is due already.

        Returns:
            Whether this thread leads after it.
        """
        places, offers = self._places, self._offers
        try:
            places.pop()
        except IndexError:
            if connection is not None:
                self._due.append(connection)
                connection = None
            try:  # again: whoever gave a place back just before this has not seen what is due
                places.pop()
            except IndexError:
                return True
        offers.append(None)
        if self._slow_calls >= SLOW_STREAK:
            self._wake_standby()
        if not self._watching:
            self._watching = True
            self._activity.set()
        try:
            if connection is not None:
                self._run(connection)
            self._leave()
        except Dismissed:
            raise
        except BaseException:  # noqa: BLE001 - another thread may lead by now, so `_serve` must not make a second leader
            logger.exception(FAULT)
        try:
            offers.pop()
        except IndexError:
            return False
        return True

    def _leave(self) -> None:
        """Run the application for what is due, then give back the place in it."""
        due, places = self._due, self._places
        while True:
            while due:
                if self._offers:
                    self._wake_standby()
                try:
                    connection = due.popleft()
                except IndexError:  # another thread was faster
                    break
                if type(connection) is Return:
                    self._calls += 1  # another goes on in the application
                    connection.give_place()
                    return
                self._run(connection)  # type: ignore[arg-type]
            places.append(None)
            if self._aside:
                self._wake.set()
            # The leader may have found no place a moment ago, and counts on whoever has one.
            if not due:
                return
            try:
                places.pop()
            except IndexError:
                return

    def _run(self, connection: Connection) -> None:
        """Run the application for one request, and end the turn."""
        self._calls += 1
        if self._counter is not None and self._counter.next() == self._enough:
            self._notify(Notice.ENOUGH)
        overseer = self._overseer
        come_out = overseer.enter(connection, monotonic()) if overseer is not None else None
        try:
            seconds = connection.respond(come_out)
        except Dismissed:
            self._errors.end_line()
            connection.close()
            raise
        except BaseException:  # noqa: BLE001 - one connection's fault is not the others', an application's exit neither
            logger.exception(FAULT)
            seconds = 0.0
            try:
                if come_out is not None:
                    come_out()
            finally:
                connection.close()
        if seconds > SLOW:
            self._slow_calls += 1
        else:
            self._slow_calls = 0
        if self._errors.begun:
            self._errors.end_line()
        self._let_go(connection)

    # Called by a thread in the application.
    def _wait_outside(self, wait: Callable[[], None]) -> bool:
        """Run what waits for a client while this thread's place in the application is another's.

        Returns:
            Whether it did; False where as many threads wait as may, or no other can be started.
        """
        try:
            has_substitute = self._waits.pop()
        except IndexError:
            return False
        try:
            if not has_substitute:
                self._start_thread(self._serve, "wizgy-substitute")
        except (RuntimeError, MemoryError):
            self._waits.appendleft(False)
            return False
        self._outside.add(get_ident())
        self._free_place()
        try:
            wait()
        finally:
            self._take_place()
            self._outside.discard(get_ident())
            self._waits.append(True)
        return True

    def _free_place(self) -> None:
        self._places.append(None)
        if self._offers:
            self._wake_standby()
        if self._due or self._aside:
            self._wake.set()

    def _take_place(self) -> None:
        """Wait for a place in the application, behind the requests that wait for one already."""
        try:
            self._places.pop()
            return
        except IndexError:
            turn = Return()
            self._due.append(turn)
        try:  # again, as in `_call`
            self._places.pop()
        except IndexError:
            turn.wait_for_place()
            return
        try:
            self._due.remove(turn)
        except ValueError:  # it has been given another meanwhile
            self._free_place()

    def _forget(self, connection: Connection) -> None:
        """A connection is about to be closed by its owner."""
        if self._connections.pop(connection.descriptor, None) is None:
            self._given_up.discard(connection)
        self._poller.forget(connection.descriptor)
        self._timers.forget(connection)
        if not self._accepting:
            self._wake.set()  # there is room for another, or one less to drain

    def _attend(self, descriptor: int) -> bool:
        """See to an event that is no connection's.

        Returns:
            Whether this thread leads still.
        """
        if descriptor in self._listeners:
            self._accept(self._listeners[descriptor])
        elif descriptor == self._wake.descriptor:
            self._wake.clear()
            self._go_round(monotonic())
            # A place may have come free that no thread came out of.
            return not (self._due and self._places) or self._call(None)
        return True

    def _go_round(self, now: float) -> None:
        """Look after the date, the deadlines, and whether to accept."""
        seconds = time()
        self._service.renew_date(seconds)
        self._expire(now)
        self._next_round = now + min(1 / Timers.SLOTS, 1 - seconds % 1)
        self._service.refusals.tell_withheld()
        if self._overseer is not None and now >= self._lenient_until:
            self._overseer.dismiss_overdue(now, self._give_up)
        if self._due:
            self._notice_waiting(now)
        if self._drain_at is not None:
            self._go_on_draining(self._drain_at)
        elif self._full or self._aside:
            self._stand_aside()
        elif not self._accepting and len(self._connections) < self._most_connections and now >= self._accept_again:
            self._start_accepting()

    def _expire(self, now: float) -> None:
        """Give a turn to the connections whose deadline has passed.

        This process may not have run for a while, and what they were waited for may be there by now.
        """
        if now - self._next_round > STALL:
            self._lenient_until = now + LENIENCE
        lenient = now < self._lenient_until
        for connection in self._timers.take_expired(now):
            if lenient:
                self._timers.put_off(connection, self._lenient_until)
            self._ready.append((connection.descriptor, CHANGED if lenient else OVERDUE))

    def _give_up(self, connection: Connection, stack: str) -> None:
        """Answer for the application, which takes too long, and have another thread do the work of the one in it."""
        self._notify(Notice.STUCK)  # first: whatever fails below, this process needs a successor
        self._connections.pop(connection.descriptor, None)
        self._given_up.add(connection)
        try:
            connection.give_up(self._config.request_timeout, stack)
        except Exception:  # noqa: BLE001 - the thread is lost all the same
            logger.exception(FAULT)
        try:
            self._start_thread(self._serve_in_place, "wizgy-successor")
        except (RuntimeError, MemoryError) as error:
            logger.error("No thread can be started in place of the one that is stuck (%s).", error)

    def _notice_waiting(self, now: float) -> None:
        """Say once a minute that requests wait while no thread comes out of the application: nothing else shows it."""
        if self._calls != self._calls_waited:
            self._calls_waited, self._waits_since = self._calls, now
        if now - self._waits_since < BUSY or not self._busy.admits():
            return
        answered = [one for one in list(self._connections.values()) if one.state is State.RUNNING]
        gone = sum(one.hung_up or bool(one.pending & HANG_UP) for one in answered)
        waiting = len(self._due)
        logger.warning(
            "All %d threads have been in the application for %.0f s while %d request%s. %d of the clients that they "
            "answer have hung up. The threads are in: %s. Raise --threads or set --request-timeout; send USR2 to log "
            "every stack.",
            self._config.threads,
            now - self._waits_since,
            waiting,
            "s wait" if waiting != 1 else " waits",
            gone,
            describe_places(self._with_places()),
        )

    def _accept(self, listener: Listener) -> bool:
        """Accept a batch of connections.

        Returns:
            Whether no other waits.
        """
        for _ in range(self._accept_batch):
            if len(self._connections) >= self._most_connections:
                self._stop_accepting("the limit of connections is reached")
                return False
            try:
                sock, client = listener.accept()
            except BlockingIOError:
                self._accept_batch = 1
                return True
            except OSError as error:
                if error.errno in GONE:
                    continue
                self._accept_again = monotonic() + ACCEPT_PAUSE
                self._stop_accepting(error.strerror or type(error).__name__)
                if error.errno in NO_ROOM:
                    return False
                self._note_broken()
                return True
            self._broken_since = None
            self._add(sock, client, listener)
        self._accept_batch = min(2 * self._accept_batch, ACCEPT_BATCH)
        return False

    def _add(self, sock: socket.socket, client: tuple[str, str], listener: Listener) -> None:
        environ = self._environs[listener.sock.fileno()]
        connection = self._connect(self._service, sock, client, environ)
        self._connections[connection.descriptor] = connection
        self._poller.add_connection(connection.descriptor)
        self._ready.append((connection.descriptor, CHANGED))  # its first request is often there already

    def _start_accepting(self) -> None:
        self._accepting = True
        try:
            for descriptor in self._listeners:
                self._poller.add_listener(descriptor)
        except (OSError, ValueError) as error:  # something else has closed the socket
            self._accept_again = monotonic() + ACCEPT_PAUSE
            self._stop_accepting(str(error))
            self._note_broken()

    def _note_broken(self) -> None:
        if self._broken_since is None:
            self._broken_since = monotonic()

    def _stop_accepting(self, reason: str) -> None:
        if not self._accepting:
            return
        self._accepting = False
        for descriptor in self._listeners:
            self._poller.remove(descriptor)
        if reason and self._throttle.admits():
            logger.warning("New connections wait: %s (%d are open).", reason, len(self._connections))

    def _stand_aside(self) -> None:
        """While every place in the application is taken, leave new connections to processes that have one.

        What none of them has taken after a while is accepted all the same: a health check must be answered.
        """
        self._full = False
        if self._places:
            self._aside = self._left_waiting = False
            if not self._accepting:
                self._start_accepting()
            return
        if not self._aside:
            self._aside = True
            self._stop_accepting("")
        poller = poll()
        for descriptor in self._listeners:
            poller.register(descriptor, select.POLLIN)
        waiting = bool(poller.poll(0))
        if waiting and self._left_waiting and len(self._connections) < self._most_connections:
            for listener in self._listeners.values():
                self._accept(listener)
        self._left_waiting = waiting

    def _go_on_draining(self, deadline: float) -> None:
        now = monotonic()
        if not self._drain_began:
            self._drain_began = now
            self._stop_accepting("")
            self._empty_backlogs()
            for connection in list(self._connections.values()):
                self._ready.append((connection.descriptor, CHANGED))  # a request may have come that nobody has read
            if self._connections:
                return
        self._empty_backlogs()
        waiting = [c for c in list(self._connections.values()) if c.state is not State.LINGERING]
        # A listener is still there while clients wait in its backlog for which there was no room.
        answered = not waiting and not self._listeners and now - self._drain_began > LINGER_DRAINING
        busy = sum(not connection.is_idle() for connection in waiting)
        if (not self._connections and not self._listeners) or answered or now >= deadline:
            if busy:
                logger.warning("%d connections did not end in time and were cut.", busy)
            self._stopping = True
        elif busy and not self._service.ready and now - self._drain_began > QUIET_DRAIN:
            self._tell_what_is_waited_for(busy, deadline - now)

    def _tell_what_is_waited_for(self, busy: int, seconds: float) -> None:
        """Say once why the server does not stop yet, and what ends it."""
        if self._has_told:
            return
        self._has_told = True
        until = strftime("%H:%M:%S", localtime(time() + seconds))
        requests = "1 request" if busy == 1 else f"{busy} requests"
        hasten = " A second Ctrl-C or TERM stops the server now." if logger.is_command else ""
        logger.info("Stopping: waiting for %s until %s at most (--graceful-timeout).%s", requests, until, hasten)

    def _empty_backlogs(self) -> None:
        """Accept what the kernel has queued, as far as there is room, and close each listener that has nothing more.

        Closed it refuses, where an open one would let new clients wait for nobody.
        """
        for descriptor, listener in list(self._listeners.items()):
            before = -1
            while before < len(self._connections) < self._most_connections:
                before = len(self._connections)
                if self._accept(listener):
                    del self._listeners[descriptor]
                    listener.close()
                    if not self._listeners:
                        self._notify(Notice.CLOSED)
                    break

    def _stop_threads(self) -> None:
        """Called by the leader: close what is idle, and end the waiting of all other threads."""
        try:
            self._end_connections()
            self._wake_all()
            self._service.refusals.tell_withheld(early=True)
            self.close()
        except BaseException:  # noqa: BLE001 - the process waits for the notice below
            logger.exception(FAULT)
        self._stopped.set()
        self._notify(Notice.STOPPED)

    def _end_connections(self) -> None:
        try:
            while True:
                self._due.popleft().close()
        except IndexError:
            pass  # a thread that comes out of the application takes from it as well
        for connection in list(self._connections.values()):
            if connection.claim.acquire(False):
                connection.close()
            else:
                connection.cut()  # its thread closes it when the application returns


def choose_connection(
    config: Config, tls: SSLContext | None
) -> Callable[[Service, socket.socket, tuple[str, str], Environ], Connection]:
    """What to make of an accepted socket. The usual connection pays nothing for the others."""
    if tls is None and not config.trust_proxy and not config.keep_forwarded:
        return Connection
    from wizgy.proxied import Front, ProxiedConnection

    front = Front(config)
    if tls is None:
        return partial(ProxiedConnection, front)
    from wizgy.secure import SecureConnection

    return partial(SecureConnection, front, tls)


def _mount(application: Application, prefix: str) -> Application:
    from wizgy.mount import mount  # not at the top: few need it

    return mount(application, prefix)


def most_calls(least: int, jitter: int) -> int:
    """How often to run the application before the process should be replaced.

    Args:
        least: the setting; 0 for no limit.
        jitter: the most to add, so that workers that started together do not end together.
    """
    if not least:
        return NEVER
    if not jitter:
        return least
    return least + standard.random.randint(0, jitter)


def most_connections() -> int:
    """How many connections this process may have: where descriptors are few, half of them."""
    descriptors = most_descriptors()
    return max(descriptors - SPARE_DESCRIPTORS, descriptors // 2)


def most_descriptors() -> int:
    """How many file descriptors this process may have."""
    try:
        resource = standard.resource
    except ImportError:  # not a Unix
        return 512
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(soft, 1 << 20) if soft != resource.RLIM_INFINITY else 1 << 20
