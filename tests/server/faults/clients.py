"""Clients that are slow, many, rude or gone."""

from __future__ import annotations

import multiprocessing
import random
import resource
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.synchronize import Semaphore

from tests.server.client import HELLO, connect, read_answer, request, resident
from tests.server.faults.case import Case, Outcome, Probes, elapsed, fault, show_seconds

MEBIBYTE = 1 << 20
CLIENTS = 64
LARGE = 20 * MEBIBYTE


def count_open(socks: list[socket.socket]) -> int:
    """How many connections the server has not closed; reads what it has sent."""
    still_open = 0
    for sock in socks:
        sock.setblocking(False)
        try:
            while sock.recv(65536):
                pass
        except BlockingIOError:
            still_open += 1
        except OSError:
            pass
    return still_open


@fault(1, "64 uploads that stall after 2 bytes", "every probe under 100 ms; the uploads are cut")
def stalled_uploads(case: Case) -> Outcome:
    """Uploads hold no thread, and are cut by the time and the rate that they must keep."""
    target = case.start(settings={"body_timeout": "2"})
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(target.address)) for _ in range(CLIENTS)]
        for sock in socks:
            sock.sendall(b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nab")
        probes = Probes().during(target.address, case.size(1, 5))
        cut = elapsed(lambda: count_open(socks) == 0, case.size(10, 70), 0.2)
    told = f"cut within {show_seconds(cut + case.size(1, 5))}" if cut is not None else "never cut"
    kept = not probes.failed and probes.slowest < case.probe_limit and cut is not None
    return Outcome(kept, f"{probes}; {told}")


@fault(2, "64 clients that ask for 20 MB and read nothing", "every probe under 100 ms; memory bounded; they are cut")
def clients_that_do_not_read(case: Case) -> Outcome:
    """Answers that nobody takes hold no thread and little memory."""
    target = case.start(settings={"write_timeout": "3"})
    before = case.memory(target)
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(target.address, receive_buffer=4096)) for _ in range(CLIENTS)]
        for sock in socks:
            sock.sendall(request(f"/big/{LARGE}"))
        begun = count_begun(socks, 5)
        probes = Probes().during(target.address, case.size(2, 5))
        grown = (case.memory(target) - before) / MEBIBYTE
        # They read nothing, so the kernel's buffers are what they get, and only the server's side can tell.
        cut = elapsed(lambda: established(target.port, socks) == 0, case.size(10, 70), 0.2)
    told = f"cut within {show_seconds(cut + case.size(2, 5))}" if cut is not None else "never cut"
    waiting = f"; {CLIENTS - begun} of {CLIENTS} answers did not begin" if begun < CLIENTS else ""
    good = not probes.failed and probes.slowest < case.probe_limit and not waiting
    kept = good and grown < CLIENTS + 64 and cut is not None
    return Outcome(kept, f"{probes}{waiting}; {grown:.0f} MiB more; {told}")


def count_begun(socks: list[socket.socket], seconds: float) -> int:
    """How many get the first byte of an answer within so many seconds."""
    waiting, deadline = set(socks), time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        readable, _, _ = select.select(waiting, [], [], 0.1)
        for sock in readable:
            sock.recv(1)
            waiting.remove(sock)
    return len(socks) - len(waiting)


