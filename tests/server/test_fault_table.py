"""The quick form of every fault, put to wizgy."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.server.faults.case import FAULTS, Fault, own_case

for name in "clients", "processes", "reloads", "stress", "systems":
    importlib.import_module(f"tests.server.faults.{name}")


def test_every_fault_is_there() -> None:
    """Each fault of the list has a provocation."""
    assert [fault.number for fault in FAULTS] == list(range(1, 26))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.number}-{fault.provoke.__name__}")
def test_fault(fault: Fault, tmp_path: Path) -> None:
    """What is promised for the fault is kept."""
    with own_case(tmp_path) as case:
        outcome = fault.provoke(case)
    if outcome.kept is None:
        pytest.skip(outcome.figure)
    print(f"{fault.title}: {outcome.figure}")
    assert outcome.kept, f"{fault.promise}: {outcome.figure}"
