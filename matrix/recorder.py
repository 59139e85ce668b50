"""A pytest plugin that tells a run of the matrix what came of each test: `pytest -p matrix.recorder --record FILE`.

Each line of FILE is a `case` record as `matrix.results` has it; before them stands how many there will be, and behind
them the exit status of the session. What a test knows of its own exchange it leaves in `OBSERVATION`; what the other
tests say over sockets is tapped. When the server is gone, or a test does not end, the plugin cuts the session and says
so: the tests that have no record yet are the caller's to run again. A test that pytest does not bring to its end has
no record.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import shlex
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import pytest

from matrix.manifest import KnownDeviation
from matrix.results import Case, Deviation, Kind, Level, Verdict, WireEvent, format_record, make_exchange
from matrix.tap import Tap

DEVIATION = pytest.StashKey[KnownDeviation]()
"""The known deviation of a test that has to fail."""

RECORDER = pytest.StashKey["Recorder"]()

SPLIT_TEST = "test_case_one_byte_at_a_time"

SECTION = re.compile(r"\(((?:RFC|PEP) \d+[^()]*)\)")

LOG_SECONDS = 0.1
"""How long a failing test waits for the last lines of the server's log, which another process writes."""

LOG_BYTES = 8192

GONE_SECONDS = 3.0
"""How long a server that refuses connections is given to come back: its supervisor may be replacing a worker."""

SILENT_SECONDS = 35.0
"""How long a server that accepts connections is given to answer: all its threads may wait for a slow client."""

EXPLANATION_CHARACTERS = 4000


@dataclass(frozen=True)
class Observation:
    """What a test knows of its own exchange."""

    rule: str
    level: Level
    section: str
    source: str
    expected: tuple[str, ...]
    got: str
    events: Sequence[WireEvent]
    address: str


OBSERVATION = pytest.StashKey[Observation]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a run of the matrix."""
    group = parser.getgroup("matrix", "what a run of the matrix wants to know")
    group.addoption("--record", metavar="FILE", help="where to write a record of each test")
    group.addoption("--record-cell", metavar="ID", default="", help="the cell that the tests belong to")
    group.addoption("--record-again", metavar="COMMAND", default="", help="the command that takes a case's id")
    group.addoption("--record-log", metavar="FILE", help="where the server writes its log")
    group.addoption("--record-only", metavar="FILE", help="run only the tests named there, as KIND ID on each line")
    group.addoption("--record-skip", metavar="FILE", help="leave out the tests named there")
    group.addoption("--record-limit", metavar="SECONDS", type=float, default=180, help="end a test that takes longer")
    group.addoption("--record-passes", action="store_true", help="keep the bytes of tests that pass as well")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to record, when that is asked for."""
    if path := config.getoption("--record"):
        # Tests that hang are sent SIGABRT for their stacks, not for a file of their memory.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        recorder = Recorder(config, Path(path))
        config.stash[RECORDER] = recorder
        config.pluginmanager.register(recorder, "matrix-recorder-of-run")


def case_name(nodeid: str) -> tuple[Kind, str]:
    """Return the kind and the id that a test has in results: `conformance`, `9112-6.3-te-and-cl:split`."""
    path, _, name = nodeid.partition("::")
    kind: Kind = "control" if "control/" in path else "conformance" if "conformance/" in path else "contract"
    function, bracket, parameters = name.partition("[")
    if kind == "conformance" and bracket and Path(path).name == "test_cases.py":
        return kind, parameters.removesuffix("]") + (":split" if function == SPLIT_TEST else "")
    return kind, f"{Path(path).name}::{name}"


@dataclass
class _Current:
    """The test that runs."""

    item: pytest.Item
    kind: Kind
    id: str
    began: float
    log_start: int
    reports: list[pytest.TestReport] = field(default_factory=list)
    timed_out: bool = False


