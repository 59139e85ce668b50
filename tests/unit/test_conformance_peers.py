"""The scoreboard: what is kept of a measurement, when it no longer stands, and what its page says."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from matrix.environments import SetupError
from matrix.manifest import MatrixError, Server, load_matrix
from tests.conformance import peers, scoreboard
from tests.conformance.cases import Case, load_cases
from tests.conformance.peers import Player, Progress, describe_exchange, measure
from tests.conformance.runner import Exchange
from tests.conformance.scoreboard import Scoreboard, Standing, digest, find_drift, make_page
from wizgy import make_server

EVERY_CASE = load_cases()
CASES = EVERY_CASE[:4]

WIZGY = Standing("wizgy", "wizgy", "https://w", "1", "CPython 3.13.0", "Linux", "2026-01-01", 1.0, 0, {})
OTHER = replace(
    WIZGY, name="other", title="Other", url="https://o", restarts=2, failed={CASES[1].id: "200|<b>; closed"}
)
SERVERS = ["wizgy", "other"]


def make_board() -> Scoreboard:
    """What two servers made of four cases."""
    return Scoreboard({case.id: digest(case) for case in CASES}, {"wizgy": WIZGY, "other": OTHER})


def change(case: Case) -> Case:
    """The same case, which accepts something else."""
    return replace(case, expect=case.expect[:1] * 3)


def test_what_was_measured_is_read_back(tmp_path: Path) -> None:
    """The file of what was measured says all of it."""
    path = tmp_path / "scoreboard.json"
    assert Scoreboard.load(path) == Scoreboard()
    make_board().save(path)
    assert Scoreboard.load(path) == make_board()


@pytest.mark.parametrize(
    ("cases", "servers", "drift"),
    [
        (CASES, SERVERS, None),
        (CASES[:3], SERVERS, f"{CASES[3].id} is no case any more"),
        ((*CASES, EVERY_CASE[4]), SERVERS, f"{EVERY_CASE[4].id} was not measured"),
        ((change(CASES[0]), *CASES[1:]), SERVERS, f"{CASES[0].id} has changed since it was measured"),
        ((replace(CASES[0], rule="Other words."), *CASES[1:]), SERVERS, None),
        (CASES, [*SERVERS, "third"], "third was not measured"),
        (CASES, ["wizgy"], "other is no server of the scoreboard any more"),
    ],
)
def test_drift(cases: tuple[Case, ...], servers: list[str], drift: str | None) -> None:
    """Each case and server that came or went, and each case that changed, is told; other words of a rule are not."""
    assert list(find_drift(make_board(), cases, servers)) == ([drift] if drift else [])


def test_renewed_cases_are_outdated() -> None:
    """What changes is to be played again by every server; what goes is forgotten, and what stays keeps its result."""
    board = make_board()
    cases = (CASES[0], CASES[1], change(CASES[2]), EVERY_CASE[4])
    board.renew(cases)
    assert board.servers["other"].outdated == sorted([CASES[2].id, EVERY_CASE[4].id])
    assert board.servers["other"].failed == OTHER.failed
    assert any("was not measured with wizgy" in line for line in find_drift(board, cases, SERVERS))
    board.renew((CASES[0], change(CASES[1]), *cases[2:]))
    assert board.servers["other"].failed == {}
    assert CASES[1].id in board.servers["other"].outdated


def test_page() -> None:
    """The page has a row for each server, the best one first, and each failure with a link to its case."""
    page = make_page(make_board(), CASES)
    assert page.index("[wizgy](https://w)") < page.index("[Other](https://o)")
    assert "| 3/4 | 2 | CPython 3.13.0, Linux | 2026-01-01 |" in page
    assert "<summary>Other 1: 1 failed</summary>" in page
    failure = f"| [{CASES[1].id}](conformance-cases.md#{CASES[1].id}) | {CASES[1].level} |"
    assert page.count(failure) == 2  # no other server passes it, and what failed
    assert r"200\|\<b\>; closed" in page


def test_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--check needs no server: it fails on a page or a measurement that does not fit the cases of today."""
    cases = scoreboard.select_measured(EVERY_CASE)
    names = [server.name for server in load_matrix().servers_for("conformance")]
    board = Scoreboard({c.id: digest(c) for c in cases}, {name: replace(WIZGY, name=name) for name in names})
    monkeypatch.setattr(scoreboard, "load_cases", lambda: EVERY_CASE)
    monkeypatch.setattr(scoreboard, "DATA", tmp_path / "scoreboard.json")
    monkeypatch.setattr(scoreboard, "PAGE", tmp_path / "scoreboard.md")
    assert scoreboard.main(["--check"]) == 1
    board.save(scoreboard.DATA)
    assert scoreboard.main(["--check"]) == 1
    assert scoreboard.main([]) == 0
    assert scoreboard.main(["--check"]) == 0
    board.cases["no-such-case"] = "0"
    board.save(scoreboard.DATA)
    assert scoreboard.main(["--check"]) == 1


