"""A worker for which there is no memory: a real control group with a limit, and the kernel that kills in it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT
from tests.harness.process import ServerProcess
from tests.server.client import FOLDER, connect, get, is_alive, request, serving_workers, wait_until
from wizgy.supervisor import MEMORY_LOOKS, TICK

MEBIBYTE = 1 << 20
LIMIT = 128 * MEBIBYTE
GROUPS = Path("/sys/fs/cgroup")


class ControlGroup:
    """A control group of version 2 or 1 that may use little memory.

    Raises:
        OSError: this system or container lets nobody make one.
    """

    def __init__(self) -> None:
        unified = (GROUPS / "cgroup.controllers").exists()
        top = GROUPS if unified else GROUPS / "memory"
        self.folder = top / f"wizgy-test-{os.getpid()}"
        if unified and "memory" not in (top / "cgroup.subtree_control").read_text("ascii").split():
            (top / "cgroup.subtree_control").write_text("+memory", "ascii")
        self.folder.mkdir()
        try:
            (self.folder / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(LIMIT), "ascii")
            with suppress(FileNotFoundError):  # a kernel that does not count swap has none here
                swap, most = ("memory.swap.max", 0) if unified else ("memory.memsw.limit_in_bytes", LIMIT)
                (self.folder / swap).write_text(str(most), "ascii")
        except OSError:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove it, once its processes are gone."""
        processes = self.folder / "cgroup.procs"
        wait_until(lambda: not processes.read_text("ascii"), "the control group is empty")
        self.folder.rmdir()


@pytest.fixture
def group() -> Iterator[ControlGroup]:
    """A control group for the server."""
    try:
        made = ControlGroup()
    except OSError as error:
        pytest.skip(f"no control group with a limit of memory can be made here: {error}")
    yield made
    made.remove()


def test_a_worker_without_memory_is_replaced_and_the_log_says_why(group: ControlGroup) -> None:
    """The kernel kills a worker that wants more memory than there is; the log tells this from any other KILL."""
    enter = ["sh", "-c", f'echo $$ > {group.folder}/cgroup.procs && exec "$@"', "sh"]
    server = [sys.executable, "-m", "wizgy", "--chdir", str(FOLDER), "--bind", "127.0.0.1:0", "--workers", "2"]
    with ServerProcess(["served:app"], command=[*enter, *server]) as process:
        process.wait_ready()
        before = serving_workers(process, 2)
        with connect(process.address) as sock:
            sock.sendall(request(f"/eat/{2 * LIMIT // MEBIBYTE}"))
            assert sock.recv(1) == b""
        process.wait_stderr(r"ERROR: Worker \d+ was killed by the kernel because memory ran out; .*takes its place\.$")
        (gone,) = (pid for pid in before if not is_alive(pid))
        assert f"Worker {gone} was killed by the kernel" in process.stderr
        after = serving_workers(process, 2)
        assert gone not in after
        assert get(process.address) == (200, b"hello\n")
        os.kill(min(after), 9)
        process.wait_stderr(rf"ERROR: Worker {min(after)} was killed by SIGKILL; ")


def test_a_program_without_memory_explains_no_later_death(group: ControlGroup, tmp_path: Path) -> None:
    """That the kernel killed a program of the application is no reason to blame it for a KILL by somebody later."""
    (tmp_path / "own.py").write_text(
        "import subprocess, sys\nfrom served import app as served\n\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/program':\n"
        f"        subprocess.run([sys.executable, '-c', 'b\"x\" * {2 * LIMIT}'])\n"
        "    return served(environ, start_response)\n",
        "utf-8",
    )
    enter = ["sh", "-c", f'echo $$ > {group.folder}/cgroup.procs && exec "$@"', "sh"]
    server = [sys.executable, "-m", "wizgy", "--bind", "127.0.0.1:0"]
    path = os.pathsep.join([str(ROOT / "server"), str(FOLDER)])
    command = [*enter, *server]
    environment = {"PYTHONPATH": path}
    with ServerProcess(["own:app"], command=command, directory=tmp_path, environment=environment) as process:
        process.wait_ready()
        (worker,) = serving_workers(process, 1)
        assert get(process.address, "/program") == (200, b"hello\n")
        killed = time.monotonic()
        wait_until(lambda: time.monotonic() - killed > (MEMORY_LOOKS + 1) * TICK, "that is some time ago")
        os.kill(worker, 9)
        process.wait_stderr(rf"ERROR: Worker {worker} was killed by SIGKILL; ")
