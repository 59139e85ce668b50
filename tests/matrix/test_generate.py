"""The files that are made from matrix.toml: each agrees with it, and drift is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from matrix import generate
from matrix.cells import all_cells
from matrix.containers import cell_image, cell_target
from matrix.manifest import MATRIX_FILE, ROOT, MatrixError, load_matrix, parse_matrix

MATRIX = load_matrix()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the files that are made."""
    for made in generate.MADE:
        (tmp_path / made.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / made.path, tmp_path / made.path)
    return tmp_path


def test_nothing_has_drifted() -> None:
    """Every file that is made is as matrix.toml has it."""
    assert generate.drift(MATRIX) == []


@pytest.mark.parametrize("made", generate.MADE, ids=lambda made: made.path)
def test_drift_is_found_and_mended(made: generate.Made, tree: Path) -> None:
    """A change by hand is found; making the files again takes it back, and leaves what is written by hand."""
    path = tree / made.path
    text = path.read_text()
    path.write_text(text + "\n" if made.whole else text.replace(generate.END, f"# by hand\n{generate.END}"))

    assert generate.drift(MATRIX, tree) == [made.path]
    assert generate.write(MATRIX, tree) == [made.path]
    assert generate.drift(MATRIX, tree) == []


def test_by_hand_stays(tree: Path) -> None:
    """What stands around the part that is made is nobody's but its author's."""
    path = tree / "tox.ini"
    path.write_text(path.read_text().replace("[testenv:server]", "[testenv:my-server]"))

    assert generate.drift(MATRIX, tree) == []


def test_lost_comment(tree: Path) -> None:
    """A file without the comments around its part is an error that says which are missing."""
    path = tree / "tox.ini"
    path.write_text(path.read_text().replace(generate.END, ""))

    with pytest.raises(MatrixError, match=r"tox\.ini needs one line .*, and below it one line"):
        generate.drift(MATRIX, tree)


def test_new_version_is_everywhere(tree: Path) -> None:
    """One more version in matrix.toml is an environment, an image target and a job of CI, with no other edit."""
    one = '[[frameworks.flask.versions]]\nversion = "3.0"'
    other = '[[frameworks.flask.versions]]\nversion = "4.0"\nrequirements = ["flask"]\npythons = ["3.14"]\n\n'
    matrix = parse_matrix(MATRIX_FILE.read_text().replace(one, other + one))
    generate.write(matrix, tree)

    assert "flask40: -r docker/locks/flask-4.0.txt" in (tree / "tox.ini").read_text()
    assert '"wizgy_flask-4-0_py3-14"' in (tree / "docker/docker-bake.hcl").read_text()
    jobs = json.loads((tree / "docker/ci-matrix.json").read_text())
    assert "wizgy/flask-4.0/py3.14" in {job["cell"] for job in jobs["full"]["include"]}
    assert "Flask 4.0" in (tree / "docs/matrix-cells.md").read_text()


def test_service_of_each_framework() -> None:
    """Each framework is a service, built for the version, Python and server of the environment, on its own port."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

    for name, framework in MATRIX.frameworks.items():
        build = services[name]["build"]
        assert build["target"] == build["args"]["SERVER"] == "${SERVER:-wizgy}"
        assert build["args"]["FRAMEWORK_VERSION"] == f"${{{name.upper()}_VERSION:-{framework.version}}}"
        assert services[name]["ports"] == [f"127.0.0.1:${{{name.upper()}_PORT:-{framework.port}}}:8888"]


def test_stage_of_each_server() -> None:
    """Each server is a stage of the Dockerfile that starts it with no shell in between."""
    lines = (ROOT / "docker" / "Dockerfile").read_text().splitlines()
    stages = {line.split(" AS ")[1] for line in lines if line.startswith("FROM ")}

    assert {server.name for server in MATRIX.servers_for("matrix")} | {"gunicorn"} <= stages
    assert 'ENTRYPOINT ["python", "-m", "waitress", "--listen=0.0.0.0:8888", "--threads=8"]' in lines


def test_target_of_each_cell() -> None:
    """Each cell has a target of the bake file of its own."""
    text = (ROOT / "docker" / "docker-bake.hcl").read_text()

    for cell in all_cells(MATRIX):
        assert text.count(f'name = "{cell_target(cell)}", image = "{cell_image(cell)}"') == 1


def test_check_is_a_command() -> None:
    """`python -m matrix check` exits with 0 when nothing has drifted."""
    answer = subprocess.run([sys.executable, "-m", "matrix", "check"], cwd=ROOT, capture_output=True, text=True)

    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
