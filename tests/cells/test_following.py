"""Processes of tests that do not end, or not in order: how long they are waited for, and what is left of them."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from matrix import suite
from matrix.results import Case, format_record
from matrix.stop import Stop
from matrix.suite import Suite, SuiteEnd
from tests.cells.terminal import wait_gone

HEAD = """\
import os, subprocess, sys, threading, time
record = os.open(sys.argv[sys.argv.index("--record") + 1], os.O_WRONLY)
def say(text):
    os.write(record, text.encode())
print("process", os.getpid(), flush=True)
"""

CASE = format_record(
    Case(cell="a/b-1/py3.11", id="test_a.py::test_a", kind="contract", verdict="pass", seconds=0, rule="", reproduce="")
)


def follow(script: str, directory: Path, *, limit: float = 60.0, stop: Stop | None = None) -> tuple[SuiteEnd, int]:
    """Follow a process that does what pytest would; return how it ended, and how many cases it told."""
    cases: list[Case] = []
    command = [sys.executable, "-c", HEAD + script]
    end = Suite(limit=limit)._follow(command, directory, cases.append, stop)
    return end, len(cases)


def process_of(end: SuiteEnd) -> int:
    """Return the id of the process that was followed."""
    return int(next(line for line in end.output.splitlines() if line.startswith("process ")).split()[1])


def test_thread_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that have said that all were run have finished, whatever thread they leave; their process is ended."""
    monkeypatch.setattr(suite, "END_SECONDS", 0.5)
    left = "threading.Thread(target=threading.Event().wait).start()"
    end, cases = follow(f"say('{{\"collected\": 1}}\\n' + {CASE!r} + '{{\"finished\": 0}}\\n')\n{left}", tmp_path)

    assert (end.finished, end.status, end.collected, cases) == (True, 0, 1, 1)
    assert wait_gone(process_of(end))


def test_process_that_keeps_the_pipe(tmp_path: Path) -> None:
    """The tests have ended when their process has, even if another has the pipe; that one is ended."""
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], pass_fds=[record])"
    end, _ = follow(f"print('process', {child}.pid, flush=True)\nos._exit(5)", tmp_path)

    assert (end.finished, end.status) == (False, 5)
    assert wait_gone(int(end.output.split()[-1]))


def test_collection_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that are collected without end are ended, with the place where they hang."""
    monkeypatch.setattr(suite, "COLLECT_SECONDS", 0.5)
    hang = "import faulthandler; faulthandler.enable()\ndef load(): time.sleep(600)\nload()"
    end, _ = follow(hang, tmp_path, limit=0.5)

    assert not end.finished
    assert "nothing was heard for 1 s while the tests were collected" in end.output
    assert " in load" in end.output
    assert wait_gone(process_of(end))


def test_tests_that_are_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests from which nothing is heard are ended, even where the recorder does not keep its limit."""
    monkeypatch.setattr(suite, "SLACK", 0.5)
    end, _ = follow("say('{\"collected\": 1}\\n'); time.sleep(600)", tmp_path, limit=0.5)

    assert not end.finished
    assert "nothing was heard for 1 s while tests ran" in end.output


def test_record_that_is_torn(tmp_path: Path) -> None:
    """A record that a killed process has written in part is left out."""
    end, cases = follow(f"say({CASE!r} + {CASE[:40]!r}); os.kill(os.getpid(), 9)", tmp_path)

    assert (end.finished, end.status, cases) == (False, -9, 1)


def test_stop_ends_the_tests(tmp_path: Path) -> None:
    """A stop ends the tests at once, with what they have started; without one, nothing is waited for."""
    stop = Stop()
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    end, _ = follow("time.sleep(600)", tmp_path, stop=stop)

    assert time.monotonic() - began < 30
    assert not end.finished
    assert wait_gone(process_of(end))
