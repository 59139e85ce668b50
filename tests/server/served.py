"""The application that the server tests serve: each route does one thing that a server must live with."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

StartResponse = Callable[..., Any]

BLOCK = b"0123456789abcdef" * 4096


def blocks(size: int) -> Iterator[bytes]:
    """Yield `size` bytes in blocks of 64 KiB."""
    while size > 0:
        yield BLOCK[:size]
        size -= len(BLOCK)


def halves(milliseconds: int) -> Iterator[bytes]:
    """Yield two pieces, some time apart."""
    yield b"first "
    time.sleep(milliseconds / 1000)
    yield b"second\n"


def late(size: int) -> Iterator[bytes]:
    """Yield `size` bytes at once, and the last piece much later."""
    yield bytes(size)
    time.sleep(20)
    yield b"the end"


def misbehave(environ: dict[str, Any], path: str, argument: str) -> None:
    """Do what the path says, if it is something that a good application does not."""
    if path == "loop":
        print("loops in", os.getpid(), flush=True)
        while True:
            pass
    if path == "eat":
        bytearray(b"a" * 1_048_576) * int(argument)
    if path == "hold":
        print("holds", flush=True)
        ctypes.PyDLL(None).usleep(int(argument) * 1000)  # a PyDLL keeps the interpreter's lock
    if path == "exit":
        sys.exit(7)
    if path == "fail":
        raise ValueError(f"failed {argument}")
    if path == "print":
        for line in range(int(argument)):
            print(environ["QUERY_STRING"], "line", line, file=environ["wsgi.errors"])


def answer(environ: dict[str, Any], path: str, argument: str) -> bytes | Iterable[bytes]:
    """Do what the path says."""
    if path == "sleep":
        print("sleeps in", os.getpid(), flush=True)
        time.sleep(int(argument) / 1000)
        return b"slept\n"
    if path == "halves":
        return halves(int(argument))
    if path == "late":
        return late(int(argument))
    if path in ("big", "stream"):
        return blocks(int(argument))
    if path == "upload":
        return b"%d\n" % len(environ["wsgi.input"].read())
    if path == "orphan":
        command = "sleep 0.5 & exec true"
        subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
    if path == "refuse":
        return b"refused\n"
    if path == "signals":
        return subprocess.run(["grep", "^Sig", "/proc/self/status"], check=True, capture_output=True).stdout
    misbehave(environ, path, argument)
    texts = {key: value for key, value in environ.items() if isinstance(value, str)}
    if path == "hold":
        return b"held\n"
    values = {"pid": os.getpid(), "threads": threading.active_count(), "environ": texts}
    return json.dumps(values[path]).encode() + b"\n" if path in values else b"hello\n"


def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """The application."""
    path, _, argument = environ["PATH_INFO"].lstrip("/").partition("/")
    content = answer(environ, path, argument)
    fields = [("Content-Type", "text/plain")]
    if path == "id":
        fields.append(("X-Request-Id", argument))
    if path in ("big", "push"):
        fields.append(("Content-Length", argument))
    write = start_response("401 Unauthorized" if path == "refuse" else "200 OK", fields)
    if path == "push":
        for block in blocks(int(argument)):
            write(bytes(bytearray(block)))  # a copy: what is kept of it costs memory
        return []
    return [content] if isinstance(content, bytes) else content
