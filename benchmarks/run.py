"""All the measurements of a run, in turns, kept one by one so that a run that was stopped goes on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.figures import rotate
from benchmarks.load import wrk_command
from benchmarks.measure import Measurement, Settings, measure, shorten
from benchmarks.servers import APPS, EXTRA, Contender, SetupError, environment_of, pinned
from benchmarks.workloads import THREADS, WORKLOADS, Workload
from matrix.manifest import ROOT
from matrix.processes import command_of

GIVE_UP_AFTER = 2
"""Failures after which a server is not tried again under a workload."""


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


class Journal:
    """A file of JSON lines: what a run is, then each measurement as soon as it is made."""

    def __init__(self, path: Path, facts: dict[str, Any], measurements: list[Measurement]) -> None:
        self.path = path
        self.facts = facts
        self.measurements = measurements

    @classmethod
    def begin(cls, path: Path, facts: dict[str, Any]) -> Journal:
        """Start a new one in place of an old one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        return cls(path, facts, [])

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Go on with one; a line that was cut off is forgotten.

        Raises:
            OSError: there is none.
            ValueError: it is no journal.
        """
        first, *rest = path.read_text(encoding="utf-8").split("\n")
        measurements = [Measurement(**json.loads(line)) for line in rest if line.endswith("}")]
        journal = cls(path, json.loads(first), measurements)
        lines = [json.dumps(journal.facts), *(json.dumps(each.as_json()) for each in measurements)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return journal

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement."""
        self.measurements.append(measurement)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(measurement.as_json()) + "\n")

    def done(self) -> set[tuple[int, str, str]]:
        """Return which measurements are there already."""
        return {(each.turn, each.workload, each.server) for each in self.measurements}

    def hopeless(self) -> set[tuple[str, str]]:
        """Return the workloads and servers that failed so often that another try is a waste."""
        failures = Counter((each.workload, each.server) for each in self.measurements if each.problem)
        return {pair for pair, count in failures.items() if count >= GIVE_UP_AFTER}


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


def good(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Return the measurements that have figures."""
    return [each for each in measurements if not each.problem]


def by_turn(
    measurements: Iterable[Measurement], workload: str, server: str, what: Callable[[Measurement], float]
) -> dict[int, float]:
    """Return one figure of a server under a workload for each round that has it."""
    return {each.turn: what(each) for each in good(measurements) if each.workload == workload and each.server == server}


def problem_of(measurements: Sequence[Measurement], workload: str, server: str) -> str:
    """Return why a server has no figures under a workload; empty when it has."""
    ours = [each for each in measurements if each.workload == workload and each.server == server]
    if not ours:
        return "not measured"
    return "" if good(ours) else ours[-1].problem


__all__ = ["APPS", "WORKLOADS", "Journal", "Plan", "by_turn", "carry_out", "describe", "good", "problem_of"]
