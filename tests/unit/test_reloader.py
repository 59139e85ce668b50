"""Which files count for --reload, and what is a change of them."""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from wizgy import reloader
from wizgy.log import logger
from wizgy.reloader import Files, Memory, TooManyFolders, Watcher, files_of_failure


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
    assert Files(str(tmp_path))._find() == []
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


def make_packages(folder: Path, count: int) -> None:
    """Make folders with a module each."""
    for number in range(count):
        package = folder / f"package{number}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")


def test_links(tmp_path: Path) -> None:
    """A package behind a link is looked into, once, and a link that leads back is not followed."""
    make_packages(tmp_path / "elsewhere", 1)
    project = tmp_path / "project"
    make_packages(project, 1)
    (project / "__init__.py").write_text("")
    (tmp_path / "__init__.py").write_text("")
    (project / "linked").symlink_to(tmp_path / "elsewhere" / "package0")
    (project / "again").symlink_to(tmp_path / "elsewhere" / "package0")
    (project / "data").symlink_to(tmp_path / "elsewhere")
    (project / "package0" / "up").symlink_to(tmp_path)
    (project / "package0" / "back").symlink_to(project)
    found = Files(str(project))._find()
    assert sorted(os.path.realpath(path) for path in found) == [
        str(tmp_path / "elsewhere" / "package0" / "__init__.py"),
        str(project / "__init__.py"),
        str(project / "package0" / "__init__.py"),
    ]


def test_too_many_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below more folders than a project has, only the files that are loaded or named count, and no time is spent."""
    monkeypatch.setattr(reloader, "MOST_FOLDERS", 10)
    make_packages(tmp_path, 9)
    assert Files(str(tmp_path)).folders == 10
    make_packages(tmp_path / "more", 1)
    named = tmp_path / "named.py"
    named.write_text("")
    files = Files(str(tmp_path), [str(named)])
    assert files.folders == 0
    monkeypatch.setattr(reloader, "list_folder", lambda folder: pytest.fail(f"{folder} is listed"))
    (tmp_path / "package0" / "new.py").write_text("")
    named.write_text("changed")
    assert files.look() == [str(named)]


def test_other_file_systems_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the root of a disk neither /proc and /sys nor what else is mounted there is looked into."""
    monkeypatch.setattr(reloader, "MOST_FOLDERS", 200)
    device = os.stat("/").st_dev
    seen: set[tuple[int, int]] = set()
    below = Files("/nowhere")._below("/", device, seen)
    with pytest.raises(TooManyFolders):
        list(below)
    assert {identity[0] for identity in seen} == {device}
    assert list(Files("/nowhere")._below("/proc", device, set())) == []


def test_files_of_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure names the files of its frames and of what led to it, of bad syntax, and where a module may be."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "failing_syntax.py").write_text("x = (\n")
    (tmp_path / "failing_outer.py").write_text(
        "try:\n    import failing_syntax\nexcept SyntaxError:\n    raise ValueError from None\n"
    )
    (tmp_path / "failing_missing.py").write_text("import failing_sub.nothing\n")
    with pytest.raises(ValueError) as raised:
        importlib.import_module("failing_outer")
    files = files_of_failure(raised.value)
    assert {str(tmp_path / "failing_outer.py"), str(tmp_path / "failing_syntax.py")} <= files
    with pytest.raises(ModuleNotFoundError) as missing:
        importlib.import_module("failing_missing")
    files = files_of_failure(missing.value)
    places = ("failing_missing.py", "failing_sub.py", "failing_sub/__init__.py")
    assert {str(tmp_path / place) for place in places} <= files


def test_memory() -> None:
    """What one worker had loaded is known to the next, in full, however long the list before was."""
    memory = Memory()
    assert memory.recall() == []
    memory.keep()
    assert __file__ in memory.recall()
    assert set(memory.recall()) == set(reloader.loaded_files())
    memory._file.close()


def test_slow_look_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that takes long is followed by a pause in proportion, and is said once, with the number of folders."""
    pauses: list[float] = []
    said: list[str] = []
    monkeypatch.setattr(reloader, "sleep", pauses.append)
    monkeypatch.setattr(logger, "warning", lambda text, *values: said.append(text % values))
    watcher = Watcher.__new__(Watcher)
    watcher._files = Files(str(tmp_path))
    watcher._folder = str(tmp_path)
    watcher._slow = False
    for took in 0.01, 0.5, 0.5:
        watcher._rest(took)
    assert pauses == [took / reloader.SHARE for took in (0.01, 0.5, 0.5)]
    assert len(said) == 1
    assert f"1 folders below {tmp_path} takes 0.5 s" in said[0]
