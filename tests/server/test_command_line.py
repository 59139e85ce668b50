"""The `wizgy` command: its flags, its settings from elsewhere, and how it ends when it cannot start."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT
from tests.harness.process import ServerProcess
from tests.server.client import FOLDER, TIMEOUT, get, start
from wizgy import __version__
from wizgy.config import SETTINGS
from wizgy.loader import enter_folder, find_start_folder

"""Whether the standard library, and so wizgy, reads TOML."""


def run(*arguments: str, environment: dict[str, str] | None = None, directory: Path = FOLDER) -> tuple[int, str, str]:
    """Run the command to its end: exit status, standard output, standard error."""
    process = ServerProcess(arguments, environment=environment, directory=directory)
    try:
        return process.wait(TIMEOUT), process.stdout, process.stderr
    finally:
        process.kill()


def settings(*arguments: str, environment: dict[str, str] | None = None, directory: Path = FOLDER) -> str:
    """What `--print-config` prints."""
    code, output, errors = run("--print-config", *arguments, environment=environment, directory=directory)
    assert (code, errors) == (0, "")
    return output


def test_version() -> None:
    """`--version` names the version and exits 0."""
    assert run("--version") == (0, f"wizgy {__version__}\n", "")


VALUES = {
    "bind": "127.0.0.1:0",
    "trust_proxy": "127.0.0.0/8",
    "access_log": "-",
    "log_format": "json",
}


def test_help_lists_every_flag_and_each_is_accepted() -> None:
    """`--help` is made from the settings, and no flag in it is refused."""
    code, output, errors = run("--help")
    assert (code, errors) == (0, "")
    flags = set(re.findall(r"^  (--[a-z-]+)", output, re.MULTILINE))
    ours = {setting.flag for setting in SETTINGS.values()}
    assert flags == ours | {"--help", "--version", "--config", "--check", "--print-config"}
    arguments = []
    for setting in SETTINGS.values():
        arguments.append(setting.flag)
        if setting.metavar:
            is_number = setting.unit or setting.metavar in ("N", "N|auto")
            default = ",".join(setting.default) if isinstance(setting.default, tuple) else str(setting.default)
            arguments.append(VALUES.get(setting.name, "1000" if is_number else default))
    printed = settings(*arguments)
    assert 'log_format = "json"' in printed
    assert "trace = true" in printed


def test_no_application() -> None:
    """Without an application the command says what to give it and exits 2."""
    code, _, errors = run()
    assert code == 2
    assert "Provide a WSGI application object as module:callable" in errors


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--thread", "4", "served:app"], {}, "--thread: there is no such flag. Did you mean --threads?"),
        (["--port", "80", "served:app"], {}, "--port: there is no such flag. Did you mean --bind?"),
        (["--access-log-format", "%(h)s", "served:app"], {}, "expected %h"),
        (["--max-requests-jitter", "5", "served:app"], {}, "5 means nothing without max_requests"),
        (["--threads", "none", "served:app"], {}, "--threads: 'none' will not do"),
        (["--threads", "0", "served:app"], {}, "expected a whole number from 1 up"),
        (["--max-body", "1G", "served:app"], {}, "expected a whole number from 0 up (bytes)"),
        (["--bind", "localhost", "served:app"], {}, "expected HOST:PORT"),
        (["--bind", "[::1]:99999", "served:app"], {}, "a port from 0 to 65535"),
        (["--threads"], {}, "--help"),
        (["served:app", "another:app"], {}, "--help"),
        (
            ["served:app"],
            {"WIZGY_THREAD": "4"},
            "WIZGY_THREAD: there is no such setting. Did you mean WIZGY_THREADS?",
        ),
        (
            ["served:app"],
            {"WIZGY_TRACE": "perhaps"},
            "WIZGY_TRACE: 'perhaps' will not do; expected true or false",
        ),
        (["served:app:x"], {}, "is not of the form module:callable"),
        (["--config", "nowhere.toml", "served:app"], {}, "nowhere.toml cannot be read: there is no such file"),
        (["--access-log", "/nowhere/log", "served:app"], {}, "/nowhere/log cannot be opened"),
        (["--chdir", "/nowhere", "served:app"], {}, "--chdir: /nowhere: No such file"),
    ],
)
def test_wrong_usage(arguments: list[str], environment: dict[str, str], expected: str) -> None:
    """What is wrong is named in one line, without a traceback, and the exit status is 2."""
    code, output, errors = run("--bind", "127.0.0.1:0", *arguments, environment=environment)
    assert (code, output) == (2, "")
    assert errors.startswith("wizgy: ")
    assert expected in errors
    assert errors.count("\n") == 1


def test_application_that_fails_to_import(tmp_path: Path) -> None:
    """An application that cannot be imported is exit 3 with one traceback, soon, and no respawn loop."""
    (tmp_path / "broken.py").write_text("value = 1\nraise RuntimeError('no database')\n", "utf-8")
    for workers in "1", "2":
        began = time.monotonic()
        code, _, errors = run("--workers", workers, "--bind", "127.0.0.1:0", "broken:app", directory=tmp_path)
        assert time.monotonic() - began < 2 + PATIENCE
        assert code == 3
        assert errors.count("Traceback") == errors.count("RuntimeError: no database") == 1
        assert "Serving HTTP" not in errors


PATIENCE = 3.0
"""Seconds on top of a rule's own bound, for a machine that does other things too."""


