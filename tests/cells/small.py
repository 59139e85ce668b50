"""A small world for the matrix: apps and servers of a few lines, one of them broken in each way that there is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from matrix.cells import Cell
from matrix.environments import Environment, from_locks, run_step
from matrix.interpreters import find_interpreter
from matrix.manifest import ROOT, Matrix, load_matrix
from matrix.processes import start
from matrix.results import Case, Provenance
from matrix.stop import Stop
from matrix.suite import Suite, SuiteEnd
from matrix.transports import Started, VenvTransport, again_command

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
NO_PYTHON = "3.99"

FRAMEWORK = """\
[frameworks.{name}]
title = "{name}"
greeting = "Hello world"
application = "app:app"
directory = "apps/{name}"
port = 8000
default = "1"
versions = [{{ version = "1", requirements = [], pythons = ["{python}", "{no_python}"] }}]

"""

SERVER = """\
[servers.{name}]
title = "{name}"
url = "https://example.test/"
requirements = []
command = ["{{python}}", "{root}/servers/{name}.py", "{{host}}", "{{port}}", "{{application}}"]
uses = ["matrix"]

"""

KNOWN = """\
[[known]]
tests = ["test_small.py::test_odd"]
frameworks = ["odd"]
reason = "It is odd by nature."
link = "https://example.test/odd"

[[known]]
tests = ["test_small.py::test_rule"]
frameworks = ["plain"]
servers = ["other"]
reason = "It was so once."
link = "https://example.test/once"
"""

APP = """\
def app(environ, start_response):
    path = environ["PATH_INFO"]
    known = path in ("/hello", "/route", "/rule", "/crash", "/hang", "/odd", "/twins", "/moody")
    body = b"Hello world\\n" if path == "/hello" else b"ODD" if path == "/odd" and ODD else path.encode()
    missing = not known or (path == "/route" and LOST)
    start_response("404 Not Found" if missing else "200 OK", HEADERS)
    return [body]

ODD = LOST = False
HEADERS = [("Content-Type", "text/plain")]
"""

APPS = {
    "plain": APP,
    "lost": APP + "LOST = True\n",
    "odd": APP + "ODD = True\n",
    "wrong": APP + 'HEADERS = [("Content-Type", 5)]\n',
    "vast": APP,
}

SERVE = """\
import os, sys, threading
from wsgiref.simple_server import WSGIRequestHandler, make_server
sys.path.insert(0, os.getcwd())
host, port, application = sys.argv[1:]
app = __import__(application.partition(":")[0]).app

def served(environ, start_response):
    path = environ["PATH_INFO"]
    {rule}
    def start(status, headers):
        return start_response(status, headers + {headers})
    return app(environ, start)

