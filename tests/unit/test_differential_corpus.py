"""The fuzz target's corpus, replayed without a fuzzer: what a run once found stays found."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import checks
from fuzz.make_corpus import make_seeds

ROOT = Path(__file__).resolve().parents[2]
CORPUS = sorted((ROOT / "fuzz" / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus(path: Path) -> None:
    """Every input of the corpus keeps the properties of the fuzz target."""
    checks.check(path.read_bytes())


def test_corpus_has_every_target() -> None:
    """The corpus holds inputs for each target, and is small enough for a repository."""
    first = [path.read_bytes()[0] % len(checks.TARGETS) for path in CORPUS]
    assert set(first) == set(range(len(checks.TARGETS)))
    assert sum(path.stat().st_size for path in CORPUS) < 300_000


def test_seeds() -> None:
    """Every seed that the conformance cases give keeps the properties of the fuzz target."""
    seeds = dict(make_seeds())
    assert len(seeds) > 300
    for data in seeds.values():
        checks.check(data)


def find_fault(data: bytes, how: int) -> None:
    """A target that finds fault with everything."""
    raise AssertionError(data, how)


def test_a_failing_check_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A property that does not hold reaches the fuzzer as an exception."""
    monkeypatch.setattr(checks, "TARGETS", (find_fault,))
    with pytest.raises(AssertionError):
        checks.check(b"\x00\x00GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("how", [0, 1, 77, 255])
def test_cuts_lose_nothing(how: int) -> None:
    """The pieces of a message are the message, however it is cut."""
    data = bytes(range(256))
    pieces = list(checks.cut(data, how))
    assert b"".join(pieces) == data
    assert all(pieces)