@pytest.mark.parametrize(
    ("application", "expected"),
    [("nothing:app", "no module 'nothing'"), ("served:nothing", "has no 'nothing'"), ("json", "neither")],
)
def test_application_that_is_not_there(application: str, expected: str) -> None:
    """A module or attribute that does not exist is exit 3 and no traceback."""
    code, _, errors = run("--bind", "127.0.0.1:0", application)
    assert code == 3
    assert expected in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("text", "reference", "code", "expected"),
    [
        ("def create_app(): ...", "site_app:create_app", 3, "Write site_app:create_app()."),
        (
            "class App:\n    def __call__(self, environ, start_response): ...",
            "site_app:App",
            3,
            "Write site_app:App().",
        ),
        ("async def app(scope, receive, send): ...", "site_app", 3, "site_app:app is an ASGI application"),
        ("async def create_app(): ...", "site_app:create_app()", 3, "must not be async"),
        ("def create_app(name): ...", "site_app:create_app('x')", 2, "application = create_app('x')"),
        ("app = None", "site_app:app", 3, "of type NoneType"),
        ("", "select:app", 3, "It hides the select.py of this folder"),
    ],
)
def test_what_is_no_application(tmp_path: Path, text: str, reference: str, code: int, expected: str) -> None:
    """What is no WSGI application is not served: one line says what it is, and what to write; `--check` says it too."""
    (tmp_path / "site_app.py").write_text(text, "utf-8")
    (tmp_path / "select.py").write_text("def app(environ, start_response): ...", "utf-8")
    for arguments in [reference], ["--check", reference]:
        status, _, errors = run("--bind", "127.0.0.1:0", *arguments, directory=tmp_path)
        assert status == code
        assert expected in errors
        assert errors.count("\n") == 1


def test_returned_value_is_named(tmp_path: Path) -> None:
    """An application that returns no iterable of bytes is answered for with 500, and the log names what it returned."""
    (tmp_path / "site_app.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n", "utf-8"
    )
    with start(app=str(tmp_path / "site_app.py:app")) as server:
        assert get(server.address)[0] == 500
        server.wait_stderr("The application returned NoneType; it must return an iterable of bytes")


def test_address_in_use() -> None:
    """An address that is taken is exit 4, with what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, errors = run("--bind", f"127.0.0.1:{taken.getsockname()[1]}", "served:app")
    assert code == 4
    assert re.search(r"Cannot listen on 127\.0\.0\.1:\d+: Address already in use\. Choose another --bind", errors)


def test_check() -> None:
    """`--check` loads the settings and the application, says so, and listens on nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, output, errors = run("--check", "--bind", f"127.0.0.1:{taken.getsockname()[1]}", "served:app")
    assert (code, errors) == (0, "")
    assert "served:app loads" in output
    assert run("--check", "served:nothing")[0] == 3


def test_printed_settings_are_read_back(tmp_path: Path) -> None:
    """What `--print-config` prints is TOML that `--config` reads to the same settings."""
    arguments = ["--bind", "127.0.0.1:0", "--bind", 'unix:/tmp/é😀\x7f".sock', "--threads", "3", "--trace"]
    printed = settings(*arguments, "--header-timeout", "2.5", "--access-log", 'a"b\\c')
    file = tmp_path / "wizgy.toml"
    file.write_text(printed, "utf-8")
    again = settings("--config", str(file), directory=tmp_path)
    values = [line.partition(" # ")[0] for line in again.splitlines()]
    assert values == [line.partition(" # ")[0] for line in printed.splitlines()]
    assert f"# {file}: threads" in again


