"""One accepted socket, from its first byte to its last: buffers, deadlines, pipelining, lingering close.

Exactly one thread owns a connection at a time: the one that holds its `claim`. Only `Output` may be used by
others meanwhile. The owner moves the connection through its states:

    HEAD → CONTENT → READY → RUNNING → ENDING → HEAD again, or LINGERING → CLOSED

Nothing here waits: `advance` does what can be done at once and says whether the application is due.

Rules of this file:

- RFC 9112 section 9.3.2: answers leave in the order of their requests; the next is read when one is sent.
- RFC 9112 section 9.6: after the last answer the writing side is closed first, and what still comes is read
  and dropped for a while, so that no reset destroys the answer on its way.
- RFC 9110 section 10.1.1: ``100 Continue`` goes out when a head is accepted whose content would be.
- A content that is cut short never reaches the application.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextvars import Context
from enum import Enum
from io import BytesIO
from typing import BinaryIO, Final, Protocol

from wizgy.config import Config
from wizgy.errors import (
    BadRequest,
    InsufficientStorage,
    MisdirectedRequest,
    RequestError,
    RequestTimeout,
    VersionNotSupported,
)
from wizgy.http import response as http
from wizgy.http.body import Decoder, FixedLengthDecoder, decoder_for
from wizgy.http.request import FieldSection, HeadReader, Limits, RequestHead, RequestLine, is_forwarded, salvage_head
from wizgy.http.strangers import explain_stranger, first_line
from wizgy.log import (
    AccessLog,
    ErrorLog,
    RequestIds,
    Trace,
    current_request_id,
    http_date,
    logger,
    parse_request_id,
)
from wizgy.logline import Exchange
from wizgy.output import ORDERLY_CLOSE, RESET_AT_CLOSE, Output, open_temporary_file, temporary_room
from wizgy.primitives import Lock, monotonic, time
from wizgy.refusals import Refusals
from wizgy.transport import RECEIVE_SIZE, Transport, Turn, receive
from wizgy.wsgi import Application, Disconnected, Environ, Response, build_environ, environ_of_fields

CONTENT_MEMORY: Final = 256 * 1024
"""Bytes of a request's content that are kept in memory before it goes to a file."""
HEAD_BEGINNINGS: Final = (b"HEAD ", b"\r\nHEAD ")
"""What begins a request whose answer has no content, after the one empty line that is ignored."""
MOST_LEFT_OUT: Final = 20
LONGEST_LEFT_OUT: Final = 64
"""Fields to name that were left out of `environ`, and characters of a name: strangers may send any."""
MISUNDERSTOOD: Final = (BadRequest, VersionNotSupported)
"""Errors for which what the client sent may tell more than the rule that it breaks."""
SLOWEST: Final = 500
"""Bytes per second that a client must send of its content, or take of its answer, in the long run."""
LINGER_IDLE: Final = 5.0
LINGER_TOTAL: Final = 20.0
"""Seconds to wait for the client to close: without a byte from it, and in all."""
LINGER_DRAINING: Final = 0.5
"""Seconds to wait for it when the server is told to stop."""
IDLE_DRAINING: Final = 0.5
"""Seconds for which a connection stays open then that nothing has been asked on: a request may be on its way."""
LINGER_BYTES: Final = 1 << 28
"""Bytes to read and drop meanwhile."""
CHUNKS_AT_ONCE: Final = 250
"""Lines and pieces of chunked content to take before another connection has its turn: half a millisecond or so."""


WAIT_STEP: Final = 0.5
"""Seconds for which a thread waits for a client at a time. A cut by another thread ends the wait at once, but for one
that is a reset."""
TOO_MANY_WAIT: Final = (
    "The response was cut: there is more of it than may be kept for a slow client, and as many others wait for theirs "
    "as may. Has the temporary folder (TMPDIR) room? More --threads let more of them wait."
)


