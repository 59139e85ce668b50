"""What the control group of this process allows, and whether the kernel killed in it: cgroup v1 and v2.

Nothing here fails: where a file is not there or cannot be read, there is no limit and no count.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst ("cpu.max", "memory.events"), and
Documentation/scheduler/sched-bwc.rst for v1.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Final

ROOT: Final = "/sys/fs/cgroup"
OWN: Final = "/proc/self/cgroup"


def count_processors(root: str = ROOT, own: str = OWN) -> int:
    """How many processors this process may use: those it may run on, and no more than its quota of time.

    Args:
        root: where the control groups are mounted.
        own: the file that names those of this process.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota_v2(folder) for folder in _folders(root, own, "")]
    quotas += [_quota_v1(folder) for folder in _folders(root, own, "cpu")]
    return max(1, math.ceil(min([processors, *quotas])))


def count_memory_kills(root: str = ROOT, own: str = OWN) -> int:
    """How many processes of this control group the kernel has killed because memory ran out.

    Args:
        root: where the control groups are mounted.
        own: the file that names those of this process.
    """
    for controller, name in ("", "memory.events"), ("memory", "memory.oom_control"):
        for folder in _folders(root, own, controller):
            for line in _read(f"{folder}/{name}").splitlines():
                key, _, count = line.partition(" ")
                if key == "oom_kill" and count.isdigit():
                    return int(count)
    return 0


def _folders(root: str, own: str, controller: str) -> Iterator[str]:
    """The folders of this process's group and of those above it; `controller` is empty for v2.

    In a container the path may be that of the host, of which only the top is mounted.
    """
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            mount = os.path.join(root, controller).rstrip("/")
            folder = os.path.normpath(f"{mount}/{path}")
            while folder.startswith(f"{mount}/"):
                yield folder
                folder = os.path.dirname(folder)
            yield mount


def _quota_v2(folder: str) -> float:
    quota, _, period = _read(f"{folder}/cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: str) -> float:
    return _ratio(_read(f"{folder}/cpu.cfs_quota_us").strip(), _read(f"{folder}/cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float:
    """Processors' worth of time; infinite where it is ``max`` or -1, or not there."""
    if quota.isdigit() and period.isdigit() and int(period):
        return int(quota) / int(period)
    return math.inf


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""
