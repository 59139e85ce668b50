"""HUP: new application and settings, with no request lost, and nothing changed where they will not do."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import textwrap
from pathlib import Path

import pytest

from tests.harness.process import ServerProcess
from tests.server.client import (
    children,
    connect,
    get,
    is_alive,
    is_refused,
    read_answer,
    request,
    serving_workers,
    wait_until,
)
from tests.server.load import Load

RELEASE = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{}']\n"
RELOADED = "Reloaded: the new workers serve"
FAILED = "The reload failed"


class Folder:
    """A folder with an application that can be changed, and a server for it.

    Args:
        path: an empty folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, text: str, before: str = "") -> None:
        """Make the application answer `text`, once it has done what comes `before`."""
        source = f"""
            {before}
            def app(environ, start_response):
                start_response("200 OK", [])
                return [{text.encode()!r}]
        """
        (self.path / "changing.py").write_text(textwrap.dedent(source), "utf-8")

    def serve(self, *arguments: str, bind: bool = True) -> ServerProcess:
        """Start the server, and wait until it is ready."""
        binding = ["--bind", "127.0.0.1:0"] if bind else []
        # Two versions within a second, of the same length, have the same .pyc file.
        environment = {"PYTHONDONTWRITEBYTECODE": "1"}
        server = ServerProcess([*binding, *arguments, "changing:app"], directory=self.path, environment=environment)
        try:
            server.wait_ready()
        except BaseException:
            server.kill()
            raise
        return server

    def hup(self, server: ServerProcess, outcome: str) -> str:
        """Send HUP and wait for its outcome; returns what the server wrote meanwhile."""
        start = len(server.stderr)
        server.signal(signal.SIGHUP)
        server.wait_stderr(outcome, 20, start=start)
        return server.stderr[start:]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with an application."""
    it = Folder(tmp_path)
    it.write("hello\n")
    return it


def test_new_application_with_no_request_lost(folder: Folder) -> None:
    """Reloads under load, with an application that loads slowly, lose no request (fault 6)."""
    with folder.serve("--workers", "2") as server:
        before = serving_workers(server, 2)
        with Load(server.address, pause=0.001) as load:
            for _ in range(3):
                folder.write("hello\n", "import time; time.sleep(0.3)")
                folder.hup(server, RELOADED)
            asked = load.asked
            wait_until(lambda: load.asked > asked + 100, "requests after the last reload")
        assert load.failures == []
        assert load.answered > 300
        folder.write("another\n")
        folder.hup(server, RELOADED)
        assert get(server.address) == (200, b"another\n")
        wait_until(lambda: len(children(server.pid)) == 2, "the old workers are gone", 20)
        assert not children(server.pid) & before
        assert server.stop() == 0


BROKEN = {
    "exception": ("raise RuntimeError('no database')", "RuntimeError: no database"),
    "syntax": ("def", "SyntaxError: invalid syntax"),
    "exit": ("import sys; sys.exit(1)", "SystemExit: 1"),
    "death": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL before it was ready"),
    "import": ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_application_changes_nothing(folder: Folder, kind: str) -> None:
    """When the new application does not load the old one keeps serving, and one message says why (fault 4)."""
    before, expected = BROKEN[kind]
    with folder.serve("--workers", "2") as server:
        pids = serving_workers(server, 2)
        with Load(server.address, pause=0.001) as load:
            folder.write("new\n", before)
            said = folder.hup(server, FAILED)
            assert expected in said
            assert said.count(FAILED) == 1
            assert said.count("Traceback") == (kind in ("exception", "exit", "import"))
            assert "Mend it and send HUP again." in said
            asked = load.asked
            wait_until(lambda: load.asked > asked + 100, "requests after it")
        assert load.failures == []
        wait_until(lambda: children(server.pid) == pids, "the same workers")
        folder.write("mended\n")
        folder.hup(server, RELOADED)
        assert get(server.address) == (200, b"mended\n")


def test_application_that_hangs_when_it_loads(folder: Folder) -> None:
    """A new application that does not come to an end of loading is given up, and it is said where it hangs."""
    with folder.serve("--load-timeout", "1") as server:
        folder.write("new\n", "import time; time.sleep(1000)")
        said = folder.hup(server, FAILED)
        assert "has not loaded the application in 1 s (--load-timeout)" in said
        assert 'changing.py", line 2 in <module>' in said
        assert get(server.address) == (200, b"hello\n")
        folder.write("mended\n")
        folder.hup(server, RELOADED)
        assert get(server.address) == (200, b"mended\n")


def test_first_application_that_hangs_when_it_loads(folder: Folder) -> None:
    """At the start too: exit 3, and where it hangs."""
    folder.write("new\n", "import time; time.sleep(1000)")
    arguments = ["--bind", "127.0.0.1:0", "--load-timeout", "1", "changing:app"]
    with ServerProcess(arguments, directory=folder.path) as server:
        assert server.wait() == 3
        assert 'changing.py", line 2 in <module>' in server.stderr


def test_second_reload_replaces_the_first(folder: Folder) -> None:
    """HUP while an application is loading drops that one and loads what is there now."""
    with folder.serve() as server:
        folder.write("slow\n", "import time; open('loading', 'w').close(); time.sleep(1000)")
        server.signal(signal.SIGHUP)
        wait_until((folder.path / "loading").exists, "the application loads")
        folder.write("quick\n")
        folder.hup(server, RELOADED)
        assert get(server.address) == (200, b"quick\n")
        wait_until(lambda: len(children(server.pid)) == 1, "the others are gone", 20)


def test_reload_before_the_first_is_ready(folder: Folder) -> None:
    """HUP while the very first application is loading loads it anew."""
    folder.write("slow\n", "import time; open('loading', 'w').close(); time.sleep(1000)")
    with ServerProcess(["--bind", "127.0.0.1:0", "changing:app"], directory=folder.path) as server:
        wait_until((folder.path / "loading").exists, "the application loads")
        folder.write("quick\n")
        server.signal(signal.SIGHUP)
        server.wait_ready()
        assert get(server.address) == (200, b"quick\n")
        assert server.stderr.count("Serving HTTP") == 1


def settings(folder: Folder, **values: object) -> None:
    """Write the settings file: with JSON's values, which are TOML's too."""
    import json

    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    (folder.path / "wizgy.toml").write_text("\n".join(lines), "utf-8")


def server_field(server: ServerProcess) -> str | None:
    """The Server field of an answer."""
    with connect(server.address) as sock:
        sock.sendall(request("/", "Connection: close"))
        return read_answer(sock)[0].getheader("Server")


def test_settings_are_read_again(folder: Folder) -> None:
    """HUP reads the settings file again; flags stay in force."""
    settings(folder, server_header="one", workers=1, threads=2)
    with folder.serve("--config", "wizgy.toml", "--threads", "1") as server:
        assert server_field(server) == "one"
        settings(folder, server_header="two", workers=2, threads=3)
        folder.hup(server, RELOADED)
        assert server_field(server) == "two"
        wait_until(lambda: len(children(server.pid)) == 2, "the old worker is gone", 20)
        wrong: list[tuple[dict[str, object], str]] = [
            ({"thread": 2}, "thread: there is no such setting. Did you mean threads?"),
            ({"server_header": "three", "access_log": "/nowhere/log"}, "/nowhere/log cannot be opened"),
        ]
        for values, expected in wrong:
            settings(folder, **values)
            said = folder.hup(server, FAILED)
            assert expected in said
            assert "Traceback" not in said
            assert server_field(server) == "two"


def test_addresses_are_read_again(folder: Folder) -> None:
    """HUP opens addresses that are new, keeps those that stay, and closes others once their requests are answered."""
    staying, leaving = "127.0.0.1:0", "localhost:0"
    settings(folder, bind=[staying, leaving])
    with folder.serve("--config", "wizgy.toml", bind=False) as server:
        server.wait_ready(count=2)
        kept, left = server.addresses
        coming = str(folder.path / "new.sock")
        settings(folder, bind=[f"unix:{coming}", staying])
        with Load(kept, pause=0.001) as load:
            said = folder.hup(server, RELOADED)
        assert load.failures == []
        assert f"Serving HTTP on unix:{coming} ..." in said
        assert str(kept[1]) not in said
        assert get(coming) == get(kept) == (200, b"hello\n")
        wait_until(lambda: is_refused(left), "nobody listens any more")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            settings(folder, bind=[staying, "127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}"])
            said = folder.hup(server, FAILED)
        assert "Address already in use" in said
        assert get(coming) == get(kept) == (200, b"hello\n")
        settings(folder, bind=[staying])
        folder.hup(server, RELOADED)
        assert not os.path.exists(coming)
        assert get(kept) == (200, b"hello\n")


def test_death_while_another_is_tried(folder: Folder) -> None:
    """A worker that dies while a reload is under way is replaced, and the reload goes on."""
    with folder.serve("--workers", "2") as server:
        victim, other = sorted(serving_workers(server, 2))
        folder.write("new\n", "import time; open('loading', 'w').close(); time.sleep(1)")
        server.signal(signal.SIGHUP)
        wait_until((folder.path / "loading").exists, "the application loads")
        os.kill(victim, signal.SIGKILL)
        assert get(server.address)[0] == 200
        server.wait_stderr(RELOADED)
        assert get(server.address) == (200, b"new\n")
        wait_until(lambda: not is_alive(other) and len(children(server.pid)) == 2, "two new workers", 20)


def test_reload_leaves_nothing_behind(folder: Folder) -> None:
    """After reloads, some of them failed, the supervisor has as many descriptors open as before (fault 18)."""
    with folder.serve() as server:
        descriptors = f"/proc/{server.pid}/fd"
        before = len(os.listdir(descriptors))
        for number in range(4):
            folder.write("new\n", "broken" if number % 2 else "")
            folder.hup(server, FAILED if number % 2 else RELOADED)
        wait_until(lambda: len(children(server.pid)) == 1, "the old workers are gone", 20)
        assert len(os.listdir(descriptors)) == before


class Releases:
    """Releases of an application, and a link to the one that counts.

    Args:
        path: an empty folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.link = path / "current"

    def deploy(self, name: str) -> None:
        """Make a release, and have the link lead to it."""
        (self.path / name).mkdir()
        (self.path / name / "released.py").write_text(RELEASE.format(name), "utf-8")
        (self.path / name / "pyproject.toml").write_text(f"[tool.wizgy]\nserver_header = '{name}'\n", "utf-8")
        (self.path / "next").symlink_to(name)
        (self.path / "next").rename(self.link)

    def serve(self, *arguments: str, shell: str) -> ServerProcess:
        """Start the server in the folder that the link leads to; `shell` is what $PWD says."""
        environment = {"PYTHONDONTWRITEBYTECODE": "1", "PWD": shell}
        server = ServerProcess(
            ["--bind", "127.0.0.1:0", *arguments, "released:app"], directory=self.link, environment=environment
        )
        server.wait_ready()
        return server


