"""All the measurements of a run, in turns, and what a reader of the figures must know."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.figures import rotate
from benchmarks.load import wrk_command
from benchmarks.measure import Settings, measure, shorten
from benchmarks.results import Journal, Measurement
from benchmarks.servers import EXTRA, Contender, environment_of, pinned
from benchmarks.workloads import THREADS, Workload
from matrix.environments import SetupError
from matrix.manifest import ROOT
from matrix.processes import command_of


@dataclass(frozen=True)
class Plan:
    """What a run measures. A contender that is made for certain workloads is measured under those alone."""

    workloads: tuple[Workload, ...]
    contenders: tuple[Contender, ...]
    rounds: int

    def contenders_of(self, workload: Workload) -> list[Contender]:
        """Return who is measured under a workload."""
        return [
            each for each in self.contenders if each.server.name not in EXTRA or each.server.name in workload.servers
        ]

    def rounds_of(self, workload: Workload) -> int:
        """Return how many rounds a workload has."""
        return min(self.rounds, workload.rounds or self.rounds)

    def steps(self) -> Iterator[tuple[int, Workload, Contender]]:
        """Give every measurement in order: all workloads in each round, the servers in another order each time."""
        for turn in range(self.rounds):
            for workload in self.workloads:
                if turn >= self.rounds_of(workload):
                    continue
                contenders = {each.name: each for each in self.contenders_of(workload)}
                for name in rotate(list(contenders), turn):
                    yield turn, workload, contenders[name]


def carry_out(
    plan: Plan,
    settings: Settings,
    journal: Journal,
    *,
    before: Callable[[int, Workload, Contender], None],
    after: Callable[[Measurement | None], None],
) -> None:
    """Make every measurement of a plan that its journal does not have.

    Args:
        plan: what to measure.
        settings: how.
        journal: where measurements are kept.
        before: is told what comes next.
        after: is given what came, None when the server had failed too often to be tried again.
    """
    done = journal.done()
    for turn, workload, contender in plan.steps():
        if (turn, workload.name, contender.name) in done:
            continue
        before(turn, workload, contender)
        if (workload.name, contender.name) in journal.hopeless():
            after(None)
            continue
        measurement = measure(workload, contender, turn, settings)
        journal.add(measurement)
        after(measurement)


def describe(plan: Plan, settings: Settings) -> dict[str, Any]:
    """Return what a reader of the figures must know: machine, versions, command lines."""
    return {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "rounds": plan.rounds,
        "seconds": settings.seconds,
        "threads": THREADS,
        "python": settings.python,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "machine": describe_machine(),
        "processors": {"server": settings.server_processor, "load": settings.load_processor},
        "servers": {each.name: describe_server(each, settings) for each in plan.contenders},
        "workloads": {
            each.name: {
                "title": each.title,
                "servers": [contender.name for contender in plan.contenders_of(each)],
                "rounds": plan.rounds_of(each),
                "command": shorten(
                    " ".join(wrk_command(each, "http://127.0.0.1:PORT", settings.load_processor, settings.seconds))
                ),
            }
            for each in plan.workloads
        },
    }


def describe_machine() -> dict[str, Any]:
    """Return what the machine is."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    wrk = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout
    return {
        "model": model,
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "wrk": (wrk.splitlines() or [""])[0].partition(" Copyright")[0],
        "load_average": round(os.getloadavg()[0], 2),
    }


def describe_server(contender: Contender, settings: Settings) -> dict[str, Any]:
    """Return the version of a server and how it is started; or why it is not."""
    server = contender.server
    command = command_of(
        pinned(contender, settings.server_processor),
        python="python",
        launchers="matrix/launchers",
        host="127.0.0.1",
        port=0,
        application="APP",
        workers=1,
        threads=THREADS,
    )
    facts: dict[str, Any] = {
        "title": contender.title,
        "kind": server.name,
        "command": shorten(" ".join(command)).replace("127.0.0.1:0", "127.0.0.1:PORT").replace(" 0 ", " PORT "),
    }
    try:
        environment = environment_of(server, settings.python)
    except SetupError as error:
        return {**facts, "problem": shorten(str(error))}
    version = environment.version_of(server.distribution) if server.distribution else None
    return {**facts, "version": version or version_of_own(contender), "python": environment.interpreter.version}


def version_of_own(contender: Contender) -> str | None:
    """Return the version of what is installed by no package."""
    if contender.is_wizgy and contender.server.path:
        return commit_of(contender.server.path)
    if contender.server.name == "nginx":
        nginx = subprocess.run(["/usr/sbin/nginx", "-v"], capture_output=True, text=True, check=False)
        return nginx.stderr.strip().rpartition("/")[2] or None
    return None


def commit_of(path: Path) -> str:
    """Return the commit that a source of wizgy is, or the name of its folder, with a `+` when it was changed."""
    if path != ROOT / "server":
        return path.parent.name
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "server"], capture_output=True, text=True, check=False)
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