server = make_server(host, int(port), served)
print("serving as {name}", file=sys.stderr, flush=True)
server.serve_forever()
"""

SERVERS = {
    "good": SERVE.format(name="good", rule="pass", headers="[]"),
    "other": SERVE.format(name="other", rule="pass", headers="[]"),
    "rude": SERVE.format(
        name="rude", rule="rude = path == '/rule'", headers="([('X-Rude', '1')] if rude else []) + [('X-Twin', '1')]"
    ),
    "frail": SERVE.format(
        name="frail",
        rule="if path == '/crash': print('I am not well', file=sys.stderr, flush=True); os._exit(7)",
        headers="[('X-Twin', '1')]",
    ),
    "mute": SERVE.format(name="mute", rule="if path == '/hang': threading.Event().wait()", headers="[]"),
    "moody": SERVE.format(
        name="moody",
        rule="mood = path == '/moody' and not os.path.exists('../../mood'); mood and open('../../mood', 'w').close()",
        headers="([('X-Mood', '1')] if mood else [])",
    ),
    "absent": "import sys; sys.exit('no such thing')\n",
}

CONTRACT = '''\
def test_hello(target):
    """The app greets (RFC 9110 section 9.3.1)."""
    assert target.get("/hello").text == "Hello world\\\\n"

def test_route(target):
    """The route is there."""
    assert target.get("/route").status_code == 200

def test_rule(target):
    """The server keeps the rule."""
    assert "X-Rude" not in target.get("/rule").headers

def test_twins(target):
    """Two servers break this one."""
    assert "X-Twin" not in target.get("/twins").headers

def test_crash(target):
    """The server survives."""
    assert target.get("/crash").text == "/crash"

def test_moody(target):
    """The server answers the first time as it does the second time."""
    assert "X-Mood" not in target.get("/moody").headers

def test_odd(target):
    """The answer is not odd."""
    assert target.get("/odd").text == "/odd"
'''

HANG = '''\
def test_hang(target):
    """The server answers."""
    assert target.get("/hang", timeout=600).text == "/hang"
'''

CONFORMANCE = '''\
import pytest

@pytest.mark.parametrize("case", ["first-case", "second-case"])
def test_case(case, target):
    """Each case is played."""
    with target.connect() as connection:
        connection.sendall(b"GET /hello HTTP/1.0\\\\r\\\\n\\\\r\\\\n")
        assert b" 200 " in connection.recv(100)
'''

CONTROL = '''\
import importlib, sys
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

def test_control(framework):
    """The app keeps PEP 3333."""
    sys.path.insert(0, str(framework.directory))
    app = importlib.import_module("app").app
    environ = {"QUERY_STRING": ""}
    setup_testing_defaults(environ)
    environ["PATH_INFO"] = "/hello"
    iterable = validator(app)(environ, lambda status, headers, error=None: None)
    assert b"".join(iterable) == b"Hello world\\\\n"
    iterable.close()
'''


def make_world(root: Path) -> Path:
    """Write the world: apps, servers, tests, and their matrix.toml."""
    for name in ("tests/__init__.py", "tests/conftest.py"):
        _write(root / name, (ROOT / name).read_text(encoding="utf-8"))
    for folder in ("tests/harness", "matrix"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("test_*.py", "__pycache__"))
    for name, app in APPS.items():
        _write(root / "apps" / name / "app.py", app)
    for name, server in SERVERS.items():
        _write(root / "servers" / f"{name}.py", server)
    for kind, text in {"contract": CONTRACT, "control": CONTROL}.items():
        _write(root / "tests" / kind / ("test_control.py" if kind == "control" else "test_small.py"), _plain(text))
    _write(root / "tests" / "contract" / "test_hang.py", _plain(HANG))
    _write(root / "tests" / "conformance" / "test_cases.py", _plain(CONFORMANCE))
    tables = [f'pythons = ["{PYTHON}", "{NO_PYTHON}"]\n\n']
    tables += [FRAMEWORK.format(name=name, python=PYTHON, no_python=NO_PYTHON) for name in APPS]
    tables += [SERVER.format(name=name, root=root) for name in SERVERS]
    _write(root / "matrix.toml", "".join([*tables, KNOWN]))
    return root


def _plain(text: str) -> str:
    return text.replace("\\\\", "\\")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class SmallTransport(VenvTransport):
    """Starts the small servers with the Python that runs the tests; `started` are the cells that it did so for."""

    def __init__(self, root: Path) -> None:
        super().__init__(load_matrix(root / "matrix.toml"), cache=root / ".matrix")
        lock = root / "empty.txt"
        lock.write_text("# nothing\n")
        self.bare = from_locks([lock], find_interpreter(PYTHON), cache=self.cache)
        self.started: list[str] = []

    def prepare(self, cell: Cell) -> None:
        """Install nothing: a vast framework takes long for that."""
        if cell.version.framework == "vast":
            run_step([sys.executable, "-c", "import time; time.sleep(600)"])

    @contextmanager
    def start(self, cell: Cell) -> Iterator[Started]:
        """Start a small server."""
        server, framework = self.matrix.server(cell.server), self.matrix.frameworks[cell.version.framework]
        self.started.append(cell.id)
        with start(server, self.bare, framework.directory, framework.application, keep=self.keep) as running:

            def dead() -> str | None:
                status = running.process.poll()
                return None if status is None else f"the server has ended with exit status {status}"

            provenance = Provenance(packages=self.bare.packages)
            yield Started(running.url, running.log, provenance, dead, leave=f"kill {running.pid}")

    def run_control(self, cell: Cell, suite: Suite, on_case: Callable[[Case], None], stop: Stop) -> SuiteEnd | None:
        """Run the control with the Python that runs the tests."""
        return suite.run(cell, ["control"], on_case, stop=stop, again=again_command(cell, self, suite))


@dataclass
class World:
    """The small world, ready to run."""

    root: Path
    transport: SmallTransport
    environment: Environment = field(init=False)

    def __post_init__(self) -> None:
        self.environment = self.transport.bare

    @property
    def matrix(self) -> Matrix:
        """What its matrix.toml says."""
        return self.transport.matrix

    @property
    def suite(self) -> Suite:
        """Its tests; one that takes 3 seconds is taken to hang."""
        return Suite(root=self.root, limit=3.0)

    def cell(self, server: str, framework: str = "plain", python: str = PYTHON) -> Cell:
        """Return a cell."""
        return Cell(server, self.matrix.version(framework), python)
