"""Which cells a run is about: ids, conditions, tiers, shards, and what a change affects."""

from __future__ import annotations

import json

import pytest

from matrix import cli
from matrix.cells import Shard, all_cells, choose_cells, find_cell
from matrix.fingerprints import affected_cells
from matrix.manifest import MATRIX_FILE, MatrixError, load_matrix, parse_matrix

MATRIX = load_matrix()


def test_every_combination_is_a_cell() -> None:
    """Each server of the matrix meets each version on each Python that the version works on."""
    cells = all_cells(MATRIX)
    versions = [version for framework in MATRIX.frameworks.values() for version in framework.versions]

    assert len(cells) == len({cell.id for cell in cells})
    assert len(cells) == len(MATRIX.servers_for("matrix")) * sum(len(version.pythons) for version in versions)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("wizgy/flask-2.3/py3.12", "wizgy/flask-2.3/py3.12"),
        ("wizgy/django-4.2", "wizgy/django-4.2/py3.12"),
        ("gunicorn/flask/3.11", "gunicorn-sync/flask-3.1/py3.11"),
    ],
)
def test_cell_by_id(text: str, found: str) -> None:
    """What an id leaves out is the default version, the newest Python and the first mode of a server."""
    assert find_cell(MATRIX, text).id == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wizgy", "no cell is called 'wizgy'; write SERVER/FRAMEWORK-VERSION/pyPYTHON"),
        ("wizgi/flask", "no server is called 'wizgi'; choose one of: wizgy, "),
        ("wizgy/flask-9", "no version of Flask is called '9'; choose one of: 3.1"),
        ("wizgy/django-4.2/py3.14", "wizgy with django-4.2 has no Python '3.14'; choose from: 3.10, 3.11, 3.12"),
    ],
)
def test_no_such_cell(text: str, message: str) -> None:
    """An id that is wrong is an error that says which part, and what there is."""
    with pytest.raises(MatrixError) as caught:
        find_cell(MATRIX, text)
    assert message in str(caught.value)


def test_conditions_are_joined() -> None:
    """Conditions of different kinds all hold; of one kind, any does."""
    cells = choose_cells(MATRIX, servers=["gunicorn", "wizgy"], frameworks=["flask"], pythons=["3.12", "py313"])

    assert {cell.server for cell in cells} == {"wizgy", "gunicorn-sync", "gunicorn-gthread"}
    assert {cell.version.framework for cell in cells} == {"flask"}
    assert {cell.python for cell in cells} == {"3.12", "3.13"}


def test_tiers_part_the_versions() -> None:
    """The tiers full and end-of-life have every cell, each once; gate has wizgy with every version."""
    tiers = {name: {cell.id for cell in choose_cells(MATRIX, tier=name)} for name in MATRIX.tiers}
    versions = {version.id for framework in MATRIX.frameworks.values() for version in framework.versions}

    assert tiers["full"] | tiers["end-of-life"] == {cell.id for cell in all_cells(MATRIX)}
    assert not tiers["full"] & tiers["end-of-life"]
    assert {cell.split("/")[1] for cell in tiers["gate"] if cell.startswith("wizgy/")} == versions


def test_shards_part_the_cells() -> None:
    """All shards together have every cell, each once."""
    cells = all_cells(MATRIX)
    parts = [Shard.parse(f"{number}/7").part_of(cells) for number in range(1, 8)]

    assert sorted(cell.id for part in parts for cell in part) == sorted(cell.id for cell in cells)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_no_such_shard(text: str) -> None:
    """A shard is a number from 1 on, of how many."""
    with pytest.raises(MatrixError, match="write NUMBER/OF"):
        Shard.parse(text)


@pytest.mark.parametrize(
    ("changed", "servers", "frameworks"),
    [
        ("server/wizgy/engine.py", {"wizgy"}, {"wsgi", "flask", "django", "pyramid"}),
        ("compat_apps/flask/flaskapp/routes.py", {server.name for server in MATRIX.servers_for("matrix")}, {"flask"}),
        ("requirements/servers/gunicorn.txt", {"gunicorn-sync", "gunicorn-gthread"}, set(MATRIX.frameworks)),
        ("matrix/launchers/serve_wsgiref.py", {"wsgiref"}, set(MATRIX.frameworks)),
        ("tests/conformance/cases/rfc9112-6-framing.toml", {"wizgy"}, set(MATRIX.frameworks)),
        ("tests/harness/target.py", {server.name for server in MATRIX.servers_for("matrix")}, set(MATRIX.frameworks)),
        ("docs/matrix.md", set(), set()),
        ("docker/Dockerfile", set(), set()),
    ],
)
def test_affected_by_a_file(changed: str, servers: set[str], frameworks: set[str]) -> None:
    """A change affects the cells that are made of the file, and no other."""
    cells = affected_cells(MATRIX, MATRIX, all_cells(MATRIX), [changed], image=False)

    assert {cell.server for cell in cells} == servers
    assert {cell.version.framework for cell in cells} == frameworks


def test_affected_by_a_lock() -> None:
    """A lock affects the cells of its version alone; the Dockerfile all that are containers."""
    cells = affected_cells(MATRIX, MATRIX, all_cells(MATRIX), ["docker/locks/flask-2.3.txt"], image=False)
    assert {cell.version.id for cell in cells} == {"flask-2.3"}

    cells = affected_cells(MATRIX, MATRIX, all_cells(MATRIX), ["docker/Dockerfile"], image=True)
    assert cells == all_cells(MATRIX)


def test_affected_by_the_manifest() -> None:
    """A change of matrix.toml affects the cells of which it says something else than before."""
    text = MATRIX_FILE.read_text(encoding="utf-8")
    before = parse_matrix(
        text.replace('"flask~=3.0.0"', '"flask~=3.0.1"').replace("--threads={threads}", "--threads=4")
    )
    cells = affected_cells(MATRIX, before, all_cells(MATRIX), ["matrix.toml"], image=False)

    assert {cell.id for cell in cells} == {
        cell.id for cell in all_cells(MATRIX) if cell.server == "waitress" or cell.version.id == "flask-3.0"
    }


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The list of cells is a matrix of CI as well."""
    assert cli.main(["list", "--tier", "gate", "--json"]) == 0
    jobs = json.loads(capsys.readouterr().out)["include"]

    assert {job["cell"] for job in jobs} == {cell.id for cell in choose_cells(MATRIX, tier="gate")}
    assert set(jobs[0]) == {"cell", "server", "framework", "version", "python", "tiers"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--server", "nginx"], "no server is called 'nginx'"),
        (["run", "--tier", "silver"], "no tier is called 'silver'; choose one of: gate, full, end-of-life"),
        (["run", "--python", "2.7"], "no Python is called '2.7'; choose one of: 3.10"),
        (["run", "nginx/*"], "no cell is called 'nginx/*'"),
        (["run", "--tier", "gate", "--python", "3.11"], "no cell is all of that"),
        (["run", "--transport", "ssh"], "no transport is called 'ssh'; choose venv, image, url:"),
        (["run", "--transport", "url:http://127.0.0.1:1"], "say which app it serves: --framework flask"),
        (["run", "--affected-by", "no-such-revision"], "git knows no revision 'no-such-revision'"),
        (["repro", "wizgy"], "no cell is called 'wizgy'"),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that cannot be carried out ends with status 2 and one line that says what to do."""
    assert cli.main(words) == 2
    output = capsys.readouterr().err
    assert message in output
    assert output.count("\n") == 1
