"""The gate on instructions: what it asks, what it allows, and the page that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import h11
import pytest

from benchmarks import instructions
from benchmarks.instructions import FIGURES, PAGE, Figures
from benchmarks.servers import BARE_APP, REFERENCE, UsageError
from benchmarks.workloads import WORKLOADS


def figures_of(**wizgy: int) -> Figures:
    """Figures in which the bare loop takes 20,000 instructions."""
    counts = {name: {REFERENCE: count} for name, count in wizgy.items()}
    counts["hello"][BARE_APP] = 20_000
    return Figures("CPython", counts)


@pytest.mark.parametrize("name", instructions.COUNTED)
def test_requests_are_valid(name: str) -> None:
    """Each request that is counted is one whole request for the workload's target (RFC 9112 section 2.1)."""
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(instructions.make_request(WORKLOADS[name], 7))
    head = reader.next_event()
    assert isinstance(head, h11.Request)
    assert head.target.decode().partition("?")[0] == WORKLOADS[name].path
    while not isinstance(reader.next_event(), h11.EndOfMessage):
        pass
    assert reader.trailing_data == (b"", False)


def test_requests_of_a_browser_differ() -> None:
    """No head of a browser is one that the connection has seen before."""
    assert len({instructions.make_request(WORKLOADS["browser"], number) for number in range(50)}) == 50


def test_gate_lets_pass_what_costs_as_much() -> None:
    """What is within the allowance passes."""
    committed = figures_of(hello=60_000, flask=500_000, close=200_000)
    found = figures_of(hello=61_700, flask=490_000, close=205_900)
    assert instructions.find_excess(found, committed) == []


def test_gate_names_what_costs_more() -> None:
    """What is beyond the allowance is named, with both numbers."""
    committed = figures_of(hello=60_000, flask=500_000, close=200_000)
    found = figures_of(hello=61_900, flask=490_000, close=200_000)
    assert instructions.find_excess(found, committed) == [
        "hello: a request takes 61,900 instructions, and at most 61,800 are allowed"
    ]


def test_gate_knows_another_build_by_the_bare_loop() -> None:
    """Where the bare loop takes more, everything may."""
    committed = figures_of(hello=60_000, flask=500_000, close=200_000)
    found = figures_of(hello=90_000, flask=750_000, close=300_000)
    found.counts["hello"][BARE_APP] = 30_000
    assert instructions.find_excess(found, committed) == []


def test_gate_without_figures(tmp_path: Path) -> None:
    """Where there are no figures, or one is missing, the message says how to make them."""
    with pytest.raises(UsageError, match="instructions --write"):
        Figures.read(tmp_path / "none.json")
    found = figures_of(hello=1, flask=1, close=1)
    with pytest.raises(UsageError, match="'flask'"):
        instructions.find_excess(found, figures_of(hello=1, close=1))


def test_choice_of_workloads() -> None:
    """A workload whose requests cannot be counted is refused, with those that can."""
    assert [workload.name for workload in instructions.choose(["hello,flask", "close"], ())] == [
        "hello",
        "flask",
        "close",
    ]
    with pytest.raises(UsageError, match="choose from: hello, browser"):
        instructions.choose(["upload"], ())


def test_page_is_what_the_figures_say() -> None:
    """The committed page is made from the committed figures, and they have what the gate compares."""
    figures = Figures.read()
    assert PAGE.read_text("utf-8") == instructions.make_page(figures)
    assert instructions.find_excess(figures, figures) == []


def test_figures_come_back(tmp_path: Path) -> None:
    """Figures that were written are read as they were."""
    figures = figures_of(hello=1, flask=2, close=3)
    figures.write(tmp_path / FIGURES.name)
    assert Figures.read(tmp_path / FIGURES.name) == figures
    assert json.loads((tmp_path / FIGURES.name).read_text("utf-8"))["counts"]["flask"] == {REFERENCE: 2}
