"""From a reference to an application: each form, and what is said when it fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wizgy.errors import LoadError, UsageError
from wizgy.loader import load_application

MODULE = """
def app(environ, start_response): ...
def other(environ, start_response): ...
def create(): return other
def broken(): return undefined_name
def nothing(): ...
async def later(): return app
def leave(): raise SystemExit(3)
class Site:
    class inner:
        app = app
class Lazy:
    @property
    def app(self): raise RuntimeError("no database")
    @property
    def leaves(self): raise SystemExit(5)
lazy = Lazy()
number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules that is the current one."""
    (tmp_path / "loaded.py").write_text(MODULE, "utf-8")
    (tmp_path / "loaded_both.py").write_text(
        "def application(environ, start_response): ...\napp = application\n", "utf-8"
    )
    (tmp_path / "loaded_none.py").write_text("", "utf-8")
    (tmp_path / "loaded_raises.py").write_text("import os\n1 / 0\n", "utf-8")
    (tmp_path / "loaded_exits.py").write_text("import sys\nsys.exit('bye')\n", "utf-8")
    (tmp_path / "loaded_lazy.py").write_text("def __getattr__(name): raise ImportError(name + ' is late')\n", "utf-8")
    (tmp_path / "loaded_needs.py").write_text("import no_such_package\n", "utf-8")
    (tmp_path / "loaded_syntax.py").write_text("def app(:\n", "utf-8")
    package = tmp_path / "loaded_package"
    package.mkdir()
    (package / "__init__.py").write_text("from . import site\n", "utf-8")
    (tmp_path / "socket.py").write_text("def app(environ, start_response): ...\n", "utf-8")
    (package / "site.py").write_text("def application(environ, start_response): ...\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("loaded:app", "app"),
        ("loaded", "app"),
        ("loaded:Site.inner.app", "app"),
        ("loaded:create()", "other"),
        ("loaded_both", "application"),
        ("loaded_package.site:application", "application"),
        ("loaded_package.site", "application"),
        ("loaded.py:other", "other"),
        ("./loaded.py", "app"),
        ("loaded_package/site.py:application", "application"),
    ],
)
def test_forms(reference: str, name: str) -> None:
    """Every form of a reference finds its application."""
    assert load_application(reference).__name__ == name


@pytest.mark.parametrize("reference", ["", ":app", "loaded:", "loaded:a:b", "loaded:3", "loaded:a-b", "loaded:.app"])
def test_malformed(reference: str) -> None:
    """A reference of no known form is wrong usage, with an example of a right one."""
    with pytest.raises(UsageError, match="flaskapp:app"):
        load_application(reference)


def test_file_with_the_name_of_a_loaded_module() -> None:
    """A file is loaded beside the module whose name it has: others have imported that."""
    before = sys.modules["socket"]
    assert load_application("socket.py:app").__name__ == "app"
    assert sys.modules["socket"] is before


@pytest.mark.parametrize("call", ["create('x')", "create(1, debug=True)", "sites.make({})", "create(\nname)"])
def test_factory_with_arguments(call: str) -> None:
    """A factory with arguments is wrong usage, with the line to write in a module instead."""
    with pytest.raises(UsageError) as caught:
        load_application(f"loaded:{call}")
    assert f"application = {call}, and name that: module:application." in str(caught.value)


def test_path_without_its_ending() -> None:
    """A path is told apart from a module, and what may have been meant is written out."""
    with pytest.raises(UsageError, match=r"write \./loaded\.py:app for a file, or package\.module:app"):
        load_application("./loaded:app")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("loaded_missing:app", "There is no module 'loaded_missing' in .*--chdir"),
        ("loaded_package.missing:app", "There is no module 'loaded_package.missing'"),
        ("missing.py:app", "There is no file missing.py"),
        ("loaded:missing", r"loaded \(.*/loaded\.py\) has no 'missing'"),
        ("loaded:Site.missing.app", r"loaded \(.*/loaded\.py\) has no 'Site\.missing\.app'"),
        ("loaded:number", r"loaded:number is of type int, not a WSGI callable\. Name the application itself"),
        ("loaded_none", "neither 'application' nor 'app'"),
        (
            "socket:app",
            r"socket \(.*/socket\.py\) has no 'app'\. It hides the socket\.py of this folder, which needs an",
        ),
        ("sys:app", r"sys \(which has no file\) has no 'app'\.$"),
        (
            "loaded_package:site",
            r"of type module, not a WSGI callable\. Did you mean loaded_package\.site:application\?",
        ),
        ("loaded:nothing()", r"loaded:nothing\(\) returned None\. .*is a return missing\?"),
        ("loaded:later()", r"loaded:later\(\) returned a coroutine"),
        ("loaded:create", r"loaded:create can be called without arguments: .* Write loaded:create\(\)\.$"),
        ("loaded:Site", r"loaded:Site is a class, .* Write loaded:Site\(\)\.$"),
    ],
)
def test_not_there(reference: str, expected: str) -> None:
    """What is not there is named, without a traceback."""
    with pytest.raises(LoadError, match=expected) as caught:
        load_application(reference)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("loaded_raises:app", "ZeroDivisionError"),
        ("loaded_raises.py:app", "ZeroDivisionError"),
        ("loaded_exits:app", "SystemExit: bye"),
        ("loaded_needs:app", "No module named 'no_such_package'"),
        ("loaded_syntax:app", "SyntaxError"),
        ("loaded:broken()", "undefined_name"),
        ("loaded:leave()", "SystemExit: 3"),
        ("loaded:lazy.app", "RuntimeError: no database"),
        ("loaded:lazy.leaves", "SystemExit: 5"),
        ("loaded_lazy:app", "ImportError: app is late"),
        ("loaded_lazy", "ImportError: application is late"),
    ],
)
def test_failures_show_the_traceback(reference: str, expected: str) -> None:
    """An application that fails is shown with its own traceback, once, and without wizgy's frames."""
    with pytest.raises(LoadError) as caught:
        load_application(reference)
    message = str(caught.value)
    assert expected in message
    assert message.count("Traceback (most recent call last)") == (0 if "syntax" in reference else 1)
    assert "wizgy" not in message.replace(str(Path.cwd()), "")
    assert caught.value.exit_code == 3
