"""--reload: code that changes is served at once, and what does not load is shown."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import signal
from pathlib import Path

import pytest

import wizgy
from tests.harness.frameworks import ROOT
from tests.harness.process import ServerProcess
from tests.server.client import (
    Address,
    children,
    connect,
    get,
    read_all,
    read_answer,
    request,
    serving_workers,
    wait_until,
)
from tests.server.served import app
from wizgy.errors import UsageError

SOON = 5.0
"""Seconds in which a change is served; most of them are for a machine that does other things too."""


class Project:
    """A folder of code that somebody works on.

    Args:
        path: an empty folder.
        environment: the variables to serve it with.
    """

    def __init__(self, path: Path, environment: dict[str, str]) -> None:
        self.path = path
        # Two versions within a second, of the same length, have the same .pyc file.
        self.environment = {**environment, "PYTHONDONTWRITEBYTECODE": "1"}

    def path_entries(self) -> list[str]:
        """The folders of PYTHONPATH that the server is started with."""
        return self.environment.get("PYTHONPATH", str(ROOT / "server")).split(os.pathsep)

    def write(self, name: str, source: str) -> None:
        """Write a file, as an editor does: another takes its place."""
        new = self.path / f".{name.replace('/', '-')}.new"
        new.write_text(source, "utf-8")
        new.rename(self.path / name)

    def answer(self, text: str) -> None:
        """Make the application answer `text`."""
        self.write(
            "edited.py",
            f"def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{text}']\n",
        )

    def serve(self, *arguments: str, app: str = "edited:app") -> ServerProcess:
        """Start the server, and wait until it is ready."""
        arguments = ("--bind", "127.0.0.1:0", "--reload", *arguments, app)
        server = ServerProcess(arguments, directory=self.path, environment=self.environment)
        try:
            server.wait_ready()
        except BaseException:
            server.kill()
            raise
        return server


@pytest.fixture(params=["watchfiles", "looking"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    """A project, with and without `watchfiles`."""
    folder = tmp_path / "project"
    folder.mkdir()
    environment = {}
    if request.param == "looking":
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "watchfiles.py").write_text("raise ImportError\n", "utf-8")
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "without"), str(ROOT / "server")])
    elif importlib.util.find_spec("watchfiles") is None:
        pytest.skip("watchfiles is not installed here; `tox -e server` installs it")
    it = Project(folder, environment)
    it.answer("one")
    return it


def wait_answer(address: Address, text: str, status: int = 200) -> None:
    """Wait until the server answers with a text."""

    def is_there() -> bool:
        got, content = get(address)
        return got == status and text in content.decode()

    wait_until(is_there, f"{text!r} is served", SOON)


def test_change_is_served(project: Project) -> None:
    """A change of the application, or of a module that it uses, is served soon, with no request refused."""
    project.write("used.py", "text = 'used one'\n")
    with project.serve() as server:
        assert get(server.address) == (200, b"one")
        project.answer("two")
        wait_answer(server.address, "two")
        server.wait_stderr(r"Changed: edited\.py\. Loading anew\.")
        source = "import used\ndef app(environ, start_response):\n    start_response('200 OK', [])\n"
        project.write("edited.py", f"{source}    return [used.text.encode()]\n")
        wait_answer(server.address, "used one")
        project.write("used.py", "text = 'used two'\n")
        wait_answer(server.address, "used two")
        server.wait_stderr(r"Changed: used\.py\. Loading anew\.")
        assert server.stop() == 0


BROKEN = {
    "syntax": ("def app(:\n", "SyntaxError"),
    "import": ("import nothing_of_that_name\n", "ModuleNotFoundError"),
    "exit": ("raise SystemExit(1)\n", "SystemExit: 1"),
    "empty": ("", "has no 'app'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_does_not_load_is_shown(project: Project, kind: str) -> None:
    """A syntax or import error is shown in the terminal and to the client, until it is mended."""
    source, expected = BROKEN[kind]
    with project.serve() as server:
        for text in "mended", "mended again":
            start = len(server.stderr)
            project.write("edited.py", source)
            wait_answer(server.address, expected, 500)
            server.wait_stderr(f"(?s)wizgy: .*{expected}.*wizgy: Waiting for a change", start=start)
            project.answer(text)
            wait_answer(server.address, text)
        assert server.stop() == 0


def test_broken_from_the_start(project: Project) -> None:
    """What does not load at the start is shown too, and waited for."""
    project.write("edited.py", "import used\n")
    with project.serve() as server:
        assert get(server.address)[0] == 500
        project.write("used.py", "x = \n")
        wait_answer(server.address, "SyntaxError", 500)
        project.write("used.py", "x = 1\n")
        wait_answer(server.address, "has no 'app'", 500)
        project.answer("mended")
        wait_answer(server.address, "mended")


def test_change_while_it_loads(project: Project) -> None:
    """A change while the application loads, or hangs, starts that anew."""
    with project.serve() as server:
        project.write("edited.py", "open('loading', 'w').close()\nimport time; time.sleep(1000)\n")
        wait_until((project.path / "loading").exists, "it loads")
        project.answer("quick")
        wait_answer(server.address, "quick")


def test_connection_does_not_keep_the_old_code(project: Project) -> None:
    """A connection that is kept open is closed with the old code; a request that runs is finished with it."""
    project.write(
        "edited.py",
        "import time\ndef app(environ, start_response):\n    start_response('200 OK', [])\n"
        "    time.sleep(1 if environ['PATH_INFO'] == '/slow' else 0)\n    return [b'old']\n",
    )
    with project.serve() as server, connect(server.address) as idle, connect(server.address) as busy:
        idle.sendall(request("/"))
        assert read_answer(idle)[1] == b"old"
        busy.sendall(request("/slow"))
        project.answer("new")
        assert read_all(idle) == b""
        assert read_answer(busy)[1] == b"old"
        assert get(server.address) == (200, b"new")


def test_several_workers_and_folders(project: Project) -> None:
    """Every worker is replaced, and modules outside of the current folder count as well."""
    outside = project.path.parent / "outside"
    outside.mkdir()
    (outside / "library.py").write_text("text = 'one'\n", "utf-8")
    project.write(
        "edited.py",
        f"import sys; sys.path.append({str(outside)!r}); import library\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [library.text.encode()]\n",
    )
    with project.serve("--workers", "2") as server:
        before = serving_workers(server, 2)
        (outside / "library.py").write_text("text = 'another'\n", "utf-8")
        wait_until(lambda: not children(server.pid) & before, "all workers are replaced", SOON)
        serving_workers(server, 2)
        for _ in range(4):
            assert get(server.address) == (200, b"another")


USING = """
try:
    import outer
    text = outer.TEXT
