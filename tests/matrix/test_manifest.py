"""`matrix.toml` as the tests read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.frameworks import MatrixError, load_matrix

FRAMEWORK = """\
pythons = ["3.12", "3.13"]

[frameworks.plain]
title = "Plain"
greeting = "hello"
application = "app:app"
directory = "apps/plain"
port = 8000
default = "1"

[[frameworks.plain.versions]]
version = "1"
requirements = ["plain==1.0"]
pythons = ["3.13"]
"""

KNOWN = """\
[[known]]
frameworks = ["plain"]
tests = ["a-case"]
reason = "why"
link = "https://example.test/"
"""


def test_the_matrix_of_this_project() -> None:
    """Every framework of the project has its app in place."""
    frameworks = load_matrix().frameworks

    assert set(frameworks) == {"wsgi", "flask", "django", "pyramid"}
    for framework in frameworks.values():
        assert (framework.directory / framework.application.partition(":")[0]).is_dir()


def test_directories_are_relative_to_the_file(tmp_path: Path) -> None:
    """The directory of an app is found from the place of the matrix, not of the run."""
    path = tmp_path / "matrix.toml"
    path.write_text(FRAMEWORK + KNOWN)
    matrix = load_matrix(path)

    assert matrix.framework("plain").directory == tmp_path / "apps" / "plain"
    assert [known.test for known in matrix.known_for("any", matrix.version("plain"), "3.13")] == ["a-case"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frameworks = [", "cannot read"),
        (FRAMEWORK.replace('title = "Plain"\n', ""), r"\[frameworks.plain\]: needs title"),
        (FRAMEWORK.replace('default = "1"', "default = 1"), r"\[frameworks.plain\]: needs default"),
        (FRAMEWORK + KNOWN.replace('["plain"]', '["plane"]'), "'plane'; choose from: plain"),
        (FRAMEWORK + KNOWN.replace('reason = "why"', ""), r"\[\[known\]\] number 1: needs reason"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, text: str, message: str) -> None:
    """A mistake in the matrix is an error that says where it is and what is needed."""
    path = tmp_path / "matrix.toml"
    path.write_text(text)

    with pytest.raises(MatrixError, match=message):
        load_matrix(path)
