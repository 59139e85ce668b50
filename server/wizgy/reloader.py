"""--reload: notices that code has changed, in a worker, beside the application. For development.

What is looked at: every ``.py`` file below the current folder, and the files of all modules that are loaded. When:
a few times a second, or where `watchfiles` is installed, when the system tells of a change.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic, sleep, time_ns
from typing import Any, Final

from wizgy.log import logger

PAUSE: Final = 0.2
"""Seconds between two looks at the files, where the system does not tell of changes."""
SHARE: Final = 0.05
"""The most of a processor to spend on looking."""
AT_LEAST: Final = 1.0
"""Seconds between two looks where the system tells of changes below the current folder; it tells of no other."""
SETTLED: Final = 0.05
"""Seconds without a change after which it is told: an editor, or git, writes more than one file."""
SKIPPED: Final = ("__pycache__", "node_modules", "site-packages")
"""Folders in which nobody edits; those with a leading dot besides."""

Stamp = tuple[int, int, int]


class Files:
    """Files, and whether they are as they were.

    Args:
        folder: the one below which every ``.py`` file is watched.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._stamps: dict[str, Stamp | None] = {}
        self._began = time_ns()
        self._listed: dict[str, tuple[Stamp, list[str], list[str]]] = {}  # folders: their files, their folders
        self._stamps.update((path, stamp_of(path)) for path in self._below(folder))

    def look(self) -> list[str]:
        """The files that have changed, appeared or gone since the last look."""
        changed = []
        for path in loaded_files():
            if path not in self._stamps:
                stamp = self._stamps[path] = stamp_of(path)
                if stamp is not None and self._began < stamp[0] <= time_ns():
                    changed.append(path)  # nobody knows whether before it was loaded or after
        found = dict.fromkeys(self._below(self._folder))
        for path in [*self._stamps, *(path for path in found if path not in self._stamps)]:
            stamp = stamp_of(path)
            if self._stamps.get(path) != stamp:
                self._stamps[path] = stamp
                changed.append(path)
        return changed

    def _below(self, folder: str) -> Iterator[str]:
        """The ``.py`` files below a folder. One that has not changed is not listed again."""
        stamp = stamp_of(folder)
        if stamp is None:
            return
        known = self._listed.get(folder)
        if known is None or known[0] != stamp:
            known = self._listed[folder] = (stamp, *list_folder(folder))
        yield from known[1]
        for below in known[2]:
            yield from self._below(below)


def stamp_of(path: str) -> Stamp | None:
    """What changes when a file is written or replaced; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def list_folder(folder: str) -> tuple[list[str], list[str]]:
    """The ``.py`` files of a folder, and the folders in it; none of a virtual environment."""
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == "pyvenv.cfg":
                    return [], []
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in SKIPPED and not entry.name.startswith("."):
                        folders.append(entry.path)
                elif entry.name.endswith(".py"):
                    files.append(entry.path)
    except OSError:
        pass  # it was removed meanwhile, or is not for this user
    return files, folders


def loaded_files() -> Iterator[str]:
    """The source files of all modules that are loaded."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and path.endswith(".py"):
            yield path


def watch(folder: str, tell: Callable[[list[str]], None]) -> None:
    """Call `tell` in another thread, once, when code has changed.

    Args:
        folder: the one below which every ``.py`` file is watched.
        tell: called with the files that have changed.
    """
    files = Files(folder)  # before anything is loaded
    threading.Thread(target=_watch, args=(folder, files, tell), name="wizgy-reloader", daemon=True).start()


def _watch(folder: str, files: Files, tell: Callable[[list[str]], None]) -> None:
    changed: list[str] = []
    for _ in _moments(folder):
        began = monotonic()
        changed = files.look()
        if changed:
            break
        sleep(min((monotonic() - began) / SHARE, AT_LEAST))
    while more := _look_later(files):
        changed += more
    tell(changed)


def _look_later(files: Files) -> list[str]:
    sleep(SETTLED)
    return files.look()


def _moments(folder: str) -> Iterator[object]:
    """Come back whenever it is time to look at the files."""
    try:
        watchfiles: Any = importlib.import_module("watchfiles")
        yield None  # that took a while
        yield from watchfiles.watch(
            folder,
            watch_filter=watchfiles.PythonFilter(),
            step=10,
            rust_timeout=int(AT_LEAST * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
        )
    except ImportError:
        pass
    except Exception as error:  # noqa: BLE001 - there is another way to notice changes
        logger.warning("watchfiles: %s The files are looked at instead.", error)
    while True:
        sleep(PAUSE)
        yield None
