"""Logs that cannot be written, and logs that are rotated: no request fails or waits, and no line is split (16, 17)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.harness.process import READY_LINE, ServerProcess
from tests.server.client import (
    FOLDER,
    PROBE,
    TIMEOUT,
    Address,
    children,
    connect,
    get,
    probe,
    read_all,
    request,
    start,
    wait_until,
)

LONG = 60.0
"""Seconds in which a load must have ended."""
PIPELINED = 50
"""Requests on one connection."""
LONG_AGENT = "User-Agent: " + "x" * 500


def ask(address: Address, count: int, target: str = "/hello") -> None:
    """Ask so many times, on connections of `PIPELINED` requests; every answer is 200."""
    last = request(target, LONG_AGENT, "Connection: close")
    for _ in range(count // PIPELINED):
        with connect(address) as sock:
            sock.sendall(request(target, LONG_AGENT) * (PIPELINED - 1) + last)
            answers = read_all(sock)
        assert answers.count(b"HTTP/1.1 200 ") == PIPELINED, answers[-2000:]


def ask_to_fail(address: Address, count: int, target: str) -> None:
    """Ask so many times for what fails; a connection ends with that."""
    for _ in range(count):
        assert get(address, target)[0] == 500


def run_together(*calls: Callable[[], None]) -> None:
    """Call each in a thread of its own, wait for all, and fail if one has."""
    with ThreadPoolExecutor(len(calls)) as executor:
        for future in [executor.submit(call) for call in calls]:
            future.result(LONG)


class Pipe:
    """A named pipe that is read only when the test says so."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.said = bytearray()
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read_on(self) -> bytearray:
        """All that came, with what is in it now."""
        try:
            self.said += os.read(self._reader, 1 << 20)
        except BlockingIOError:
            pass
        return self.said

    def close(self) -> None:
        """Close the end that is read."""
        os.close(self._reader)


@contextmanager
def held(tmp_path: Path, streams: str, *arguments: str) -> Iterator[tuple[ServerProcess, Address, Pipe]]:
    """A server of which these streams are a pipe that nobody reads, from the ready line on."""
    pipe = Pipe(tmp_path / "pipe")
    redirect = "".join(f' {stream}>"$PIPE"' for stream in streams)
    command = ["sh", "-c", f'exec "$0" -m wizgy "$@"{redirect}', sys.executable]
    options = ["--bind", "127.0.0.1:0", *arguments, "served:app"]
    environment = {"PIPE": str(pipe.path)}
    with ServerProcess(options, command=command, directory=FOLDER, environment=environment) as server:
        if "2" in streams:
            ready = wait_until(lambda: READY_LINE.search(pipe.read_on().decode()), "the ready line")
            assert ready is not None
            address = (ready["host"], int(ready["port"]))
        else:
            address = server.wait_ready()
        try:
            yield server, address, pipe
            assert server.stop() == 0
        finally:
            pipe.close()


@pytest.mark.parametrize(
    ("streams", "arguments", "target"),
    [
        ("1", ["--access-log", "-"], "/hello"),
        ("1", ["--trace"], "/hello"),
        ("2", [], "/fail/it"),
        ("2", ["--log-format", "json"], "/print/20"),
        ("12", ["--access-log", "-", "--trace"], "/hello"),
    ],
    ids=["access-log", "trace", "error-log", "wsgi-errors", "both"],
)
def test_a_pipe_that_nobody_reads(tmp_path: Path, streams: str, arguments: list[str], target: str) -> None:
    """Every request is answered at once though nobody reads the log, and TERM ends the server (fault 16)."""
    with held(tmp_path, streams, "--workers", "2", "--threads", "4", *arguments) as (_, address, _):
        do = ask_to_fail if target == "/fail/it" else ask
        run_together(*[lambda: do(address, 200, target)] * 3, lambda: check_probe(address))


def check_probe(address: Address) -> None:
    """Another client is answered at once."""
    assert probe(address, 10) < PROBE


def test_one_notice_of_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    """What nobody reads is lost beyond a bound, with one notice; a reader that comes late gets whole lines."""
    requests = 16_000  # of 600 bytes each in the log: twice the bound of 4 MiB
    with held(tmp_path, "1", "--access-log", "-") as (server, address, pipe):
        ask(address, requests)
        notice = r"WARNING: Standard output does not take its lines in time; \d+ lines? (was|were) lost\.$"
        server.wait_stderr(notice)
        assert len(re.findall(notice, server.stderr, re.MULTILINE)) == 1
        assert server.stderr.count("\n") == 2
        wait_until(lambda: len(pipe.read_on()) > 4 << 20, "the lines that were kept")
        get(address, "/last")
        wait_until(lambda: b"GET /last " in pipe.read_on(), "the last line")
    lines = pipe.said.decode("ascii").splitlines()
    assert 4 << 20 < len(pipe.said) < (4 << 20) + (1 << 18)
    assert all(line.endswith('x"') for line in lines[:-1])


