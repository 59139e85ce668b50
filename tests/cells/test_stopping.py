"""Commands that are stopped: they end in time, at any moment, and nothing that they have started outlives them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from matrix import children
from matrix.manifest import ROOT
from tests.cells.small import World

SEED = int(os.environ.get("MATRIX_SEED") or random.SystemRandom().randrange(10**6))
"""What the moments are drawn from; a test that fails shows it."""

MOMENTS = 20

LONGEST = 8.0
"""Seconds within which a command of these tests has passed through nearly all that it does."""

STOP_SECONDS = 5.0

BUSY = 3.0
"""How much longer anything may take on a machine that is busy."""


@contextmanager
def command(world: World, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command of the matrix on the small world."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cells.command", str(world.root), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    run = children.run_of(process.pid)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        children.end_marked(run)
        children.remove_directories(run)


def run_arguments(world: World, output: Path, *cells: str) -> list[str]:
    """Return the arguments of a run of some cells of the small world, two at a time."""
    names = [world.cell(*name.split("/")).id for name in cells]
    return ["run", *names, "--output", str(output), "--jobs", "2", "--limit", "60"]


def left_of(run: str) -> list[str]:
    """Return the processes and folders that are left of a run."""
    processes = [f"process {pid}" for pid, of in children.marked() if of == run]
    folders = Path(tempfile.gettempdir()).glob(f"{children.temporary_prefix(run)}*")
    return processes + [str(folder) for folder in folders]


def wait_started(run: str, word: str, seconds: float = 60.0) -> None:
    """Wait until a process of a run has a word in its command line."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        lines = [Path(f"/proc/{pid}/cmdline") for pid, of in children.marked() if of == run]
        if any(word.encode() in line.read_bytes() for line in lines if line.exists()):
            return
    raise AssertionError(f"no process of the run {run} has {word!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("cell", "phase"),
    [("good/vast", "time.sleep(600)"), ("mute", "servers/mute.py"), ("good", "tests/control"), ("good", "test_hang")],
    ids=["installation", "server", "control", "tests"],
)
def test_each_phase_is_stopped(world: World, tmp_path: Path, number: int, cell: str, phase: str) -> None:
    """A signal ends an installation, a server, a control and tests within 5 seconds, and nothing is left of them."""
    word = {"test_hang": "tests/contract"}.get(phase, phase)
    with command(world, *run_arguments(world, tmp_path / "results.jsonl", cell)) as process:
        run = children.run_of(process.pid)
        wait_started(run, word)
        process.send_signal(number)
        began = time.monotonic()
        output = process.communicate(timeout=STOP_SECONDS * BUSY)[0]

        assert process.returncode == 130, output
        assert time.monotonic() - began < STOP_SECONDS * BUSY
        assert "stopped; the same command goes on from here" in output
        assert left_of(run) == []


@pytest.mark.parametrize("place", range(MOMENTS))
def test_nothing_outlives_a_command(world: World, tmp_path: Path, place: int) -> None:
    """Whenever INT, TERM, or KILL and `clean`, end a command, no process and no folder of it is left."""
    moments = random.Random(f"{SEED} {place}")
    number = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[place % 3]
    moment = moments.uniform(0.0, LONGEST)
    cells = moments.sample(["good", "mute", "rude", "frail", "good/vast"], 3)
    arguments = run_arguments(world, tmp_path / "results.jsonl", *cells)
    if place % 4 == 3:
        arguments = ["repro", world.cell(cells[0].partition("/")[0]).id]
    print(f"MATRIX_SEED={SEED}: {signal.Signals(number).name} after {moment:.3f} s of {' '.join(arguments)}")
    with command(world, *arguments) as process:
        run = children.run_of(process.pid)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait()
            clean(run)
        output = process.communicate(timeout=STOP_SECONDS * BUSY)[0]
        print(output)

        # Before it has begun, Python itself ends it.
        assert "Traceback" not in output or "KeyboardInterrupt" in output
        assert left_of(run) == []


def clean(run: str) -> None:
    """Remove what is left of a run as `clean` does, which also removes what others have left on this machine."""
    if left_of(run):
        assert run in children.runs_that_ended()
    children.end_marked(run)
    children.remove_directories(run)


def test_clean_removes_what_a_killed_run_left(world: World, tmp_path: Path) -> None:
    """`clean` ends the servers and tests of a killed run, removes its folders, and leaves a run that goes on."""
    with (
        command(world, *run_arguments(world, tmp_path / "1.jsonl", "mute")) as killed,
        command(world, *run_arguments(world, tmp_path / "2.jsonl", "mute")) as other,
    ):
        runs = [children.run_of(process.pid) for process in (killed, other)]
        for run in runs:
            wait_started(run, "tests/contract")
        killed.kill()
        killed.wait()
        assert [line.split()[0] for line in left_of(runs[0])].count("process") >= 2

        answer = subprocess.run([sys.executable, "-m", "matrix", "clean"], cwd=ROOT, capture_output=True, text=True)

        assert "process(es)" in answer.stdout, answer.stderr
        assert left_of(runs[0]) == []
        assert left_of(runs[1]) != []
        assert other.poll() is None


def test_repro_is_stopped(world: World) -> None:
    """TERM ends a reproduction with its server and its tests."""
    with command(world, "repro", world.cell("mute").id, "--limit", "60") as process:
        run = children.run_of(process.pid)
        wait_started(run, "tests/contract")
        process.terminate()
        output = process.communicate(timeout=STOP_SECONDS * BUSY)[0]

        assert process.returncode == 130, output
        assert output.endswith("matrix: stopped\n")
        assert left_of(run) == []


def test_kept_server_stays_until_it_is_cleaned(world: World) -> None:
    """A server that is kept outlives its command, and `clean` finds it; a command that is stopped keeps none."""
    with command(world, "repro", world.cell("good").id, "first-case", "--keep") as process:
        run = children.run_of(process.pid)
        assert process.wait(60) == 0
        assert any(line.startswith("process") for line in left_of(run))
        clean(run)
        assert left_of(run) == []
    with command(world, "repro", world.cell("mute").id, "--limit", "60", "--keep") as process:
        run = children.run_of(process.pid)
        wait_started(run, "tests/contract")
        process.terminate()
        process.communicate(timeout=STOP_SECONDS * BUSY)
        assert left_of(run) == []
