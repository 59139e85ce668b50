"""How long it takes until the first answer, and what is imported for it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.harness.process import ServerProcess
from tests.server.client import get

ANSWERS = 5
FIRST_ANSWER = 0.15
"""Seconds in which the first answer should come, on a machine that does nothing else."""
PATIENCE = 5
"""How many times that the quickest of several starts may take here, beside other tests."""
COSTLY = {
    *("argparse", "asyncio", "dataclasses", "difflib", "email", "gettext", "hashlib", "http.client", "inspect"),
    *("ipaddress", "json", "logging", "pathlib", "random", "shutil", "ssl", "subprocess", "sysconfig", "tempfile"),
    *("tokenize", "tomllib", "traceback", "urllib.parse", "urllib.request", "zipfile"),
}
"""Modules of the standard library that take long to import, and that no usual start needs."""

APPLICATION = """
import sys

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [("[" + ", ".join(f'"{name}"' for name in sys.modules) + "]").encode()]
"""


def test_nothing_costly_is_imported(tmp_path: Path) -> None:
    """A worker that serves has imported none of the modules that take long, unless Python itself has."""
    (tmp_path / "modules.py").write_text(APPLICATION, "ascii")
    with ServerProcess(["--bind", "127.0.0.1:0", "modules:app"], directory=tmp_path) as server:
        imported = set(json.loads(get(server.wait_ready())[1]))
    plain = "import sys; print(*sys.modules)"
    with ServerProcess(["-c", plain], command=[server.command[0]], directory=tmp_path) as python:
        python.wait()
    assert {"wizgy.engine", "modules"} <= imported
    assert imported & COSTLY <= set(python.stdout.split())


def test_first_answer(tmp_path: Path) -> None:
    """The first answer comes soon after the start."""
    (tmp_path / "modules.py").write_text(APPLICATION, "ascii")
    seconds = []
    for _ in range(ANSWERS):
        began = time.monotonic()
        with ServerProcess(["--bind", "127.0.0.1:0", "modules:app"], directory=tmp_path) as server:
            assert get(server.wait_ready())[0] == 200
            seconds.append(time.monotonic() - began)
    assert min(seconds) < FIRST_ANSWER * PATIENCE, seconds
