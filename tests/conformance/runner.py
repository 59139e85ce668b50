"""Play a case against a server over a raw socket, and judge what comes back.

One thread plays one case: it sends the bytes of the case while it reads whatever arrives, so that
neither side waits for the other with full buffers. When the answers of an acceptable outcome are
complete it looks at the connection: an outcome with ``closed`` waits for the end of the stream,
one with ``open`` or ``any`` sends a further ``GET /hello``, unless the last answer said that no more
would come. At the end a fresh connection shows that the server still lives.

No step sleeps to wait for the server: every wait ends with what it waits for, or with a deadline.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from matrix.results import EventKind
from tests.conformance.cases import (
    Await,
    Case,
    HalfClose,
    Outcome,
    Pause,
    Reconnect,
    SendBytes,
    Step,
)
from tests.conformance.matching import (
    describe_outcome,
    find_outcome_differences,
    shorten,
)
from tests.conformance.reader import End, Response, ResponseReader

DEADLINE = 5.0
"""Seconds without progress after which the server is taken to have nothing more to say."""

LONGEST = 30.0
"""Seconds after which a case ends whatever happens."""

QUIET = 0.3
"""Seconds of further reading, for the report, once no acceptable outcome is possible."""

PROBE_DEADLINE = 2.0
"""Seconds for the connection to end after the answer to a further request that asks for its end."""

PACE = 0.001
"""Seconds between two pieces of a segment that is sent in pieces."""

PROBE = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
GREETING = b"Hello world"

MAX_SINGLE_BYTES = 1200
MAX_PIECES = 300


class TargetError(OSError):
    """The target cannot be reached at all."""


@dataclass(frozen=True)
class Event:
    """Something that happened on the connection."""

    seconds: float
    kind: EventKind
    data: bytes = b""
    text: str = ""


@dataclass(frozen=True)
class Exchange:
    """What was sent, what came back, and the verdict.

    Args:
        case: the case that was played.
        events: everything that was sent and received, in order.
        responses: the final answers that were read.
        ended: how the server ended the connection; ``None`` when it did not.
        probed: whether a further ``GET /hello`` was sent on the connection.
        reused: whether the server answered it; then its answer is the last of ``responses``.
        alive: whether the server answered on a fresh connection afterwards.
        passed: whether an acceptable outcome happened and the server lives.
        explanation: why the exchange failed, or which outcome matched.
        seconds: how long it all took.
    """

    case: Case
    events: tuple[Event, ...]
    responses: tuple[Response, ...]
    ended: End | None
    probed: bool
    reused: bool
    alive: bool
    passed: bool
    explanation: str
    seconds: float

    @property
    def sent(self) -> bytes:
        """All bytes that were sent."""
        return b"".join(event.data for event in self.events if event.kind == "sent")

    @property
    def received(self) -> bytes:
        """All bytes that were received."""
        return b"".join(event.data for event in self.events if event.kind == "received")

    @property
    def statuses(self) -> tuple[int, ...]:
        """The final status codes as they came, without that of the further request."""
        statuses = tuple(response.status for response in self.responses)
        return statuses[:-1] if self.reused else statuses


@dataclass
class Attempt:
    """How one acceptable outcome stands while bytes arrive."""

    outcome: Outcome
    reader: ResponseReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = ResponseReader([response.head for response in self.outcome.responses])

    def is_answered(self) -> bool:
        """Whether exactly the expected answers have come."""
        reader = self.reader
        return not reader.error and not reader.pending and not find_outcome_differences(self.outcome, reader.responses)

    def is_last_as_announced(self) -> bool:
        """Whether the last expected answer said that the connection ends."""
        responses = self.reader.responses
        return bool(responses) and len(responses) == len(self.outcome.responses) and responses[-1].announces_end

    def is_hopeless(self) -> bool:
        """Whether nothing that can still come makes this outcome true."""
        responses = self.reader.responses
        return bool(
            self.reader.error
            or len(responses) > len(self.outcome.responses)
            or any(difference.startswith("answer ") for difference in find_outcome_differences(self.outcome, responses))
        )

    def explain(self, *, probed: bool, ended: End | None) -> str | None:
        """Tell why the outcome did not happen; ``None`` when it did."""
        if self.reader.error:
            return f"the answer is malformed: {self.reader.error}"
        if self.reader.pending:
            return "an answer began and did not end in time"
        responses = self.reader.responses
        if probed and len(responses) == len(self.outcome.responses) + 1:
            differences = find_outcome_differences(self.outcome, responses[:-1])
            if not differences and self.outcome.then != "closed":
                return self._explain_probe(responses[-1])
        if ended and self.is_cut_off_as_announced():
            return None
        differences = find_outcome_differences(self.outcome, responses)
        if differences:
            return "; ".join(differences)
        if self.outcome.then == "closed" and not ended:
            return "the connection was not closed in time"
        if self.outcome.then == "any" and self.is_last_as_announced():
            return None
        if self.outcome.then == "open" or (probed and not ended):
            return "the connection did not answer a further request"
        return None

    def is_cut_off_as_announced(self) -> bool:
        """Whether the first of several answers came as expected, and the last of them said that no more would come.

        A server may end any connection after an answer that says so (RFC 9112 section 9.3). Where the outcome is
        ``open``, this is what the case is about.
        """
        responses = self.reader.responses
        begun = Outcome(self.outcome.responses[: len(responses)], "closed")
        return (
            0 < len(responses) < len(self.outcome.responses)
            and self.outcome.then != "open"
            and not find_outcome_differences(begun, responses)
            and responses[-1].announces_end
        )

    def is_reused(self, *, probed: bool) -> bool:
        """Whether the last answer read is that of the further request."""
        responses = self.reader.responses
        beyond = len(responses) == len(self.outcome.responses) + 1
        return probed and beyond and is_greeting(responses[-1])

    @staticmethod
    def _explain_probe(response: Response) -> str | None:
        if is_greeting(response):
            return None
        return f"the further GET /hello was answered with {response.status}, not with its greeting"


def is_greeting(response: Response) -> bool:
    """Tell whether a response is the complete answer of the ``/hello`` route."""
    return response.complete and response.status == 200 and response.body.startswith(GREETING)


def play(case: Case, host: str, port: int, *, split: int | None = None, deadline: float = DEADLINE) -> Exchange:
    """Play a case against a server.

    Args:
        case: what to send and what to accept.
        host: name or address of the server.
        port: its port.
        split: send at most so many bytes at a time, with TCP_NODELAY; ``None``: send each segment
            whole. The middle of a long payload is sent in a few hundred pieces whatever ``split``
            says, so that time stays bounded.
        deadline: seconds without progress that are waited for an answer.

    Raises:
        TargetError: no connection can be made.
    """
    started = time.monotonic()
    with _Player(case, host, port, deadline) as player:
        player.send_steps(split)
        player.await_outcome()
        passed, explanation = player.judge()
    alive = is_alive(host, port, deadline)
    if not alive:
        passed = False
        explanation = f"no answer on a fresh connection; before that: {explanation}"
    return Exchange(
        case=case,
        events=tuple(player.events),
        responses=tuple(player.closest_attempt().reader.responses),
        ended=player.ended,
        probed=player.probed,
        reused=player.closest_attempt().is_reused(probed=player.probed),
        alive=alive,
        passed=passed,
        explanation=explanation,
        seconds=time.monotonic() - started,
    )


class _Player:
    """One connection that plays one case."""

    def __init__(self, case: Case, host: str, port: int, deadline: float) -> None:
        self.events: list[Event] = []
        self.ended: End | None = None
        self.probed = False
        self._case = case
        self._deadline = deadline
        self._attempts = [Attempt(outcome) for outcome in case.expect]
        self._can_send = True
        self._was_reset = False
        self._received = bytearray()
        self._awaited_from = 0
        self._gave_up = False
        self._address = (host, port)
        self._socket = connect(host, port, deadline)
        self._socket.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._started = self._last_progress = time.monotonic()

    def __enter__(self) -> _Player:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self._socket.close()

    # Sending

    def send_steps(self, split: int | None) -> None:
        """Perform the steps of the case, until the connection can take no more."""
        for step in self._case.send:
            if self._gave_up:
                return
            # When the server has ended the connection, only a new one goes on.
            if self._can_send or isinstance(step, Reconnect):
                self._perform(step, split)

    def _perform(self, step: Step, split: int | None) -> None:
        if isinstance(step, SendBytes):
            for piece in divide(step.data, split):
                self._send(piece)
                if split is not None:
                    # Else the system may join small pieces before the server reads the first.
                    self._read_until(lambda: False, PACE)
        elif isinstance(step, Pause):
            self._read_until(lambda: False, step.seconds)
        elif isinstance(step, Await):
            self._await_bytes(step.data, step.within or self._deadline)
        elif isinstance(step, Reconnect):
            self._reconnect()
        elif isinstance(step, HalfClose):
            self._half_close()
        else:
            self._reset()

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        give_up = time.monotonic() + self._deadline
        while view and self._can_send:
            if time.monotonic() > give_up:
                self._stop_sending(f"the server takes no more: {len(view)} bytes were not sent")
                return
            self._select(selectors.EVENT_READ | selectors.EVENT_WRITE, 0.1)
            if self.ended:
                return
            try:
                count = self._socket.send(view)
            except BlockingIOError:
                continue
            except OSError as error:
                # What was received before this stays readable, so reading goes on.
                self._stop_sending(f"{error.strerror}: {len(view)} bytes were not sent")
                return
            self._record("sent", bytes(view[:count]))
            view = view[count:]
            give_up = time.monotonic() + self._deadline

    def _await_bytes(self, data: bytes, seconds: float) -> None:
        def is_there() -> bool:
            return self._received.find(data, self._awaited_from) >= 0

        # An answer which had begun before may end now; the next one means that the bytes never come.
        reader = self._attempts[0].reader
        bound = len(reader.responses) + reader.pending
        self._read_until(lambda: is_there() or len(reader.responses) > bound, seconds)
        if is_there():
            self._awaited_from = self._received.find(data, self._awaited_from) + len(data)
        else:
            # What ended by itself may still be followed by a new connection.
            self._gave_up = not self.ended
            self._stop_sending(f"{data!r} did not come; nothing more is sent")

    def _reconnect(self) -> None:
        """Close the connection as a client does that goes away, and forget what came on it."""
        self._selector.unregister(self._socket)
        self._socket.close()
        self._record("reconnected")
        self._received.clear()
        self._awaited_from = 0
        self._attempts = [Attempt(outcome) for outcome in self._case.expect]
        self.ended = None
        self._can_send = True
        self._socket = connect(*self._address, self._deadline)
        self._socket.setblocking(False)
        self._selector.register(self._socket, selectors.EVENT_READ)

    def _half_close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._can_send = False
        self._record("half-closed")

    def _reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._selector.unregister(self._socket)
        self._socket.close()
        self._can_send = False
        self._was_reset = True
        self._record("reset")

    def _stop_sending(self, note: str) -> None:
        self._can_send = False
        self._record("note", text=note)

    # Reading

    def _read_until(self, is_done: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.ended and not is_done():
            left = until - time.monotonic()
            if left <= 0:
                return
            self._select(selectors.EVENT_READ, left)

    def _select(self, events: int, seconds: float) -> None:
        self._selector.modify(self._socket, events)
        for _, ready in self._selector.select(seconds):
            if ready & selectors.EVENT_READ:
                self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            self._end("reset")
            return
        if not data:
            self._end("eof")
            return
        self._received += data
        self._record("received", data)
        for attempt in self._attempts:
            attempt.reader.feed(data)

    def _end(self, end: End) -> None:
        self.ended = end
        self._can_send = False
        self._record("end of stream" if end == "eof" else "reset by the server")
        for attempt in self._attempts:
            attempt.reader.finish(end)

    def _record(self, kind: EventKind, data: bytes = b"", text: str = "") -> None:
        self._last_progress = time.monotonic()
        self.events.append(Event(self._last_progress - self._started, kind, data, text))

    # The verdict

    def await_outcome(self) -> None:
        """Read until an outcome has happened, or none can any more, or time is up."""
        while not self.ended and not self._was_reset:
            if not self.probed and self._may_probe():
                self._probe()
                return
            if any(a.outcome.then == "any" and a.is_answered() and a.is_last_as_announced() for a in self._attempts):
                self._read_until(lambda: False, PROBE_DEADLINE)
                return
            now = time.monotonic()
            hopeless = all(attempt.is_hopeless() for attempt in self._attempts)
            patience = QUIET if hopeless else self._deadline
            left = min(self._last_progress + patience, self._started + LONGEST) - now
            if left <= 0:
                return
            self._select(selectors.EVENT_READ, left)

    def _may_probe(self) -> bool:
        return self._can_send and any(
            attempt.outcome.then != "closed" and attempt.is_answered() and not attempt.is_last_as_announced()
            for attempt in self._attempts
        )

    def _probe(self) -> None:
        self.probed = True
        self._send(PROBE)
        answered = [len(attempt.outcome.responses) + 1 for attempt in self._attempts]
        self._read_until(
            lambda: any(
                len(attempt.reader.responses) >= count for attempt, count in zip(self._attempts, answered, strict=True)
            ),
            self._deadline,
        )
        # Waiting for the end of the stream, not for the answer, shows that nothing else came.
        self._read_until(lambda: False, PROBE_DEADLINE)

    def judge(self) -> tuple[bool, str]:
        """Return whether an acceptable outcome happened, and why."""
        if self._was_reset:
            return True, "the connection was reset by the case; only the life of the server counts"
        reasons = []
        for attempt in self._attempts:
            reason = attempt.explain(probed=self.probed, ended=self.ended)
            if reason is None:
                return True, f"as accepted: {describe_outcome(attempt.outcome)}"
            reasons.append(f"not {describe_outcome(attempt.outcome)}: {reason}")
        return False, "\n".join(reasons)

    def closest_attempt(self) -> Attempt:
        """Return the outcome that happened, or else the one which read most answers."""
        for attempt in self._attempts:
            if attempt.explain(probed=self.probed, ended=self.ended) is None:
                return attempt
        return max(self._attempts, key=lambda a: (a.reader.error is None, len(a.reader.responses)))


def divide(data: bytes, split: int | None) -> Iterator[bytes]:
    """Divide bytes into pieces of ``split`` bytes, the middle of a long payload into larger."""
    if split is None:
        yield data
        return
    edge = MAX_SINGLE_BYTES // 2
    if len(data) <= MAX_SINGLE_BYTES:
        yield from _slice(data, split)
        return
    middle = data[edge:-edge]
    yield from _slice(data[:edge], split)
    yield from _slice(middle, max(split, -(-len(middle) // MAX_PIECES)))
    yield from _slice(data[-edge:], split)


def _slice(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def connect(host: str, port: int, deadline: float = DEADLINE) -> socket.socket:
    """Open a connection on which each send leaves at once.

    Raises:
        TargetError: no connection can be made.
    """
    try:
        connection = socket.create_connection((host, port), timeout=deadline)
    except OSError as error:
        raise TargetError(f"no connection to {host} port {port}: {error}") from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def is_alive(host: str, port: int, deadline: float = DEADLINE) -> bool:
    """Tell whether ``GET /hello`` on a fresh connection is answered with 200."""
    reader = ResponseReader()
    try:
        with connect(host, port, deadline) as connection:
            connection.sendall(PROBE)
            while not reader.responses and not reader.error:
                data = connection.recv(65536)
                if not data:
                    reader.finish("eof")
                    break
                reader.feed(data)
    except OSError:
        return False
    return bool(reader.responses) and is_greeting(reader.responses[0])


def start_all(
    cases: Iterable[Case], host: str, port: int, *, jobs: int = 16, split: int | None = None
) -> tuple[ThreadPoolExecutor, dict[str, Future[Exchange]]]:
    """Start to play many cases at the same time; the caller shuts the executor down."""
    executor = ThreadPoolExecutor(jobs, thread_name_prefix="conformance")
    futures = {case.id: executor.submit(play, case, host, port, split=split) for case in cases}
    return executor, futures


# Reports


def format_exchange(exchange: Exchange, reproduce: str) -> str:
    """Describe an exchange: the rule, the bytes, what is acceptable, and how to see it again."""
    case = exchange.case
    expected = "\n".join(f"  - {describe_outcome(outcome)}" for outcome in case.expect)
    return "\n".join(
        [
            f"{'passed' if exchange.passed else 'FAILED'}: {case.id}",
            f"level:  {case.level}, {case.section}",
            f"rule:   {case.rule}",
            f"source: {case.source}",
            f"reproduce: {reproduce}",
            "what happened (seconds, event, bytes):",
            *format_events(exchange.events),
            "acceptable is any one of:",
            expected,
            "verdict:",
            *(f"  {line}" for line in exchange.explanation.splitlines()),
        ]
    )


def format_events(events: Iterable[Event]) -> Iterator[str]:
    """Format events one a line; bytes sent in many small pieces are shown as one."""
    for event, pieces in _merge_sent(events):
        shown = shorten(event.data, 1000) if event.data else event.text
        many = f" (in {pieces} pieces)" if pieces > 1 else ""
        yield f"  {event.seconds:7.3f}  {event.kind}{many} {shown}".rstrip()


def _merge_sent(events: Iterable[Event]) -> Iterator[tuple[Event, int]]:
    held: Event | None = None
    pieces = 0
    for event in events:
        if held and held.kind == event.kind == "sent":
            held = Event(held.seconds, "sent", held.data + event.data)
            pieces += 1
            continue
        if held:
            yield held, pieces
        held, pieces = event, 1
    if held:
        yield held, pieces
