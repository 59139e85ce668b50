"""File-like objects in ``wsgi.file_wrapper``: whatever has ``read``."""

from __future__ import annotations

import gzip
import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any, cast

from wsgiapp.behaviour.registry import PLAIN, answer_text, behaviour, read_parameter
from wsgiapp.probes import wrap_file

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CONTENT = bytes(index % 251 for index in range(100_000))
SKIPPED = 1000


def open_pipe() -> IO[bytes]:
    """Return the output of a program."""
    code = "import sys; sys.stdout.buffer.write(bytes(index % 251 for index in range(100_000)))"
    program = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE)
    threading.Thread(target=program.wait, daemon=True).start()
    assert program.stdout
    return program.stdout


def open_socket() -> IO[bytes]:
    """Return a socket as a file."""
    sender, receiver = socket.socketpair()

    def send() -> None:
        with sender:
            sender.sendall(CONTENT)

    threading.Thread(target=send, daemon=True).start()
    with receiver:
        return receiver.makefile("rb")


def open_fifo() -> IO[bytes]:
    """Return a named pipe."""
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "fifo")  # noqa: PTH118 - as applications have it
    os.mkfifo(path)

    def write() -> None:
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(CONTENT)

    threading.Thread(target=write, daemon=True).start()
    return open(path, "rb")  # noqa: PTH123


def open_member() -> IO[bytes]:
    """Return a compressed member of an archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("member", CONTENT)
    return zipfile.ZipFile(archive).open("member")


def open_gzip() -> IO[bytes]:
    """Return a compressed file on a disk, whose descriptor is that of the compressed bytes."""
    file = write_temporary(gzip.compress(CONTENT))
    return cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb"))


def write_temporary(content: bytes) -> IO[bytes]:
    """Return a file on a disk, at its start."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
    file.write(content)
    file.seek(0)
    return file


def open_spooled() -> IO[bytes]:
    """Return a temporary file that is still in memory."""
    file = tempfile.SpooledTemporaryFile(max_size=1024 * 1024)  # noqa: SIM115 - the server closes it
    file.write(CONTENT)
    file.seek(0)
    return cast(IO[bytes], file)


def open_at_offset() -> IO[bytes]:
    """Return a file of which the beginning was read: the rest is to be sent."""
    file = write_temporary(bytes(SKIPPED) + CONTENT)
    file.read(SKIPPED)
    return file


class OnlyRead:
    """An object that has ``read`` and nothing else."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes."""
        return self._file.read(size)


KINDS: dict[str, Callable[[], Any]] = {
    "disk": lambda: write_temporary(CONTENT),
    "offset": open_at_offset,
    "pipe": open_pipe,
    "fifo": open_fifo,
    "socket": open_socket,
    "zip": open_member,
    "gzip": open_gzip,
    "memory": lambda: io.BytesIO(CONTENT),
    "spooled": open_spooled,
    "read-only": lambda: OnlyRead(CONTENT),
    "proc": lambda: open("/proc/self/status", "rb"),  # noqa: PTH123, SIM115
    "sys": lambda: open("/sys/class/net/lo/mtu", "rb"),  # noqa: PTH123, SIM115
}


@behaviour
def wrapped_file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a file-like object of the ``kind`` that is asked for, in the server's wrapper."""
    file = KINDS[read_parameter(environ, "kind")]()
    start_response("200 OK", [*PLAIN])
    return wrap_file(environ, file)


@behaviour
def wrapper_moved(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Move a wrapped file to where a range begins, as Werkzeug does; say so where the wrapper cannot be moved."""
    wrapper: Any = wrap_file(environ, write_temporary(CONTENT))
    if not (hasattr(wrapper, "seekable") and wrapper.seekable() and hasattr(wrapper, "tell")):
        return answer_text(start_response, "the wrapper cannot be moved\n")
    wrapper.seek(len(CONTENT) - SKIPPED)
    start_response("200 OK", [*PLAIN])
    moved: Iterable[bytes] = wrapper
    return moved
