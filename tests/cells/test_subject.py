"""Servers that somebody else runs: what they are is found out first, and what is printed of them runs them again."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from matrix.cells import find_cell
from matrix.cli import make_parser, make_transport
from matrix.containers import Engine
from matrix.manifest import ROOT, load_matrix
from matrix.results import read_results
from matrix.subject import WrongSubject, recognise
from matrix.suite import Suite
from matrix.transports import again_command
from tests.cells.small import World

Answer = Callable[[socket.socket], None]


def answering(text: bytes) -> Answer:
    """Return what answers each request with these bytes."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(text)

    return answer


def drip(connection: socket.socket) -> None:
    """Answer without end, a byte at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


@contextmanager
def served(answer: Answer) -> Iterator[str]:
    """Serve with something that is no compat app; return its URL."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    answer(connection)
                except OSError:
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


PAGE = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s"

STRANGERS: dict[str, tuple[Answer, str]] = {
    "no such page": (answering(PAGE % (b"404 Not Found", 4, b"gone")), "404 with 'gone'"),
    "a fault": (answering(PAGE % (b"500 Oops", 0, b"")), "500 with ''"),
    "another page": (answering(PAGE % (b"200 OK", 13, b"<html>mine</h")), "200 with '<html>mine</h'"),
    "another app": (
        answering(PAGE % (b"200 OK", 23, b"Hello world from Flask!")),
        "200 with 'Hello world from Flask!'",
    ),
    "a redirection": (answering(PAGE % (b"302 Found", 0, b"")), "302 with ''"),
    "another protocol": (answering(b"SSH-2.0-OpenSSH_9.2\r\n"), "with what is no HTTP (BadStatusLine: "),
    "an answer without end": (drip, "200 with 'xxxxx"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_stranger_is_recognised(world: World, stranger: str) -> None:
    """What serves something else is told by one request: what was asked, what was answered, what is expected."""
    answer, words = STRANGERS[stranger]
    with served(answer) as url, pytest.raises(WrongSubject) as caught:
        recognise(url, world.matrix.frameworks["plain"], 1.0)

    assert str(caught.value).startswith(f"GET {url}/hello was answered {words}")
    assert "; expected 200 with 'Hello world', as compat_apps/plain answers: serve that app" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_serves(world: World) -> None:
    """Where nothing listens it is said to start the server; a URL that is none is refused at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    framework = world.matrix.frameworks["plain"]
    with pytest.raises(WrongSubject, match=r"nothing answered GET http://.*/hello within 0.1 s; start the"):
        recognise(url, framework, 0.1)
    with pytest.raises(WrongSubject, match=r"expected http://HOST:PORT, got 'https://x\.test'"):
        recognise("https://x.test", framework)


def test_server_that_has_only_just_started(world: World) -> None:
    """A server that does not listen yet is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    greeting = answering(PAGE % (b"200 OK", 12, b"Hello world\n"))

    def start() -> None:
        with socket.create_server(("127.0.0.1", port)) as listener:
            connection, _ = listener.accept()
            with connection:
                greeting(connection)

    timer = threading.Timer(0.3, start)
    timer.start()
    recognise(f"http://127.0.0.1:{port}", world.matrix.frameworks["plain"])
    timer.join()


def matrix(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the matrix on the small world."""
    command = [sys.executable, "-m", "tests.cells.command", str(world.root), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_run_against_a_stranger_ends_at_once(world: World, tmp_path: Path) -> None:
    """A run against something else runs no test, says why in a sentence, and ends with status 3."""
    output = str(tmp_path / "results.jsonl")
    with served(STRANGERS["no such page"][0]) as url:
        transport = ["--transport", f"url:{url}"]
        ran = matrix(world, "run", "mine/plain-1", *transport, "--output", output)
        again = matrix(world, "repro", "mine/plain-1", *transport)

    assert ran.returncode == again.returncode == 3
    sentence = f"GET {url}/hello was answered 404 with 'gone'; expected 200 with 'Hello world'"
    assert sentence in ran.stdout
    assert f"matrix: {sentence}" in again.stderr
    assert not read_results(Path(output)).cases


def test_tests_against_a_stranger_end_at_once() -> None:
    """Pytest with `--url` asks the same before it runs a test."""
    with served(STRANGERS["no such page"][0]) as url:
        command = [sys.executable, "-m", "pytest", "tests/contract", "--framework", "flask", "--url", url]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert answer.returncode == 4
    assert f"GET {url}/hello was answered 404 with 'gone'; expected 200 with 'Hello world from Flask!'" in answer.stderr


def printed_commands(text: str) -> list[list[str]]:
    """Return the commands that are said to run a case again, each as words, and once: causes at the end repeat them."""
    return [shlex.split(line) for line in dict.fromkeys(re.findall(r"again: +(.+)$", text, re.MULTILINE))]


def played(world: World, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a printed command, on the small world."""
    assert words[:3] == ["python", "-m", "matrix"]
    return matrix(world, *words[3:])


@pytest.mark.parametrize("transport", ["venv", "url"])
def test_printed_commands_play_what_failed(world: World, tmp_path: Path, transport: str) -> None:
    """Each command that a run prints plays the same case on the same subject, which fails again."""
    output = str(tmp_path / "results.jsonl")
    cell = world.cell("rude")
    options = ["--limit", "77", "--suite", "contract", "--no-blame", "--output", output]
    with world.transport.start(cell) as started:
        where = [] if transport == "venv" else ["--transport", f"url:{started.url}"]
        # The Python of a server that somebody else runs is only a name.
        name = cell.id if transport == "venv" else cell.id.replace("rude", "mine")
        ran = matrix(world, "run", name, *where, *options)
        commands = printed_commands(ran.stdout)
        failed = [case for case in read_results(Path(output)).cases if case.verdict == "fail"]
        whole = shlex.split(read_results(Path(output)).cells[0].reproduce)

        assert ran.returncode == 1, ran.stdout + ran.stderr
        assert commands == [shlex.split(case.reproduce) for case in failed]
        assert len(commands) == 2
        for case, command in zip(failed, commands, strict=True):
            again = played(world, command)
            assert again.returncode == 1, again.stdout + again.stderr
            assert f"{case.id}: FAIL" in again.stdout
            assert printed_commands(again.stdout) == [command]
            assert command[command.index("--limit") + 1] == "77"
        again = played(world, whole)
        assert again.returncode == 1
        assert "8 cases, 2 of them not as expected" in again.stdout


class NoEngine(Engine):
    """Containers, as far as the command line goes."""

    def refuse_missing(self) -> None:
        """Everything is there."""


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--with", "flask==3.1.0", "--with", "a thing @ git+https://x.test/?a=b&c"],
        ["--transport", "url:http://127.0.0.1:8000"],
        ["--transport", "image"],
        ["--transport", "image:registry.example/mine:latest", "--port", "8000"],
        ["--transport", "image:mine", "--limit", "5.5", "--suite", "contract"],
    ],
)
def test_printed_command_has_every_option(words: list[str]) -> None:
    """What a command was given to start a server and to run tests, the command that is printed gives again."""
    known = load_matrix()
    given = make_parser().parse_args(["run", "wizgy/flask-3.1/py3.13", *words])
    transport = make_transport(known, given, NoEngine())
    cell = find_cell(known, "wizgy/flask-3.1/py3.13")
    command = again_command(cell, transport, Suite(limit=given.limit), given.suite)
    read = make_parser().parse_args(shlex.split(command)[3:])

    for option in ("transport", "port", "extra", "limit", "suite"):
        assert getattr(read, option) == getattr(given, option)
    assert read.cell == "wizgy/flask-3.1/py3.13"
