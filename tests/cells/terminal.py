"""A command on a pseudo-terminal: what it draws, its keys, its size."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

INTERRUPT = b"\x03"
"""What Ctrl-C sends: the terminal makes SIGINT of it, for each process in front."""

HOLD = b"\x13"
"""What Ctrl-S sends: the terminal takes nothing more, until Ctrl-Q or Ctrl-C."""

TAKE_TERMINAL = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A program that makes the terminal its own, as a shell does, and becomes another."""

SECONDS = 60.0
"""How long anything may take, on a machine that is busy."""

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A terminal with a command that runs in it.

    Args:
        command: the program and its arguments.
        directory: where it runs.
        rows: the height of the terminal.
        columns: its width.
        variables: its environment.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        *,
        rows: int = 24,
        columns: int = 100,
        variables: dict[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command],
            cwd=directory,
            env={**os.environ, "TERM": "xterm", **(variables or {})},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.output = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        """What was written, without colours and movements."""
        return CONTROL.sub("", self.output).replace("\r", "")

    def resize(self, rows: int, columns: int) -> None:
        """Change the size, which the kernel tells the processes in front."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def wait_for(self, pattern: str, seconds: float = SECONDS) -> re.Match[str]:
        """Wait until what was written holds a pattern."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            assert self._read(deadline - time.monotonic()), f"{pattern!r} was not written, but:\n{self.text}"
        return found

    def wait_for_more(self, start: int, pattern: str, seconds: float = SECONDS) -> str:
        """Wait until what was written from a place on holds a pattern, movements among it; return all from there."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.output[start:], re.DOTALL):
            assert self._read(deadline - time.monotonic()), (
                f"{pattern!r} was not written, but:\n{self.output[start:]!r}"
            )
        return self.output[start:]

    def wait(self, seconds: float = SECONDS) -> int:
        """Wait until the command has ended; return its exit status."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            pass
        assert time.monotonic() < deadline, f"it did not end within {seconds:g} s, but wrote:\n{self.text}"
        return self.process.wait(max(deadline - time.monotonic(), 0.1))

    def _read(self, seconds: float) -> bool:
        """Read what is written next; say whether there was more, in time."""
        if seconds > 0 and select.select([self._master], [], [], seconds)[0]:
            with suppress(OSError):  # how Linux says that no process has the terminal any more
                data = os.read(self._master, 65536)
                self.output += data.decode("utf-8", "replace")
                return bool(data)
        return False


def wait_gone(pid: int, seconds: float = 10.0) -> bool:
    """Wait until a process has ended, even one that is no child; say whether it has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)
