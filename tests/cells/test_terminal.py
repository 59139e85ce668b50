"""The commands on a terminal: they end, they draw, they survive a resize, and a second Ctrl-C ends them."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from matrix import children
from matrix.cells import all_cells
from matrix.manifest import ROOT, load_matrix
from tests.cells.small import World
from tests.cells.terminal import CONTROL, HOLD, INTERRUPT, Terminal

SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"


def small_command(world: World, *arguments: str) -> list[str]:
    """Return the command line of the matrix on the small world."""
    return [sys.executable, "-m", "tests.cells.command", str(world.root), *arguments]


def run_command(world: World, output: Path, *cells: str, options: tuple[str, ...] = ()) -> list[str]:
    """Return the command that runs cells of the small world."""
    names = [world.cell(name).id for name in cells]
    return small_command(world, "run", *names, "--output", str(output), "--suite", "contract", *options)


def results_of(path: Path) -> list[str]:
    """Return the kinds of the records of a file of results."""
    return [json.loads(line)["record"] for line in path.read_text().splitlines()]


def test_run_ends(world: World, tmp_path: Path) -> None:
    """A run on a terminal draws what runs, ends by itself, shows a grid and causes, and gives the cursor back."""
    command = run_command(world, tmp_path / "results.jsonl", "good", "rude", options=("--limit", "3"))
    with Terminal(command, ROOT) as terminal:
        terminal.wait_for(r"plain-1/py\S+ +(environment|control|tests|blame) ")
        status = terminal.wait()

    assert status == 1, terminal.text
    assert re.search(r"rude/plain-1/py\S+ +blame +8 of 8 +2 failed", terminal.text)
    assert re.search(r"1 of 2 cells +\d+\.\d s, about \d+ s left", terminal.text)
    assert "\x1b[1A\x1b[2K" in terminal.output, "nothing was drawn over"
    assert terminal.output.rindex(SHOW_CURSOR) > terminal.output.rindex(HIDE_CURSOR)
    end = terminal.text[terminal.text.index("[2/2]") :]
    assert re.search(r"^ +good +rude\nplain-1 +pass +FAIL$", end, re.MULTILINE)
    assert "what failed, by cause:\n  fail: AssertionError: assert 'X-Rude' not in" in end
    assert re.search(rf"again: .* repro .*{re.escape(world.cell('rude').id)} test_small.py::test_rule", end)


def test_run_in_a_pipe(world: World, tmp_path: Path) -> None:
    """A run in a pipe writes plain lines: no movements, no colours."""
    command = run_command(world, tmp_path / "results.jsonl", "good", "other", options=("--limit", "3"))
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "FORCE_COLOR": "1"})

    assert "\x1b" not in answer.stdout
    assert "\r" not in answer.stdout
    assert answer.stdout.splitlines()[0].startswith("[1/2] ")


def test_resize(world: World, tmp_path: Path) -> None:
    """A run draws on when its terminal becomes narrow, tiny and wide again, and what it draws fits."""
    command = run_command(world, tmp_path / "results.jsonl", "mute", options=("--limit", "8", "--no-blame"))
    with Terminal(command, ROOT) as terminal:
        terminal.wait_for(r"mute/plain-1/py\S+ +tests +\d+ of 8")
        for rows, columns in ((24, 40), (3, 12), (50, 200)):
            before = len(terminal.output)
            terminal.resize(rows, columns)
            drawn = terminal.wait_for_more(before, r"(\x1b\[2K.*?){3}")
            lines = [CONTROL.sub("", line) for line in re.split(r"[\r\n]+", drawn.rpartition("\x1b[2K")[0])]
            assert max(map(len, lines[-2:])) <= max(columns, 100)
        assert terminal.wait() == 1, terminal.text
        assert "[1/1] TIMEOUT" in terminal.text


def test_interrupt(world: World, tmp_path: Path) -> None:
    """Ctrl-C ends a run in order: it says so, keeps what has ended, and the cursor is back."""
    results = tmp_path / "results.jsonl"
    with Terminal(run_command(world, results, "mute"), ROOT) as terminal:
        terminal.wait_for(r"mute/plain-1/py\S+ +tests +\d+ of 8")
        terminal.press(INTERRUPT)
        assert terminal.wait() == 130, terminal.text
        assert "stopped; the same command goes on from here" in terminal.text
        assert terminal.output.rindex(SHOW_CURSOR) > terminal.output.rindex(HIDE_CURSOR)
    assert results_of(results) == ["run", "end"]


def test_second_interrupt(world: World) -> None:
    """A second Ctrl-C ends the command where the first cannot: another run holds what it waits for."""
    lock = world.environment.directory.with_suffix(".lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with Terminal(small_command(world, "run", world.cell("good").id), ROOT) as terminal:
            wait_for_lock(lock)
            terminal.press(INTERRUPT)
            terminal.wait_for("stopping; once more to end at once")
            terminal.press(INTERRUPT)
            assert terminal.wait() == 130, terminal.text
            assert "matrix: ended at once" in terminal.text


def test_second_signal_while_the_terminal_is_held(world: World, tmp_path: Path) -> None:
    """A second signal ends a run all of whose threads are stuck: each wants to write, and Ctrl-S holds the terminal."""
    with Terminal(run_command(world, tmp_path / "results.jsonl", "mute"), ROOT) as terminal:
        run = children.run_of(terminal.process.pid)
        terminal.wait_for(r"mute/plain-1/py\S+ +tests +\d+ of 8")
        terminal.press(HOLD)
        os.kill(terminal.process.pid, signal.SIGTERM)
        os.kill(terminal.process.pid, signal.SIGINT)
        assert terminal.process.wait(60) == 130
        assert not [pid for pid, of in children.marked() if of == run]


def wait_for_lock(path: Path, seconds: float = 60.0) -> None:
    """Wait until a process waits for the lock of a file."""
    deadline, inode = time.monotonic() + seconds, f":{path.stat().st_ino} "
    while time.monotonic() < deadline:
        lines = Path("/proc/locks").read_text().splitlines()
        if any("->" in line and inode in line for line in lines):
            return
    raise AssertionError(f"no process waits for {path}")


def test_list(world: World) -> None:
    """On a terminal `list` counts the cells, shows them as a grid, and says which there are not."""
    with Terminal([sys.executable, "-m", "matrix", "list"], ROOT, columns=60) as terminal:
        assert terminal.wait() == 0
    cells = all_cells(load_matrix())

    lines = terminal.text.splitlines()
    assert lines[0].startswith(f"{len(cells)} cells: ")
    assert re.search(r"^django-6\.1 +3\.12-3\.14 ", terminal.text, re.MULTILINE)
    assert "  Python 3.10, 3.11: django-6.1" in terminal.text
    assert max(len(line) for line in lines[: lines.index("not supported, so there are no cells for:")]) <= 60


def test_list_in_a_pipe() -> None:
    """In a pipe `list` names each cell on a line of its own, and a reader that has enough is no error."""
    words = [sys.executable, "-m", "matrix", "list"]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in answer.stdout.splitlines()] == [cell.id for cell in all_cells(load_matrix())]

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as closed:
        answer = subprocess.run(words, cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (answer.returncode, answer.stderr) == (141, "")


def test_report(world: World, tmp_path: Path) -> None:
    """On a terminal `report` writes its page and says where."""
    results = tmp_path / "results.jsonl"
    assert subprocess.run(run_command(world, results, "good"), cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
    with Terminal([sys.executable, "-m", "matrix", "report", str(results)], ROOT) as terminal:
        assert terminal.wait() == 0, terminal.text

    assert re.search(r"results\.html: [\d,]+ bytes", terminal.text)
    assert (tmp_path / "results.html").read_text().startswith("<!doctype html>")


def test_repro(world: World) -> None:
    """On a terminal `repro` plays a case; Ctrl-C ends it with its server, and a second one is not needed."""
    with Terminal(small_command(world, "repro", world.cell("good").id, "first-case"), ROOT) as terminal:
        assert terminal.wait() == 0, terminal.text
        assert "first-case: pass" in terminal.text
    with Terminal(small_command(world, "repro", world.cell("mute").id), ROOT) as terminal:
        run = children.run_of(terminal.process.pid)
        terminal.wait_for("serving on ")
        terminal.press(INTERRUPT)
        assert terminal.wait() == 130, terminal.text
        assert not [pid for pid, of in children.marked() if of == run]
