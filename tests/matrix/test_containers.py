"""Containers whose removal fails: that is told, it is no fault of a cell, and all else is removed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from matrix.cells import find_cell
from matrix.containers import Engine, remove_labelled
from matrix.environments import SetupError
from matrix.manifest import load_matrix

DOCKER = """\
#!/usr/bin/env python3
import json, os, sys
words = " ".join(sys.argv[1:])
with open(os.environ["DOCKER_SAID"], "a") as file:
    print(words, file=file)
for part, answer in json.load(open(os.environ["DOCKER_ANSWERS"])).items():
    if part in words:
        print(answer, file=sys.stderr if answer.startswith("no:") else sys.stdout)
        sys.exit(answer.startswith("no:"))
"""

INSPECTED = json.dumps(
    [
        {
            "NetworkSettings": {"Ports": {"8888/tcp": [{"HostPort": "1"}]}},
            "Image": "sha256:0",
            "Config": {"Entrypoint": ["wizgy"], "Cmd": []},
        }
    ]
)


class FakeDocker:
    """A `docker` that answers as it is told, by parts of its command lines; what begins with `no:` is a failure."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def answer(self, **answers: str) -> None:
        """Set the answers; `_` in a name is a space."""
        by_part = {name.replace("_", " "): answer for name, answer in answers.items()}
        (self.directory / "answers").write_text(json.dumps(by_part))

    @property
    def said(self) -> list[str]:
        """The commands that were given."""
        return (self.directory / "said").read_text().splitlines()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """A `docker` first on the path."""
    program = tmp_path / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_SAID", str(tmp_path / "said"))
    monkeypatch.setenv("DOCKER_ANSWERS", str(tmp_path / "answers"))
    return FakeDocker(tmp_path)


def test_down_that_fails_is_a_warning(docker: FakeDocker) -> None:
    """A container that served and cannot be removed afterwards is told of, and raises nothing."""
    docker.answer(inspect=INSPECTED, down="no: the network is in use", ps="abc")
    matrix = load_matrix()
    with Engine().serve(find_cell(matrix, "wizgy/flask"), "image") as container:
        assert container.warnings == []

    [warning] = container.warnings
    assert "no: the network is in use" in warning
    assert any(" down " in said for said in docker.said)


def test_removal_goes_on_after_an_error(docker: FakeDocker) -> None:
    """What cannot be removed hinders nothing else from being removed, and all of it is told."""
    docker.answer(network_rm="no: n1 is used", network_ls="n1 r\nn2 r", ps="c1 r\nc2 other\nc3 r", rm="no: c1 is stuck")
    with pytest.raises(SetupError) as caught:
        remove_labelled(lambda run: run == "r")

    assert "no: c1 is stuck" in str(caught.value)
    assert "no: n1 is used" in str(caught.value)
    assert "rm --force --volumes c1 c3" in docker.said
    assert "network rm n1 n2" in docker.said
