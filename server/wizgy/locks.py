"""How threads wait for each other here, without a way to wait for themselves.

A finalizer (``__del__``, a callback of a weak reference) runs in whatever thread the cyclic collector runs in, at any
allocation or call. A handler of a signal runs between two instructions of the main thread. Both are the application's,
and both may log, or use anything else that wizgy gives to applications. A plain lock that is held at that moment by
the same thread would never be released.

Rules for all of the server, held by ``tests/unit/test_locks.py``:

- What applications, finalizers and handlers can reach takes an `RLock`, and is written so that another whole call may
  happen in the middle of it: nothing is half changed where Python code can run. Or it takes no lock at all:
  `deque.append` and `deque.popleft` are atomic, and so is taking a plain lock without waiting.
- Who sleeps looks for work after it has said that it sleeps; who brings work looks for sleepers after it has brought
  it. Then one of the two sees the other, whatever happens in between.
- A wake-up is kept until the sleeper takes it (`Wakeup`). `threading.Condition` and `threading.Event` do neither: they
  hold a plain lock inside, and what `notify` tells before the other thread waits is lost.
"""

from __future__ import annotations

from wizgy.primitives import Lock, RLock


class Wakeup:
    """Wakes one thread that waits. A wake-up that comes before the waiting ends the next one at once.

    Args:
        lock: one that the waiting thread holds, once, and that is free while it waits; None for none.
    """

    def __init__(self, lock: RLock | None = None) -> None:
        self._lock = lock
        self._token = Lock()  # free when there is a wake-up to take
        self._token.acquire()

    # Any thread may call it, also from a finalizer or a handler that interrupts `wait`.
    def set(self) -> None:
        """Wake the thread that waits, or the next one that will."""
        release(self._token)

    def wait(self, timeout: float = -1) -> bool:
        """Wait for a wake-up, and take it.

        Args:
            timeout: the most seconds to wait; without it there is no end.

        Returns:
            Whether there was one in time.
        """
        if self._lock is None:
            return self._token.acquire(timeout=timeout)
        self._lock.release()
        try:
            return self._token.acquire(timeout=timeout)
        finally:
            self._lock.acquire()


class Latch:
    """Is set once, for all threads that wait for it."""

    def __init__(self) -> None:
        self._is_set = False
        self._gate = Lock()  # free once it is set, but for a moment in which one of the waiting passes
        self._gate.acquire()

    # Any thread may call it, also from a finalizer or a handler.
    def set(self) -> None:
        """End the waiting of all threads, for good."""
        self._is_set = True
        release(self._gate)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, for so many seconds at most; returns whether it is."""
        # A handler that interrupts this below the first line finds it set, and does not come to the gate.
        if not self._is_set and self._gate.acquire(timeout=-1 if timeout is None else max(timeout, 0.0)):
            release(self._gate)
        return self._is_set


class Counter:
    """Counts from 1 and loses nothing. ``+=`` does where threads run at once, and `itertools.count` until 3.14."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._count = 0

    # Any thread may call it.
    def next(self) -> int:
        """The next number, which nobody else gets."""
        with self._lock:
            self._count = count = self._count + 1
            return count


def release(lock: Lock) -> None:
    """Release a lock, if it is held."""
    try:
        lock.release()
    except RuntimeError:
        pass
