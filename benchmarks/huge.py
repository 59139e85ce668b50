"""One request of 1 GiB, up or down: how fast, and above all in how much memory."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

from benchmarks.apps.bulk import GIBIBYTE
from benchmarks.load import ANSWER_SECONDS, Load, LoadError
from benchmarks.workloads import Workload

PIECE = 1 << 20

DOWNLOAD = b"GET /gibibyte HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
UPLOAD = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % GIBIBYTE
)


def run(workload: Workload, url: str, _processor: int, _seconds: float) -> Load:
    """Send or receive 1 GiB.

    Raises:
        LoadError: the answer is not the right one.
    """
    transfer = upload if workload.kind == "huge-upload" else download
    address = urlsplit(url)
    clock, spent = time.perf_counter(), time.process_time()
    try:
        with socket.create_connection((address.hostname, address.port or 80), timeout=ANSWER_SECONDS) as client:
            transfer(client)
    except OSError as error:
        raise LoadError(f"1 GiB was not transferred: {error!r}") from error
    seconds = time.perf_counter() - clock
    return Load(1, seconds, p50=seconds, p99=seconds, client_seconds=time.process_time() - spent)


def upload(client: socket.socket) -> None:
    """Send 1 GiB, and raise unless the app counted as many bytes."""
    piece = bytes(PIECE)
    client.sendall(UPLOAD)
    try:
        for _ in range(GIBIBYTE // PIECE):
            client.sendall(piece)
    except ConnectionError as error:
        raise LoadError(f"it broke the upload off: {_read_rest(client)[:200]!r}") from error
    answer = _read_rest(client)
    if b" 200 " not in answer.partition(b"\r\n")[0] or b"%d" % GIBIBYTE not in answer:
        raise LoadError(f"the upload was not answered as it should be: {answer[:200]!r}")


def _read_rest(client: socket.socket) -> bytes:
    answer = b""
    try:
        while data := client.recv(65_536):
            answer += data
    except OSError:
        pass
    return answer


def download(client: socket.socket) -> None:
    """Receive an answer, and raise unless its head says that it has 1 GiB, and it has."""
    client.sendall(DOWNLOAD)
    buffer = bytearray(PIECE)
    head = b""
    while b"\r\n\r\n" not in head:
        data = client.recv(4096)
        if not data:
            raise LoadError(f"the connection ended in the head: {head[:80]!r}")
        head += data
    head, _, content = head.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0] or b"\r\ncontent-length: %d" % GIBIBYTE not in head.lower():
        raise LoadError(f"the answer has another head than it should: {head[:200]!r}")
    left = GIBIBYTE - len(content)
    while left > 0 and (received := client.recv_into(buffer)):
        left -= received
    if left:
        raise LoadError(f"the answer ended {left:,} bytes before its end")
