"""Whose fault a failing case is: the other servers are asked to serve it too.

A case that no other server passes is the framework's fault, or the case's own; one that all of them pass is the
server's. What servers have said in their own cells of the run is remembered, so that nobody is asked twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

from matrix.cells import Cell, peers_of
from matrix.environments import SetupError
from matrix.manifest import SUITES, Matrix
from matrix.processes import StartError
from matrix.results import Blame, BlamedOn, Case, Verdict
from matrix.stop import Stop
from matrix.suite import CaseName, Selection, Suite
from matrix.transports import NotHere, Transport

MAX_CASES = 60
"""For how many failing cases of a cell the other servers are asked."""

BLAMED: frozenset[Verdict] = frozenset({"fail", "crash", "timeout"})


@dataclass
class Jury:
    """The other servers.

    Args:
        matrix: what there is.
        transport: how they are started.
        suite: the tests.
        stop: set when everything is to end.
    """

    matrix: Matrix
    transport: Transport
    suite: Suite
    stop: Stop
    _heard: dict[tuple[str, CaseName], bool] = field(default_factory=dict)
    _mutex: Lock = field(default_factory=Lock)

    def judge(self, cell: Cell, cases: Sequence[Case]) -> list[Case]:
        """Return the cases of a cell, those that fail with their blame."""
        self._hear(cell, cases)
        failing = {_name(case) for case in cases if case.verdict in BLAMED}
        asked = sorted(failing)[:MAX_CASES]
        if not asked:
            return list(cases)
        passing: dict[CaseName, list[str]] = {name: [] for name in asked}
        blocked: dict[CaseName, list[str]] = {name: [] for name in asked}
        for server in peers_of(self.matrix, cell):
            answers = self._ask(Cell(server.name, cell.version, cell.python), asked)
            for name, passed in answers.items():
                (passing if passed else blocked)[name].append(server.name)
        blames = {name: _blame(cell.server, passing[name], blocked[name]) for name in asked}
        return [replace(case, blame=blames[_name(case)]) if _name(case) in blames else case for case in cases]

    def _ask(self, peer: Cell, names: Collection[CaseName]) -> dict[CaseName, bool]:
        """Return whether a peer passes some cases; a peer that cannot be asked says nothing."""
        unknown = frozenset(name for name in names if (peer.id, name) not in self._heard)
        if unknown and not self.stop:
            cases: list[Case] = []
            kinds = [kind for kind in SUITES if any(name[0] == kind for name in unknown)]
            try:
                self.transport.refuse(peer)
                with self.transport.start(peer) as started:
                    self.suite.run(
                        peer,
                        kinds,
                        cases.append,
                        url=started.url,
                        launch=started.launch,
                        selection=Selection(unknown),
                        stop=self.stop,
                    )
            except (NotHere, SetupError, StartError):
                return {}
            self._hear(peer, cases)
        return {name: self._heard[peer.id, name] for name in names if (peer.id, name) in self._heard}

    def _hear(self, cell: Cell, cases: Sequence[Case]) -> None:
        with self._mutex:
            for case in cases:
                if case.verdict != "skip":  # which says nothing of the server
                    self._heard[cell.id, _name(case)] = case.verdict in ("pass", "stale")


def _name(case: Case) -> CaseName:
    return case.kind, case.id


def _blame(server: str, passing: Sequence[str], failing: Sequence[str]) -> Blame | None:
    if not passing and not failing:
        return None
    on: BlamedOn = "every server" if not passing else "some servers" if failing else "this server only"
    return Blame(on=on, failing=(server, *failing), passing=tuple(passing))
