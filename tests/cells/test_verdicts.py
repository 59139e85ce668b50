"""Verdicts and blame: each kind of breakage, on a server or an app that is broken on purpose."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from matrix.cells import Cell
from matrix.jury import Jury
from matrix.progress import describe_cell, describe_failures
from matrix.results import Case, Verdict, exit_status
from matrix.runner import CellResult, CellRunner
from matrix.stop import Stop
from matrix.transports import Started
from tests.cells.small import NO_PYTHON, SmallTransport, World

SERVERS = ("good", "other", "mute", "frail", "rude", "moody", "absent")

Results = dict[str, CellResult]


@pytest.fixture(scope="module")
def results(world: World) -> Results:
    """Every cell that matters, run with blame; the keys are SERVER/APP."""
    stop = Stop()
    runner = CellRunner(
        world.matrix, world.transport, world.suite, stop, jury=Jury(world.matrix, world.transport, world.suite, stop)
    )
    cells = [world.cell(server) for server in SERVERS]
    cells += [world.cell("good", framework) for framework in ("lost", "odd", "wrong")]
    results = {f"{cell.server}/{cell.version.framework}": runner.run(cell) for cell in cells}
    results["nowhere"] = runner.run(world.cell("good", "plain", NO_PYTHON))
    return results


def case_of(result: CellResult, name: str) -> Case:
    """Return one case of a cell."""
    return next(case for case in result.cases if case.id == name)


def unexpected(result: CellResult) -> dict[str, Verdict]:
    """Return the cases that did not come out as expected."""
    return {case.id: case.verdict for case in result.cases if case.verdict not in ("pass", "known")}


def test_everything_as_expected(results: Results) -> None:
    """A cell whose cases all pass has that verdict, and what it was made of."""
    result = results["good/plain"]

    assert result.cell.verdict == "pass"
    assert {case.kind for case in result.cases} == {"contract", "conformance"}
    assert len(result.cases) == 10
    assert case_of(result, "test_small.py::test_hello").section == "RFC 9110 section 9.3.1"
    assert exit_status([result.cell.verdict]) == 0


def test_broken_server_rule(results: Results) -> None:
    """A rule that one server alone breaks is blamed on it."""
    result = results["rude/plain"]
    case = case_of(result, "test_small.py::test_rule")

    assert result.cell.verdict == case.verdict == "fail"
    assert case.blame is not None
    assert case.blame.on == "this server only"
    assert case.blame.failing == ("rude",)
    assert set(case.blame.passing) == {"good", "other", "frail", "mute", "moody"}
    assert exit_status([result.cell.verdict]) == 1


def test_broken_by_two_servers(results: Results) -> None:
    """A rule that some servers break is blamed on those, and on no other."""
    blame = case_of(results["rude/plain"], "test_small.py::test_twins").blame

    assert blame is not None
    assert blame.on == "some servers"
    assert set(blame.failing) == {"rude", "frail"}


def test_broken_route(results: Results) -> None:
    """A route that fails on every server is the framework's fault, or the case's."""
    case = case_of(results["good/lost"], "test_small.py::test_route")

    assert unexpected(results["good/lost"]) == {"test_small.py::test_route": "fail"}
    assert case.blame is not None
    assert case.blame.on == "every server"
    assert not case.blame.passing


def test_stale_deviation(results: Results) -> None:
    """A known deviation that does not happen is stale, and fails the run."""
    result = results["other/plain"]
    case = case_of(result, "test_small.py::test_rule")

    assert unexpected(result) == {"test_small.py::test_rule": "stale"}
    assert case.deviation is not None
    assert case.deviation.reason == "It was so once."
    assert exit_status([result.cell.verdict]) == 1


def test_known_deviation(results: Results) -> None:
    """A known deviation that happens is as expected, and says why it is accepted."""
    result = results["good/odd"]
    case = case_of(result, "test_small.py::test_odd")

    assert result.cell.verdict == case.verdict == "known"
    assert case.deviation is not None
    assert case.deviation.link == "https://example.test/odd"
    assert exit_status([result.cell.verdict]) == 0


def test_broken_app(results: Results, world: World) -> None:
    """An app that breaks PEP 3333 in process is an app-error, and no server is asked."""
    result = results["good/wrong"]

    assert result.cell.verdict == "app-error"
    assert unexpected(result) == {"test_control.py::test_control": "app-error"}
    blame = case_of(result, "test_control.py::test_control").blame
    assert blame is not None
    assert blame.on == "app"
    assert "fails 1 of 1 controls" in result.cell.explanation
    assert not [cell for cell in world.transport.started if "wrong" in cell]


def test_crash(results: Results) -> None:
    """A case that ends the server is a crash of that case; the others run on a new one."""
    result = results["frail/plain"]
    case = case_of(result, "test_small.py::test_crash")

    assert unexpected(result) == {"test_small.py::test_crash": "crash", "test_small.py::test_twins": "fail"}
    assert len(result.cases) == 10
    assert "no longer answered" in case.explanation
    assert "I am not well" in case.log
    assert case.blame is not None
    assert case.blame.on == "this server only"


def test_timeout(results: Results) -> None:
    """A case that does not end is cut, and is a timeout; the others still run."""
    result = results["mute/plain"]

    assert unexpected(result) == {"test_hang.py::test_hang": "timeout"}
    assert len(result.cases) == 10
    assert "did not end within 3 s" in case_of(result, "test_hang.py::test_hang").explanation


def test_unstable_case(results: Results) -> None:
    """A case that fails, and passes when it is played again, is a failure that is said to be unstable."""
    case = case_of(results["moody/plain"], "test_small.py::test_moody")

    assert unexpected(results["moody/plain"]) == {"test_small.py::test_moody": "fail"}
    assert case.explanation.startswith("unstable, it passes when it is played again alone: ")
    assert not case_of(results["rude/plain"], "test_small.py::test_rule").explanation.startswith("unstable")


def test_server_that_does_not_start(results: Results) -> None:
    """A server that does not start is a setup-error with its log, and exit status 3."""
    result = results["absent/plain"]

    assert result.cell.verdict == "setup-error"
    assert "no such thing" in result.cell.explanation
    assert exit_status([result.cell.verdict]) == 3


def test_server_that_does_not_go_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong when a server is removed is a warning of its cell, whose verdict stays."""

    @contextmanager
    def start(cell: Cell) -> Iterator[Started]:
        with SmallTransport.start(world.transport, cell) as started:
            yield started
        started.warnings.append("docker compose down failed with status 1:\nstuck")

    monkeypatch.setattr(world.transport, "start", start)
    runner = CellRunner(world.matrix, world.transport, world.suite, Stop(), kinds=("conformance",))
    result = runner.run(world.cell("good"))

    assert result.cell.verdict == "pass"
    assert result.cell.warnings == ("docker compose down failed with status 1:\nstuck",)
    assert "warning: stuck" in describe_failures(result)


def test_python_that_is_not_here(results: Results) -> None:
    """A cell whose Python is not on the machine is skipped, and says what to do."""
    result = results["nowhere"]

    assert result.cell.verdict == "skip"
    assert f"no Python {NO_PYTHON} is on this machine" in result.cell.explanation


def test_wire_of_a_failure(results: Results) -> None:
    """A failing case of a client library has the bytes that went over the wire."""
    exchange = case_of(results["rude/plain"], "test_small.py::test_rule").exchange

    assert exchange is not None
    assert exchange.events[0].data.startswith("GET /rule HTTP/1.1\r\n")
    assert "X-Rude: 1" in "".join(event.data for event in exchange.events if event.kind == "received")


def test_what_a_person_reads(results: Results) -> None:
    """A failing cell says in a few lines what failed, whose fault it seems to be, and how to see it again."""
    output = io.StringIO()
    result = results["rude/plain"]
    print(describe_cell(result), *describe_failures(result), sep="\n", file=output)

    assert "FAIL        rude/plain-1/py" in output.getvalue()
    assert "fail: test_small.py::test_rule [this server only]: The server keeps the rule." in output.getvalue()
    assert "again: python -m matrix repro --limit 3 rude/plain-1/py" in output.getvalue()