def test_a_reader_that_is_stopped_loses_nothing(tmp_path: Path) -> None:
    """While its reader is stopped a log waits for it, and when it goes on it gets every line (fault 16)."""
    fifo, log = tmp_path / "pipe", tmp_path / "log"
    os.mkfifo(fifo)
    with subprocess.Popen(["sh", "-c", 'exec cat < "$0" > "$1"', str(fifo), str(log)]) as reader:
        with start("--access-log", str(fifo)) as server:
            get(server.address)
            reader.send_signal(signal.SIGSTOP)
            try:
                ask(server.address, 2000)
                assert probe(server.address, 5) < PROBE
            finally:
                reader.send_signal(signal.SIGCONT)
            assert server.stop() == 0
        assert reader.wait(TIMEOUT) == 0
    lines = lines_of([log])
    assert len(lines) == 2006
    assert all(line.endswith('"') for line in lines)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_device_has_one_notice(workers: str) -> None:
    """With the access log on a full device every request is 200; a worker says so once (fault 16)."""
    with start("--access-log", "/dev/full", "--workers", workers) as server:
        ask(server.address, 500)
        server.wait_stderr(r"WARNING: The access log /dev/full cannot be written \(No space left on device\)")
        ask(server.address, 500)
        began = len(server.stderr)
        assert server.stop() == 0
    assert 1 <= server.stderr[:began].count("cannot be written") <= int(workers)
    assert sum(map(int, re.findall(r"(\d+) lines were lost", server.stderr))) == 1000


def test_a_full_file_system_loses_nothing_when_there_is_room_again(small_folder: Path) -> None:
    """Lines wait while the file system is full, and none is split or lost once there is room (fault 16)."""
    ballast = small_folder / "ballast"
    ballast.write_bytes(b"x" * ((1 << 20) - 8192))
    log = small_folder / "access.log"
    with start("--access-log", str(log)) as server:
        ask(server.address, 500)
        server.wait_stderr("cannot be written")
        assert probe(server.address, 5) < PROBE
        ballast.unlink()
        wait_until(lambda: log.read_text("ascii").count("\n") == 505, "every line")
    assert all(
        re.fullmatch(r'127\.0\.0\.1 - - \[.*\] "GET /hello HTTP/1\.1" 200 6 "-" ".*"', line) for line in lines_of([log])
    )
    log.unlink()


def lines_of(files: list[Path]) -> list[str]:
    """The lines of all files."""
    return [line for file in files for line in file.read_text("ascii").splitlines()]


@pytest.mark.parametrize("line_format", ["combined", "json"])
def test_rotation_under_load(tmp_path: Path, line_format: str) -> None:
    """The log is renamed and USR1 sent 100 times under load: as many lines as requests, none split (fault 17)."""
    log = tmp_path / "access.log"
    with start("--access-log", str(log), "--access-log-format", line_format, "--workers", "2") as server:
        asked: list[int] = []
        ended = threading.Event()
        old: list[Path] = []

        def load() -> None:
            while not ended.is_set():
                ask(server.address, PIPELINED)
                asked.append(PIPELINED)

        def rotate() -> None:
            try:
                for number in range(100):
                    old.append(log.rename(tmp_path / f"access.log.{number}"))
                    server.signal(signal.SIGUSR1)
                    wait_until(log.exists, "the log is there again")
            finally:
                ended.set()

        run_together(load, load, rotate)
        assert server.stop() == 0
    lines = lines_of([*old, log])
    assert len(lines) == sum(asked) > 1000
    if line_format == "json":
        assert {json.loads(line)["status"] for line in lines} == {200}
    else:
        whole = re.compile(r'127\.0\.0\.1 - - \[[^]]*\] "GET /hello HTTP/1\.1" 200 6 "-" "x{500}"')
        assert all(whole.fullmatch(line) for line in lines)


def test_usr1_to_every_process(tmp_path: Path) -> None:
    """USR1 that is sent to workers too, as by pkill, ends none of them."""
    log = tmp_path / "access.log"
    with start("--access-log", str(log), "--workers", "2") as server:
        wait_until(lambda: len(children(server.pid)) == 2, "two workers")
        workers = children(server.pid)
        log.rename(tmp_path / "old")
        for pid in (*workers, server.pid):
            os.kill(pid, signal.SIGUSR1)
        wait_until(log.exists, "the log is there again")
        assert get(server.address)[0] == 200
        assert children(server.pid) == workers


def test_nothing_is_lost_at_the_end(tmp_path: Path) -> None:
    """TERM right after the last answer: every request is in the log (fault 5)."""
    log = tmp_path / "access.log"
    for number in range(1, 4):
        with start("--access-log", str(log), "--workers", "2") as server:
            ask(server.address, 200)
            assert server.stop() == 0
        assert len(lines_of([log])) == 200 * number


def test_tracebacks_of_processes_and_threads_do_not_mix() -> None:
    """Each fault of an application is one piece of the error log, whatever fails at the same time."""
    with start("--workers", "2", "--threads", "4") as server:
        began = len(server.stderr)
        run_together(*(partial(ask_to_fail, server.address, 25, f"/fail/{name}") for name in "abcd"))
        wait_until(lambda: server.stderr.count("ValueError: failed") == 100, "the faults are logged")
    events = re.split(r"(?m)^(?=\d{4}-)", server.stderr[began:])[1:]
    assert len(events) == 100
    for event in events:
        assert re.fullmatch(
            r"\S+ wizgy\[\d+\] ERROR: \[\S+\] GET /fail/([a-d]): The application failed\.\n"
            r"Traceback \(most recent call last\):\n(  .*\n)+ValueError: failed \1\n",
            event,
        ), event