class Stay(Protocol):
    """The time that a thread is in the application, which is called at its end."""

    def __call__(self) -> None:
        """The thread has come out; what this raises ends it."""

    def pause(self) -> None:
        """What follows is not the application's time."""

    def go_on(self) -> None:
        """What follows is again."""


class Deadlines(Protocol):
    """Calls `Connection.expire` when its `deadline` has passed."""

    def set(self, connection: Connection, deadline: float) -> None:
        """Replace a connection's deadline, in seconds of the monotonic clock."""


class Service:
    """What all connections of a process share.

    Args:
        application: the WSGI application.
        config: the settings.
        errors: the error log.
        access_log: the access log, or None.
        trace: the wire dump, or None.
        deadlines: the timers.
        forget: called by the owner of a connection before its socket is closed.
        wait_outside: runs what waits for a client, in the thread that calls it, while its place in the application is
            another's; False where too many threads wait already, and it has not run it.
    """

    def __init__(
        self,
        application: Application,
        config: Config,
        errors: ErrorLog,
        access_log: AccessLog | None,
        trace: Trace | None,
        deadlines: Deadlines,
        forget: Callable[[Connection], None],
        wait_outside: Callable[[Callable[[], None]], bool],
    ) -> None:
        self.application = application
        self.config = config
        self.errors = errors
        self.refusals = Refusals(errors)
        self.access_log = access_log
        self.trace = trace
        self.deadlines = deadlines
        self.forget = forget
        self.wait_outside = wait_outside
        self.limits = Limits(config.max_request_line, config.max_header_bytes, config.max_header_count, config.max_body)
        self.request_ids = RequestIds()
        self.identifies = config.request_id  # whether application and client are told the id
        # Those that the application is not asked for.
        self.own_paths = frozenset(("*", "/livez", "/readyz") if config.health else ("*",))
        self.now = monotonic()  # when the selector last returned
        self.ready = True  # what /readyz tells
        self.draining = False  # every answer closes its connection
        self.keepalive_timeout = config.keepalive_timeout  # shorter then
        self._left_out: set[str] = set()  # the fields of which `notice_left_out` has told
        self.own_fields: http.ServerFields  # renewed every second
        self.renew_date(time())

    def notice_left_out(self, names: list[str], address: str, advice: str) -> None:
        """Say once of each field that it is left out of `environ`: whoever set up the proxy looks for the reason.

        Args:
            names: the lower-case names of the fields.
            address: that of the peer.
            advice: what to do, with the flag.
        """
        new = [name for name in names if name not in self._left_out and len(name) <= LONGEST_LEFT_OUT]
        if new and len(self._left_out) < MOST_LEFT_OUT:
            self._left_out.update(new)
            fields = ", ".join(name.title() for name in new)
            logger.info("Left out of environ: %s of %s. %s", fields, address or "a Unix socket", advice)

    def renew_date(self, now: float) -> None:
        """Take a time, in seconds since the epoch, for the answers of the next second."""
        name = self.config.server_header.encode("latin-1")
        server = b"Server: " + name + b"\r\n" if name else b""
        self.own_fields = http.ServerFields(f"Date: {http_date(now)}\r\n".encode("ascii"), server)


class State(Enum):
    """What a connection is doing."""

    HEAD = "reading a request head, or idle"
    CONTENT = "reading the content of a request"
    READY = "a request waits for the application"
    RUNNING = "a thread is in the application"
    ENDING = "the last of an answer waits for the client"
    LINGERING = "answered for the last time; what still comes is dropped"
    CLOSED = "closed"


# By name: until CPython 3.12 looking up a member in its class takes longer than a call of a function.
HEAD, CONTENT, READY, RUNNING, ENDING, LINGERING, CLOSED = State


