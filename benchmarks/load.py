"""Load, and what came of it: wrk is started, its report is read, answers are checked."""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import os
import select
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.workloads import Workload

SCRIPT = Path(__file__).with_name("load.lua")

ANSWER_SECONDS = 10
"""Seconds that an answer may take; wrk counts later ones as errors."""

HEAD_BYTES = 1024
"""More than the head of an answer and the framing of its content take."""


class LoadError(Exception):
    """A server did not answer as it should; the message says how it did."""


@dataclass(frozen=True)
class Load:
    """What a load measured.

    `p50` and `p99` are seconds, `client_seconds` the processor time of the load itself, `more` what one load alone has.
    """

    requests: int
    seconds: float
    p50: float
    p99: float
    client_seconds: float
    more: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def find_wrk() -> str | None:
    """Return where wrk is."""
    return shutil.which("wrk")


def check_answer(workload: Workload, host: str, port: int) -> None:
    """Ask once, and raise unless the answer is the right one.

    Raises:
        LoadError: the status or the content is wrong, or there is none.
    """
    headers: dict[str, str]
    method, headers, body = {
        "json": ("POST", {"Content-Type": "application/json"}, b'{"name": "' + b"x" * 1012 + b'"}'),
        "upload": ("POST", {"Content-Type": "application/octet-stream"}, b"x" * 10_000_000),
    }.get(workload.kind, ("GET", {}, None))
    if workload.kind == "close":
        headers["Connection"] = "close"
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request(method, workload.path, body=body, headers=headers)
        answer = connection.getresponse()
        stays_open = not answer.will_close
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise LoadError(f"{method} {workload.path} was not answered: {error!r}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise LoadError(f"{method} {workload.path} was answered {answer.status} {answer.reason}: {content[:80]!r}")
    if workload.kind == "close" and stays_open:
        raise LoadError("it keeps the connection open although it is asked to close it")
    if workload.kind == "json":
        assert body is not None
        check_echo(content, body)
    elif content != workload.content:
        raise LoadError(f"{method} {workload.path} has the wrong content, {len(content)} bytes: {content[:80]!r}")


def check_echo(content: bytes, body: bytes) -> None:
    """Raise unless `/echo` saw what was sent.

    Raises:
        LoadError: it saw something else.
    """
    try:
        seen = json.loads(content)["body_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError(f"/echo did not answer with its JSON: {content[:80]!r}") from error
    if seen != hashlib.sha256(body).hexdigest():
        raise LoadError("/echo saw other content than was sent")


def wrk_command(workload: Workload, url: str, processor: int, seconds: float) -> list[str]:
    """Return the command that puts a workload on a server."""
    return [
        *("taskset", "--cpu-list", str(processor)),
        *("wrk", "--threads", "1", "--connections", str(workload.connections)),
        *("--duration", f"{math.ceil(seconds)}s", "--timeout", f"{ANSWER_SECONDS}s"),
        *("--script", str(SCRIPT), url + workload.path, "--", workload.kind),
    ]


def run_wrk(workload: Workload, url: str, processor: int, seconds: float) -> Load:
    """Load a server with wrk for so many seconds.

    Raises:
        LoadError: wrk failed, or not every answer was right.
    """
    command = wrk_command(workload, url, processor, seconds)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        if seconds != int(seconds):
            _interrupt(process.pid, seconds)
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise LoadError(f"wrk ended with status {process.returncode}: {text.strip()}")
    return parse_wrk(text, workload, usage.ru_utime + usage.ru_stime)


def _interrupt(pid: int, seconds: float) -> None:
    """End wrk early, unless it has ended: it takes whole seconds only, and then reports the time that it really had."""
    ended = os.pidfd_open(pid)
    try:
        poller = select.poll()  # select() knows no descriptor above 1023, and the load beside idle connections has one
        poller.register(ended, select.POLLIN)
        if not poller.poll(seconds * 1000):
            signal.pidfd_send_signal(ended, signal.SIGINT)
    finally:
        os.close(ended)


def parse_wrk(text: str, workload: Workload, client_seconds: float = 0.0) -> Load:
    """Return what wrk reported with load.lua.

    Raises:
        LoadError: there is no report, nothing was answered, or not every answer was right.
    """
    try:
        report = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise LoadError(f"wrk reported nothing: {text.strip()}") from error
    errors = {name: report[name] for name in ("connect", "read", "write", "status", "timeout") if report[name]}
    if errors:
        told = ", ".join(f"{name} {count:,}" for name, count in errors.items())
        raise LoadError(f"errors of wrk in {report['requests']:,} requests: {told}")
    if not report["requests"]:
        raise LoadError("no request was answered")
    _check_size(report, workload)
    return Load(
        requests=report["requests"],
        seconds=report["microseconds"] / 1e6,
        p50=report["p50"] / 1e6,
        p99=report["p99"] / 1e6,
        client_seconds=client_seconds,
    )


def _check_size(report: dict[str, int], workload: Workload) -> None:
    """Raise unless the bytes that came are those of right answers; wrk may stop in the middle of the last ones."""
    if workload.content is None:
        return
    least = report["requests"] * len(workload.content)
    most = (report["requests"] + workload.connections) * (len(workload.content) + HEAD_BYTES)
    if not least <= report["bytes"] <= most:
        size = report["bytes"] / report["requests"]
        right = len(workload.content)
        raise LoadError(f"an answer had {size:,.0f} bytes on average, where the right one has {right:,} and a head")
