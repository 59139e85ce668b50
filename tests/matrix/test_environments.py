"""Environments and processes, with a lock that installs nothing and servers of a few lines."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from matrix.environments import Environment, SetupError, from_locks
from matrix.interpreters import InterpreterMissing, find_interpreter
from matrix.manifest import Server
from matrix.processes import StartError, free_port, start

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

APP = """\
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


def server(*command: str) -> Server:
    """Return a server that is started by a command."""
    return Server(
        "tiny", "Tiny", "https://example.test/", None, (), None, (PYTHON,), command, ("matrix",), ("contract",)
    )


WSGIREF = server("{python}", "{launchers}/serve_wsgiref.py", "{host}", "{port}", "{application}")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with nothing in it."""
    cache = tmp_path_factory.mktemp("cache")
    return from_locks([empty_lock(cache)], find_interpreter(PYTHON), cache=cache)


def empty_lock(directory: Path) -> Path:
    """Write a lock that pins nothing."""
    lock = directory / "empty.txt"
    lock.write_text("# nothing\n")
    return lock


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with an app."""
    (tmp_path / "tiny.py").write_text(APP)
    return tmp_path


def test_environment_is_made_once(tmp_path: Path) -> None:
    """Runs at the same time share one environment, which one of them makes."""
    lock, interpreter = empty_lock(tmp_path), find_interpreter(PYTHON)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(from_locks, [lock], interpreter, cache=tmp_path) for _ in range(4)]
    made = {job.result().python for job in jobs}

    assert len(made) == 1
    assert len([path for path in (tmp_path / "environments").iterdir() if path.is_dir()]) == 1


def test_half_made_environment_is_made_again(tmp_path: Path) -> None:
    """An environment whose making was cut off is thrown away and made again."""
    lock, interpreter = empty_lock(tmp_path), find_interpreter(PYTHON)
    first = from_locks([lock], interpreter, cache=tmp_path)
    (first.directory / "matrix.json").unlink()
    Path(first.python).unlink()

    assert Path(from_locks([lock], interpreter, cache=tmp_path).python).exists()


def test_missing_lock(tmp_path: Path) -> None:
    """A lock that is not there is an error that says how to make it."""
    with pytest.raises(SetupError, match=r"no lock .*gone\.txt; run `tox -e lock`"):
        from_locks([tmp_path / "gone.txt"], find_interpreter(PYTHON), cache=tmp_path)


def test_installation_that_fails(tmp_path: Path) -> None:
    """What cannot be installed is an error with the step and what it said, and leaves nothing to use."""
    lock = tmp_path / "broken.txt"
    lock.write_text("./no-such-package-here\n")

    for _ in range(2):
        with pytest.raises(SetupError, match=r"(?s)pip .*install .*broken\.txt failed .*no-such-package-here"):
            from_locks([lock], find_interpreter(PYTHON), cache=tmp_path)


def test_missing_interpreter() -> None:
    """A Python that is not on the machine is an error that says what to do."""
    with pytest.raises(InterpreterMissing, match=r"no Python 3\.99 .*MATRIX_PYTHON_3_99"):
        find_interpreter("3.99")


def test_server_answers_on_a_free_port(bare: Environment, app: Path) -> None:
    """A started server answers with the app of its folder, and is gone afterwards."""
    with start(WSGIREF, bare, app, "tiny:app") as one, start(WSGIREF, bare, app, "tiny:app") as other:
        assert one.port != other.port
        assert requests.get(f"{one.url}/hello", timeout=10).text == "hello"

    assert one.process.returncode is not None
    assert other.process.returncode is not None


def test_server_that_ends_early(bare: Environment, app: Path) -> None:
    """A server that ends before it answers is an error with its status and log, at once."""
    began = time.monotonic()
    with (
        pytest.raises(StartError, match=r"(?s)Tiny ended with exit status 1 .*No module named 'gone'"),
        start(WSGIREF, bare, app, "gone:app"),
    ):
        pass
    assert time.monotonic() - began < 30


def test_server_that_never_answers(bare: Environment, app: Path) -> None:
    """A server that does not answer in time is an error, and is killed with what it started."""
    code = "import os, time; print('pid', os.fork() or os.getpid(), flush=True); time.sleep(600)"
    with (
        pytest.raises(StartError, match=r"(?s)did not answer within 0\.5 s.*pid \d+") as caught,
        start(server("{python}", "-c", code), bare, app, "tiny:app", seconds=0.5),
    ):
        pass
    child = int(str(caught.value).split("pid ")[1].split()[0])
    deadline = time.monotonic() + 10
    while _runs(child):
        assert time.monotonic() < deadline, "what the server had started still runs"


def test_free_ports_differ() -> None:
    """A port is handed out once, although nobody has bound it yet."""
    ports = [free_port() for _ in range(200)]

    assert len(set(ports)) == len(ports)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
