"""Servers that a test may harm: it stops them, or lets the application do what may end or confuse them.

Such a server is started like the one under test, with the same command in the same environment. Where only a URL is
known, nothing can be started, and the tests that need it are skipped with that reason.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from matrix.children import MARK
from matrix.manifest import Server
from matrix.processes import Launch, Running
from tests.harness.frameworks import Framework
from tests.harness.target import Target

START_SECONDS = 30.0
STOP_SECONDS = 3.0
"""Seconds for a server to end after SIGTERM: its application has work for a second."""

GONE_SECONDS = 1.0
"""Seconds for processes of the application to end after the server."""

LOG_SECONDS = 1.0
"""Seconds until a line that was written has to be in the log."""


@dataclass(frozen=True)
class End:
    """How a server ended at SIGTERM: its exit status, None when it had to be killed, and all that was logged."""

    status: int | None
    log: str


class OwnServer:
    """A server of a test's own, which answers.

    `target` is where, for requests; `harmed` says that no other test may use it.
    """

    def __init__(self, running: Running, framework: Framework) -> None:
        self.target = Target(running.url, framework)
        self.harmed = False
        self._running = running
        self._members = set(group_members(self.group))

    @property
    def group(self) -> int:
        """The process group of the server and all that it started."""
        return self._running.pid

    def wait_log(self, pattern: str) -> re.Match[str]:
        """Wait until the log has a match of a pattern."""
        deadline = time.monotonic() + LOG_SECONDS
        while not (found := re.search(pattern, self._running.read_log())):
            assert time.monotonic() < deadline, f"no {pattern!r} in the log:\n{self._running.read_log()[-2000:]}"
            time.sleep(0.01)
        return found

    def stop(self) -> End:
        """Send SIGTERM, wait for the end, and do not yet kill what it left behind."""
        self.harmed = True
        status: int | None = None
        with suppress(subprocess.TimeoutExpired):
            self._running.process.terminate()
            status = self._running.process.wait(STOP_SECONDS)
        return End(status, self._running.read_log())

    def left_over(self) -> list[int]:
        """Return which of its group's processes are still there, after giving them time to end."""
        deadline = time.monotonic() + GONE_SECONDS
        while (left := group_members(self.group)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def port_is_free(self) -> bool:
        """Say whether a server could be started on its port."""
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self.target.host, self.target.port))
                listener.listen(1)
            except OSError:
                return False
        return True

    def usable(self) -> bool:
        """Say whether another test can use it: it runs and answers, and the last test has left no process behind."""
        if self.harmed or self._running.process.poll() is not None or set(group_members(self.group)) != self._members:
            return False
        try:
            return self.target.get("/hello", timeout=2).status_code == 200
        except OSError:
            return False

    def kill(self) -> None:
        """Kill it and all that it started."""
        self._running.kill()


class OwnServers:
    """Starts servers like the one under test; the last one is used again for as long as it works.

    Within a run of the matrix they belong to that run, which ends them when these tests cannot.
    """

    def __init__(self, launch: Launch, framework: Framework, temporary: Path) -> None:
        # Whether what an application prints appears is for the server to see to.
        variables = {name: value for name, value in launch.variables.items() if name != "PYTHONUNBUFFERED"}
        self._launch = replace(launch, variables={**variables, "TMPDIR": str(temporary)})
        self._framework = framework
        self._temporary = temporary
        self._started = 0
        self._current: OwnServer | None = None

    def get(self) -> OwnServer:
        """Return a server that works."""
        if self._current is None:
            self._started += 1
            log = self._temporary / f"server-{self._started}.log"
            running = self._launch.start_answering(log, START_SECONDS, os.environ.get(MARK))
            self._current = OwnServer(running, self._framework)
        return self._current

    def release(self) -> None:
        """Take back the server from a test, and end it unless another test can use it."""
        if self._current and not self._current.usable():
            self._end()

    def close(self) -> None:
        """End whatever runs."""
        if self._current:
            self._current.stop()
            self._end()

    def _end(self) -> None:
        assert self._current is not None
        self._current.kill()
        self._current = None


def read_launch(server: Server, path: Path) -> Launch:
    """Read how a server is started from the file that a run of the matrix wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return Launch(server, tuple(values["command"]), Path(values["directory"]), values["variables"])


def own_launch(server: Server, framework: Framework) -> Launch:
    """Return how wizgy of this tree is started for a framework, with this Python."""
    words = (
        *(sys.executable, "-m", "wizgy", "--chdir", str(framework.directory), "--bind", "127.0.0.1:{port}"),
        framework.application,
    )
    variables = {name: value for name, value in os.environ.items() if not name.startswith("WIZGY_")}
    paths = [str(server.path), variables.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return Launch(server, words, framework.directory, variables)


def group_members(group: int) -> list[int]:
    """Return the processes of a group that have not ended; one that waits for its parent as a zombie has."""
    members = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group, *_ = status.read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(its_group) == group and state != "Z":
                members.append(int(status.parent.name))
    return sorted(members)