except CAUGHT as error:
    text = type(error).__name__
def app(environ, start_response):
    start_response("200 OK", [])
    return [text.encode()]
"""


@pytest.mark.parametrize("place", ["on the path", "a package by a link"])
@pytest.mark.parametrize("caught", ["()", "Exception"])
def test_module_elsewhere_is_corrected(project: Project, place: str, caught: str) -> None:
    """A module outside of the folder that fails to load is watched until it loads, also where its failure is caught."""
    library = project.path.parent / "library"
    outer = library / "outer.py" if place == "on the path" else library / "outer" / "__init__.py"
    outer.parent.mkdir(parents=True)
    if place == "on the path":
        project.environment["PYTHONPATH"] = os.pathsep.join([*project.path_entries(), str(library)])
    else:
        (project.path / "outer").symlink_to(library / "outer")
    outer.write_text("TEXT = 'first'\n")
    project.write("edited.py", USING.replace("CAUGHT", caught))
    with project.serve() as server:
        assert get(server.address) == (200, b"first")
        outer.write_text("TEXT = (\n")
        wait_until(lambda: b"SyntaxError" in get(server.address)[1], "the error is shown", SOON)
        outer.write_text("TEXT = 'second'\n")
        wait_answer(server.address, "second")
        outer.rename(outer.with_suffix(".away"))
        wait_until(lambda: b"first" not in get(server.address)[1], "it is missed", SOON)
        outer.write_text("TEXT = 'third'\n")
        wait_answer(server.address, "third")


def test_module_that_is_installed_is_found(project: Project) -> None:
    """A module that was missing from the start is loaded once it is where Python looks for it."""
    library = project.path.parent / "library"
    library.mkdir()
    project.environment["PYTHONPATH"] = os.pathsep.join([*project.path_entries(), str(library)])
    project.write("edited.py", USING.replace("CAUGHT", "()"))
    with project.serve() as server:
        assert b"No module named 'outer'" in get(server.address)[1]
        (library / "outer").mkdir()
        (library / "outer" / "__init__.py").write_text("TEXT = 'installed'\n")
        wait_answer(server.address, "installed")


def test_old_bytecode_is_not_run(project: Project) -> None:
    """Of two versions of one size within a second the later is served, whatever bytecode the first has left."""
    del project.environment["PYTHONDONTWRITEBYTECODE"]
    with project.serve() as server:
        for text in "111", "222", "333", "444":
            project.answer(text)
            py_compile.compile(str(project.path / "edited.py"))  # as a test run beside it does
            project.answer(text.replace(text[0], "9"))
            wait_answer(server.address, "999")
        assert server.stop() == 0


def test_files_that_do_not_count(project: Project) -> None:
    """Files that are no code, hidden folders and virtual environments change nothing; a HUP does, as ever."""
    for folder in ".git", "venv":
        (project.path / folder).mkdir()
    project.write("venv/pyvenv.cfg", "")
    with project.serve() as server:
        before = children(server.pid)
        for name in "notes.txt", ".git/hook.py", "venv/module.py":
            project.write(name, "text")
        server.signal(signal.SIGHUP)
        server.wait_stderr("Reloaded")
        assert not children(server.pid) & before or get(server.address) == (200, b"one")
        assert "Changed" not in server.stderr


def test_not_from_python() -> None:
    """`wizgy.serve` has an application that is loaded already, and says what to do instead."""
    with pytest.raises(UsageError, match="wizgy --reload APP"):
        wizgy.serve(app, reload=True)
