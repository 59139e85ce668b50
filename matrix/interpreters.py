"""The Pythons of this machine: where the one of a cell is, and which build of it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ANSWER_SECONDS = 30.0
"""Seconds for an interpreter to say what it is."""

ASK = (
    "import json, os, platform, sys, sysconfig; print(json.dumps({"
    "'executable': os.path.realpath(sys.executable), 'version': platform.python_version(), "
    "'implementation': platform.python_implementation(), 'build': sys.version, "
    "'free_threaded': bool(sysconfig.get_config_var('Py_GIL_DISABLED')), 'platform': sysconfig.get_platform()}))"
)


class InterpreterMissing(Exception):
    """No interpreter of the wanted version is on this machine."""


@dataclass(frozen=True)
class Interpreter:
    """One Python: `version` in full (`3.13.0`), and `build` as `sys.version` has it."""

    executable: str
    version: str
    implementation: str
    build: str
    free_threaded: bool
    platform: str


@functools.lru_cache
def find_interpreter(python: str) -> Interpreter:
    """Return the interpreter for a Python named as in a cell, `3.13`.

    It looks at the Python that runs this, at `python3.13` on the PATH, at pyenv's, and asks uv for its own. The
    variable `MATRIX_PYTHON_3_13` names another one.

    Raises:
        InterpreterMissing: there is none; the message says what to do.
    """
    for candidate in _candidates(python):
        found = _ask(candidate)
        if found and found.version.split(".")[:2] == python.split("."):
            return found
    variable = _variable(python)
    raise InterpreterMissing(
        f"no Python {python} is on this machine: install it (`uv python install {python}`), name one in {variable}, "
        "or run the cell as a container (--transport image)"
    )


def _variable(python: str) -> str:
    return f"MATRIX_PYTHON_{python.replace('.', '_')}"


def _candidates(python: str) -> Iterator[str]:
    if named := os.environ.get(_variable(python)):
        yield named
    if f"{sys.version_info.major}.{sys.version_info.minor}" == python:
        # The interpreter under a virtual environment, so that the one made from it does not depend on that.
        yield getattr(sys, "_base_executable", sys.executable)
    if found := shutil.which(f"python{python}"):
        yield found
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted((str(path) for path in root.glob(f"versions/{python}.*/bin/python")), reverse=True)
    if uv := find_uv():
        command = [uv, "python", "find", "--no-python-downloads", "--no-project", "--quiet", python]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            yield answer.stdout.strip()


def _ask(executable: str) -> Interpreter | None:
    """Let an interpreter say what it is; a shim of pyenv for a version that is not chosen says nothing."""
    try:
        answer = subprocess.run(
            [executable, "-I", "-c", ASK], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True
        )
        return Interpreter(**json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None


def find_uv() -> str | None:
    """Return where uv is, if it is: on the PATH, or beside the Python that runs this."""
    beside = Path(sys.executable).with_name("uv")
    return shutil.which("uv") or (str(beside) if beside.exists() else None)