def test_order_of_settings(tmp_path: Path) -> None:
    """A flag wins over the environment, that over [tool.wizgy] of pyproject.toml, and that over the default."""
    lines = ["[tool.wizgy]", "threads = 2", "backlog = 3", "max_body = 4", "trace = true"]
    (tmp_path / "pyproject.toml").write_text("\n".join(lines), "utf-8")
    environment = {"WIZGY_THREADS": "5", "WIZGY_BACKLOG": "6", "WIZGY_TRACE": "false"}
    printed = settings("--threads", "7", environment=environment, directory=tmp_path)
    shown = dict(line.split(" # ", 1) for line in re.sub(" +# ", " # ", printed).splitlines() if " = " in line)
    assert shown["threads = 7"] == "--threads"
    assert shown["backlog = 6"] == "WIZGY_BACKLOG"
    assert shown["max_body = 4"] == "pyproject.toml: max_body"
    assert shown["trace = false"] == "WIZGY_TRACE"
    assert shown["workers = 1"] == "default"
    (tmp_path / "other.toml").write_text("max_body = 8\n", "utf-8")
    printed = settings("--config", "other.toml", directory=tmp_path)
    assert "max_body = 8" in printed
    assert "threads = 8" in printed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thread = 1", "wizgy.toml: thread: there is no such setting. Did you mean threads?"),
        ("threads = 'x'", "threads: 'x' will not do"),
        ("threads = [1]", "threads: [1] will not do"),
        ("bind = []", "bind: [] will not do"),
        ("bind = 8888", "bind: 8888 will not do; expected text, or an array"),
        ("threads", "cannot be read"),
    ],
)
def test_wrong_file(tmp_path: Path, text: str, expected: str) -> None:
    """What is wrong in a file is said with its path, and the exit status is 2."""
    (tmp_path / "wizgy.toml").write_text(text, "utf-8")
    code, _, errors = run("--config", "wizgy.toml", "served:app", directory=tmp_path)
    assert code == 2
    assert "wizgy.toml" in errors
    assert expected in errors
    assert errors.count("\n") == 1


def test_module_runs_as_the_command() -> None:
    """An application is found in the current folder, by its file too."""
    for app in "served:app", "served.py:app", str(FOLDER / "served.py") + ":app", "served":
        with start(app=app) as server:
            assert get(server.address) == (200, b"hello\n")


def test_serve_from_python(tmp_path: Path) -> None:
    """`wizgy.serve(app, **settings)` is the command: ready line, TERM, exit status."""
    script = "import served, wizgy; wizgy.serve(served.app, bind='127.0.0.1:0', threads=2)"
    with ServerProcess(["-c", script], command=[sys.executable], directory=FOLDER) as server:
        assert get(server.wait_ready()) == (200, b"hello\n")
        assert server.stop() == 0
    with ServerProcess(["-c", "import wizgy; wizgy.serve(print, thread=2)"], command=[sys.executable]) as server:
        assert server.wait() == 1
        assert "Did you mean threads?" in server.stderr


def test_healthcheck_command() -> None:
    """`python -m wizgy.healthcheck URL` exits 0 while the URL is served, and 1 when it is not."""
    command = [sys.executable, "-m", "wizgy.healthcheck"]
    with start() as server:
        url = f"http://127.0.0.1:{server.address[1]}/hello"
        environment = {"PYTHONPATH": str(ROOT / "server")}
        assert subprocess.run([*command, url], env=environment, timeout=TIMEOUT).returncode == 0
        server.stop()
        ended = subprocess.run([*command, url], env=environment, timeout=TIMEOUT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "does not answer" in ended.stderr


def test_json_error_log() -> None:
    """With `--log-format json` a fault of the application is one JSON object a line, traceback inside."""
    with start("--log-format", "json") as server:
        assert get(server.address, "/exit")[0] == 500
        line = server.wait_stderr(r"^\{.*\}$")[0]
    event = json.loads(line)
    assert event["level"] == "error"
    assert "SystemExit: 7" in event["traceback"]


def test_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that it was started in need not be one that its user may enter: an application is found elsewhere."""
    there = os.curdir

    def refuse(name: str) -> None:
        if name == there:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "chdir", refuse)
    enter_folder(there)
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    monkeypatch.setenv("PWD", os.getcwd())
    assert find_start_folder() == os.curdir


def test_folder_that_is_gone(tmp_path: Path) -> None:
    """The folder that it was started in may be gone, where --chdir names another from the root on."""
    (tmp_path / "gone").mkdir()
    script = 'cd "$1"; rmdir "$1"; shift; exec "$@"'
    command = ["sh", "-c", script, "sh", str(tmp_path / "gone"), sys.executable, "-m", "wizgy"]
    with ServerProcess(["--bind", "127.0.0.1:0", "--chdir", str(FOLDER), "served:app"], command=command) as server:
        assert get(server.wait_ready()) == (200, b"hello\n")
    (tmp_path / "gone").mkdir()
    with ServerProcess(["--bind", "127.0.0.1:0", "--access-log", "log", "served:app"], command=command) as server:
        assert server.wait() in (2, 3)
        assert "folder is gone" in server.stderr
        assert "Traceback" not in server.stderr
