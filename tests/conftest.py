"""The options that choose what the tests run against, and the fixtures that hand it to them.

`pytest tests/contract tests/conformance --framework flask` starts wizgy for the Flask app;
`--url http://127.0.0.1:8881` runs the same tests against something that is already running.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from matrix.subject import WrongSubject, recognise
from tests.harness.frameworks import Framework, Matrix, MatrixError, Version, load_matrix
from tests.harness.known import expect_failures, unmatched
from tests.harness.own import OwnServer, OwnServers, own_launch, read_launch
from tests.harness.process import ServerProcess, ServerProcessError, serve_framework
from tests.harness.target import Target, TargetError, server_name, wait_accepting

MATRIX = pytest.StashKey[Matrix]()
FRAMEWORK = pytest.StashKey[Framework]()
VERSION = pytest.StashKey[Version]()
PROCESS = pytest.StashKey[ServerProcess]()
LOG_START = pytest.StashKey[int]()

START_TIMEOUT = 30.0
"""Seconds until the server must be ready: Django first makes its database."""

LOG_SECONDS = 0.1
"""How long a failing test waits for the last lines of the server's log."""

LOG_LINES = 200
"""How many lines of the server's log the report of a failing test shows."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that name the target."""
    group = parser.getgroup("wizgy", "what the tests run against")
    group.addoption(
        "--framework",
        metavar="NAME",
        default="wsgi",
        help="the framework whose app answers, as matrix.toml names it, perhaps with a version: flask-2.3 "
        "(default: %(default)s)",
    )
    group.addoption(
        "--server",
        metavar="NAME",
        default="wizgy",
        help="the server at --url, as matrix.toml names it: its known deviations are expected (default: %(default)s)",
    )
    group.addoption(
        "--python",
        metavar="VERSION",
        default=f"{sys.version_info.major}.{sys.version_info.minor}",
        help="the Python that the server runs on (default: %(default)s)",
    )
    group.addoption(
        "--jobs",
        metavar="N",
        type=int,
        default=16,
        help="how many conformance cases are played at the same time (default: %(default)s)",
    )
    group.addoption(
        "--url",
        metavar="URL",
        help="a server that already runs that app, http://HOST:PORT (default: start wizgy)",
    )
    group.addoption(
        "--launch",
        metavar="FILE",
        help="how to start another server like the one at --url, as a run of the matrix writes it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that cannot work before any test runs."""
    config.addinivalue_line(
        "markers",
        "frameworks(*names): the test is for these frameworks only, deselected for others",
    )
    try:
        config.stash[MATRIX] = load_matrix()
        config.stash[VERSION] = config.stash[MATRIX].version(config.getoption("--framework"))
        config.stash[FRAMEWORK] = config.stash[MATRIX].framework(config.getoption("--framework"))
        if (url := config.getoption("--url")) and not config.option.collectonly:
            wait_accepting(url)
            # A run of the matrix has asked, or started the server itself.
            if not config.getoption("--record", None):
                recognise(url, config.stash[FRAMEWORK])
    except (MatrixError, TargetError, WrongSubject) as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_header(config: pytest.Config) -> str:
    """Say in the header which server, framework and URL the tests use."""
    framework = config.stash[FRAMEWORK]
    app = f"{framework.title} {config.stash[VERSION].version} ({framework.application})"
    url = config.getoption("--url")
    if not url:
        return f"target: wizgy of this tree, on a free port of 127.0.0.1; {app}"
    if config.option.collectonly:
        return f"target: {url}; {app}"
    try:
        return f"target: {server_name(url)} at {url}; {app}"
    except TargetError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of other frameworks and expect the known deviations of this one.

    This runs before `-k` and `-m` narrow the list: a narrow run finds no table to be unmatched.
    """
    framework = config.stash[FRAMEWORK]
    others = [item for item in items if not _is_for(framework, item)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if _is_for(framework, item)]
    cell = (config.getoption("--server"), config.stash[VERSION], config.getoption("--python"))
    deviations = config.stash[MATRIX].known_for(*cell)
    expect_failures(deviations, items)
    lost = [known.test for known in unmatched(deviations, items, _collected_whole(config))]
    if lost:
        raise pytest.UsageError(
            f"matrix.toml has [[known]] tables for {framework.name} that match no test: "
            f"{', '.join(lost)}; correct their `test` or remove them"
        )


def _is_for(framework: Framework, item: pytest.Item) -> bool:
    marker = item.get_closest_marker("frameworks")
    return marker is None or framework.name in marker.args


def _collected_whole(config: pytest.Config) -> list[Path]:
    """Return the files and directories of which every test was collected."""
    narrowing = ("ignore", "ignore_glob", "deselect", "lf")
    if any(config.getoption(option, None) for option in narrowing):
        return []
    directory = config.invocation_params.dir
    return [(directory / argument).resolve() for argument in config.args if "::" not in argument]


@pytest.fixture(scope="session")
def framework(request: pytest.FixtureRequest) -> Framework:
    """The framework that `--framework` names; using it starts nothing."""
    return request.config.stash[FRAMEWORK]


@pytest.fixture(scope="session")
def target(
    request: pytest.FixtureRequest, framework: Framework, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """The server under test: the one at `--url`, or wizgy started for this run.

    A server that was started here must end with exit status 0 when it gets SIGTERM at the end.
    """
    if url := request.config.getoption("--url"):
        yield Target(url, framework)
        return
    with serve_framework(framework, tmp_path_factory.mktemp("server")) as process:
        request.config.stash[PROCESS] = process
        try:
            host, port = process.wait_ready(START_TIMEOUT)
        except ServerProcessError as failure:
            # Every later test would fail for the same reason: say it once.
            pytest.exit(f"cannot test {framework.title}: {failure}", pytest.ExitCode.USAGE_ERROR)
        yield Target(f"http://{host}:{port}", framework, process)
        returncode = process.stop()
        assert returncode == 0, f"the server ended with exit status {returncode} after SIGTERM"


@pytest.fixture(scope="session")
def own_servers(
    request: pytest.FixtureRequest, framework: Framework, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OwnServers]:
    """Servers like the one under test, which tests may harm or stop."""
    server = request.config.stash[MATRIX].server(request.config.getoption("--server"))
    if path := request.config.getoption("--launch"):
        launch = read_launch(server, Path(path))
    elif request.config.getoption("--url"):
        pytest.skip("the case needs a server of its own to stop, and only the URL of one is known")
    else:
        launch = own_launch(server, framework)
    servers = OwnServers(launch, framework, tmp_path_factory.mktemp("own"))
    yield servers
    servers.close()


@pytest.fixture
def own(own_servers: OwnServers) -> Iterator[OwnServer]:
    """A server like the one under test, which the test may harm or stop."""
    yield own_servers.get()
    own_servers.release()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note where the server's log stands, to show only what a test caused."""
    process = item.config.stash.get(PROCESS, None)
    item.stash[LOG_START] = len(process.stderr) if process else 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give failing tests the server's log, and known deviations their verdicts."""
    report = yield
    _judge_known(report)
    process = item.config.stash.get(PROCESS, None)
    if report.failed and process and "target" in getattr(item, "fixturenames", ()):
        time.sleep(LOG_SECONDS)  # the thread that reads the log has no sign for its end
        report.sections.append(("Server log", _log(process, item.stash.get(LOG_START, 0))))
    return report


def _judge_known(report: pytest.TestReport) -> None:
    """Call a known deviation that passed stale; excuse only the test itself, not its fixtures."""
    details: Any = report.longrepr
    if isinstance(details, str) and details.startswith("[XPASS(strict)] "):
        reason = details.removeprefix("[XPASS(strict)] ")
        report.longrepr = f"stale: remove its [[known]] from matrix.toml, the test passes: {reason}"
    if report.when != "call" and hasattr(report, "wasxfail"):
        del report.wasxfail
        report.outcome = "failed"


def _log(process: ServerProcess, start: int) -> str:
    lines = process.stderr[start:].splitlines()[-LOG_LINES:]
    if process.returncode is not None:
        lines.append(f"(the server has ended with exit status {process.returncode})")
    return "\n".join(lines) or "(nothing was logged during this test)"
