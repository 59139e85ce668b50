"""Servers of a test's own: used again while they work, replaced when a test has harmed them, ended in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matrix.processes import Launch
from tests.harness.frameworks import ROOT, load_matrix
from tests.harness.own import OwnServers, group_members, own_launch, read_launch

MATRIX = load_matrix()
SERVER = MATRIX.server("wsgiref")
FRAMEWORK = MATRIX.framework("wsgi")

SCRIPT = """\
import os, signal, sys
from pathlib import Path
from wsgiref.simple_server import make_server

def app(environ, start_response):
    if environ["PATH_INFO"] == "/fork" and os.fork() == 0:
        signal.pause()
    print("asked for", environ["PATH_INFO"], flush=True)
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"Hello world from a simple WSGI application!\\n"]

make_server("127.0.0.1", int(sys.argv[1]), app).serve_forever()
"""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[OwnServers]:
    """Servers that run a script."""
    command = (sys.executable, "-c", SCRIPT, "{port}")
    made = OwnServers(Launch(SERVER, command, tmp_path, {"PYTHONUNBUFFERED": "1"}), FRAMEWORK, tmp_path)
    yield made
    made.close()


def test_a_server_that_works_is_used_again(servers: OwnServers) -> None:
    """The next test gets the same server, and what it logs can be awaited."""
    first = servers.get()
    first.target.get("/something")
    first.wait_log("asked for /something")
    servers.release()

    assert servers.get() is first


def test_a_harmed_server_is_replaced(servers: OwnServers) -> None:
    """A server that was stopped, killed, or left with a process more than before is no other test's."""
    stopped = servers.get()
    assert stopped.stop().status == -signal.SIGTERM
    servers.release()

    killed = servers.get()
    os.kill(killed.group, signal.SIGKILL)
    servers.release()

    forked = servers.get()
    forked.target.get("/fork")
    assert len(group_members(forked.group)) == 2
    servers.release()

    assert len({stopped.group, killed.group, forked.group, servers.get().group}) == 4
    assert group_members(forked.group) == []


def test_what_outlives_the_server_is_seen_and_ended(servers: OwnServers) -> None:
    """A process that outlives the server is told of, and is gone once the server is taken back."""
    own = servers.get()
    own.target.get("/fork")
    own.stop()
    [child] = own.left_over()
    assert not own.port_is_free()

    servers.release()
    assert child not in group_members(own.group)
    assert own.port_is_free()


def test_a_launch_is_read_back(tmp_path: Path) -> None:
    """What a run of the matrix writes about the start of a server is what tests start."""
    path = tmp_path / "launch.json"
    path.write_text('{"command": ["a", "{port}"], "directory": "/srv", "variables": {"NAME": "value"}}', "utf-8")

    assert read_launch(SERVER, path) == Launch(SERVER, ("a", "{port}"), Path("/srv"), {"NAME": "value"})


def test_wizgy_of_this_tree_has_no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a run of the matrix wizgy is started from this tree, with its defaults."""
    monkeypatch.setenv("WIZGY_THREADS", "1")
    launch = own_launch(MATRIX.server("wizgy"), FRAMEWORK)

    assert "WIZGY_THREADS" not in launch.variables
    assert launch.variables["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT / "server")


def test_url_alone_starts_nothing(servers: OwnServers) -> None:
    """Where only a URL is known, tests that need a server of their own are skipped, and say why."""
    case = "tests/contract/test_application_behaviour.py::test_terminated_process"
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", case]
    command += ["--url", servers.get().target.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert "2 skipped" in done.stdout, done.stdout + done.stderr
    assert "only the URL of one is known" in done.stdout