@pytest.mark.parametrize("removed", [False, True])
def test_release_behind_a_link(tmp_path: Path, removed: bool) -> None:
    """HUP loads code and settings of the release that the link leads to by then, also where the old one is gone."""
    releases = Releases(tmp_path)
    releases.deploy("one")
    with releases.serve(shell=str(releases.link)) as server:
        assert get(server.address) == (200, b"one")
        releases.deploy("two")
        if removed:
            shutil.rmtree(tmp_path / "one")
        server.signal(signal.SIGHUP)
        server.wait_stderr(RELOADED)
        with connect(server.address) as sock:
            sock.sendall(request())
            response, content = read_answer(sock)
        assert (content, response.getheader("Server")) == (b"two", "two")
        assert server.stop() == 0


def test_release_of_chdir_below_a_link(tmp_path: Path) -> None:
    """A relative --chdir is found from the link."""
    releases = Releases(tmp_path)
    for name in "one", "two":
        (tmp_path / name / "all").mkdir(parents=True)
        (tmp_path / name / "all" / "released.py").write_text(RELEASE.format(name), "utf-8")
    releases.link.symlink_to("one")
    with releases.serve("--chdir", "all", shell=str(releases.link)) as server:
        assert get(server.address) == (200, b"one")
        releases.link.unlink()
        releases.link.symlink_to("two")
        server.signal(signal.SIGHUP)
        server.wait_stderr(RELOADED)
        assert get(server.address) == (200, b"two")


def test_release_that_is_gone(tmp_path: Path) -> None:
    """Where no link is known and the folder is gone, the reload fails with a sentence, and the old code serves."""
    releases = Releases(tmp_path)
    releases.deploy("one")
    with releases.serve(shell="/") as server:
        shutil.rmtree(tmp_path / "one")
        server.signal(signal.SIGHUP)
        server.wait_stderr(f"{FAILED}: The current folder is gone .*--chdir")
        assert "Traceback" not in server.stderr
        assert get(server.address) == (200, b"one")
        assert server.stop() == 0


def test_reload_watches_behind_a_link(tmp_path: Path) -> None:
    """With --reload a link that leads elsewhere is a change."""
    releases = Releases(tmp_path)
    releases.deploy("one")
    with releases.serve("--reload", shell=str(releases.link)) as server:
        assert get(server.address) == (200, b"one")
        releases.deploy("two")
        wait_until(lambda: get(server.address) == (200, b"two"), "the new release is served")
        releases.deploy("three")
        wait_until(lambda: get(server.address) == (200, b"three"), "the next release is served")
