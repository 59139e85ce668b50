"""The measurements of a run: kept one by one so that a run that was stopped goes on, and asked for figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Spread, ratios, spread

GIVE_UP_AFTER = 2
"""Failures after which a server is not tried again under a workload."""

DIGITS = 6


@dataclass(frozen=True)
class Measurement:
    """What came of one server under one workload in one round.

    Attributes:
        problem: why there are no figures; empty when there are.
        rate: requests a second.
        p50, p99: seconds until an answer was whole.
        processor: processor seconds of the server's process tree for a request.
        memory: bytes that its process tree took at most.
        server_busy, client_busy: the share of a processor that server and load used.
        others_busy: the processors that anything else on the machine used, or that its host took away.
        more: what this workload alone has.
    """

    workload: str
    server: str
    turn: int
    problem: str = ""
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    processor: float = 0.0
    memory: int = 0
    server_busy: float = 0.0
    client_busy: float = 0.0
    others_busy: float = 0.0
    more: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object: no more digits than mean something, and nothing that is as it always is."""
        nothing = Measurement(self.workload, self.server, self.turn)
        found = {name: value for name, value in asdict(self).items() if value != getattr(nothing, name)}
        found["more"] = {name: _rounded(value) for name, value in self.more.items()}
        named = {"workload": self.workload, "server": self.server, "turn": self.turn}
        return named | {name: _rounded(value) for name, value in found.items() if value != {}}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


What = Callable[[Measurement], float]
"""One figure of a measurement."""


class Results:
    """Facts about a run, and its measurements so far."""

    def __init__(self, facts: dict[str, Any], measurements: list[Measurement]) -> None:
        self.facts = facts
        self.measurements = measurements

    @property
    def reference(self) -> str:
        """The server that the others are compared to: the first one that was asked for."""
        return str(next(iter(self.facts["servers"])))

    @property
    def workloads(self) -> list[str]:
        """Names of the workloads that have been measured, in the order of the plan."""
        measured = {each.workload for each in self.measurements}
        return [name for name in self.facts["workloads"] if name in measured]

    def title(self, server: str) -> str:
        """Return what tables call a server."""
        return str(self.facts["servers"][server]["title"])

    def servers(self, workload: str) -> list[str]:
        """Return the servers that were measured under a workload: the fastest first, those that failed last."""
        measured = {each.server for each in self.measurements if each.workload == workload}
        rates = {name: self.median(workload, name, lambda each: each.rate) for name in self.facts["servers"]}
        return sorted(measured, key=lambda name: -(rates.get(name) or 0.0))

    def by_turn(self, workload: str, server: str, what: What) -> dict[int, float]:
        """Return one figure of a server under a workload for each round that has it."""
        return {
            each.turn: what(each)
            for each in self.measurements
            if each.workload == workload and each.server == server and not each.problem
        }

    def spread(self, workload: str, server: str, what: What) -> Spread | None:
        """Return the median of a figure with its quartiles, None when there is none."""
        return spread(list(self.by_turn(workload, server, what).values()))

    def median(self, workload: str, server: str, what: What) -> float | None:
        """Return the median of a figure."""
        found = self.spread(workload, server, what)
        return found.median if found else None

    def ratio(self, workload: str, over: str, under: str, what: What) -> Spread | None:
        """Return a figure of one server over that of another, round by round."""
        return spread(ratios(self.by_turn(workload, over, what), self.by_turn(workload, under, what)))

    def problem(self, workload: str, server: str) -> str:
        """Return why a server has no figures under a workload; empty when it has."""
        ours = [each for each in self.measurements if each.workload == workload and each.server == server]
        if not ours:
            return "not measured"
        return ours[-1].problem if all(each.problem for each in ours) else ""

    def others_busy(self) -> list[float]:
        """Return how many processors other programs kept busy during each measurement."""
        return [each.others_busy for each in self.measurements if not each.problem]

    def done(self) -> set[tuple[int, str, str]]:
        """Return which measurements are there already."""
        return {(each.turn, each.workload, each.server) for each in self.measurements}

    def hopeless(self) -> set[tuple[str, str]]:
        """Return the workloads and servers that failed so often that another try is a waste."""
        failures = Counter((each.workload, each.server) for each in self.measurements if each.problem)
        return {pair for pair, count in failures.items() if count >= GIVE_UP_AFTER}

    def write(self, path: Path) -> None:
        """Write all of it as one JSON document, a line for each measurement."""
        facts = json.dumps(self.facts, indent=1)
        lines = ",\n".join(json.dumps(each.as_json()) for each in self.measurements)
        path.write_text(f'{{"facts": {facts},\n"measurements": [\n{lines}\n]}}\n', encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what `write` wrote.

        Raises:
            OSError: there is no such file.
            ValueError: it is something else.
        """
        document = json.loads(path.read_text(encoding="utf-8"))
        try:
            return cls(document["facts"], [Measurement(**each) for each in document["measurements"]])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} has no results of a benchmark: {error}") from error


class Journal(Results):
    """Results in a file of JSON lines: the facts, then each measurement as soon as it is made."""

    def __init__(self, path: Path, facts: dict[str, Any], measurements: list[Measurement]) -> None:
        super().__init__(facts, measurements)
        self.path = path

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
        journal = cls.begin(path, json.loads(first))
        for measurement in measurements:
            journal.add(measurement)
        return journal

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement."""
        self.measurements.append(measurement)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(measurement.as_json()) + "\n")
