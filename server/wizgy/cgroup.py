"""What the control group of this process allows, and whether the kernel killed in it: cgroup v1 and v2.

Nothing here fails: where a file is not there or cannot be read, there is no limit and no count.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst ("cpu.max", "memory.events"), and
Documentation/scheduler/sched-bwc.rst for v1.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")


def count_processors(root: Path = ROOT, own: Path = OWN) -> int:
    """How many processors this process may use: those it may run on, and no more than its quota of time.

    Args:
        root: where the control groups are mounted.
        own: the file that names those of this process.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota_v2(folder) for folder in _folders(root, own, "")]
    quotas += [_quota_v1(folder) for folder in _folders(root, own, "cpu")]
    return max(1, math.ceil(min([processors, *quotas])))


def count_memory_kills(root: Path = ROOT, own: Path = OWN) -> int:
    """How many processes of this control group the kernel has killed because memory ran out.

    Args:
        root: where the control groups are mounted.
        own: the file that names those of this process.
    """
    for controller, name in ("", "memory.events"), ("memory", "memory.oom_control"):
        for folder in _folders(root, own, controller):
            for line in _read(folder / name).splitlines():
                key, _, count = line.partition(" ")
                if key == "oom_kill" and count.isdigit():
                    return int(count)
    return 0


def _folders(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group and of those above it; `controller` is empty for v2.

    In a container the path may be that of the host, of which only the top is mounted.
    """
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            mount = root / controller
            folder = mount / path.lstrip("/")
            while folder != mount and mount in folder.parents:
                yield folder
                folder = folder.parent
            yield mount


def _quota_v2(folder: Path) -> float:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: Path) -> float:
    return _ratio(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float:
    """Processors' worth of time; infinite where it is ``max`` or -1, or not there."""
    if quota.isdigit() and period.isdigit() and int(period):
        return int(quota) / int(period)
    return math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
