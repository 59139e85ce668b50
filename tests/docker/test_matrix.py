"""Cells as containers, the one line that starts any combination, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from matrix.containers import LABEL
from tests.docker.compose import Project, run

PYTHON = os.environ.get("PYTHON_VERSION", "3.13")
MATRIX = [sys.executable, "-m", "matrix"]


def labelled() -> list[str]:
    """Return the containers and networks that runs of the matrix have left."""
    containers = run(["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}"]).stdout.split()
    networks = run(["docker", "network", "ls", "--quiet", "--filter", f"label={LABEL}"]).stdout.split()
    return containers + networks


def test_cell_as_container(tmp_path: Path) -> None:
    """A cell runs as a container with the same id and tests, says what it was made of, and leaves nothing."""
    output = tmp_path / "results.jsonl"
    cell = f"waitress/flask-3.1/py{PYTHON}"

    answer = run([*MATRIX, "run", "--transport", "image", cell, "--fresh", "--output", str(output)])

    assert answer.returncode == 0, answer.stdout + answer.stderr
    records = [json.loads(line) for line in output.read_text().splitlines()]
    [record] = [record for record in records if record["record"] == "cell"]
    assert record["cell"] == cell
    assert record["verdict"] == "known"
    made = record["provenance"]
    assert made["digest"].startswith("sha256:")
    assert made["server_version"] in [package.partition("==")[2] for package in made["packages"]]
    assert made["interpreter"].startswith(f"{PYTHON}.")
    assert made["server_command"] == "python -m waitress --listen=0.0.0.0:8888 --threads=8 main:application"
    assert sum(record["record"] == "case" for record in records) > 200
    assert labelled() == []


@pytest.fixture
def old_flask() -> Iterator[Project]:
    """A compose project of a test's own."""
    project = Project(("flask",), variables={"FLASK_VERSION": "2.3", "SERVER": "gunicorn"})
    try:
        yield project
    finally:
        project.remove()


def test_any_combination_in_one_line(old_flask: Project) -> None:
    """`FLASK_VERSION=2.3 SERVER=gunicorn docker compose up flask` does what it says."""
    old_flask.checked("up", "--detach", "--wait", "flask")

    assert requests.get(f"{old_flask.url('flask')}/hello", timeout=10).headers["Server"] == "gunicorn"
    ask = "import importlib.metadata as m; print(m.version('flask'), m.version('werkzeug'))"
    flask, werkzeug = old_flask.checked("exec", "-T", "flask", "python", "-c", ask).split()
    assert flask.startswith("2.3.")
    assert werkzeug.startswith("2.")


def test_unknown_server() -> None:
    """A server that there is not stops the build with its name."""
    project = Project(("flask",), variables={"SERVER": "gunicorm"})
    answer = project.compose("build", "flask")

    assert answer.returncode != 0
    assert "gunicorm" in answer.stderr


def test_kept_container_and_clean_up() -> None:
    """`repro --keep` says how to get in; `clean` finds what is left by its label."""
    what = [f"waitress/flask-3.1/py{PYTHON}", "test_requests.py::test_cookies"]
    answer = run([*MATRIX, "repro", "--transport", "image", *what, "--keep"])
    assert answer.returncode == 0, answer.stdout + answer.stderr
    url = re.search(r"goes on serving on (\S+)", answer.stdout)
    entry = re.search(r"get in: docker exec -it (\S+) sh", answer.stdout)
    assert url
    assert entry
    assert requests.get(f"{url[1]}/hello", timeout=10).text == "Hello world from Flask!\n"
    assert run(["docker", "exec", entry[1], "sh", "-c", "id -u"]).stdout.strip() == "10001"

    answer = run([*MATRIX, "clean"])
    assert answer.stdout.endswith("removed: 1 container(s), 1 network(s)\n")
    assert labelled() == []
