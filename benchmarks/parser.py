"""How fast request heads are read, against h11 and llhttp, and whether the time is linear in the size.

::

    python -m benchmarks.parser [--rounds N] [--heads N] [--json FILE] [--check]

Each round reads the same heads with every parser, one parser after the other and in another order each
round, so that what else the machine does falls on all of them. Only the reading is timed: what h11 needs
anew for each request (a `Connection`) is made before the clock starts.

Two kinds of traffic: `repeated` is one head over and over, as a client on one connection sends it, and wizgy
remembers a header section that it has just read; `varied` has another target, cookie and validator in every
head, so that nothing can be remembered. `--check` exits 1 when a figure is below what the project promises.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h11
import httptools

from wizgy.http.body import ChunkedDecoder
from wizgy.http.request import HeadReader, Limits

TIMES_H11 = 3.0
"""How many times as fast as h11 wizgy must read varied heads of 12 fields."""

STEEPEST = 2.0
"""How many times as long a byte of the largest input may take as a byte of the smallest."""

HEAD = """\
GET /articles/2024/{n}?page={n}&sort=newest HTTP/1.1\r
Host: www.example.org\r
Connection: keep-alive\r
sec-ch-ua: "Chromium";v="130", "Google Chrome";v="130", "Not?A_Brand";v="99"\r
sec-ch-ua-mobile: ?0\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r
Sec-Fetch-Site: same-origin\r
Referer: https://www.example.org/articles/2024/\r
Accept-Encoding: gzip, deflate, br, zstd\r
Accept-Language: en-GB,en-US;q=0.9,en;q=0.8\r
Cookie: session=1f0c6a2e9d{n:08x}; theme=dark; consent=2024-01-31\r
If-None-Match: W/"{n:08x}"\r
\r
"""
"""What a browser sends for a page: a request line and 12 fields."""


class Sink:
    """Takes llhttp's callbacks, as a server would, and keeps the fields."""

    def __init__(self) -> None:
        self.heads = 0
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        """Keep the request-target."""
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one field."""
        self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Count the head and forget it."""
        assert len(self.fields) == 12
        self.heads += 1
        self.fields = []


def time_wizgy(heads: list[bytes]) -> float:
    """Read every head with one `HeadReader`, as a connection does that gets each at once; the seconds that it took."""
    reader = HeadReader(Limits())
    start = time.perf_counter()
    for data in heads:
        head = reader.read_whole(data)
        assert head is not None
    return time.perf_counter() - start


def time_h11(heads: list[bytes]) -> float:
    """Read every head with an `h11.Connection` of its own, made beforehand; the seconds that it took."""
    connections = [h11.Connection(h11.SERVER) for _ in heads]
    start = time.perf_counter()
    for connection, data in zip(connections, heads, strict=True):
        connection.receive_data(data)
        event = connection.next_event()
        assert type(event) is h11.Request
    return time.perf_counter() - start


def time_httptools(heads: list[bytes]) -> float:
    """Read every head with one llhttp parser (C); the seconds that it took."""
    sink = Sink()
    parser = httptools.HttpRequestParser(sink)
    start = time.perf_counter()
    for data in heads:
        parser.feed_data(data)
    took = time.perf_counter() - start
    assert sink.heads == len(heads)
    return took


PARSERS: dict[str, Callable[[list[bytes]], float]] = {
    "wizgy": time_wizgy,
    "h11": time_h11,
    "httptools": time_httptools,
}


def make_traffic(kind: str, count: int) -> list[bytes]:
    """Make the heads of one kind of traffic."""
    if kind == "repeated":
        return [HEAD.format(n=7).encode("ascii")] * count
    return [HEAD.format(n=number + 10_000).encode("ascii") for number in range(count)]