class Recorder:
    """Writes a record of each test that ends."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config = config
        self._file: IO[str] = path.open("a", encoding="ascii")
        self._tap = Tap()
        self._current: _Current | None = None
        self._timer: threading.Timer | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave only the tests that are asked for, and say how many they are."""
        only, skip = self._names("--record-only"), self._names("--record-skip") or set()
        chosen = {item: case_name(item.nodeid) for item in items}
        kept = [item for item, name in chosen.items() if name not in skip and (only is None or name in only)]
        left_out = [item for item in items if item not in set(kept)]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = kept
        self._say(collected=len(items))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Watch over one test and write its record."""
        kind, name = case_name(item.nodeid)
        self._current = current = _Current(item, kind, name, time.monotonic(), self._log_length())
        limit = self._config.getoption("--record-limit")
        self._timer = threading.Timer(limit, self._end_hanging_test, [current, limit])
        self._timer.daemon = True
        self._timer.start()
        try:
            with self._tap.listening(kind == "contract"):
                return (yield)
        finally:
            self._timer.cancel()
            if not current.timed_out:
                self._finish(current)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what pytest says of one phase of the test."""
        if self._current:
            self._current.reports.append(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> Generator[None, object, object]:
        """Say with which status the session ends, once nothing else can fail in it."""
        result = yield
        self._say(finished=int(exitstatus))
        return result

    def _finish(self, current: _Current) -> None:
        if not is_complete(current.reports):
            return
        verdict, explanation = judge(current.reports)
        gone = verdict == "fail" and current.kind != "control" and self._why_gone()
        if gone:
            verdict, explanation = "crash", f"{gone}\n{explanation}".strip()
        self._file.write(format_record(self._record(current, verdict, explanation)))
        self._file.flush()
        if gone:
            self._say(cut=1)
            current.item.session.shouldstop = "the server is gone"

    def _record(self, current: _Current, verdict: Verdict, explanation: str) -> Case:
        item = current.item
        told = item.stash.get(OBSERVATION, None)
        deviation = item.stash.get(DEVIATION, None) if verdict in ("known", "stale") else None
        events = told.events if told else self._tap.events
        wanted = events and (verdict != "pass" or self._config.getoption("--record-passes"))
        docstring = " ".join((getattr(item, "function", None).__doc__ or "").split())
        section = SECTION.search(docstring)
        again = self._config.getoption("--record-again")
        return Case(
            cell=self._config.getoption("--record-cell"),
            id=current.id,
            kind=current.kind,
            verdict=verdict,
            seconds=round(time.monotonic() - current.began, 3),
            rule=told.rule if told else docstring,
            level=told.level if told else None,
            section=told.section if told else section[1] if section else None,
            source=told.source if told else None,
            expected=told.expected if told else (),
            got=told.got if told else "",
            explanation=explain(explanation, told)[:EXPLANATION_CHARACTERS],
            deviation=Deviation(reason=deviation.reason, link=deviation.link) if deviation else None,
            exchange=make_exchange(events, told.address if told else None) if wanted else None,
            log=self._log_of(current) if verdict not in ("pass", "known", "skip") else "",
            reproduce=f"{again} {shlex.quote(current.id)}",
        )

    def _end_hanging_test(self, current: _Current, limit: float) -> None:
        """Write the record of a test that does not end, and end the process: nothing else stops a thread."""
        current.timed_out = True
        record = self._record(current, "timeout", f"the test did not end within {limit:g} s")
        self._file.write(format_record(record))
        self._say(cut=1)
        os._exit(pytest.ExitCode.INTERRUPTED)

    def _why_gone(self) -> str:
        """Return why the server can no longer be tested, nothing when it answers."""
        url = self._config.getoption("--url", None)
        if not url:
            return ""
        address = urlsplit(url)
        began = time.monotonic()
        while problem := _probe(address.hostname or "", address.port or 80):
            waited = time.monotonic() - began
            if waited > SILENT_SECONDS or (waited > GONE_SECONDS and problem.refused):
                return f"after it the server no longer answered: {problem.text}"
            # Nothing tells when a stranger's socket listens again.
            time.sleep(0.1)
        return ""

    def _names(self, option: str) -> set[tuple[str, str]] | None:
        path = self._config.getoption(option)
        if not path:
            return None
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        return {(kind, name) for kind, _, name in (line.partition(" ") for line in lines)}

    def _log_length(self) -> int:
        path = self._config.getoption("--record-log")
        return Path(path).stat().st_size if path and Path(path).exists() else 0

    def _log_of(self, current: _Current) -> str:
        path = self._config.getoption("--record-log")
        if not path or not Path(path).exists():
            return ""
        time.sleep(LOG_SECONDS)
        with Path(path).open("rb") as file:
            file.seek(current.log_start)
            return file.read()[-LOG_BYTES:].decode("utf-8", "backslashreplace")

    def _say(self, **values: int) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()


@dataclass(frozen=True)
class _Problem:
    text: str
    refused: bool


def _probe(host: str, port: int) -> _Problem | None:
    connection = http.client.HTTPConnection(host, port, timeout=SILENT_SECONDS)
    try:
        connection.request("GET", "/hello", headers={"Connection": "close"})
        connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        return _Problem(f"{type(error).__name__}: {error}", isinstance(error, ConnectionRefusedError))
    finally:
        connection.close()
    return None


def explain(text: str, told: Observation | None) -> str:
    """Return what pytest says with the line first that says most: it marks what was wrong with an E."""
    if told and text.startswith("FAILED: "):
        return told.got  # all else that the text has is in the record already
    gist = next((line[1:].strip() for line in text.splitlines() if line.startswith("E ")), "")
    return f"{gist}\n{text}" if gist else text


def is_complete(reports: Sequence[pytest.TestReport]) -> bool:
    """Say whether pytest brought a test to its end: its tear-down, and its call unless the set-up ruled that out."""
    outcomes = {report.when: report.outcome for report in reports}
    return "teardown" in outcomes and ("call" in outcomes or outcomes.get("setup") in ("failed", "skipped"))


def judge(reports: Sequence[pytest.TestReport]) -> tuple[Verdict, str]:
    """Return the verdict of a test that is complete and why, from what pytest says of its phases."""
    for report in reports:
        details = report.longrepr
        if report.failed:
            text = report.longreprtext
            if isinstance(details, str) and details.startswith("stale: "):
                return "stale", text
            return "fail", text
        if report.skipped and hasattr(report, "wasxfail"):
            return "known", report.longreprtext
        if report.skipped:
            reason = details[2] if isinstance(details, tuple) else report.longreprtext
            return "skip", str(reason).removeprefix("Skipped: ")
    return "pass", ""
