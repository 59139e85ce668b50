"""Where the microseconds of a request go: processor time of each step, in one process and without a network.

::

    python -m benchmarks.path [--rounds N] [--requests N] [--bytecodes]

A connection over a socket pair is served by the engine's own code in this thread, and each step is also run alone. The
least of the rounds is shown, which is what the step costs when nothing else disturbs it.
"""

from __future__ import annotations

import argparse
import io
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextvars import Context
from types import FrameType
from typing import Any

from wizgy.config import Config
from wizgy.engine import CHANGED, Engine
from wizgy.http.request import HeadReader, Limits
from wizgy.http.response import ServerFields
from wizgy.listeners import open_listeners
from wizgy.wsgi import Response, build_environ, environ_of_fields, server_environ

REQUEST = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1:8888\r\n\r\n"
CONTENT = b"Hello, world\n"
CLIENT = ("127.0.0.1", "50000")
WARM_UP = 50
"""Times that a step runs before its bytecodes are counted: what is remembered is remembered by then."""


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The least that an application can do."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(CONTENT)))])
    return [CONTENT]


class Nowhere:
    """A channel that takes everything and keeps nothing."""

    def send(self, data: bytes) -> bool:
        """Take bytes, and always have room."""
        return False

    def send_file(self, descriptor: int, offset: int, count: int) -> None:
        """Take part of a file."""

    def is_closing(self) -> bool:
        """Stay open."""
        return False

    def begin_unframed(self) -> None:
        """Have no end."""

    def wait_for_room(self) -> None:
        """Never wait."""

    def report(self, text: str, error: BaseException | None) -> None:
        """Hear of no fault: there must be none."""
        raise AssertionError(text) from error


def cost(step: Callable[[], object], rounds: int, requests: int) -> float:
    """Microseconds of processor time that a step takes, the least of all rounds."""
    least = float("inf")
    for _ in range(rounds):
        began = time.thread_time_ns()
        for _ in range(requests):
            step()
        least = min(least, time.thread_time_ns() - began)
    return least / requests / 1000


def make_steps() -> dict[str, Callable[[], object]]:
    """The whole of a request, and its parts, each ready to be run again and again."""
    (listener,) = open_listeners("127.0.0.1:0", 1)
    engine = Engine(hello, Config(), [listener])
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    engine._add(ours, CLIENT, listener)
    connection = engine._connections[ours.fileno()]
    engine._offers.clear()  # this thread leads
    engine._watching = True  # and nobody watches it

    reader = HeadReader(Limits())
    head = reader.read_whole(REQUEST)
    assert head is not None
    server = server_environ(
        name="localhost", port="8888", scheme="http", errors=io.StringIO(), multithread=True, multiprocess=False
    )
    base = environ_of_fields(server, head.fields, CLIENT)
    environ = build_environ(base, head.line, io.BytesIO(), None)
    own = ServerFields(b"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n", b"Server: wizgy\r\n")
    channel = Nowhere()

    def whole() -> None:
        theirs.send(REQUEST)
        assert engine._take_turn(connection, CHANGED)
        theirs.recv(4096)

    def kernel() -> None:
        theirs.send(REQUEST)
        ours.send(ours.recv(65536))
        theirs.recv(4096)

    return {
        "a request, with what its client does": whole,
        "of it the kernel's part: two sends, two receives": kernel,
        "of it reading a head that came before": lambda: reader.read_whole(REQUEST),
        "of it making the environ": lambda: build_environ(base, head.line, io.BytesIO(), None),
        "of it the application, its head checked and framed": lambda: Context().run(
            Response(head, environ, channel, own).run, hello
        ),
    }


def count_bytecodes(step: Callable[[], object]) -> tuple[int, int]:
    """The bytecodes that a step executes, and the Python functions that it calls.

    Source: sys.settrace and frame.f_trace_opcodes, in the Python reference
    """
    bytecodes = calls = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal bytecodes, calls
        frame.f_trace_opcodes = True
        calls += event == "call"
        bytecodes += event == "opcode"
        return trace

    for _ in range(WARM_UP):
        step()
    sys.settrace(trace)
    try:
        step()
    finally:
        sys.settrace(None)
    return bytecodes, calls


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.path", description="Where the time of a request goes.")
    parser.add_argument("--rounds", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=2000, help="in each round; default: %(default)s")
    parser.add_argument("--bytecodes", action="store_true", help="count bytecodes and calls, which never vary")
    options = parser.parse_args()
    if options.bytecodes:
        print(f"{platform.python_implementation()} {platform.python_version()}, bytecodes and calls of functions")
        for name, step in make_steps().items():
            bytecodes, calls = count_bytecodes(step)
            print(f"{bytecodes:7} {calls:5}  {name}")
        return
    print(f"{platform.python_implementation()} {platform.python_version()}, microseconds of processor time")
    for name, step in make_steps().items():
        print(f"{cost(step, options.rounds, options.requests):7.2f}  {name}")


if __name__ == "__main__":
    main()
