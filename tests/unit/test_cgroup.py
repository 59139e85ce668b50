"""What the control group allows, read from files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wizgy.cgroup import count_memory_kills, count_processors

V2 = "0::/service\n"
V1 = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n"


class Tree:
    """A mount of control groups, and the file that names those of a process.

    Args:
        path: an empty folder.
    """

    def __init__(self, path: Path) -> None:
        self.root = path / "cgroup"
        self.own = path / "own"

    def write(self, own: str, files: dict[str, str]) -> None:
        """Write the files, by their paths below the mount."""
        self.own.write_text(own, "ascii")
        for name, text in files.items():
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "ascii")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Control groups on a machine with 16 processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("", {}, 16),
        (V2, {"service/cpu.max": "max 100000\n"}, 16),
        (V2, {"service/cpu.max": "200000 100000\n"}, 2),
        (V2, {"service/cpu.max": "150000 100000\n"}, 2),
        (V2, {"service/cpu.max": "10000 100000\n"}, 1),
        (V2, {"service/cpu.max": "400000 100000\n", "cpu.max": "300000 100000\n"}, 3),
        (V2, {"cpu.max": "300000 100000\n"}, 3),
        (V2, {"service/cpu.max": "9900000 100000\n"}, 16),
        (V2, {"service/cpu.max": "nonsense"}, 16),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "-1\n", "cpu/docker/abc/cpu.cfs_period_us": "100000\n"}, 16),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "250000\n", "cpu/docker/abc/cpu.cfs_period_us": "100000\n"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_processors(tree: Tree, own: str, files: dict[str, str], expected: int) -> None:
    """The processors are those of the affinity, and no more than the least quota on the way up, rounded up."""
    tree.write(own, files)
    assert count_processors(str(tree.root), str(tree.own)) == expected


def test_affinity_counts(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may run on one processor has one, whatever the quota is."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    tree.write(V2, {"service/cpu.max": "400000 100000\n"})
    assert count_processors(str(tree.root), str(tree.own)) == 1


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("", {}, 0),
        (V2, {}, 0),
        (V2, {"service/memory.events": "low 0\nhigh 5\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n"}, 3),
        (V1, {"memory/docker/abc/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"}, 2),
        (V1, {"memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"}, 1),
        (V1, {"memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}, 0),
    ],
)
def test_memory_kills(tree: Tree, own: str, files: dict[str, str], expected: int) -> None:
    """The kernel's count of processes killed for want of memory is found in both versions."""
    tree.write(own, files)
    assert count_memory_kills(str(tree.root), str(tree.own)) == expected


def test_this_machine() -> None:
    """What this machine has is read without an error."""
    assert 1 <= count_processors() <= (os.cpu_count() or 1)
    assert count_memory_kills() >= 0
