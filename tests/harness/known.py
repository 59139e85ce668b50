"""Known deviations of a framework, as tests that must fail.

A `[[known]]` table of `matrix.toml` turns the tests that it matches into strict expected failures.
One that passes is stale, and a table that matches no test is an error: the list never outlives what
it describes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from matrix.recorder import DEVIATION
from tests.harness.frameworks import ROOT, KnownDeviation

CASES = ROOT / "tests" / "conformance"


def matches(deviation: KnownDeviation, nodeid: str) -> bool:
    """Say whether a known deviation names a test, by its module and name or by its case id.

    Without `[parameters]` every parameter of the named test matches.
    """
    path, _, name = nodeid.partition("::")
    function, _, parameters = name.partition("[")
    if "::" not in deviation.test:
        return parameters == deviation.test + "]"
    module = Path(path).name
    return deviation.test in (f"{module}::{name}", f"{module}::{function}")


def expect_failures(deviations: Iterable[KnownDeviation], items: Iterable[pytest.Item]) -> None:
    """Mark every test that a known deviation names: it must fail."""
    for item in items:
        for deviation in deviations:
            if matches(deviation, item.nodeid):
                reason = f"known deviation: {deviation.reason}"
                mark = pytest.mark.xfail(reason=f"{reason} ({deviation.link})", strict=not deviation.sometimes)
                item.add_marker(mark)
                item.stash[DEVIATION] = deviation


def unmatched(
    deviations: Iterable[KnownDeviation], items: Sequence[pytest.Item], collected: Sequence[Path]
) -> list[KnownDeviation]:
    """Return the known deviations that name no test, although its file was collected whole.

    `collected` are the files and directories of this run. A deviation whose module exists nowhere
    is always returned.
    """
    nodeids = [item.nodeid for item in items]
    return [
        deviation
        for deviation in deviations
        if not any(matches(deviation, nodeid) for nodeid in nodeids) and _is_collected(deviation, collected)
    ]


def _is_collected(deviation: KnownDeviation, collected: Sequence[Path]) -> bool:
    module, separator, _ = deviation.test.partition("::")
    homes = list((ROOT / "tests").rglob(module)) if separator else [CASES]
    return all(any(home.is_relative_to(path) for path in collected) for home in homes)
