"""What the supervisor knows of one worker process, and how it is ended."""

from __future__ import annotations

import os
import signal
from enum import Enum
from typing import Final

from wizgy.generation import Generation
from wizgy.link import Link, Order
from wizgy.primitives import monotonic
from wizgy.signals import name_of

KILL_AFTER: Final = 2.0
"""Seconds that a worker gets on top of the graceful timeout."""
SHOW_STACKS: Final = signal.SIGUSR2
"""Has a worker write the stacks of its threads to standard error while none of them can run. Where one does run, its
stack may change meanwhile and the process may crash; and where nobody reads standard error it waits."""
LONGEST_PAUSE: Final = 2
"""Ticks of the supervisor in which a worker whose main thread can run says something."""
TIME_TO_SHOW: Final = 1.0
"""Seconds for that, before a worker that is stuck is killed."""


class Stage(Enum):
    """What a worker is doing, in this order."""

    STARTING = "loads the application"
    READY = "serves"
    RETIRING = "serves until a successor is ready"
    DRAINING = "finishes what it has begun, and ends"
    KILLED = "was given up, which has been said"


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
        mute: ticks of the supervisor since it last said anything. Ticks are counted, and not seconds, so that time in
            which the supervisor was stopped as well, as in a paused container, is not held against it.
        silent: ticks since it last said something else than that its engine does not work.
        was_ready: whether it has ever served.
        accepts: whether it may take new connections still.
        has_said_why: whether it has told itself why it ends.
        has_ended: whether its process is gone; the id may be that of another one by now.
    """

    def __init__(self, pid: int, link: Link, generation: Generation) -> None:
        self.pid = pid
        self.link = link
        self.generation = generation
        self.stage = Stage.STARTING
        self.started = monotonic()
        self.kill_at: float | None = None
        self.mute = self.silent = 0
        self.was_ready = False
        self.accepts = True
        self.has_said_why = False
        self.has_ended = False
        self._is_to_reopen = False

    @property
    def serves(self) -> bool:
        """Whether it is ready, and not told to finish."""
        return self.stage in (Stage.READY, Stage.RETIRING)

    @property
    def reads_orders(self) -> bool:
        """Whether it does what it is told, as far as is known."""
        return self.was_ready and self.mute <= LONGEST_PAUSE

    def ready(self) -> None:
        """It serves from now on."""
        self.stage = Stage.READY
        self.was_ready = True
        if self._is_to_reopen:
            self.link.send(Order.REOPEN)

    def reopen(self) -> None:
        """Have it go on with new files of its logs; while it loads no order may reach it (`Link.watch`)."""
        if self.was_ready:
            self.link.send(Order.REOPEN)
        else:
            self._is_to_reopen = True

    def retire(self) -> None:
        """Have it finish: a successor takes the new connections."""
        self.finish()
        self.link.send(Order.RETIRE)

    def leave(self) -> None:
        """Have it make way for a successor that is yet to start."""
        if self.stage is Stage.STARTING:
            self.stop()
        else:
            self.finish()
            self.link.send(Order.LEAVE)

    def finish(self) -> None:
        """It does finish, whoever has told it to."""
        self._drain_within(self.generation.config.graceful_timeout)

    def stop(self) -> None:
        """Have it finish soon, as there may be no successor. One that still loads has promised nothing, and ends."""
        config = self.generation.config
        if self.stage is Stage.STARTING:
            self.accepts = False
            self._drain_within(0.0)
        else:
            self._drain_within(config.drain_delay + config.graceful_timeout)
        self.signal(signal.SIGTERM)

    def kill(self, after: float = 0.0) -> None:
        """Give it up. It is dead in the end, whatever state it is in."""
        if self.stage is not Stage.DRAINING or self.was_ready:  # else nobody has waited for it any more
            self.stage = Stage.KILLED
        if after:
            self.kill_at = monotonic() + after
        else:
            self.kill_at = None
            self.signal(signal.SIGKILL)

    def show_stacks(self) -> None:
        """Have it log the stacks of its threads."""
        if self.reads_orders:
            self.link.send(Order.SHOW)
        else:
            self.signal(SHOW_STACKS)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, as long as the process is not reaped: until then the id is its own."""
        if not self.has_ended:
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
        memory: whether it was the kernel that killed it, for want of memory.
    """
    if exit_code >= 0:
        return f"exited {exit_code}"
    if memory:
        return "was killed by the kernel because memory ran out; raise the limit, or run fewer workers or threads"
    return f"was killed by {name_of(-exit_code)}"
