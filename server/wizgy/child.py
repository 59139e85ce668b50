"""What the supervisor knows of one worker process, and how it is ended."""

from __future__ import annotations

import os
import signal
from enum import Enum
from time import monotonic
from typing import Final

from wizgy.generation import Generation
from wizgy.link import Link, Order
from wizgy.signals import name_of

KILL_AFTER: Final = 2.0
"""Seconds that a worker gets on top of the graceful timeout."""
SHOW_STACKS: Final = signal.SIGUSR2
"""Has a worker write the stacks of its threads to standard error, even while none of them can run."""
TIME_TO_SHOW: Final = 1.0
"""Seconds for that, before a worker that is stuck is killed."""


class Stage(Enum):
    """What a worker is doing, in this order."""

    STARTING = "loads the application"
    READY = "serves"
    RETIRING = "serves until a successor is ready"
    DRAINING = "finishes what it has begun"
    KILLED = "was given up"


class Child:
    """One worker process.

    Args:
        pid: its process id.
        link: the supervisor's end of the link to it.
        generation: what it was started with.

    Attributes:
        stage: what it is doing.
        started: when it was forked, in seconds of the monotonic clock.
        kill_at: when it is killed if it has not ended by then, or None.
        silent: ticks of the supervisor since it last said something. Ticks are counted, and not seconds, so that
            time in which the supervisor was stopped as well, as in a paused container, is not held against it.
        accepts: whether it may take new connections still.
    """

    def __init__(self, pid: int, link: Link, generation: Generation) -> None:
        self.pid = pid
        self.link = link
        self.generation = generation
        self.stage = Stage.STARTING
        self.started = monotonic()
        self.kill_at: float | None = None
        self.silent = 0
        self.accepts = True

    @property
    def serves(self) -> bool:
        """Whether it is ready, and not told to finish."""
        return self.stage in (Stage.READY, Stage.RETIRING)

    def retire(self) -> None:
        """Have it finish: a successor takes the new connections."""
        self._drain_within(self.generation.config.graceful_timeout)
        self.link.send(Order.RETIRE)

    def leave(self) -> None:
        """Have it make way for a successor that is yet to start."""
        if self.stage is Stage.STARTING:
            self.kill()
        else:
            self._drain_within(self.generation.config.graceful_timeout)
            self.link.send(Order.LEAVE)

    def stop(self) -> None:
        """Have it finish soon: there may be no successor."""
        config = self.generation.config
        self._drain_within(config.drain_delay + config.graceful_timeout)
        self.signal(signal.SIGTERM)

    def kill(self, after: float = 0.0) -> None:
        """Give it up. It is dead in the end, whatever state it is in."""
        self.stage = Stage.KILLED
        if after:
            self.kill_at = monotonic() + after
        else:
            self.kill_at = None
            self.signal(signal.SIGKILL)

    def show_stacks(self) -> None:
        """Have it write the stacks of its threads to standard error."""
        self.signal(SHOW_STACKS)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; the process is not reaped yet, so the id is still its own."""
        os.kill(self.pid, number)

    def is_stopped(self) -> bool:
        """Whether a signal or a debugger has stopped it (proc(5), "stat")."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read().rpartition(b") ")[2][:1] in (b"T", b"t")
        except OSError:
            return False  # a system without /proc

    def _drain_within(self, seconds: float) -> None:
        self.stage = Stage.DRAINING
        self.kill_at = monotonic() + seconds + KILL_AFTER


def describe_end(exit_code: int, *, memory: bool) -> str:
    """Say how a process ended.

    Args:
        exit_code: the exit status, or the negative number of the signal that killed it.
        memory: whether the kernel has killed for want of memory since the last look.
    """
    if exit_code >= 0:
        return f"exited {exit_code}"
    if memory and exit_code == -signal.SIGKILL:
        return "was killed by the kernel because memory ran out; raise the limit, or run fewer workers or threads"
    return f"was killed by {name_of(-exit_code)}"
