"""--reload: notices that code has changed, in a worker, beside the application. For development.

What is looked at: every ``.py`` file below the current folder, and the files of all modules that are loaded. When:
a few times a second, or where `watchfiles` is installed, when the system tells of a change.

Rules of this file:

- Where the application does not load, the files that the last one had loaded and those that the failure names are
  looked at: the one to correct may be in neither `sys.modules` nor the folder.
- Looking takes no more than `SHARE` of a processor. Other file systems are not walked, nor a folder with too many
  others below it: then only what is loaded counts.
- What is loaded after a change is compiled from its source.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import cache_from_source
from typing import Any, Final

from wizgy.log import logger
from wizgy.primitives import Thread, monotonic, sleep, time_ns

PAUSE: Final = 0.2
"""Seconds between two looks at the files, where the system does not tell of changes."""
SHARE: Final = 0.05
"""The most of a processor to spend on looking."""
AT_LEAST: Final = 1.0
"""Seconds between two looks where the system tells of changes below the current folder; it tells of no other."""
MOST_FOLDERS: Final = 5000
"""Folders to walk; a project has fewer, and the root of a disk more."""
BYTECODE_AGE: Final = 2.0
"""Seconds for which a ``.pyc`` must be younger than its source: it names that by its size and the second alone."""
SETTLED: Final = 0.05
"""Seconds without a change after which it is told: an editor, or git, writes more than one file."""
SKIPPED: Final = ("__pycache__", "node_modules", "site-packages")
"""Folders in which nobody edits; those with a leading dot besides."""

Stamp = tuple[int, int, int]


class TooManyFolders(Exception):
    """There are more folders below one than may be walked."""


class Files:
    """Files, and whether they are as they were.

    Args:
        folder: the one below which every ``.py`` file is watched.
        others: files to watch wherever they are.

    Attributes:
        folders: how many folders are walked; 0 where there are too many of them.
    """

    def __init__(self, folder: str, others: Iterable[str] = ()) -> None:
        self._folder = folder
        self._stamps: dict[str, Stamp | None] = {}
        self._began = time_ns()
        self._listed: dict[str, tuple[Stamp, list[str], list[str]]] = {}  # folders: their files, their folders
        self.folders = 1
        self._stamps.update((path, stamp_of(path)) for path in (*self._find(), *others))

    def look(self) -> list[str]:
        """The files that have changed, appeared or gone since the last look."""
        changed = []
        for path in loaded_files():
            if path not in self._stamps:
                stamp = self._stamps[path] = stamp_of(path)
                if stamp is not None and self._began < stamp[0] <= time_ns():
                    changed.append(path)  # nobody knows whether before it was loaded or after
        found = self._find()
        for path in [*self._stamps, *(path for path in found if path not in self._stamps)]:
            stamp = stamp_of(path)
            if self._stamps.get(path) != stamp:
                self._stamps[path] = stamp
                changed.append(path)
        return changed

    def add(self, paths: Iterable[str]) -> None:
        """Watch more files, wherever they are, from now on."""
        for path in paths:
            if path not in self._stamps:
                self._stamps[path] = stamp_of(path)

    def _find(self) -> list[str]:
        """The ``.py`` files below the folder, as long as it is walked."""
        if not self.folders:
            return []
        try:
            device = os.stat(self._folder).st_dev
            seen = set(identities_of_parents(self._folder))
            found = list(self._below(self._folder, device, seen))
        except TooManyFolders:
            self.folders = 0
            self._listed.clear()
            return []
        except OSError:
            return []
        self.folders = len(self._listed)
        return found

    def _below(self, folder: str, device: int, seen: set[tuple[int, int]]) -> Iterator[str]:
        """The ``.py`` files below a folder. One that has not changed is not listed again.

        Args:
            folder: where to begin.
            device: the file system to stay in.
            seen: the folders that were walked, by device and inode: links may lead back to one.
        """
        try:
            status = os.stat(folder)
        except OSError:
            return  # it was removed meanwhile
        identity = status.st_dev, status.st_ino
        if identity in seen or status.st_dev != device:
            return
        seen.add(identity)
        stamp = status.st_mtime_ns, status.st_size, status.st_ino
        known = self._listed.get(folder)
        if known is None or known[0] != stamp:
            known = self._listed[folder] = (stamp, *list_folder(folder))
            if len(self._listed) > MOST_FOLDERS:
                raise TooManyFolders
        yield from known[1]
        for below in known[2]:
            yield from self._below(below, device, seen)


def identities_of_parents(folder: str) -> Iterator[tuple[int, int]]:
    """Device and inode of each folder that a folder is in."""
    parent = os.path.dirname(os.path.realpath(folder))
    while True:
        status = os.stat(parent)
        if not os.path.samefile(parent, folder):
            yield status.st_dev, status.st_ino
        if parent == os.path.dirname(parent):
            return
        parent = os.path.dirname(parent)


def stamp_of(path: str) -> Stamp | None:
    """What changes when a file is written or replaced; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def list_folder(folder: str) -> tuple[list[str], list[str]]:
    """The ``.py`` files of a folder, and the folders in it: of links only packages, of a virtual environment none."""
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == "pyvenv.cfg":
                    return [], []
                if entry.is_dir() and (not entry.is_symlink() or os.path.isfile(f"{entry.path}/__init__.py")):
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


