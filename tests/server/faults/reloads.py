"""New code: that works, that does not, and many times."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial

from tests.server.client import children, get, is_alive
from tests.server.faults.case import NOT_THERE, Case, Outcome, Target, elapsed, fault, show_seconds, threads_of
from tests.server.faults.clients import abort_at_random
from tests.server.load import Load

SLOW_IMPORT = "import time; time.sleep({seconds})"


def serves(target: Target, text: str, times: int = 20) -> bool:
    """Whether every one of some requests is answered with a text: more than one worker may be asked."""
    try:
        return all(get(target.address)[1].decode() == text for _ in range(times))
    except OSError:
        return False


@fault(4, "HUP after the application breaks", "the old one keeps serving, no failed request, one traceback per attempt")
def reload_of_a_broken_application(case: Case) -> Outcome:
    """A reload that cannot succeed changes nothing; one that can takes effect."""
    if not case.has_workers:
        return NOT_THERE
    case.write_application("changing", "hello\n")
    target = case.start("changing:app")
    case.wait_workers(target, 2)
    with Load(target.address, pause=0.002) as load:
        case.write_application("changing", "", before="raise RuntimeError('no database')")
        target.signal(signal.SIGHUP)
        ended = elapsed(lambda: target.returncode is not None, case.size(2, 10))
    tracebacks = target.log.count("RuntimeError: no database")
    failed = f"{len(load.failures)} of {load.asked:,} failed"
    if ended is not None:
        return Outcome(False, f"the server ends after {show_seconds(ended)}; {failed}")
    case.write_application("changing", "mended\n")
    target.signal(signal.SIGHUP)
    mended = elapsed(lambda: serves(target, "mended\n"), 20)
    told = f"mended after {show_seconds(mended)}" if mended is not None else "never mended"
    kept = not load.failures and tracebacks == 1 and mended is not None
    return Outcome(kept, f"{failed}; {tracebacks} traceback{'s' if tracebacks != 1 else ''}; {told}")


@fault(6, "20 reloads under load with an application that takes 3 s to import", "0 failed of 100,000 requests")
def reloads_under_load(case: Case) -> Outcome:
    """New workers are ready before old ones stop, for clients that keep connections and for those that do not."""
    if not case.has_workers:
        return NOT_THERE
    seconds = 3 if case.full else 0.3
    reloads, least = case.size(3, 20), case.size(300, 100_000)
    before = SLOW_IMPORT.format(seconds=seconds)
    case.write_application("slow", "hello\n", before)
    target = case.start("slow:app")
    pids = case.wait_workers(target, 2)
    done = 0
    with Load(target.address, clients=2 if case.full else 1, pause=0.0 if case.full else 0.002) as load:
        for _ in range(reloads):
            target.signal(signal.SIGHUP)
            replaced = elapsed(partial(is_replaced, case, target, pids), 40, 0.05)
            if replaced is None:
                break
            done += 1
            pids = case.workers(target)
            elapsed(lambda: target.returncode is not None, seconds)  # others are served meanwhile
        elapsed(lambda: load.asked >= least, 120, 0.1)
    kept = done == reloads and not load.failures and load.asked >= least
    return Outcome(kept, f"{len(load.failures):,} of {load.asked:,} failed in {done} reloads")


def is_replaced(case: Case, target: Target, old: set[int]) -> bool:
    """Whether two workers serve, at least, that are not among the old ones."""
    return len(case.workers(target) - old) >= 2


@fault(18, "10,000 aborts at random points, and 50 reloads", "as many descriptors and threads as before")
def aborts_and_reloads(case: Case) -> Outcome:
    """What goes leaves nothing behind."""
    case.write_application("changing", "hello\n")
    target = case.start("changing:app")
    case.wait_workers(target, 2)
    # What is opened when it is first needed is there after a first round.
    abort_at_random(target.address, 50)
    if not reload(case, target, 1):
        return Outcome(False, "a reload does not come to its end")
    elapsed(lambda: len(case.workers(target)) == 2, 30)
    before = count_resources(case, target)
    abort_at_random(target.address, case.size(300, 10_000), seed=11)
    if not reload(case, target, case.size(2, 50)):
        return Outcome(False, "a reload does not come to its end")
    # Connections that were kept end by the keep-alive timeout, in workers that are gone then.
    settled = elapsed(lambda: not more_than(count_resources(case, target), before), 60, 0.5)
    after = count_resources(case, target)
    figure = f"descriptors {before[0]} → {after[0]}, threads {before[1]} → {after[1]}"
    return Outcome(settled is not None and target.answers(), figure)


def reload(case: Case, target: Target, times: int) -> bool:
    """Reload so many times, one after another, where the server reloads; returns whether each came to its end."""
    for _ in range(times if case.has_workers else 0):
        pids = case.workers(target)
        target.signal(signal.SIGHUP)
        if elapsed(partial(is_replaced, case, target, pids), 30, 0.05) is None:
            return False
    return True


def more_than(after: tuple[int, int], before: tuple[int, int]) -> bool:
    """Whether there are more of anything."""
    return after[0] > before[0] or after[1] > before[1]


def count_resources(case: Case, target: Target) -> tuple[int, int]:
    """The descriptors and threads of all processes of a server; some start threads late, so all are asked first."""
    with suppress(OSError):
        for _ in range(8):
            get(target.address)
    pids = {target.pid, *children(target.pid)} if case.has_workers else {target.pid}
    descriptors = threads = 0
    for pid in filter(is_alive, pids):
        with suppress(OSError):
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        threads += len(threads_of(pid))
    return descriptors, threads
