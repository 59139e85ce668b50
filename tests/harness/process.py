"""A server as a process of its own: start it, wait until it is ready, signal it, stop it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

from tests.harness.frameworks import ROOT, Framework

READY_LINE = re.compile(r"^wizgy: Serving HTTPS? on (?P<host>\S+) port (?P<port>\d+) \.\.\.", re.MULTILINE)

OUTPUT_TIMEOUT = 0.5
"""Seconds to read what is left in a pipe once the process has ended."""

_Found = TypeVar("_Found")


class ServerProcessError(AssertionError):
    """A server process did not do what was awaited; the message carries its log."""


class ServerProcess:
    """A server process whose output is kept.

    Use it as a context manager: leaving stops the process, with SIGKILL if SIGTERM is not enough.
    The process leads a group of its own, so that its workers can be killed with it.

    Args:
        arguments: What follows `python -m wizgy`, or the whole command if `command` is given.
        command: What comes before the arguments; default: this Python, running wizgy of this tree.
        environment: Variables on top of this process's, less its `WIZGY_*` settings.
        directory: The working directory; default: the repository root.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        command: Sequence[str] = (sys.executable, "-m", "wizgy"),
        environment: Mapping[str, str] | None = None,
        directory: Path = ROOT,
    ) -> None:
        self.command = [*command, *arguments]
        self._popen = subprocess.Popen(
            self.command,
            cwd=directory,
            env=_environment(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self._changed = threading.Condition()
        self._stdout = _Output(self._popen.stdout, self._changed)
        self._stderr = _Output(self._popen.stderr, self._changed)

    @property
    def pid(self) -> int:
        """The process id of the process that was started."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; None while the process runs, negative after a signal killed it."""
        return self._popen.poll()

    @property
    def stdout(self) -> str:
        """What the process has written to standard output so far."""
        return self._stdout.text

    @property
    def stderr(self) -> str:
        """What the process has written to standard error so far."""
        return self._stderr.text

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first ready line; wait with `wait_ready` first."""
        return self.addresses[0]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every ready line so far, in order."""
        return [(found["host"], int(found["port"])) for found in READY_LINE.finditer(self.stderr)]

    def wait_ready(self, timeout: float = 10, *, count: int = 1) -> tuple[str, int]:
        """Wait for `count` ready lines (one per bind) and return the first address."""
        what = f"{count} ready line(s)"
        self._wait_for(what, lambda: len(self.addresses) >= count or None, timeout)
        return self.address

    def wait_stderr(self, pattern: str, timeout: float = 10, *, start: int = 0) -> re.Match[str]:
        """Wait until standard error, from the offset `start` on, has a match of `pattern`.

        To wait for something new, take `len(process.stderr)` before causing it as `start`.
        """
        compiled = re.compile(pattern, re.MULTILINE)
        return self._wait_for(f"{pattern!r} on standard error", lambda: compiled.search(self.stderr, start), timeout)

    def wait_stdout(self, pattern: str, timeout: float = 10) -> re.Match[str]:
        """Wait until standard output has a match of `pattern`."""
        compiled = re.compile(pattern, re.MULTILINE)
        return self._wait_for(f"{pattern!r} on standard output", lambda: compiled.search(self.stdout), timeout)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process that was started, not to its workers."""
        self._popen.send_signal(number)

    def wait(self, timeout: float = 10) -> int:
        """Wait for the process to end by itself and return its exit status."""
        try:
            returncode = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ServerProcessError(self._report(f"still running after {timeout:g} s")) from None
        # A worker that outlives the process holds the pipes open: do not wait for it.
        for output in (self._stdout, self._stderr):
            output.thread.join(OUTPUT_TIMEOUT)
        return returncode

    def stop(self, timeout: float = 10) -> int:
        """Send SIGTERM and return the exit status.

        Raises:
            ServerProcessError: it was still running after `timeout` seconds, and was killed.
        """
        if self.returncode is None:
            self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the process and all that it started; does nothing once they have ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    def _wait_for(self, what: str, find: Callable[[], _Found | None], timeout: float) -> _Found:
        deadline = time.monotonic() + timeout
        with self._changed:
            while (found := find()) is None:
                if self._stderr.ended and self.returncode is not None:
                    ending = f"ended with exit status {self.returncode} before it wrote"
                    raise ServerProcessError(self._report(f"{ending} {what}"))
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise ServerProcessError(self._report(f"did not write {what} within {timeout:g} s"))
                # Output wakes this up; the bound also notices an end that came with no output.
                self._changed.wait(min(remaining, 0.1))
        return found

    def _report(self, problem: str) -> str:
        command = " ".join(self.command)
        return f"the server {problem}\ncommand: {command}\nstandard error:\n{self.stderr}"


def serve_framework(framework: Framework, temporary: Path) -> ServerProcess:
    """Start wizgy for a framework's app on a free port of 127.0.0.1.

    `temporary` is the directory for temporary files, of the server and of the app (its database).
    """
    return ServerProcess(
        ["--chdir", str(framework.directory), "--bind", "127.0.0.1:0", framework.application],
        environment={"TMPDIR": str(temporary)},
    )


class _Output:
    """The text of one pipe, read by a thread so that the server never blocks on a full one."""

    def __init__(self, pipe: IO[bytes], changed: threading.Condition) -> None:
        self.text = ""
        self.ended = False
        self._pipe = pipe
        self._changed = changed
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with self._pipe:
            for line in self._pipe:
                with self._changed:
                    self.text += line.decode("utf-8", "backslashreplace")
                    self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's variables with wizgy importable, its settings unset, and `extra`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WIZGY_")}
    paths = [str(ROOT / "server"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    environment["PYTHONUNBUFFERED"] = "1"
    return {**environment, **extra}