class ScriptedPlayer(Player):
    """A player whose server is a script: what each play of a case gives, in turn."""

    def __init__(self, plays: dict[str, list[str | None]]) -> None:
        self.restarts = 0
        self._plays = plays

    def _play(self, case: Case) -> str | None:
        return self._plays[case.id].pop(0)


def test_a_case_fails_when_it_failed_twice() -> None:
    """A case that fails once is played again; the failures are in the order of the cases, whoever played them."""
    plays: dict[str, list[str | None]] = {
        CASES[0].id: ["first", "second"],
        CASES[1].id: [None],
        CASES[2].id: ["first", None],
        CASES[3].id: ["200; closed", "no answer; closed"],
    }
    players = [ScriptedPlayer(plays), ScriptedPlayer(plays)]
    output = io.StringIO()
    failed = measure(players, CASES, Progress("Other", 4, output))
    assert list(failed.items()) == [(CASES[0].id, "second"), (CASES[3].id, "no answer; closed")]
    assert output.getvalue().endswith("Other: 4 of 4 cases, 2 failed\n")
    assert not any(plays.values())


def test_a_process_that_does_not_answer_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that takes no connection fails its case and is started again; the next one plays on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nowhere = listener.getsockname()
    started: list[object] = []

    @contextmanager
    def start(server: Server, *_: object) -> Iterator[SimpleNamespace]:
        started.append(server)
        if len(started) <= 2:
            yield SimpleNamespace(host=nowhere[0], port=nowhere[1])
            return
        with make_server(("127.0.0.1", 0), hello) as serving:
            serving_thread = threading.Thread(target=serving.serve_forever)
            serving_thread.start()
            yield SimpleNamespace(host="127.0.0.1", port=serving.server_address[1])
            serving.shutdown()
            serving_thread.join()

    monkeypatch.setattr(peers, "start", start)
    matrix = load_matrix()
    [case] = [case for case in EVERY_CASE if case.id == "9112-2.2-crlf"]
    with Player(matrix.server("wizgy"), None, matrix.framework("wsgi")) as player:  # type: ignore[arg-type]
        assert player.judge(case) == peers.NO_START
        assert player.judge(case) is None
        assert player.judge(case) is None
    assert player.restarts == 2
    assert len(started) == 3


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Answer as the route /hello does."""
    start_response("200 OK", [])
    return [b"Hello world\n"]


def make_exchange(**changes: object) -> Exchange:
    """An exchange that failed without an answer."""
    exchange = Exchange(CASES[0], (), (), None, False, False, True, False, "not 200: nothing came", 5.0)
    return replace(exchange, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "no answer; left open"),
        ({"ended": "reset"}, "no answer; reset"),
        ({"alive": False}, "the server no longer answered on a new connection"),
        ({"explanation": "not 200: the answer is malformed: not a field line: b'x'"}, "the answer is malformed: not a"),
    ],
)
def test_what_came_in_words(changes: dict[str, object], words: str) -> None:
    """A failure is told in a few words."""
    assert describe_exchange(make_exchange(**changes)).startswith(words)


def test_unknown_server(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is not there, or not for the scoreboard, is wrong usage, and the others are named."""
    assert peers.main(["apache"]) == peers.WRONG_USAGE
    assert "wizgy" in capsys.readouterr().err
    with pytest.raises(MatrixError, match="not for the scoreboard"):
        peers.run(peers.parse_arguments(["bjoern"]), io.StringIO())


def test_a_server_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server that cannot be set up is said to be unmeasured, and the exit status says so; the others go on."""

    def fail(server: Server, framework: str, python: str) -> None:
        raise SetupError(f"no {server.name} for {python}")

    monkeypatch.setattr(peers, "environment", fail)
    monkeypatch.setattr(peers, "DATA", tmp_path / "scoreboard.json")
    output = io.StringIO()
    assert peers.run(peers.parse_arguments(["waitress", "cheroot"]), output) == peers.NOT_MEASURED
    assert "waitress was not measured: no waitress for 3.13" in output.getvalue()
    assert "cheroot was not measured" in output.getvalue()
