"""What befalls processes: signals, deaths, and applications that do not load or do not end."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from contextlib import ExitStack, suppress
from functools import partial

from tests.server.client import children, connect, get, is_alive, is_refused, read_answer, request, wait_until
from tests.server.faults.case import (
    FAMILIES_WITH_SIGNALS,
    NOT_THERE,
    Case,
    Outcome,
    Probes,
    Target,
    elapsed,
    fault,
    show_seconds,
)
from tests.server.load import Load

RUNNING = 6
QUEUED = 20


def ask(stack: ExitStack, target: Target, path: str) -> socket.socket:
    """A connection on which a request was sent."""
    sock = stack.enter_context(connect(target.address))
    sock.sendall(request(path))
    return sock


def wait_sleeping(target: Target, count: int) -> None:
    """Wait until so many requests sleep in the application."""
    wait_until(lambda: target.log.count("sleeps in") >= count, f"{count} requests run:\n{target.log}")


def count_answered(socks: list[socket.socket], expected: bytes) -> int:
    """On how many connections the whole answer comes."""
    answered = 0
    for sock in socks:
        try:
            response, content = read_answer(sock)
        except Exception:  # whatever the server did, the request is lost
            continue
        answered += (response.status, content) == (200, expected)
    return answered


@fault(5, "TERM with 6 requests running and 20 queued", "none lost; an idle server ends under 1 s")
def stop_under_load(case: Case) -> Outcome:
    """TERM finishes what runs, and answers what waits."""
    target = case.start(workers=1, threads=RUNNING)
    with ExitStack() as stack:
        slots = 1 if case.server.name == "gunicorn-sync" else RUNNING
        running = [ask(stack, target, "/sleep/1000") for _ in range(RUNNING)]
        wait_sleeping(target, slots)
        queued = [ask(stack, target, "/hello") for _ in range(QUEUED)]
        target.signal(signal.SIGTERM)
        answered = count_answered(running, b"slept\n") + count_answered(queued, b"hello\n")
    lost = RUNNING + QUEUED - answered
    idle = case.start()
    case.wait_workers(idle, 2)
    began = time.monotonic()
    idle.signal(signal.SIGTERM)
    with suppress(AssertionError):
        idle.wait(20)
    seconds = time.monotonic() - began
    return Outcome(lost == 0 and seconds < 1, f"{lost} of {RUNNING + QUEUED} lost; idle exit {show_seconds(seconds)}")


@fault(7, "kill -9 of a worker every second", "only its requests in flight fail; replaced within 1 s plus import")
def killed_workers(case: Case) -> Outcome:
    """A worker's death costs what it was doing, and another takes its place."""
    if not case.has_workers:
        return NOT_THERE
    target = case.start()
    case.wait_workers(target, 2)
    kills, slowest = case.size(3, 60), 0.0
    replaced: float | None = None
    with Load(target.address, clients=2) as load:
        for _ in range(kills):
            began = time.monotonic()
            victim = min(case.workers(target), default=0)
            if not victim:
                break
            os.kill(victim, signal.SIGKILL)
            replaced = elapsed(partial(has_replaced, case, target, victim), 15)
            if replaced is None:
                break
            slowest = max(slowest, replaced)
            time.sleep(max(began + 1 - time.monotonic(), 0.0))
        else:
            replaced = 0.0
        asked = load.asked
    if replaced is None or not load.answered:
        return Outcome(False, "not replaced; the server is gone" if not is_alive(target.pid) else "not replaced")
    figure = f"{len(load.failures)} of {asked:,} failed in {kills} kills; replaced within {show_seconds(slowest)}"
    # Each of the four clients has one request in flight at most, on the worker that is killed.
    kept = len(load.failures) <= 4 * kills and slowest < case.size(5, 2)
    refused = sum("Refused" in failure for failure in load.failures)
    return Outcome(kept and not refused, figure)


def has_replaced(case: Case, target: Target, victim: int) -> bool:
    """Whether two workers serve, of which none is the one that was killed."""
    pids = case.workers(target)
    return victim not in pids and len(pids) == 2