class Memory:
    """The files that the last application had loaded: one that does not load is corrected in any of them.

    Made by the supervisor, so that one worker can leave it to the next.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is for as long as the process lives

    def keep(self) -> None:
        """Keep the files of all modules that are loaded now."""
        content = "\0".join(loaded_files()).encode("utf-8", "surrogateescape")
        os.ftruncate(self._file.fileno(), 0)
        os.pwrite(self._file.fileno(), content, 0)

    def recall(self) -> list[str]:
        """The files that were kept last."""
        descriptor = self._file.fileno()
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        return content.decode("utf-8", "surrogateescape").split("\0") if content else []


_shared_memory: Memory | None = None


def share_memory() -> None:
    """Make what the workers remember; called by their supervisor, before it starts any."""
    global _shared_memory
    _shared_memory = Memory()


class Watcher:
    """Looks at files in another thread, and tells once, when code has changed.

    Args:
        folder: the one below which every ``.py`` file is watched.
        tell: called with the files that have changed.
    """

    def __init__(self, folder: str, tell: Callable[[list[str]], None]) -> None:
        self._folder = folder
        self._memory = _shared_memory or Memory()
        self._tell = tell
        self._loaded = False
        self._files = Files(folder, self._memory.recall())  # before anything is loaded
        self._slow = False  # whether it was said that a look takes long
        Thread(self._watch, "wizgy-reloader").start()
        if not self._files.folders:
            logger.warning(
                "There are more than %d folders below %s, so only modules that are loaded are watched. "
                "Start wizgy in the project's folder, or name it with --chdir.",
                MOST_FOLDERS,
                folder,
            )

    def note_loaded(self) -> None:
        """The application is loaded; what it has loaded by now is watched when the next one fails."""
        self._loaded = True
        self._memory.keep()

    def note_failed(self, error: BaseException) -> None:
        """The application did not load: watch all files that the failure passed through."""
        self._files.add(files_of_failure(error))

    def _watch(self) -> None:
        changed: list[str] = []
        for _ in self._moments():
            began = monotonic()
            changed = self._files.look()
            if changed:
                break
            self._rest(monotonic() - began)
        while more := self._look_later():
            changed += more
        if self._loaded:
            self._memory.keep()  # with what was loaded by requests
        self._tell(changed)

    def _rest(self, took: float) -> None:
        """Wait after a look that took some seconds, so that looking takes its share of a processor and no more."""
        pause = took / SHARE
        if pause > AT_LEAST and not self._slow:
            self._slow = True
            logger.warning(
                "To look at %d folders below %s takes %.1f s, so a change is noticed after up to %.0f s. "
                "Name a smaller folder with --chdir, or install watchfiles.",
                self._files.folders,
                self._folder,
                took,
                pause + AT_LEAST,
            )
        sleep(pause)

    def _look_later(self) -> list[str]:
        sleep(SETTLED)
        return self._files.look()

    def _moments(self) -> Iterator[object]:
        """Come back whenever it is time to look at the files."""
        try:
            if self._files.folders:  # the system would walk the folder as well, and tell of every program's files
                watchfiles: Any = importlib.import_module("watchfiles")
                yield None  # that took a while
                yield from watchfiles.watch(
                    self._folder,
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


def files_of_failure(error: BaseException) -> set[str]:
    """The source files that an exception, and those that led to it, have passed through, or that they did not find."""
    files: set[str] = set()
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, SyntaxError) and one.filename:
            files.add(one.filename)
        elif isinstance(one, ImportError) and one.name:
            files |= files_of_module(one.name)
        trace = one.__traceback__
        while trace is not None:
            files.add(trace.tb_frame.f_code.co_filename)
            trace = trace.tb_next
    return {path for path in files if path.endswith(".py")}


def files_of_module(name: str) -> set[str]:
    """Where a module may be, whether it is there or not."""
    path = name.replace(".", "/")
    return {os.path.join(folder, f"{path}{end}") for folder in sys.path for end in (".py", "/__init__.py")}


def distrust_bytecode() -> None:
    """From now on write no bytecode, and read none that may be that of an earlier source."""
    sys.dont_write_bytecode = True
    path_stats = SourceFileLoader.path_stats

    def stats_of_source(self: SourceFileLoader, path: str) -> Any:
        stats = path_stats(self, path)
        try:
            written = os.stat(cache_from_source(path)).st_mtime
        except (OSError, NotImplementedError):
            return stats  # there is no bytecode
        if written < stats["mtime"] + BYTECODE_AGE:
            return {**stats, "mtime": -1}  # so that the import takes it for that of another source
        return stats

    SourceFileLoader.path_stats = stats_of_source  # type: ignore[method-assign]
