"""Where the bytes of a case are cut changes nothing: a property of every case, over arbitrary cuts.

The runner sends each case whole and one byte at a time. Here the parser reads it in process, at cuts that
hypothesis chooses, with the limits that a server has by default.
"""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.checks import Connection
from tests.conformance.cases import SendBytes, load_cases
from wizgy.http.request import Limits

LONGEST = 200_000
"""Bytes of the largest payload that is cut; larger ones are many times the same byte."""


def collect_payloads() -> dict[str, dict[str, bytes]]:
    """What each case sends, by the file that it is in."""
    payloads: dict[str, dict[str, bytes]] = defaultdict(dict)
    for case in load_cases():
        payload = b"".join(step.data for step in case.send if isinstance(step, SendBytes))
        if len(payload) <= LONGEST:
            payloads[case.file][case.id] = payload
    return payloads


PAYLOADS = collect_payloads()


def read_pieces(payload: bytes, points: list[int]) -> object:
    """Read a payload that is cut at some points: heads, contents and what is left, or a refusal."""
    connection, buffer = Connection(remembers=True, limits=Limits()), bytearray()
    position = 0
    for point in [*sorted(points), len(payload)]:
        buffer += payload[position:point]
        connection.feed(buffer)
        position = point
    return connection.result(buffer)


@pytest.mark.parametrize("file", sorted(PAYLOADS))
@settings(max_examples=25)
@given(places=st.lists(st.floats(0, 1), max_size=12), near=st.integers(-4, 4))
def test_cuts_change_nothing(file: str, places: list[float], near: int) -> None:
    """Each case of a file reads the same whole and cut at any places (RFC 9112 section 2.2)."""
    for case_id, payload in PAYLOADS[file].items():
        points = [int(place * len(payload)) for place in places]
        # Line ends are where a parser's state changes: cut around one of them too.
        line_end = payload.find(b"\r\n", points[0] if points else 0)
        points += [min(max(line_end + near, 0), len(payload))]
        assert read_pieces(payload, points) == read_pieces(payload, []), case_id


def test_most_cases_are_cut() -> None:
    """Nearly every case takes part; what does not is a very large payload."""
    assert sum(map(len, PAYLOADS.values())) > 0.95 * len(load_cases())