def quartiles(values: list[float]) -> dict[str, float]:
    """Sum values up: median, and the quartiles as the spread."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}


def compare(kind: str, count: int, rounds: int) -> dict[str, Any]:
    """Time every parser on one kind of traffic, in turns."""
    heads = make_traffic(kind, count)
    size = sum(map(len, heads))
    names = list(PARSERS)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:  # once, so that nobody pays for the first time
        PARSERS[name](heads)
    for turn in range(rounds):
        for shift in range(len(names)):
            name = names[(turn + shift) % len(names)]
            gc.collect()
            gc.disable()
            try:
                seconds[name].append(PARSERS[name](heads))
            finally:
                gc.enable()
    times = [theirs / ours for theirs, ours in zip(seconds["h11"], seconds["wizgy"], strict=True)]
    return {
        "bytes_per_head": size / count,
        "heads_per_second": {n: quartiles([count / s for s in values]) for n, values in seconds.items()},
        "megabytes_per_second": {n: quartiles([size / s / 1e6 for s in values]) for n, values in seconds.items()},
        "times_h11": quartiles(times),
    }


def read_head(data: bytes, step: int) -> None:
    """Read one head that comes `step` bytes at a time."""
    reader, buffer = (
        HeadReader(Limits(request_line=8190, header_bytes=1 << 22, header_count=1 << 20)),
        bytearray(),
    )
    head = None
    for position in range(0, len(data), step):
        buffer += data[position : position + step]
        head = reader.read(buffer)
    assert head is not None


def read_chunks(data: bytes, step: int) -> None:
    """Read one content in chunks that comes `step` bytes at a time."""
    decoder, buffer = ChunkedDecoder(Limits()), bytearray()
    for position in range(0, len(data), step):
        buffer += data[position : position + step]
        decoder.read(buffer)
    assert decoder.finished


def head_of(fields: int) -> bytes:
    """Make a head with so many different fields."""
    lines = b"".join(b"X-Field-%d: value\r\n" % number for number in range(fields))
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n"


def long_head(size: int) -> bytes:
    """Make a head with one field whose value has so many bytes."""
    return b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * size + b"\r\n\r\n"


def chunks_of(count: int) -> bytes:
    """Make so many chunks of one byte."""
    return b"1\r\na\r\n" * count + b"0\r\n\r\n"


LINEAR: dict[str, tuple[Callable[[int], bytes], list[int], Callable[[bytes, int], None], int]] = {
    "fields of a head at once": (head_of, [1_000, 4_000, 16_000], read_head, 1 << 22),
    "fields of a head, byte by byte": (head_of, [500, 2_000, 8_000], read_head, 1),
    "one long field, byte by byte": (long_head, [10_000, 40_000, 160_000], read_head, 1),
    "chunks of one byte at once": (chunks_of, [6_250, 25_000, 100_000], read_chunks, 1 << 22),
    "chunks of one byte, byte by byte": (chunks_of, [6_250, 25_000, 100_000], read_chunks, 1),
}
"""What is grown: how the input is made, the sizes, how it is read, and in pieces of how many bytes."""


def measure_growth(name: str, repeats: int) -> dict[str, Any]:
    """Time growing inputs; nanoseconds per byte for each size, and the steepest rise."""
    make, sizes, read, step = LINEAR[name]
    per_byte = []
    for size in sizes:
        data = make(size)
        best = min(_time_once(read, data, step) for _ in range(repeats))
        per_byte.append(best / len(data) * 1e9)
    return {"sizes": sizes, "nanoseconds_per_byte": per_byte, "rise": per_byte[-1] / per_byte[0]}


def _time_once(read: Callable[[bytes, int], None], data: bytes, step: int) -> float:
    start = time.perf_counter()
    read(data, step)
    return time.perf_counter() - start


def show(report: dict[str, Any]) -> None:
    """Print a report as text."""
    print(", ".join(f"{name} {number}" for name, number in report["versions"].items()))
    for kind, found in report["traffic"].items():
        print(f"\n{kind}: heads of {found['bytes_per_head']:.0f} bytes with 12 fields (median, quartiles)")
        for name in PARSERS:
            rate, volume = found["heads_per_second"][name], found["megabytes_per_second"][name]
            print(
                f"  {name:10}{rate['median']:>10,.0f} heads/s ({rate['low']:,.0f} to {rate['high']:,.0f})"
                f"{volume['median']:>8.1f} MB/s"
            )
        ratio = found["times_h11"]
        print(f"  wizgy is {ratio['median']:.2f} times h11 ({ratio['low']:.2f} to {ratio['high']:.2f})")
    print("\nnanoseconds per byte as the input grows")
    for name, found in report["growth"].items():
        steps = ", ".join(
            f"{size:,}: {cost:.1f}" for size, cost in zip(found["sizes"], found["nanoseconds_per_byte"], strict=True)
        )
        print(f"  {name:34}{steps} (rise {found['rise']:.2f})")


def find_shortfalls(report: dict[str, Any]) -> list[str]:
    """Say which promises the figures of a report do not keep."""
    found = [
        f"{kind}: {traffic['times_h11']['median']:.2f} times h11, not {TIMES_H11}"
        for kind, traffic in report["traffic"].items()
        if traffic["times_h11"]["median"] < TIMES_H11
    ]
    found += [
        f"{name}: a byte of the largest input takes {growth['rise']:.2f} times as long as one of the smallest"
        for name, growth in report["growth"].items()
        if growth["rise"] > STEEPEST
    ]
    return found


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parser", description="Time the reading of heads.")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each kind (default: %(default)s)")
    parser.add_argument("--heads", type=int, default=5_000, help="heads in a round (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure is below its promise")
    arguments = parser.parse_args()
    report = {
        "versions": {
            platform.python_implementation(): platform.python_version(),
            "h11": version("h11"),
            "httptools": version("httptools"),
        },
        "traffic": {kind: compare(kind, arguments.heads, arguments.rounds) for kind in ("repeated", "varied")},
        "growth": {name: measure_growth(name, repeats=3) for name in LINEAR},
    }
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    shortfalls = find_shortfalls(report)
    for shortfall in shortfalls:
        print(f"below its promise: {shortfall}", file=sys.stderr)
    return 1 if shortfalls and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
