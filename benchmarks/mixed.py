"""Ninety-nine requests of a view that is fast to one of a view that is slow, and how long the fast ones take.

wrk cannot tell them apart, and adds samples of its own beside a slow one; so this is a client of its own, run as a
process: `python -m benchmarks.mixed HOST PORT SECONDS`.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

from benchmarks.figures import percentile
from benchmarks.load import ANSWER_SECONDS, Load, LoadError
from benchmarks.workloads import Workload
from matrix.manifest import ROOT

CONNECTIONS = 32
ONE_IN = 100

FAST = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW = b"GET /slow/50 HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = b" 200 "
SLOW_CONTENT = b"slow\n"


class Client:
    """One connection, which has one request under way. `fast` holds the seconds that the fast ones took."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.socket = socket.create_connection(self.address, timeout=ANSWER_SECONDS)
        self.sent = 0.0
        self.slow = False
        self.answers = 0
        self.answer = b""

    def send(self, *, slow: bool) -> None:
        """Send the next request; on a connection of its own when the server closed the last one."""
        self.slow, self.answer = slow, b""
        self.sent = time.perf_counter()
        self.socket.sendall(SLOW if slow else FAST)

    def receive(self) -> bool:
        """Take what came; return whether the answer is whole.

        Raises:
            LoadError: the answer is not the right one.
        """
        data = self.socket.recv(65_536)
        self.answer += data
        head, separator, content = self.answer.partition(b"\r\n\r\n")
        if not data or (separator and OK not in head.partition(b"\r\n")[0]):
            raise LoadError(f"an answer was not right: {self.answer[:200]!r}")
        expected = SLOW_CONTENT if self.slow else b"\n"
        return bool(separator) and content.endswith((expected, b"\r\n0\r\n\r\n"))

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection after the answer."""
        return b"\r\nconnection: close" in self.answer.lower()

    def reconnect(self) -> None:
        """Open the connection anew."""
        self.socket.close()
        self.socket = socket.create_connection(self.address, timeout=ANSWER_SECONDS)


def load(host: str, port: int, seconds: float) -> dict[str, float]:
    """Keep connections busy for so many seconds; return figures as JSON has them."""
    poller = select.epoll()
    clients: dict[int, Client] = {}
    fast: list[float] = []
    count = slow = 0

    def next_request(client: Client) -> None:
        nonlocal count, slow
        count += 1
        is_slow = count % ONE_IN == 0
        slow += is_slow
        client.send(slow=is_slow)

    # All of them before the clock starts: a server with a short backlog lets some wait for seconds.
    for client in [Client(host, port) for _ in range(CONNECTIONS)]:
        clients[client.socket.fileno()] = client
        poller.register(client.socket, select.EPOLLIN)
    begin = time.perf_counter()
    for client in clients.values():
        next_request(client)
    end = begin + seconds
    answered = 0
    while (now := time.perf_counter()) < end:
        for descriptor, _ in poller.poll(end - now):
            client = clients[descriptor]
            if not client.receive():
                continue
            answered += 1
            client.answers += 1
            if not client.slow:
                fast.append(time.perf_counter() - client.sent)
            if client.closes:
                poller.unregister(descriptor)
                del clients[descriptor]
                client.reconnect()
                clients[client.socket.fileno()] = client
                poller.register(client.socket, select.EPOLLIN)
            next_request(client)
    # A fast one that was still under way took at least so long: without these, a server that stalls would look quick.
    now = time.perf_counter()
    fast += [now - client.sent for client in clients.values() if not client.slow]
    return {
        "requests": answered,
        "slow": slow,
        "starved": sum(client.answers == 0 for client in clients.values()),
        "seconds": now - begin,
        "p50": percentile(fast, 50),
        "p99": percentile(fast, 99),
    }


def run(workload: Workload, url: str, processor: int, seconds: float) -> Load:
    """Load a server from a process of its own.

    Raises:
        LoadError: an answer was not right.
    """
    address = urlsplit(url)
    command = [
        *("taskset", "--cpu-list", str(processor), sys.executable, "-m", "benchmarks.mixed"),
        *(str(address.hostname), str(address.port), str(seconds)),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise LoadError((text.strip().splitlines() or ["the load ended with no message"])[-1])
    found = json.loads(text)
    if not found["requests"]:
        raise LoadError("no request was answered")
    return Load(
        requests=int(found["requests"]),
        seconds=found["seconds"],
        p50=found["p50"],
        p99=found["p99"],
        client_seconds=usage.ru_utime + usage.ru_stime,
        more={"starved": found["starved"]},
    )


if __name__ == "__main__":
    try:
        print(json.dumps(load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
    except (OSError, LoadError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
