"""No thread waits for itself, and no wake-up is lost: the locks of the server, each with the reason why it is safe."""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT
from wizgy.locks import Counter, Latch, Wakeup

PACKAGE = ROOT / "server" / "wizgy"
WAITING = {"Lock", "allocate_lock", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier", "Timer", "Queue"}
"""What makes a thread wait and is not re-entrant, by its name in `threading`, `_thread` and `queue`."""
LONG = 10.0

NOT_REENTRANT = {
    "connection.py": {"self.claim": "taken without waiting only"},
    "engine.py": {
        "self._turn": "Return: made by the thread that waits for it, and released once, by another",
        "turn": "a standby waits for it, which is in no code of an application; others only release it",
    },
    "locks.py": {
        "self._token": "Wakeup: released by whoever wakes, without waiting",
        "self._gate": "Latch: not waited for once it is set",
    },
    "primitives.py": {
        "self._running": "Thread: waited for by `join` only, which no code of an application calls",
    },
    "sink.py": {"self._claim": "taken without waiting only"},
}
"""Each lock that is not re-entrant, by module and by what it is assigned to, with the reason why nobody waits for
himself there."""


def locks_of(path: Path) -> Iterator[str]:
    """Yield what each lock of a module that is not re-entrant is assigned to, or where it is where it is not."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and has_lock(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (ast.unparse(target) for target in targets)
    calls = sum(is_lock(node) for node in ast.walk(tree))
    assigned = sum(
        is_lock(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        for inner in ast.walk(node.value)
    )
    if calls != assigned:
        yield f"{calls - assigned} that are assigned to nothing"


def has_lock(node: ast.AST) -> bool:
    """Whether a lock is made in an expression."""
    return any(map(is_lock, ast.walk(node)))


def is_lock(node: ast.AST) -> bool:
    """Whether an expression makes a lock that is not re-entrant."""
    if not isinstance(node, ast.Call):
        return False
    made = node.func
    name = made.attr if isinstance(made, ast.Attribute) else made.id if isinstance(made, ast.Name) else ""
    return name in WAITING


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_plain_lock_has_its_reason(path: Path) -> None:
    """A finalizer or a signal handler of an application may run while any lock is held, so locks are re-entrant."""
    known = NOT_REENTRANT.get(path.relative_to(PACKAGE).as_posix(), {})
    assert set(locks_of(path)) <= set(known), "make it an RLock, or say in NOT_REENTRANT why no thread waits for itself"


def test_the_list_of_locks_can_fail(tmp_path: Path) -> None:
    """A lock is found under each of its names, assigned or not."""
    module = tmp_path / "module.py"
    module.write_text(
        "import threading\na = threading.Lock()\nb: object = Event()\nf(Condition())\nc = RLock()\n", "ascii"
    )
    assert sorted(locks_of(module)) == ["1 that are assigned to nothing", "a", "b"]


def test_a_wake_up_before_the_wait_counts() -> None:
    """A wake-up is kept until it is taken, once, however often it was given."""
    it = Wakeup()
    it.set()
    it.set()
    assert it.wait(LONG)
    assert not it.wait(0)


def test_a_wake_up_leaves_the_lock_to_others_meanwhile() -> None:
    """The lock of a wake-up is free while its thread waits, and the thread has it again after that."""
    lock = threading.RLock()
    it = Wakeup(lock)

    def wake() -> None:
        with lock:
            it.set()

    with lock:
        waker = threading.Thread(target=wake)
        waker.start()
        assert it.wait(LONG)
        with pytest.raises(AssertionError), lock:
            raise AssertionError  # it can be taken, and given back
    waker.join(LONG)


def test_a_wake_up_from_within_the_wait_counts() -> None:
    """What a finalizer wakes that interrupts the waiting thread just before it sleeps is not lost."""

    class Interrupted:
        """A lock on whose release something of the application runs."""

        def __init__(self) -> None:
            self.real = threading.RLock()

        def acquire(self) -> bool:
            return self.real.acquire()

        def release(self) -> None:
            it.set()
            self.real.release()

    lock = Interrupted()
    it = Wakeup(lock)  # type: ignore[arg-type]
    lock.acquire()
    assert it.wait(LONG)


def test_a_latch_lets_everybody_pass() -> None:
    """Whoever waits for a latch is let go when it is set, and who comes later does not wait."""
    latch = Latch()
    assert not latch.wait(0)
    passed: list[bool] = []
    threads = [threading.Thread(target=lambda: passed.append(latch.wait(LONG))) for _ in range(5)]
    for thread in threads:
        thread.start()
    latch.set()
    latch.set()
    for thread in threads:
        thread.join(LONG)
    assert passed == [True] * 5
    assert latch.wait()


def test_a_counter_loses_nothing() -> None:
    """Numbers are taken once each, whatever number of threads takes them."""
    counter = Counter()
    taken: list[int] = []
    threads = [threading.Thread(target=lambda: taken.extend(counter.next() for _ in range(5000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert sorted(taken) == list(range(1, 20_001))