@fault(8, "SIGSTOP of a worker", "no probe over 1 s; replaced within 15 s")
def stopped_worker(case: Case) -> Outcome:
    """A worker that does not run is noticed and replaced; the other serves."""
    if not case.has_workers:
        return NOT_THERE
    target = case.start()
    victim = min(case.wait_workers(target, 2))
    os.kill(victim, signal.SIGSTOP)
    began = time.monotonic()
    probes = Probes()
    limit = case.size(20, 60)
    probes.go_on(target.address, lambda: not is_alive(victim) or time.monotonic() - began > limit)
    seconds = time.monotonic() - began
    replaced = not is_alive(victim) and elapsed(lambda: len(case.workers(target)) == 2, 10) is not None
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGCONT)
    told = f"replaced after {show_seconds(seconds)}" if replaced else f"not replaced in {limit} s"
    return Outcome(replaced and seconds < 15 and not probes.failed and probes.slowest < 1, f"{probes}; {told}")


@fault(
    10,
    "The application raises when it is first imported; it raises only when a worker is replaced",
    "exit 3 with one traceback under 2 s; backs off and stays alive",
)
def application_that_raises(case: Case) -> Outcome:
    """What never worked ends the server; what worked once is tried again."""
    case.write_application("broken", "", before="raise RuntimeError('no database')")
    target = case.start("broken:app", wait=False)
    began = time.monotonic()
    ended = elapsed(lambda: target.returncode is not None, 10)
    seconds = time.monotonic() - began
    tracebacks = target.log.count("RuntimeError: no database")
    first = f"exit {target.returncode} after {show_seconds(seconds)}" if ended is not None else "does not end"
    first_kept = target.returncode == 3 and tracebacks == 1 and seconds < case.size(5, 2)
    figure = f"{first}, {tracebacks} traceback{'s' if tracebacks != 1 else ''}"
    if not case.has_workers:
        return Outcome(first_kept, figure)
    case.write_application("fragile", "hello\n")
    target = case.start("fragile:app", workers=1)
    (worker,) = case.wait_workers(target, 1)
    case.write_application("fragile", "", before="raise RuntimeError('no database')")
    os.kill(worker, signal.SIGKILL)
    ended = elapsed(lambda: target.returncode is not None, case.size(3, 10))
    if ended is not None:
        return Outcome(False, f"{figure}; ends after {show_seconds(ended)} when a replacement fails")
    tries = target.log.count("RuntimeError: no database")
    case.write_application("fragile", "hello\n")
    recovered = elapsed(target.answers, 15)
    told = f"serves again after {show_seconds(recovered)}" if recovered is not None else "never serves again"
    second = f"stays alive, {tries} tries in {case.size(3, 10)} s; {told}"
    return Outcome(first_kept and recovered is not None and tries < 10, f"{figure}; {second}")


@fault(13, "As many slow requests as one worker has threads, all in that worker", "probes go to the other worker")
def full_worker(case: Case) -> Outcome:
    """A worker that can do nothing more leaves what comes to the other."""
    if not case.has_workers:
        return NOT_THERE
    target = case.start()
    case.wait_workers(target, 2)
    with ExitStack() as stack:
        count = 0
        while max(Counter(re.findall(r"sleeps in (\d+)", target.log)).values(), default=0) < 4 and count < 7:
            ask(stack, target, "/sleep/60000")
            count += 1
            wait_sleeping(target, count)
        Probes().during(target.address, 0.3)  # it notices within this time
        probes = Probes().during(target.address, case.size(2, 10))
        target.kill()
    return Outcome(not probes.failed and probes.slowest < 1, str(probes))


