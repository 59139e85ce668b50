"""The processes that a run starts: each is known until it has ended, and marked, so that none outlives the run.

A process is marked by a variable of its environment, which all that it starts inherits: the run that it belongs to, as
the process id and the start time of that run. So what a killed run has left is found with certainty, and never by name.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

MARK = "MATRIX_RUN"
"""The variable that a process of a run has."""

PREFIX = "matrix-"
"""How the name of a temporary folder begins; the run follows."""

PROCESSES = Path("/proc")

ROUNDS = 50
"""How often marked processes are looked for again: one may start another while it is killed."""

_living: dict[int, subprocess.Popen[Any]] = {}
"""Processes that have not ended, by their ids. It needs no lock, so that a signal handler may read it."""


def this_run() -> str:
    """Return what processes of this run are marked with."""
    return run_of(os.getpid())


def run_of(pid: int) -> str:
    """Return what the processes of a run are marked with: its process id, and when it started."""
    return f"{pid}-{_started(pid) or 0}"


def still_runs(run: str) -> bool:
    """Say whether the process that a mark names still runs."""
    pid, _, started = run.partition("-")
    if not PROCESSES.exists():
        with suppress(ValueError, ProcessLookupError):
            os.kill(int(pid), 0)
            return True
        return False
    return pid.isdecimal() and _started(int(pid)) == started


def start(
    command: Sequence[str],
    *,
    variables: Mapping[str, str],
    output: IO[Any] | int | None,
    errors: IO[Any] | int = subprocess.STDOUT,
    directory: Path | None = None,
    pass_fds: Sequence[int] = (),
    run: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process, marked and in a session of its own; `end` must follow.

    Args:
        command: the program and its arguments.
        variables: its environment, but for the mark.
        output: where its standard output goes.
        errors: where its standard error goes.
        directory: where it works.
        pass_fds: descriptors that it inherits.
        run: the run that it belongs to; default: this one.
    """
    process = subprocess.Popen(
        command,
        cwd=directory,
        env={**variables, MARK: run or this_run()},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    _living[process.pid] = process
    return process


def run(
    command: Sequence[str], *, variables: Mapping[str, str], directory: Path | None = None, seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end and return what it printed.

    Args:
        command: the program and its arguments.
        variables: its environment, but for the mark.
        directory: where it works.
        seconds: how long it may take; None: as long as it likes.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    process = start(command, variables=variables, output=subprocess.PIPE, errors=subprocess.PIPE, directory=directory)
    try:
        printed = process.communicate(timeout=seconds)
    finally:
        status = end(process)
    output, errors = (text.decode("utf-8", "backslashreplace") for text in printed)
    return subprocess.CompletedProcess(command, status, output, errors)


def temporary_directory() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder, with the name that one of this run has."""
    return tempfile.TemporaryDirectory(prefix=temporary_prefix(this_run()), ignore_cleanup_errors=True)


def temporary_prefix(run: str) -> str:
    """Return how the names of the temporary folders of a run begin."""
    return f"{PREFIX}{run}-"


def remove_directories(run: str) -> int:
    """Remove the temporary folders of a run; return how many."""
    found = list(Path(tempfile.gettempdir()).glob(f"{temporary_prefix(run)}*"))
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return sum(not path.exists() for path in found)


def runs_that_ended() -> set[str]:
    """Return the runs that have ended, and of which processes or temporary folders are left."""
    runs = {run for _, run in marked()}
    pattern = re.compile(rf"{PREFIX}(\d+-\d+)-")
    runs |= {found[1] for path in Path(tempfile.gettempdir()).iterdir() if (found := pattern.match(path.name))}
    return {run for run in runs if not still_runs(run)}


def end(process: subprocess.Popen[Any]) -> int:
    """Kill a process and what it started, those that have ended excepted; return the exit status of the process."""
    _kill_group(process.pid)
    status = process.wait()
    _living.pop(process.pid, None)
    return status


def let_go(process: subprocess.Popen[Any]) -> None:
    """Leave a process running when this run ends."""
    _living.pop(process.pid, None)


def end_all() -> None:
    """Kill every process that runs, with what it started. Those that wait for one see it end. Takes no lock."""
    for pid in list(_living):
        _kill_group(pid)


def end_marked(run: str) -> int:
    """Kill every process that is marked as one of a run; return how many. Only Linux says what a process has."""
    killed: set[int] = set()
    for _ in range(ROUNDS):
        found = [pid for pid, of in marked() if of == run and pid != os.getpid()]
        if not found:
            break
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.update(found)
        time.sleep(0.01)  # nothing tells when a process that is no child has ended
    return len(killed)


def marked() -> Iterator[tuple[int, str]]:
    """Return the processes of any run, each with its mark."""
    prefix = f"{MARK}=".encode()
    for path in PROCESSES.glob("[0-9]*/environ"):
        with suppress(OSError):
            values = [value for value in path.read_bytes().split(b"\0") if value.startswith(prefix)]
            if values:
                yield int(path.parent.name), values[0].removeprefix(prefix).decode("ascii", "replace")


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since the machine did; None when it has ended, or nothing tells."""
    try:
        text = (PROCESSES / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may have anything in it. Behind it comes field 3, the state; field 22 is the start.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