def established(port: int, socks: list[socket.socket]) -> int:
    """How many of the connections are established on the server's side, by the kernel's table (proc_net_tcp(5))."""
    clients = {f"{sock.getsockname()[1]:04X}" for sock in socks}
    count = 0
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table:
            _, local, remote, state, *_ = line.split()
            if state == "01" and local.endswith(f":{port:04X}") and remote.rpartition(":")[2] in clients:
                count += 1
    return count


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Have this process, and those that it starts meanwhile, allowed so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@fault(
    3,
    "10,000 idle connections and half heads in one worker",
    "every probe under 100 ms; at most 4 KiB each; closed at the head deadline",
)
def many_idle_connections(case: Case) -> Outcome:
    """Connections on which nothing whole has come cost little, and end in time."""
    count, timeout = case.size(500, 10_000), case.size(3, 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = count + 1000
    if limit > hard:
        return Outcome(None, f"needs {limit} descriptors")
    with many_descriptors(max(limit, soft)), ExitStack() as stack:
        target = case.start(workers=1, settings={"header_timeout": str(timeout)})
        (worker,) = case.wait_workers(target, 1)
        before = resident(worker)
        began = time.monotonic()
        socks = []
        for number in range(count):
            try:
                sock = stack.enter_context(connect(target.address))
            except TimeoutError:
                break  # it accepts no more, and its backlog is full
            if number % 2:
                with suppress(OSError):
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: local")
            socks.append(sock)
        probes = Probes().during(target.address, case.size(1, 5))
        each = (resident(worker) - before) / len(socks) / 1024
        left = timeout - (time.monotonic() - began)
        closed = elapsed(lambda: established(target.port, socks) == 0, max(left, 0) + 15, 0.2)
        seconds = time.monotonic() - began
    told = f"closed after {show_seconds(seconds)}" if closed is not None else "never closed"
    bound = case.size(8, 4)
    good = not probes.failed and probes.slowest < case.probe_limit and len(socks) == count
    kept = good and each < bound and closed is not None
    return Outcome(kept, f"{len(socks):,} connections: {probes}; {each:.1f} KiB each; {told}")


@fault(11, "An early 401 while the client still sends 10 MB", "the client reads the whole answer every time")
def early_refusal(case: Case) -> Outcome:
    """No reset destroys an answer that comes before the request has ended (RFC 9112 section 9.6)."""
    target = case.start(settings={"max_body": str(MEBIBYTE)})
    count, whole = case.size(10, 100), 0
    for _ in range(count):
        whole += is_read_whole(target.address)
    probes = Probes().during(target.address, 0.3)
    return Outcome(whole == count and not probes.failed, f"{whole} of {count} read it whole")


def is_read_whole(address: tuple[str, int]) -> bool:
    """Send 10 MB to a route that refuses them, without a look at the answer until all is sent."""
    with connect(address) as sock:
        try:
            sock.sendall(request("/refuse", f"Content-Length: {10 * MEBIBYTE}", method="POST"))
            for _ in range(160):
                sock.sendall(b"a" * 65536)
            response, content = read_answer(sock, "POST")
        except Exception:  # h11's errors are no ValueError
            return False
    if response.status == 413:  # wizgy refuses it itself: it is larger than --max-body
        return content == f"The content is larger than {MEBIBYTE} bytes (--max-body).\n".encode()
    return (response.status, content) == (401, b"refused\n")


@fault(12, "100 clients that never close after Connection: close", "no thread is held; they are gone within 30 s")
def clients_that_never_close(case: Case) -> Outcome:
    """A connection that has had its last answer is awaited for a while, by no thread, and is gone."""
    target = case.start()
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(target.address)) for _ in range(100)]
        for sock in socks:
            sock.sendall(request("/hello", "Connection: close"))
        began = time.monotonic()
        probes = Probes().during(target.address, 1)
        gone = elapsed(lambda: not_closed(target.port, socks) == 0, 35, 0.2)
        seconds = time.monotonic() - began
    told = f"gone after {show_seconds(seconds)}" if gone is not None else "never gone"
    kept = not probes.failed and probes.slowest < case.probe_limit and gone is not None
    return Outcome(kept, f"{probes}; {told}")


def not_closed(port: int, socks: list[socket.socket]) -> int:
    """How many connections a process of the server's still holds: those that are closed belong to no inode."""
    clients = {f"{sock.getsockname()[1]:04X}" for sock in socks}
    count = 0
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[2].rpartition(":")[2] in clients and fields[9] != "0":
                count += 1
    return count