class Connection:
    """One accepted socket.

    Args:
        service: what all connections share.
        sock: the socket, not blocking.
        client: the client's address and port as text; both empty for a Unix socket.
        environ: the part of `environ` that is the same for every request of this listener.

    Attributes:
        claim: held by the thread that owns the connection.
        pending: the events that the selector saw since the owner last looked. Set by the leader.
        queued: whether a turn that the connection has asked for waits in the queue.
        readable: whether there may be something to receive. Set by the leader and the owner.
        hung_up: whether the client will send no more. Set by the leader.
        again: whether there is more to do at once, after others had their turn.
        deadline: when `expire` is due, in seconds of the monotonic clock.
        scheduled: the slot of the timers that the connection is in, or None.
        trusted: whether the peer is a trusted proxy, so that what it says of others counts.
    """

    trusted = False
    """Whether the peer that wrote the requests is a trusted proxy."""

    __slots__ = (
        "_buffer",
        "_client",
        "_content",
        "_cut",
        "_decoder",
        "_ended",
        "_environ",
        "_environ_base",
        "_environ_fields",
        "_head",
        "_head_begun",
        "_keep_alive",
        "_lingered",
        "_reader",
        "_request_id",
        "_response",
        "_service",
        "_since",
        "_sock",
        "_stay",
        "_transferred",
        "_unframed",
        "_waited",
        "again",
        "claim",
        "deadline",
        "descriptor",
        "hung_up",
        "output",
        "pending",
        "queued",
        "readable",
        "scheduled",
        "state",
    )

    def __init__(self, service: Service, sock: Transport, client: tuple[str, str], environ: Environ) -> None:
        self._service = service
        self._sock = sock
        self._client = client
        self._environ = environ
        self._environ_fields: FieldSection | None = None  # the last header section
        self._environ_base = environ  # what it makes of it
        self._buffer = bytearray()
        self._reader = HeadReader(service.limits)
        self._head: RequestHead | None = None
        self._decoder: Decoder | None = None
        self._content: BinaryIO | None = None
        self._response: Response | None = None
        self._stay: Stay | None = None  # the present one in the application, where it may be too long
        self._head_begun = True  # the first head is awaited from the beginning
        self._keep_alive = False
        self._ended = False  # whether the client has closed its writing side
        self._request_id = ""  # once somebody has asked for it
        self._cut = False  # whether the last answer was cut short
        self._unframed = False  # whether only the end of the connection tells where the present answer ends
        self._lingered = 0  # bytes dropped
        self._since = service.now  # when the present transfer or request began
        self._transferred = 0  # bytes of content that came since then
        self._waited = (0.0, 0)  # when the output began to wait, and its `sent` when it last made progress
        self.claim = Lock()
        self.descriptor = sock.fileno()
        self.output = Output(sock)
        self.state = HEAD
        self.pending = 0
        self.queued = False
        self.readable = True
        self.hung_up = False
        self.again = False
        self.deadline = 0.0
        self.scheduled: int | None = None
        self._await(self._since + service.config.header_timeout)

    # Called by the owner.
    def advance(self) -> bool:
        """Do what can be done without waiting.

        Returns:
            Whether the application is due: `respond` should be called.
        """
        self.again = False
        try:
            if self.output.waiting:
                self._flush()
                if self.output.waiting:
                    return False
            if self.state is ENDING:
                self._end_response(monotonic())
            if self.state is HEAD or self.state is CONTENT:
                return self._read_request()
            if self.state is LINGERING:
                self._linger()
        except Disconnected:
            self.close()
        return self.state is READY

    # Called by the owner, in a thread that may run applications.
    def respond(self, stay: Stay | None = None) -> float:
        """Run the application for the request that is there, to the end of its response.

        Args:
            stay: called when this thread is out of the application, before anything else is done. What it raises
                comes out of here.

        Returns:
            How many seconds that took.
        """
        began = monotonic()
        self.state = RUNNING
        response = self._response = self._make_response()
        context = Context()
        if self._request_id:
            context.run(current_request_id.set, self._request_id)
        if stay is None:
            context.run(response.run, self._service.application)
        else:
            self._stay = stay
            context.run(response.run, self._service.application)
            self._stay = None
            stay()
        ended = monotonic()
        self._finish_response(response, ended)
        return ended - began

    # Called by the owner after a turn in which the socket was found empty, or full where output waits.
    def expire(self) -> None:
        """End what took too long, where the deadline has passed and that turn has not moved it."""
        if self.state is CLOSED or self.deadline > monotonic():
            return
        if self.output.waiting:
            self._cut = True
            self.close()
        elif self.state is CONTENT or (self.state is HEAD and self._buffer):
            what, flag = ("content", "body") if self.state is CONTENT else ("head", "header")
            self._refuse(RequestTimeout(f"The {what} of the request did not come in time (--{flag}-timeout)."))
        elif self.state is HEAD or self.state is LINGERING:
            self.close()

    # Any thread may call it.
    def cut(self, last: bytes = b"") -> None:
        """End a response in the middle, so that the client sees it; its thread learns of it when it sends more.

        Args:
            last: what the client should get still, as far as it takes it at once.
        """
        if self._unframed:
            self.output.reset()
        else:
            self.output.abort(last)

    # Called by the leader while another thread is in the application, for too long.
    def give_up(self, limit: float, stack: str) -> None:
        """Answer in the application's place; where it has begun to answer, make the client see that it is not whole.

        Args:
            limit: the seconds that it had.
            stack: where it is.
        """
        head, response = self._head, self._response
        # From here on its thread sends nothing: where it has not begun to answer by now it never will.
        self.output.broken = True
        answer = b""
        if head is not None and response is not None and response.code == 0:
            text = "The application did not answer in time (--request-timeout)."
            answer = http.build_error(504, text, own=self._own_fields(), is_head=head.line.method == "HEAD")
            self._log(504, 0, monotonic())
        elif response is not None:
            self._log(response.code, response.content_sent, monotonic())
        self.cut(answer)
        done = "answered with 504" if answer else "cut"
        took = f"The application took more than {limit:g} s (--request-timeout)"
        self.report(f"{took}; the request was {done}. It is here:\n{stack}", None)

    # Any thread may call it.
    def is_idle(self) -> bool:
        """Whether no byte of a request has come since the last answer."""
        return self.state is HEAD and not self._buffer

    # Called by the leader while another thread owns the connection.
    def flush(self, *, overdue: bool = False) -> bool:
        """Send on what waits while the application makes the next piece (PEP 3333, "Buffering").

        Args:
            overdue: whether the deadline had passed: where the client takes nothing even now, the response is cut.

        Returns:
            Whether the client might take more at once, but others should have their turn first.
        """
        try:
            more = self.output.flush_if_free()
        except Disconnected:
            return False  # the owner will notice
        if self.output.waiting:
            self._await_client()
            if overdue and more is not None and self.deadline <= monotonic():
                self.cut()
        return bool(more)

    # Called by the owner.
    def close(self) -> None:
        """Close the socket and free what the connection held."""
        if self.state is CLOSED:
            return
        self.state = CLOSED
        self._service.forget(self)
        self._forget_request()
        self.output.close()
        self._sock.close()

    # Called in a process just forked, by the one thread that is in it.
    def disown(self) -> None:
        """Close the socket and what waits for it, and no more: the client is the parent's."""
        self._sock.close()
        self.output.disown()

    # Called by the thread that is in the application (`Channel`), and by the owner.
    def send(self, data: bytes) -> bool:
        """Send bytes, or keep them until the client takes them.

        Returns:
            Whether the application should pause until the client has taken some of what it gave.

        Raises:
            Disconnected: the client is gone.
        """
        if self._service.trace is not None:
            self._service.trace.sent(data)
        output = self.output
        output.send(data)
        if not output.waiting:
            return False
        self._await_client()
        return output.is_congested()

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        """Send part of a regular file; the caller may close its descriptor after this.

        Raises:
            Disconnected: the client is gone.
        """
        if self._service.trace is not None:
            self._service.trace.sent_file(count)
        self.output.send_file(descriptor, offset, count)
        if self.output.waiting:
            self._await_client()

    def begin_unframed(self) -> None:
        """Make every end of the connection a reset until the response is whole: that end is the content's.

        The kernel does it, so this holds as well where the process is killed.
        """
        self._unframed = True
        self._set_linger(RESET_AT_CLOSE)

    def _end_unframed(self) -> None:
        """The response is whole: from here on the connection ends in order."""
        if self._unframed:
            self._unframed = False
            self._set_linger(ORDERLY_CLOSE)

    def _set_linger(self, option: bytes) -> None:
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        except OSError:
            pass  # the client is gone

    def is_closing(self) -> bool:
        """Whether the connection closes after the present answer, whatever its client wishes."""
        return self._service.draining or self._ended

    def wait_for_room(self) -> None:
        """Wait until the client has taken some of what the application gave; no longer than it may take to take some.

        The thread is the response's own, and its place in the application is another's meanwhile.

        Raises:
            Disconnected: the client is gone, or took too little, or too many responses wait already.
        """
        stay = self._stay
        if stay is not None:
            stay.pause()
        try:
            waited = self._service.wait_outside(self._wait_for_client)
        finally:
            if stay is not None:
                stay.go_on()
        if not waited:
            self.report(TOO_MANY_WAIT, None)
            self.cut()
        if self.output.broken:
            raise Disconnected

    def _wait_for_client(self) -> None:
        output = self.output
        try:
            while output.is_congested() and not output.broken:
                output.wait_for_client(WAIT_STEP)
                self._flush()
        except Disconnected:
            pass  # `broken` tells

    def _await(self, deadline: float) -> None:
        self._service.deadlines.set(self, deadline)

    # Called by the owner, and by the leader while another thread owns the connection.
    def _await_client(self) -> None:
        """Set the deadline for the client to take some of the output."""
        self.again = True  # a turn of its own tells whether the socket is full or others were due
        output = self.output
        began, sent = output.wait_began, output.sent
        if (began, sent) == self._waited:
            return  # no progress, no more time
        self._waited = (began, sent)
        earned = began + (sent - output.wait_base) / SLOWEST
        self._await(min(monotonic(), earned) + self._service.config.write_timeout)

    def _flush(self) -> None:
        more = self.output.flush()
        if self.output.waiting:
            self._await_client()
        self.again = more

    def _read_request(self) -> bool:
        """Read until a request is complete (True) or more bytes are needed (False)."""
        turn: Turn | None = None  # most requests come at once
        try:
            if self._buffer:
                self._parse()
            while (self.state is HEAD or self.state is CONTENT) and not self.again:
                data = self._receive()
                if not data:
                    self._found_empty()
                    return False
                if self._buffer:
                    self._buffer += data
                    self._parse()
                elif self.state is HEAD:
                    self._take_head(data)
                else:
                    self._take_content(data)
                if self.state is READY:
                    return True
                turn = turn or Turn()
                if turn.is_over():
                    self.again = True
                    return False
        except RequestError as error:
            self._refuse(error)
        return self.state is READY

    def _found_empty(self) -> None:
        """Nothing is there to receive. While the server drains, nobody waits long for what has not begun."""
        if self._service.draining and self.is_idle():
            self._await(min(self.deadline, monotonic() + self._service.keepalive_timeout))

    def _take_head(self, data: bytes) -> None:
        """Read a head at the front of what was received; the usual case is that nothing or its content follows."""
        end = len(data)
        try:
            head = self._reader.read_whole(data)
            if head is None:
                end = data.find(b"\r\n\r\n") + 4
                if end > 4:
                    head = self._reader.read_whole(data[:end])
        except RequestError:
            self._buffer += data  # the refusal looks at it
            raise
        if head is None:
            self._buffer += data
            self._parse()
        elif end == len(data):
            self._begin_request(head)
        else:
            self._begin_request(head, followed=True)
            if self.state is CONTENT:
                self._take_content(data[end:])
            else:
                self._buffer += data[end:]
                if self.state is HEAD:
                    self.again = True  # the server has answered it by itself

    def _receive(self) -> bytes:
        """Take what has come; nothing where nothing has."""
        if not self.readable and not self.hung_up:
            return b""
        self.readable = False
        try:
            data = receive(self._sock)
        except BlockingIOError:
            return b""
        except OSError:
            self.close()
            return b""
        if not data:
            self._end_input()
            return b""
        # Edge-triggered: a full buffer may have left something behind, a short one has not.
        if len(data) == RECEIVE_SIZE:
            self.readable = True
        if self._service.trace is not None and self.state is not State.LINGERING:
            self._service.trace.received(data)
        return data

    def _end_input(self) -> None:
        """The client has closed its writing side, and all that came before is read."""
        self._ended = True
        self.hung_up = False
        if self.state is CONTENT or (self.state is HEAD and self._buffer):
            self._refuse(BadRequest("The request ended before it was complete."))
        else:
            self.close()

    def _parse(self) -> None:
        """Go on with the request in the buffer."""
        while self.state is HEAD and self._buffer and not self.again:
            head = self._reader.read(self._buffer)
            if head is None:
                if not self._head_begun:
                    self._head_begun = True
                    self._since = self._service.now
                    self._await(monotonic() + self._service.config.header_timeout)
                return
            self._begin_request(head, followed=bool(self._buffer))
        if self.state is CONTENT and self._buffer:
            self._decode()

    def _begin_request(self, head: RequestHead, *, followed: bool = False) -> None:
        """Go on after a head.

        Args:
            head: the head.
            followed: whether more has come behind it.
        """
        self._head = head
        self._since = self._service.now
        line = head.line
        if line.authority and not self._is_secure_enough(line):
            raise MisdirectedRequest("The request-target has the scheme https, and this connection has no TLS.")
        if line.path in self._service.own_paths:
            self._answer_for_server(head)
        elif head.content_length == 0:
            self.state = READY
        else:
            self._begin_content(head, followed=followed)

    def _begin_content(self, head: RequestHead, *, followed: bool) -> None:
        self._decoder = decoder_for(head, self._service.limits)
        self._content = BytesIO()
        self._transferred = 0
        self.state = CONTENT
        if followed:
            return
        if head.expect_continue:
            self.send(http.CONTINUE)
        self._await(self._since + self._service.config.body_timeout)

    def _is_secure_enough(self, line: RequestLine) -> bool:
        """Whether a target in absolute-form may be asked for on this connection (RFC 9110 section 7.4)."""
        return line.target[:6].lower() != "https:" or self._environ["wsgi.url_scheme"] == "https"

    def _take_content(self, data: bytes) -> None:
        """Go on with content of which nothing is in the buffer."""
        decoder = self._decoder
        assert decoder is not None
        if isinstance(decoder, FixedLengthDecoder):
            content = decoder.take(data)
            if len(content) < len(data):
                self._buffer += data[len(content) :]
            self._keep_content(content)
        else:
            self._buffer += data
            self._decode()

    def _decode(self) -> None:
        """Go on with the content in the buffer."""
        decoder = self._decoder
        assert decoder is not None
        content = decoder.read(self._buffer, CHUNKS_AT_ONCE)
        self.again = decoder.behind
        self._keep_content(content)

    def _keep_content(self, content: bytes) -> None:
        """Keep a piece of content; the last makes the request complete."""
        assert self._decoder is not None
        finished = self._decoder.finished
        self._transferred += len(content)
        self._store(content, finished)
        if finished:
            self.state = READY
        else:
            timeout = self._service.config.body_timeout
            self._await(min(monotonic(), self._since + self._transferred / SLOWEST) + timeout)

    def _store(self, data: bytes, is_last: bool) -> None:
        """Keep content: in memory, and from a certain size on in a file."""
        content = self._content
        assert content is not None
        try:
            if not isinstance(content, BytesIO):
                temporary_room.take(content.fileno(), len(data))
            elif content.tell() + len(data) > CONTENT_MEMORY:
                memory, content = content, open_temporary_file()
                self._content = content
                temporary_room.take(content.fileno(), memory.tell() + len(data))
                content.write(memory.getbuffer())
            content.write(data)
            if is_last:
                content.flush()  # or it would fail later, where nobody answers for it
        except OSError as error:
            raise InsufficientStorage("The server has no room for the content of the request.") from error

    def _make_response(self) -> Response:
        service, head, content = self._service, self._head, self._content
        assert head is not None
        content_length: int | None = None
        if content is None:
            content = BytesIO()
        else:
            content_length = content.tell()
            content.seek(0)
        fields = head.fields
        if fields is not self._environ_fields:
            self._environ_fields = fields
            self._environ_base = base = self._environ_of(fields)
            base["wizgy.client_disconnected"] = base["waitress.client_disconnected"] = self.output.client_disconnected
        environ = build_environ(self._environ_base, head.line, content, content_length)
        own = service.own_fields
        if service.identifies:
            environ["wizgy.request_id"] = self.request_id()
            own = self._own_fields()
        return Response(head, environ, self, own)

    def request_id(self) -> str:
        """The id of the request, made when somebody asks for it."""
        request_id = self._request_id
        if not request_id:
            told = parse_request_id(self._head.fields.values.get("x-request-id")) if self.trusted and self._head else ""
            request_id = self._request_id = told or self._service.request_ids.make()
        return request_id

    def _own_fields(self) -> http.ServerFields:
        """The fields that the server adds to the answer."""
        own = self._service.own_fields
        return own.with_request_id(self.request_id()) if self._service.identifies else own

    def _environ_of(self, fields: FieldSection) -> Environ:
        environ = environ_of_fields(self._environ, fields, self._client)
        if len(environ) < len(self._environ) + len(self._client) + len(fields.values):  # some field is not in it
            names = [name for name in fields.values if is_forwarded(name)]
            address = self._client[0]
            advice = f"If that is your proxy, set --trust-proxy {address or 'unix'}"
            self._service.notice_left_out(names, address, advice)
        return environ

    def report(self, text: str, error: BaseException | None) -> None:
        """Log that the application is at fault."""
        head = self._head  # none where an application goes on after its answer
        self._service.errors.report(text, error, head=head, request_id=self.request_id() if head else "")

    def _finish_response(self, response: Response, now: float) -> None:
        """The application is done; what it gave may wait for the client still."""
        self._keep_alive = response.keep_alive
        self._cut = response.aborted
        if self._service.access_log is not None:
            self._log(response.code, response.content_sent, now)
        self._forget_request()
        output = self.output
        if output.broken:
            self.close()
        elif output.waiting:
            self.state = ENDING
        else:
            self._end_response(now)
            if self._buffer or self.readable or self.hung_up:
                self.again = True

    def _end_response(self, now: float) -> None:
        """The last byte of an answer has been sent."""
        if self._keep_alive:  # also when the server drains meanwhile: the client was told that it may go on
            service = self._service
            self.state = HEAD
            self._head_begun = False
            service.deadlines.set(self, now + service.keepalive_timeout)
        else:
            self._end_connection()

    def _end_connection(self) -> None:
        """The last byte of the last answer has been sent."""
        if self._unframed and self._cut:
            self.close()  # with a reset: an end would look like that of the response
        elif self._ended:
            self._end_unframed()
            self.close()
        else:
            self._begin_lingering()

    def _begin_lingering(self) -> None:
        self._since = monotonic()
        self._buffer.clear()
        self._end_unframed()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.state = LINGERING
        self._await(self._since + (LINGER_DRAINING if self._service.draining else LINGER_IDLE))
        self._linger()

    def _linger(self) -> None:
        """Read and drop what still comes, so that no reset overtakes the answer (RFC 9112 section 9.6)."""
        dropped = 0
        turn = Turn()
        while self.state is LINGERING and (data := self._receive()):
            dropped += len(data)
            if turn.is_over():
                self.again = True
                break
        self._lingered += dropped
        if self._lingered > LINGER_BYTES:
            self.close()
        elif dropped and self.state is LINGERING and not self._service.draining:
            self._await(min(monotonic() + LINGER_IDLE, self._since + LINGER_TOTAL))

    def _refuse(self, error: RequestError) -> None:
        """Answer a request that is refused; nothing that comes later is parsed."""
        if not self._head_begun and self._head is None:
            self._since = self._service.now
        reason = str(error)
        if self._head is None:
            if type(error) in MISUNDERSTOOD:
                reason = explain_stranger(self._buffer) or reason
            self._head = salvage_head(self._buffer, self._service.limits)
        answer = http.build_error(
            error.status,
            reason,
            own=self._own_fields(),
            # Where no head could be read, its first word may still tell that content would not be understood.
            is_head=self._head.line.method == "HEAD" if self._head else self._buffer.startswith(HEAD_BEGINNINGS),
        )
        self._note_refusal(error.status, reason, error.__cause__)
        self._answer(error.status, answer, keep_alive=False)

    def _note_refusal(self, status: int, reason: str, cause: BaseException | None = None) -> None:
        """Log why the server answers by itself."""
        self._service.refusals.note(
            self._client,
            status,
            reason,
            head=self._head,
            request_id=self.request_id(),
            begin=first_line(self._buffer),
            fault=str(cause) if cause else "",
        )

    def _answer_for_server(self, head: RequestHead) -> None:
        """Answer what the application is not asked, ready or not, busy or not."""
        status, fields, content = self._answer_about_server(head)
        fields.append(("Content-Length", str(len(content))))
        checked = http.check_head(status, fields)
        if checked.code >= 400:
            self._note_refusal(checked.code, content.decode("ascii").strip())
        keep_alive = head.keep_alive and not self.is_closing() and head.content_length == 0
        answer = http.build_head(
            checked,
            minor=head.line.minor,
            is_head=head.line.method == "HEAD",
            keep_alive=keep_alive,
            known_length=None,
            own=self._own_fields(),
        )
        self._answer(
            checked.code, answer.data + (b"" if head.line.method == "HEAD" else content), keep_alive=keep_alive
        )

    def _answer_about_server(self, head: RequestHead) -> tuple[str, list[tuple[str, str]], bytes]:
        """Status, fields and content for a path that is the server's own.

        Source: RFC 9110 section 9.3.7 for ``OPTIONS *``; section 15.5.6
        """
        if head.line.path == "*":
            return "200 OK", [], b""
        fields = [("Content-Type", "text/plain"), ("Cache-Control", "no-store")]
        if head.line.method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", [*fields, ("Allow", "GET, HEAD")], b"Only GET and HEAD.\n"
        if head.line.path == "/readyz" and not self._service.ready:
            return "503 Service Unavailable", fields, b"stopping\n"
        return "200 OK", fields, b"ok\n"

    def _answer(self, status: int, answer: bytes, *, keep_alive: bool) -> None:
        """Send an answer that is not the application's."""
        self._keep_alive = keep_alive
        self.state = ENDING
        try:
            self.send(answer)
        except Disconnected:
            self.close()
            return
        now = monotonic()
        self._log(status, 0, now)
        self._forget_request()
        if not self.output.waiting:
            self._end_response(now)
            if self.state is HEAD:  # a turn is one request, of whomever it is asked
                self.again = bool(self._buffer) or self.readable or self.hung_up

    def _log(self, status: int, content_sent: int, now: float) -> None:
        access_log = self._service.access_log
        if access_log is not None:
            request_id = self.request_id() if access_log.takes_id else ""
            answer = self._response.head_lines() if access_log.takes_answer and self._response is not None else b""
            access_log.write(
                Exchange(self._client, self._head, status, content_sent, now - self._since, time(), request_id, answer)
            )

    def _forget_request(self) -> None:
        if self._content is not None:
            try:
                self._content.close()
            except OSError:
                pass  # what it could not write is of no more use
            self._content = self._decoder = None
        if self._response is not None:
            self._response = self._stay = None
        self._head = None
        self._request_id = ""
