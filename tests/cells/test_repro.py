"""Reproducing a case: the wire dump, the way in, and the bundle for an issue."""

from __future__ import annotations

import json
import os
import re
import signal
import zipfile
from pathlib import Path

import pytest
import requests

from matrix.repro import Order, UnknownCase, describe_event, find_case, list_cases, reproduce
from matrix.results import Event
from tests.cells.small import World

RULE = "test_small.py::test_rule"


def test_one_case(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """One case is played, and shown with its rule, what went over the wire, and its verdict."""
    cell = world.cell("rude")
    assert find_case(world.suite, cell, RULE) == ("contract", RULE)
    assert reproduce(world.matrix, world.transport, world.suite, Order(cell, ("contract", RULE))) == 1
    said = capsys.readouterr().out

    assert f"{RULE}: FAIL" in said
    assert "rule:     The server keeps the rule." in said
    assert re.search(r"^ +0\.\d+ > GET /rule HTTP/1\.1$", said, re.MULTILINE)
    assert " < X-Rude: 1\n" in said
    assert "test_hello" not in said


def test_passing_case_is_shown_as_well(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A case that passes is shown in the same way, with status 0."""
    order = Order(world.cell("good"), ("contract", RULE))

    assert reproduce(world.matrix, world.transport, world.suite, order) == 0
    assert " > GET /rule HTTP/1.1" in capsys.readouterr().out


def test_whole_cell(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a case the whole cell runs, and what fails is shown."""
    assert reproduce(world.matrix, world.transport, world.suite, Order(world.cell("rude"))) == 1
    said = capsys.readouterr().out

    assert "10 cases, 2 of them not as expected" in said
    assert "test_hello" not in said


def test_control(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A case of the control is played with no server."""
    cell, case = world.cell("good", "wrong"), "test_control.py::test_control"
    started = len(world.transport.started)

    assert reproduce(world.matrix, world.transport, world.suite, Order(cell, find_case(world.suite, cell, case))) == 1
    assert f"{case}: APP ERROR" in capsys.readouterr().out
    assert len(world.transport.started) == started


def test_unknown_case(world: World) -> None:
    """A case that does not exist is an error that names those like it."""
    with pytest.raises(UnknownCase, match=r"has no case 'first-cases'; there are: first-case"):
        find_case(world.suite, world.cell("good"), "first-cases")
    with pytest.raises(UnknownCase, match=r"has no case 'zzz'; python -m matrix repro \S+ --list names all"):
        find_case(world.suite, world.cell("good"), "zzz")


def test_list(world: World) -> None:
    """The cases of a cell are named as results have them, and as `repro` takes them."""
    cell = world.cell("good")
    names = list(list_cases(world.suite, cell, ("control", "contract", "conformance")))
    assert {"test_control.py::test_control", RULE, "first-case"} <= set(names)
    assert [find_case(world.suite, cell, name)[1] for name in names[:2]] == names[:2]


def test_bundle(world: World, tmp_path: Path) -> None:
    """A bundle has what a maintainer needs: how to run it again, the results, the bytes and the log."""
    bundle = tmp_path / "issue.zip"
    order = Order(world.cell("rude"), ("contract", RULE), bundle=bundle)
    reproduce(world.matrix, world.transport, world.suite, order)

    with zipfile.ZipFile(bundle) as archive:
        files = {name: archive.read(name).decode("latin-1") for name in archive.namelist()}
    records = [json.loads(line) for line in files["results.jsonl"].splitlines()]
    assert [record["record"] for record in records] == ["run", "case", "cell", "end"]
    assert files["sent.bin"].startswith("GET /rule HTTP/1.1\r\n")
    assert "serving as rude" in files["server.log"]
    assert f"python -m matrix repro --limit 3 {world.cell('rude').id} {RULE}" in files["README.md"]
    assert " < X-Rude: 1" in files["README.md"]


def test_kept_server(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--keep` the server goes on serving, and it is said how to get in and how to end it."""
    monkeypatch.setattr(world.transport, "keep", True)
    order = Order(world.cell("good"), ("contract", RULE), keep=True)
    reproduce(world.matrix, world.transport, world.suite, order)
    said = capsys.readouterr().out
    url, pid = re.search(r"goes on serving on (\S+)", said), re.search(r"end it: kill (\d+)", said)
    assert url
    assert pid
    try:
        assert requests.get(f"{url[1]}/hello", timeout=10).text == "Hello world\n"
    finally:
        os.kill(int(pid[1]), signal.SIGKILL)


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        (Event(at=0.5, kind="sent", data="GET / HTTP/1.1\r\n\r\n"), ["   0.500 > GET / HTTP/1.1", "         > "]),
        (Event(at=0, kind="received", data="a\nb\r\n"), [r"   0.000 < a\nb"]),
        (Event(at=0, kind="received", data="\u00ff\u0000 end"), [r"   0.000 < \xff\x00 end"]),
        (Event(at=1, kind="end of stream"), ["   1.000 * end of stream"]),
        (Event(at=1, kind="sent", data="ab", pieces=2), ["   1.000 > ab   (in 2 pieces)"]),
        (
            Event(at=0, kind="sent", data="a", omitted=7, tail="z"),
            ["   0.000 > a", "         > ... 7 bytes are left out ...", "         > z"],
        ),
    ],
)
def test_wire_dump(event: Event, lines: list[str]) -> None:
    """A line of the dump is a line of the message; what is no text is escaped, and so is any other line end."""
    assert list(describe_event(event)) == lines
