"""Which files count for --reload, and what is a change of them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from wizgy import reloader
from wizgy.reloader import Files


def test_changes(tmp_path: Path) -> None:
    """A file that is written, replaced by one of the same time and size, added or removed has changed, once."""
    old, other = tmp_path / "old.py", tmp_path / "package" / "other.py"
    other.parent.mkdir()
    old.write_text("1")
    other.write_text("1")
    files = Files(str(tmp_path))
    assert files.look() == []
    old.write_text("22")
    assert files.look() == [str(old)]
    assert files.look() == []
    twin = tmp_path / "twin"
    twin.write_text("3")
    status = other.stat()
    os.utime(twin, ns=(status.st_atime_ns, status.st_mtime_ns))
    twin.rename(other)
    assert files.look() == [str(other)]
    new = other.with_name("new.py")
    new.write_text("1")
    assert files.look() == [str(new)]
    other.unlink()
    assert files.look() == [str(other)]
    assert files.look() == []


def test_folders(tmp_path: Path) -> None:
    """Hidden folders, those of packages and of bytecode, and virtual environments are not looked into."""
    for name in ".git", "__pycache__", "node_modules", "site-packages", "venv":
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text("1")
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    (tmp_path / "text.txt").write_text("1")
    assert list(Files(str(tmp_path))._below(str(tmp_path))) == []
    assert Files(str(tmp_path / "nowhere")).look() == []


def test_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that has not changed is not listed a second time: that is what takes time in a large project."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("1")
    files = Files(str(tmp_path))
    monkeypatch.setattr(reloader, "list_folder", lambda folder: pytest.fail(f"{folder} is listed"))
    assert files.look() == []


def test_loaded_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module from elsewhere counts too; one that was written since the start has changed."""
    source, late = tmp_path / "elsewhere.py", tmp_path / "elsewhere_late.py"
    source.write_text("")
    os.utime(source, (0, 0))
    monkeypatch.syspath_prepend(str(tmp_path))
    files = Files(str(tmp_path / "nowhere"))
    __import__("elsewhere")
    assert files.look() == []
    late.write_text("")
    now = time.time_ns()  # the clock of files is a coarse one
    os.utime(late, ns=(now, now))
    __import__("elsewhere_late")
    assert files.look() == [str(late)]
    source.write_text("changed = True")
    assert files.look() == [str(source)]


def test_file_of_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded file that a wrong clock has dated tomorrow has not changed, or the worker would be replaced for ever."""
    files = Files(str(tmp_path / "none"))
    module = tmp_path / "own.py"
    module.write_text("", "utf-8")
    tomorrow = time.time() + 86400
    os.utime(module, (tomorrow, tomorrow))
    monkeypatch.setitem(sys.modules, "own", SimpleNamespace(__file__=str(module)))
    assert files.look() == []
    module.write_text("changed = True\n", "utf-8")
    assert files.look() == [str(module)]
