"""Everything at once, for a while: pauses, reloads, finalizers, slow readers, aborts, and TLS in small records.

Every request has an id, and every answer tells the id of its request, so an answer that went to another client, was
mixed with another one, or was cut without a sign is found. What a server has promised is answered: a request on a new
connection, and one on a connection that it has kept open, sent well before its time is over.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tests.server.client import connect, get, request
from tests.server.faults.case import Case, Outcome, Target, elapsed, fault
from tests.server.stressed import line_of
from tests.server.tls_client import Authority, Pieces

TIMEOUTS = {"header_timeout": "2", "body_timeout": "2", "keepalive_timeout": "4", "write_timeout": "4"}
"""Seconds. Shorter than the pauses of the workers: what came in time has to be answered all the same."""
LONGEST_STOP = 3.0
"""Seconds that a worker is stopped at most: not for so long that it counts as dead."""
KEPT_FOR = 2.0
"""Seconds for which a client relies on a connection that the server keeps open."""
ANSWER_TIMEOUT = 30.0
"""Seconds after which an answer is lost."""
RELOAD_EVERY = 8.0
"""Seconds between two reloads."""
SIGNS_OF_DEAFNESS = ("no sign of life", "is killed", "A fault in wizgy itself", "exited", "was killed")


class Clients:
    """Threads that ask until they are told to stop, and what went wrong.

    Args:
        plain: the address of a server.
        secure: the address of one that speaks TLS.
        authority: signs its certificate.
    """

    def __init__(self, plain: tuple[str, int], secure: tuple[str, int], authority: Authority) -> None:
        self._plain = plain
        self._secure = secure
        self._context = authority.client()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._numbers = iter(range(1, 1 << 60))
        self.answered = 0
        self.wrong: list[str] = []
        self.lost: list[str] = []

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask, each kind of client in threads of its own, until the end of the block."""
        kinds: list[Callable[[random.Random], None]] = [
            self._close_each,
            self._close_each,
            self._keep_open,
            self._pipeline,
            self._upload,
            self._abort_upload,
            self._read_slowly,
            self._send_small_records,
        ]
        threads = [
            threading.Thread(target=self._repeat, args=(kind, random.Random(number)), name=kind.__name__)
            for number, kind in enumerate(kinds)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join(2 * ANSWER_TIMEOUT)

    def _repeat(self, kind: Callable[[random.Random], None], chance: random.Random) -> None:
        while not self._stopping.is_set():
            try:
                kind(chance)
            except (OSError, EOFError) as error:
                self.lost.append(f"{kind.__name__} at {time.strftime('%H:%M:%S')}: {error!r}")
            except ValueError as error:
                self.wrong.append(f"{kind.__name__} at {time.strftime('%H:%M:%S')}: {error}")
            self._stopping.wait(chance.uniform(0, 0.02))

    def _new_id(self) -> str:
        with self._lock:
            return f"request-{next(self._numbers)}"

    def _expect(self, stream: BinaryIO, identity: str, content: bytes) -> bool:
        """Read one answer; returns whether the server keeps the connection.

        Raises:
            EOFError: it is not whole.
            ValueError: it is not the answer to this request.
        """
        status, fields, found = read_answer(stream)
        if status != 200 or fields.get("x-id") != identity or found != content:
            raise ValueError(f"{identity} was answered {status} {fields} {found[:200]!r} of {len(found)} bytes")
        with self._lock:
            self.answered += 1
        return fields.get("connection") != "close"

    @contextmanager
    def _connect(self, receive_buffer: int = 0) -> Iterator[tuple[socket.socket, BinaryIO]]:
        with connect(self._plain, receive_buffer=receive_buffer) as sock, sock.makefile("rb") as stream:
            sock.settimeout(ANSWER_TIMEOUT)
            yield sock, stream

    def _close_each(self, _: random.Random) -> None:
        """One request for each connection."""
        identity = self._new_id()
        with self._connect() as (sock, stream):
            sock.sendall(request(f"/id?id={identity}", "Connection: close"))
            self._expect(stream, identity, identity.encode() + b"\n")

    def _keep_open(self, chance: random.Random) -> None:
        """Many requests on one connection, with pauses in which the server may reload or be stopped."""
        with self._connect() as (sock, stream):
            answered = time.monotonic()
            for _ in range(20):
                pause = chance.choice((0.0, 0.0, 0.1, 1.0))
                self._stopping.wait(pause)
                if time.monotonic() - answered > KEPT_FOR:
                    return  # this machine was busy, and the server may have closed it by right
                identity = self._new_id()
                sock.sendall(request(f"/id?id={identity}"))
                if not self._expect(stream, identity, identity.encode() + b"\n"):
                    return
                answered = time.monotonic()

    def _pipeline(self, _: random.Random) -> None:
        """Several requests at once; what comes after an answer that ends the connection was not promised."""
        identities = [self._new_id() for _ in range(10)]
        with self._connect() as (sock, stream):
            sock.sendall(b"".join(request(f"/id?id={identity}") for identity in identities))
            for identity in identities:
                if not self._expect(stream, identity, identity.encode() + b"\n"):
                    return

    def _upload(self, chance: random.Random) -> None:
        """Content with a length, in pieces; its digest comes back."""
        identity, content = self._new_id(), chance.randbytes(chance.choice((10, 3000, 700_000)))
        expected = f"{identity}\n{hashlib.sha256(content).hexdigest()}\n".encode()
        head = request(f"/digest?id={identity}", f"Content-Length: {len(content)}", "Connection: close", method="POST")
        with self._connect() as (sock, stream):
            sock.sendall(head + content[:5])
            self._stopping.wait(chance.choice((0.0, 0.2)))
            sock.sendall(content[5:])
            self._expect(stream, identity, expected)

    def _abort_upload(self, chance: random.Random) -> None:
        """Part of an upload, and then nothing, a half-close or a reset; no answer is promised."""
        with suppress(OSError), self._connect() as (sock, _):
            sock.sendall(request("/digest", "Content-Length: 1000000", method="POST"))
            sock.sendall(bytes(chance.choice((0, 1, 100_000))))
            end = chance.choice(("reset", "half-close", "close"))
            if end == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif end == "half-close":
                sock.shutdown(socket.SHUT_WR)
                sock.recv(65536)

    def _read_slowly(self, chance: random.Random) -> None:
        """A long answer, read with pauses that are shorter than the write timeout."""
        identity, count = self._new_id(), chance.choice((1000, 20_000, 80_000))
        with self._connect(receive_buffer=16384) as (sock, stream):
            sock.sendall(request(f"/lines/{count}?id={identity}", "Connection: close"))
            self._stopping.wait(chance.uniform(0, 2))
            self._expect(stream, identity, line_of(identity) * count)

    def _send_small_records(self, chance: random.Random) -> None:
        """A request and its content over TLS, in records of a few bytes."""
        identity, content = self._new_id(), chance.randbytes(chance.choice((1, 500, 20_000)))
        head = request(f"/digest?id={identity}", f"Content-Length: {len(content)}", "Connection: close", method="POST")
        with connect(self._secure) as sock:
            sock.settimeout(ANSWER_TIMEOUT)
            client = Pieces(sock, self._context)
            client.shake_hands(chance.choice((0, 50)))
            client.send(head + content, size=chance.choice((0, 1000)), record=chance.choice((1, 7, 16384)))
            answer = client.read_all()
        head_lines, _, found = answer.partition(b"\r\n\r\n")
        expected = f"{identity}\n{hashlib.sha256(content).hexdigest()}\n".encode()
        if not head_lines.startswith(b"HTTP/1.1 200 ") or found != expected:
            raise ValueError(f"{identity} was answered {answer[:300]!r} over TLS")
        with self._lock:
            self.answered += 1


def read_answer(stream: BinaryIO) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: status, fields by name in lower case, content.

    Raises:
        EOFError: it is not whole.
    """
    head = read_head(stream)
    status, fields = int(head[0].split()[1]), {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    if fields.get("transfer-encoding") != "chunked":
        return status, fields, read_exactly(stream, int(fields["content-length"]))
    content = b""
    while size := int(read_line(stream), 16):
        content += read_exactly(stream, size)
        read_line(stream)
    read_line(stream)
    return status, fields, content


def read_head(stream: BinaryIO) -> list[str]:
    """The lines of a head."""
    lines: list[str] = []
    while line := read_line(stream):
        lines.append(line)
    return lines


def read_line(stream: BinaryIO) -> str:
    """One line, without its end."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError(f"the answer ends with {line!r}")
    return line[:-2].decode("latin-1")


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """So many bytes."""
    data = stream.read(count)
    if len(data) < count:
        raise EOFError(f"the answer ends {count - len(data)} bytes too soon")
    return data


class Trouble:
    """Stops workers for a while, and reloads.

    Args:
        case: the case.
        targets: the servers.
    """

    def __init__(self, case: Case, targets: list[Target]) -> None:
        self._case = case
        self._targets = targets
        self._chance = random.Random(25)
        self._reload_at = time.monotonic() + RELOAD_EVERY / 4
        self.stops = 0
        self.reloads = 0

    def make(self, deadline: float) -> None:
        """Make trouble until a time of the monotonic clock."""
        while time.monotonic() < deadline and all(target.returncode is None for target in self._targets):
            self._stop_one()
            if time.monotonic() > self._reload_at:
                for target in self._targets:
                    target.signal(signal.SIGHUP)
                self.reloads += 1
                self._reload_at = time.monotonic() + RELOAD_EVERY
            time.sleep(self._chance.uniform(0.1, 1))

    def _stop_one(self) -> None:
        pids = sorted(self._case.workers(self._chance.choice(self._targets)))
        if not pids:
            return
        pid = self._chance.choice(pids)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self.stops += 1
            time.sleep(self._chance.choice((0.05, 0.5, LONGEST_STOP)))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def start_secure(case: Case, folder: Path) -> tuple[Target, Authority]:
    """Start a server that speaks TLS."""
    authority = Authority.make(folder)
    settings = {**TIMEOUTS, "certfile": authority.issue("localhost")}
    target = case.start("stressed:app", settings=settings, wait=False)
    case.wait_workers(target, 2)
    return target, authority


@fault(
    25,
    "Stopped workers, reloads, finalizers that log, slow readers, aborts and small TLS records at once",
    "no answer is wrong, none that was promised is lost, no worker is deaf",
    for_others=False,
)
def stress(case: Case) -> Outcome:
    """Every answer is the right one, whatever happens at the same time."""
    with ExitStack() as stack:
        plain = case.start("stressed:app", settings=TIMEOUTS, wait=False)
        elapsed(lambda: b"up" in ask(plain, "up"), 30)
        secure, authority = start_secure(case, case.folder)
        clients = Clients(plain.address, secure.address, authority)
        trouble = Trouble(case, [plain, secure])
        stack.enter_context(clients.asking())
        trouble.make(time.monotonic() + case.size(10, 600))
    deaf = sum(target.log.count(sign) for target in (plain, secure) for sign in SIGNS_OF_DEAFNESS)
    unanswered = sum(b"end" not in ask(plain, "end") for _ in range(50))
    codes = []
    for target in (plain, secure):
        target.signal(signal.SIGTERM)
        with suppress(AssertionError):
            codes.append(target.wait(40))
    for problem in (*clients.wrong, *clients.lost):
        print(problem)
    figure = (
        f"{len(clients.wrong)} wrong and {len(clients.lost) + unanswered} lost of {clients.answered:,} answers; "
        f"{trouble.stops} stops, {trouble.reloads} reloads; {deaf} workers deaf; TERM exits {codes}"
    )
    return Outcome(not (clients.wrong or clients.lost or deaf or unanswered) and codes == [0, 0], figure)


def ask(target: Target, identity: str) -> bytes:
    """Ask once; nothing where there is no answer."""
    with suppress(OSError, ValueError):
        return get(target.address, f"/id?id={identity}")[1]
    return b""