@fault(
    15,
    "A thread that loops for ever",
    "the others serve; its stack is logged with the request; the worker is replaced",
)
def endless_request(case: Case) -> Outcome:
    """A request that does not end is answered for, shown, and its worker replaced."""
    target = case.start(settings={"request_timeout": "1"})
    case.wait_workers(target, 2)
    with ExitStack() as stack:
        sock = ask(stack, target, "/loop")
        looping = wait_until(lambda: re.findall(r"loops in (\d+)", target.log), "it loops")
        victim = int(looping[0])
        limit = case.size(15, 45)
        began = time.monotonic()
        sock.settimeout(limit)
        probes = Probes().during(target.address, 2)
        try:
            status = read_answer(sock)[0].status
        except Exception:
            status = 0
        answered = f"{status} after {show_seconds(time.monotonic() - began)}" if status else "no answer"
        gone = elapsed(lambda: not is_alive(victim), max(limit - (time.monotonic() - began), 0.1), 0.1)
    replaced = f"replaced after {show_seconds(time.monotonic() - began)}" if gone is not None else "not replaced"
    shown = "/loop" in target.log and "served.py" in target.log
    target.kill()
    kept = status == 504 and gone is not None and shown and not probes.failed
    return Outcome(kept, f"{answered}; {replaced}; stack {'logged' if shown else 'not logged'}; {probes}")


@fault(19, "100 random signals a second for 10 s", "the right number of workers after it; TERM exits 0")
def random_signals(case: Case) -> Outcome:
    """Signals in any order leave the server as it should be."""
    if case.family not in FAMILIES_WITH_SIGNALS:
        return NOT_THERE
    target = case.start()
    case.wait_workers(target, 2)
    chance = random.Random(19)
    # More workers are taken away than added, or there would be dozens; one always stays.
    numbers = [signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTOU]
    sent = Counter[signal.Signals]()
    for _ in range(case.size(100, 1000)):
        number = chance.choice(numbers)
        with suppress(ProcessLookupError):
            target.signal(number)
        sent[number] += 1
        time.sleep(0.01)
    if elapsed(target.answers, 20) is None:
        return Outcome(False, "does not serve any more")
    # Signals of a kind that wait are one, and below one worker there is none; TTOU brings any number to one.
    for _ in range(sent[signal.SIGTTIN] + 5):
        target.signal(signal.SIGTTOU)
        time.sleep(0.01)
    target.signal(signal.SIGTTIN)
    right = elapsed(lambda: len(case.workers(target)) == 2, 60, 0.2)
    target.signal(signal.SIGTERM)
    try:
        code: int | None = target.wait(40)
    except AssertionError:
        code = None
    workers = "2 workers" if right is not None else f"{len(case.workers(target))} workers"
    return Outcome(right is not None and code == 0, f"{sum(sent.values()):,} signals; {workers}; TERM exits {code}")


@fault(
    20,
    "As process 1; the supervisor is killed",
    "TERM works, orphans are reaped, no zombies; the workers go within 2 s",
)
def first_process(case: Case) -> Outcome:
    """In a container without an init the server is its own, and no worker outlives it."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--pid", "--fork", "true"]).returncode:
        return Outcome(None, "this user may not make a process namespace")
    target = case.start(prefix=["unshare", "--pid", "--fork", "--kill-child"])
    (first,) = children(target.pid)
    with suppress(OSError):
        for _ in range(5):
            get(target.address, "/orphan")
    reaped = elapsed(lambda: not any(is_zombie(pid) for pid in below(first)), 5)
    os.kill(first, signal.SIGTERM)
    ended = elapsed(lambda: target.returncode is not None, 10)
    stopped = f"TERM ends it after {show_seconds(ended)}" if ended is not None else "TERM does not end it"
    told = f"{'orphans reaped' if reaped is not None else 'zombies stay'}; {stopped}"
    if not case.has_workers:
        return Outcome(reaped is not None and ended is not None, told)
    target = case.start()
    pids = case.wait_workers(target, 2)
    os.kill(target.pid, signal.SIGKILL)
    gone = elapsed(lambda: not any(map(is_alive, pids)), 20)
    workers = f"workers gone after {show_seconds(gone)}" if gone is not None else "workers stay"
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    kept = reaped is not None and ended is not None and gone is not None and gone < 2 and is_refused(target.address)
    return Outcome(kept, f"{told}; {workers}")


def below(pid: int) -> set[int]:
    """A process's children, and theirs."""
    try:
        own = children(pid)
    except OSError:
        return set()
    return own.union(*(below(child) for child in own))


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked how."""
    return bool(not is_alive(pid) and os.path.exists(f"/proc/{pid}"))
