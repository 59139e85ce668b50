"""What a server costs: processor time and memory of its whole process tree, and who else used the machine.

Linux only: it reads `/proc`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED = 2


@dataclass(frozen=True)
class Memory:
    """Memory of a process tree in bytes: now, and the most that it can have been.

    Pages that processes share count once. `peak` adds, to what there is now, how far each process has come down from
    its highest; it is exact for one process, and not too low for several.
    """

    now: int
    peak: int


@dataclass(frozen=True)
class Machine:
    """Processor seconds of the whole machine since it started; `stolen` are those that its host gave to others."""

    busy: float
    stolen: float


def process_tree(pid: int) -> list[int]:
    """Return the ids of a process and of all that descend from it, as far as they still run."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        for children in (PROC / str(current) / "task").glob("*/children"):
            waiting += [int(child) for child in _read(children).split()]
    return found


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process tree, that of children that have ended and were waited for among it."""
    return sum(_own_seconds(process) + _reaped_seconds(process) for process in process_tree(pid))


def _own_seconds(pid: int) -> float:
    """Return the processor time of the threads of one process, those that have ended among them.

    By the process's clock, which counts nanoseconds; `/proc/PID/stat` counts hundredths of a second.
    Source: clock_getcpuclockid(3), whose numbers are part of the kernel's interface.
    """
    try:
        return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
    except OSError:
        return 0.0


def _reaped_seconds(pid: int) -> float:
    fields = parse_stat(_read(PROC / str(pid) / "stat"))
    return sum(map(int, fields[13:15])) / TICKS_PER_SECOND


def parse_stat(line: str) -> list[str]:
    """Return the fields of `/proc/PID/stat` after the name, which may itself hold spaces and brackets.

    Field 14 of proc(5), utime, is the one with index 11; an empty line gives no fields.
    """
    return line.rpartition(")")[2].split()


def read_memory(pid: int) -> Memory:
    """Return the memory of a process tree."""
    now = peak = 0
    for process in process_tree(pid):
        proportional = parse_kilobytes(_read(PROC / str(process) / "smaps_rollup")).get("Pss", 0)
        status = parse_kilobytes(_read(PROC / str(process) / "status"))
        now += proportional
        peak += proportional + max(status.get("VmHWM", 0) - status.get("VmRSS", 0), 0)
    return Memory(now, peak)


def parse_kilobytes(text: str) -> dict[str, int]:
    """Return the values of lines like `VmHWM:  1234 kB`, in bytes."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[1] == "kB":
            found[name] = int(words[0]) * 1024
    return found


def read_machine() -> Machine:
    """Return what the processors of the machine have done so far."""
    return parse_machine(_read(PROC / "stat"))


def parse_machine(text: str) -> Machine:
    """Return what the first line of `/proc/stat` says.

    Source: proc(5): user, nice, system, idle, iowait, irq, softirq, steal; the rest is part of the first two.
    """
    values = [int(word) / TICKS_PER_SECOND for word in text.splitlines()[0].split()[1:9]]
    user, nice, system, _, _, irq, softirq, steal = values
    return Machine(busy=user + nice + system + irq + softirq, stolen=steal)


def choose_processors(allowed: Iterable[int], siblings: dict[int, frozenset[int]]) -> tuple[int, int]:
    """Return two processors to pin the server and the load to, on different cores where there are any.

    Args:
        allowed: the processors that this process may use.
        siblings: for each processor those that share its core, itself among them.
    """
    processors = sorted(allowed)
    server = processors[0]
    others = [each for each in processors if each not in siblings.get(server, frozenset({server}))]
    return server, (others or processors)[-1]


def read_siblings(processors: Iterable[int]) -> dict[int, frozenset[int]]:
    """Return which processors share a core."""
    topology = Path("/sys/devices/system/cpu")
    return {
        each: parse_processors(_read(topology / f"cpu{each}" / "topology" / "thread_siblings_list")) | {each}
        for each in processors
    }


def parse_processors(text: str) -> frozenset[int]:
    """Return the numbers of a list like `0-2,8`."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _read(path: Path) -> str:
    """Return the text of a file of /proc; none when its process has ended."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