@fault(14, "Two clients that pipeline without pause", "p99 of a probe under 5 times unloaded")
def pipelining(case: Case) -> Outcome:
    """Read-ahead is bounded, and others have their turn."""
    target = case.start(workers=1)
    seconds = case.size(2, 20)
    unloaded = Probes().during(target.address, seconds)
    # In processes of their own: in this one they would keep the probes from running, the more the faster the server.
    context = multiprocessing.get_context("spawn")
    begun = context.Semaphore(0)
    clients = [context.Process(target=pipeline, args=(target.address, begun)) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        for _ in clients:
            assert begun.acquire(timeout=30), "a client does not begin"
        loaded = Probes().during(target.address, seconds)
    finally:
        for client in clients:
            client.kill()
            client.join()
    ratio = loaded.percentile(0.99) / max(unloaded.percentile(0.99), 0.001)
    figure = f"p99 {show_seconds(loaded.percentile(0.99))}, unloaded {show_seconds(unloaded.percentile(0.99))}"
    return Outcome(not loaded.failed and ratio < case.size(50, 5), f"{figure} ({ratio:.1f} times)")


def pipeline(address: tuple[str, int], begun: Semaphore) -> None:
    """Send requests faster than they can be answered, and read what comes, for ever."""
    requests = HELLO * 200
    answered = False
    while True:
        with suppress(OSError), connect(address) as sock:
            sock.settimeout(0.01)
            while True:
                with suppress(TimeoutError):
                    sock.send(requests)
                with suppress(TimeoutError):
                    if not sock.recv(65536):
                        break
                    if not answered:
                        answered = True
                        begun.release()


@fault(
    23,
    "20,000 fields; a 1 MB request line in 1-byte pieces; 100,000 chunks of one byte; 2,000 trailer fields",
    "refused, or linear in time; memory bounded",
)
def abusive_requests(case: Case) -> Outcome:
    """What is far beyond the usual is refused or costs time in proportion, and no more."""
    target = case.start(workers=1)
    before = case.memory(target)
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(20_000))
    chunks = b"1\r\na\r\n" * case.size(10_000, 100_000)
    head = b"POST /upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    trailers = b"".join(b"X-%d: y\r\n" % number for number in range(2_000))
    answers = [
        ("fields", exchange(target.address, [b"GET /hello HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n"])),
        ("line", exchange(target.address, pieces(b"GET /" + b"a" * case.size(20_000, 1_000_000)))),
        ("chunks", exchange(target.address, [head + chunks + b"0\r\n\r\n"])),
        ("trailers", exchange(target.address, [head + b"1\r\na\r\n0\r\n" + trailers + b"\r\n"])),
    ]
    probes = Probes().during(target.address, 0.3)
    grown = (case.memory(target) - before) / MEBIBYTE
    figure = ", ".join(f"{name} {status} in {show_seconds(seconds)}" for name, (status, seconds) in answers)
    kept = all(status in (200, 400, 413, 414, 431) and seconds < 10 for _, (status, seconds) in answers)
    return Outcome(kept and not probes.failed and grown < 64, f"{figure}; {grown:.0f} MiB more")


def pieces(data: bytes) -> list[bytes]:
    """Single bytes."""
    return [data[number : number + 1] for number in range(len(data))]


def exchange(address: tuple[str, int], parts: list[bytes]) -> tuple[int, float]:
    """Send parts until there is an answer: its status, 0 for none, and the seconds that it took."""
    began = time.monotonic()
    with connect(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = b""
        try:
            for number, part in enumerate(parts):
                sock.sendall(part)
                if number % 1000 == 999 and select.select([sock], [], [], 0)[0]:
                    break  # refused already
            answer = sock.recv(65536)
        except OSError:
            # Refused while it was still sent; the answer is there nevertheless.
            with suppress(OSError):
                answer = sock.recv(65536)
    status = int(answer[9:12]) if answer[9:12].isdigit() else 0
    return status, time.monotonic() - began


def abort_at_random(address: tuple[str, int], count: int, seed: int = 7) -> None:
    """Begin requests and go away at a random point, with a reset half of the time."""
    chance = random.Random(seed)
    post = request("/upload", "Content-Length: 300000", method="POST") + b"a" * 300_000
    wholes = [HELLO, HELLO * 3, post, request("/big/1000000"), request("/sleep/5")]
    for _ in range(count):
        with suppress(OSError), connect(address) as sock:
            data = chance.choice(wholes)
            sock.sendall(data[: chance.randrange(len(data) + 1)])
            if chance.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
