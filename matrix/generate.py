"""The files that are made from `matrix.toml`, whole or in part: `python -m matrix generate`, and `check` for drift.

| file | what is made of it |
|---|---|
| `tox.ini` | an environment for each version of a framework |
| `docker-compose.yml` | a service for each framework |
| `docker/Dockerfile` | a stage for each server |
| `docker/docker-bake.hcl` | a target for each cell, a group for each tier; whole |
| `docker/ci-matrix.json` | the cells of each tier, as jobs of CI; whole |
| `docs/matrix-cells.md` | what there is, for a reader; whole |
| `docs/application-behaviour.md` | what an application may expect of which server; whole |
| `docker/locks/`, `requirements/servers/` | what each version and each server needs, by `requirements/lock.py` |

A part of a file stands between two comments: `BEGIN` and `END`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from matrix.behaviour import behaviour_page
from matrix.cells import Cell, all_cells, in_tier
from matrix.containers import bake_name, cell_image, cell_target, control_image, control_target
from matrix.manifest import ROOT, Framework, Matrix, MatrixError, Server, Version
from matrix.processes import command_of

COMMAND = "python -m matrix generate"
BEGIN = f"# ----- made by `{COMMAND}` from matrix.toml, not by hand"
END = "# ----- end of what is made"

IMAGE_PORT = 8888
IMAGE_APPLICATION = "main:application"
IMAGE_LAUNCHERS = "/srv/launchers"
DEFAULT_SERVER = "wizgy"
DEFAULT_PYTHON = "3.13"


@dataclass(frozen=True)
class Made:
    """One file that is made, or of which a part is: what makes it."""

    path: str
    make: Callable[[Matrix], str]
    whole: bool


def texts(matrix: Matrix, root: Path = ROOT) -> dict[Path, str]:
    """Return what each file should hold.

    Raises:
        MatrixError: a file that is made in part lacks the comments around the part.
    """
    found = {}
    for made in MADE:
        path = root / made.path
        text = made.make(matrix)
        found[path] = text if made.whole else _replace_part(path, text)
    return found


def drift(matrix: Matrix, root: Path = ROOT) -> list[str]:
    """Return the files that do not hold what they should."""
    return [
        str(path.relative_to(root))
        for path, text in texts(matrix, root).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def write(matrix: Matrix, root: Path = ROOT) -> list[str]:
    """Write the files that do not hold what they should; return which."""
    changed = drift(matrix, root)
    for path, text in texts(matrix, root).items():
        if str(path.relative_to(root)) in changed:
            path.write_text(text, encoding="utf-8")
    return changed


def _replace_part(path: Path, part: str) -> str:
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(f"^{re.escape(BEGIN)}\n.*?^{re.escape(END)}$", re.MULTILINE | re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise MatrixError(f"{path} needs one line {BEGIN!r}, and below it one line {END!r}")
    return pattern.sub(lambda _: f"{BEGIN}\n{part.rstrip()}\n{END}", text)


# tox.ini


def tox_name(framework: Framework, version: Version) -> str:
    """Return the name of a version's environment: `flask` for the default one, `flask23` for another."""
    return framework.name if version == framework.default else framework.name + version.version.replace(".", "")


def _describe(matrix: Matrix, version: Version) -> str:
    title = f"{matrix.frameworks[version.framework].title} {version.version}"
    return f"{title}, in process under wsgiref.validate and then under wizgy with the whole suite"


def tox_environments(matrix: Matrix) -> str:
    """Return the section of tox.ini for the frameworks."""
    versions = {
        tox_name(framework, version): version
        for framework in sorted(matrix.frameworks.values(), key=lambda framework: framework.name != "wsgi")
        for version in sorted(framework.versions, key=lambda version: version != framework.default)
    }
    limited = {name: version for name, version in versions.items() if version.pythons != matrix.pythons}
    lines = [
        f"[testenv:{{{','.join(versions)}}}]",
        "description =",
        *(f"    {name}: {_describe(matrix, version)}" for name, version in versions.items()),
        "base_python =",
        *(f"    {name}: {', '.join(_newest_usual_first(version))}" for name, version in limited.items()),
        "deps =",
        "    -r requirements/tests.txt",
        *(f"    {name}: -r docker/locks/{version.id}.txt" for name, version in versions.items()),
        "commands =",
        *(
            f"    {name}: pytest tests/control tests/contract tests/conformance --framework {version.id} {{posargs}}"
            for name, version in versions.items()
        ),
    ]
    return "\n".join(lines)


def _newest_usual_first(version: Version) -> list[str]:
    pythons = sorted(version.pythons, key=lambda python: (python != DEFAULT_PYTHON, version.pythons.index(python)))
    return [f"python{python}" for python in pythons]


# docker-compose.yml


def compose_services(matrix: Matrix) -> str:
    """Return the services of docker-compose.yml for the frameworks."""
    return "\n\n".join(_compose_service(framework) for framework in matrix.frameworks.values())


def _compose_service(framework: Framework) -> str:
    name, variable = framework.name, framework.name.upper()
    version = f"${{{variable}_VERSION:-{framework.version}}}"
    project, python = "${COMPOSE_PROJECT_NAME:-wizgy}", f"${{PYTHON_VERSION:-{DEFAULT_PYTHON}}}"
    server = f"${{SERVER:-{DEFAULT_SERVER}}}"
    return f"""\
  {name}:
    <<: *hardened
    image: {project}-{name}:{version}-py{python}-{server}
    build:
      <<: *build
      target: {server}
      args:
        <<: *arguments
        FRAMEWORK: {name}
        FRAMEWORK_VERSION: {version}
    ports: ["127.0.0.1:${{{variable}_PORT:-{framework.port}}}:{IMAGE_PORT}"]"""


# docker/Dockerfile


def dockerfile_stages(matrix: Matrix) -> str:
    """Return a stage for each server but wizgy, whose own is written by hand, and one for each program with modes."""
    servers = [server for server in matrix.servers_for("matrix") if server.name != DEFAULT_SERVER]
    return "\n\n".join(stage for server in servers for stage in _dockerfile_stages(matrix, server))


def _dockerfile_stages(matrix: Matrix, server: Server) -> Iterator[str]:
    *words, last = command_of(
        server,
        python="python",
        launchers=IMAGE_LAUNCHERS,
        host="0.0.0.0",
        port=IMAGE_PORT,
        application=IMAGE_APPLICATION,
        workers=1,
        threads=8,
    )
    if last != IMAGE_APPLICATION:
        raise MatrixError(
            f"[servers.{server.name}]: the command has to end with {{application}}, and ends with {last!r}"
        )
    health = ["python", "-m", "wizgy.healthcheck", f"http://127.0.0.1:{IMAGE_PORT}/hello"]
    copy = ["COPY matrix/launchers /srv/launchers"] if any(IMAGE_LAUNCHERS in word for word in words) else []
    yield "\n".join(
        [
            f"FROM app AS {server.name}",
            *copy,
            "HEALTHCHECK --interval=5s --timeout=3s --retries=3 --start-period=20s --start-interval=0.25s \\",
            f"    CMD {json.dumps(health)}",
            f"ENTRYPOINT {json.dumps(words)}",
            # A new entry point takes the command of the stage below away.
            f"CMD {json.dumps([last])}",
        ]
    )
    if server.family != server.name and matrix.server(server.family) == server:
        yield f"FROM {server.name} AS {server.family}"


# docker/docker-bake.hcl


def bake_file(matrix: Matrix) -> str:
    """Return the bake file: a target for each cell, one for each control, a group for each tier."""
    cells = all_cells(matrix)
    controls = {control_target(cell): cell for cell in cells}
    groups = {name: [cell for cell in cells if in_tier(cell, tier)] for name, tier in matrix.tiers.items()}
    return "\n".join(
        [
            f"# Made by `{COMMAND}` from matrix.toml, not by hand.",
            "#",
            "#   docker buildx bake --file docker/docker-bake.hcl gate                        the images of a tier",
            "#   docker buildx bake --file docker/docker-bake.hcl waitress_flask-3-1_py3-13   the image of one cell",
            "#",
            "# From the environment: BASE_IMAGE, REVISION, PIP_INDEX_URL and the usual proxy variables.",
            *(
                f'variable "{name}" {{ default = null }}'
                for name in ("BASE_IMAGE", "REVISION", "PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
            ),
            "",
            'target "_common" {',
            '  context    = "."',
            '  dockerfile = "docker/Dockerfile"',
            "  args = {",
            "    BASE_IMAGE    = BASE_IMAGE",
            "    REVISION      = REVISION",
            "    PIP_INDEX_URL = PIP_INDEX_URL",
            "    HTTP_PROXY    = HTTP_PROXY",
            "    HTTPS_PROXY   = HTTPS_PROXY",
            "    NO_PROXY      = NO_PROXY",
            "  }",
            "}",
            "",
            'target "cells" {',
            '  inherits = ["_common"]',
            "  name     = cell.name",
            "  target   = cell.server",
            "  tags     = [cell.image]",
            "  args = {",
            "    SERVER            = cell.server",
            "    FRAMEWORK         = cell.framework",
            "    FRAMEWORK_VERSION = cell.version",
            "    PYTHON_VERSION    = cell.python",
            "  }",
            "  matrix = {",
            "    cell = [",
            *(f"      {_bake_cell(cell_target(cell), cell_image(cell), cell)}," for cell in cells),
            "    ]",
            "  }",
            "}",
            "",
            'target "controls" {',
            '  inherits = ["_common"]',
            "  name     = cell.name",
            '  target   = "control"',
            "  tags     = [cell.image]",
            "  args = {",
            "    FRAMEWORK         = cell.framework",
            "    FRAMEWORK_VERSION = cell.version",
            "    PYTHON_VERSION    = cell.python",
            "  }",
            "  matrix = {",
            "    cell = [",
            *(f"      {_bake_cell(target, control_image(cell), cell)}," for target, cell in controls.items()),
            "    ]",
            "  }",
            "}",
            *(line for name, chosen in groups.items() for line in _bake_group(name, chosen)),
            "",
        ]
    )


def _bake_cell(target: str, image: str, cell: Cell) -> str:
    values = {
        "name": target,
        "image": image,
        "server": cell.server,
        "framework": cell.version.framework,
        "version": cell.version.version,
        "python": cell.python,
    }
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + " }"


def _bake_group(name: str, cells: list[Cell]) -> Iterator[str]:
    targets = [*dict.fromkeys(control_target(cell) for cell in cells), *(cell_target(cell) for cell in cells)]
    yield ""
    yield f'group "{bake_name(name)}" {{'
    yield "  targets = ["
    yield from (f'    "{target}",' for target in targets)
    yield "  ]"
    yield "}"


# docker/ci-matrix.json


def ci_job(matrix: Matrix, cell: Cell) -> dict[str, object]:
    """Return a cell as one job of a matrix of CI."""
    return {
        "cell": cell.id,
        "server": cell.server,
        "framework": cell.version.framework,
        "version": cell.version.version,
        "python": cell.python,
        "tiers": [name for name, tier in matrix.tiers.items() if in_tier(cell, tier)],
    }


def ci_matrix(matrix: Matrix) -> str:
    """Return the jobs of CI, for each tier `{"include": [...]}`, one job a line."""
    parts = []
    for name, tier in matrix.tiers.items():
        jobs = [json.dumps(ci_job(matrix, cell)) for cell in all_cells(matrix) if in_tier(cell, tier)]
        lines = ",\n".join(f"    {job}" for job in jobs)
        parts.append(f'  {json.dumps(name)}: {{"include": [\n{lines}\n  ]}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


# docs/matrix-cells.md


def cells_page(matrix: Matrix) -> str:
    """Return the page of what the matrix has."""
    lines = [
        f"<!-- Made by `{COMMAND}` from matrix.toml, not by hand. -->",
        "",
        "# What the matrix has",
        "",
        "Every server is run with every version of every framework, on each Python that the version works on.",
        "[How to run it, and how to point it at an app or a server of your own](matrix.md).",
        "",
        *_page_frameworks(matrix),
        "",
        *_page_servers(matrix),
        "",
        *_page_breakage(matrix),
        "",
        *_page_known(matrix),
        "",
        *_page_tiers(matrix),
    ]
    return "\n".join(lines) + "\n"


def _page_frameworks(matrix: Matrix) -> Iterator[str]:
    yield "## Frameworks"
    yield ""
    yield f"| version | {' | '.join(matrix.pythons)} | mended until |"
    yield f"|---|{'---|' * len(matrix.pythons)}---|"
    for framework in matrix.frameworks.values():
        for version in framework.versions:
            marks = ["yes" if python in version.pythons else "" for python in matrix.pythons]
            until = version.end_of_life.isoformat() if version.end_of_life else ""
            default = " (default)" if version == framework.default else ""
            yield f"| {framework.title} {version.version}{default} | {' | '.join(marks)} | {until} |"


def _page_servers(matrix: Matrix) -> Iterator[str]:
    yield "## Servers"
    yield ""
    yield "| name | server | matrix | conformance scoreboard | benchmarks |"
    yield "|---|---|---|---|---|"
    for server in matrix.servers.values():
        uses = ["yes" if use in server.uses else "" for use in ("matrix", "conformance", "bench")]
        yield f"| `{server.name}` | [{server.title}]({server.url}) | {' | '.join(uses)} |"


def _page_breakage(matrix: Matrix) -> Iterator[str]:
    yield "## What newer dependencies broke"
    yield ""
    yield "| versions | also need | because |"
    yield "|---|---|---|"
    for breakage in matrix.breakage:
        versions = ", ".join(f"`{pattern}`" for pattern in breakage.versions)
        yield f"| {versions} | `{breakage.requirement}` | [{breakage.reason}]({breakage.link}) |"


def _page_known(matrix: Matrix) -> Iterator[str]:
    yield "## Known deviations"
    yield ""
    yield "A test that is listed here has to fail in the cells that are named; when it passes, the run fails as stale."
    yield ""
    yield "| server / framework / Python | tests | because |"
    yield "|---|---|---|"
    tests: dict[tuple[str, str, str], list[str]] = {}
    for known in matrix.known:
        parts = (known.servers, known.frameworks, known.pythons)
        where = " / ".join(", ".join(part) if part != ("*",) else "any" for part in parts)
        tests.setdefault((where, known.reason, known.link), []).append(known.test)
    for (where, reason, link), names in tests.items():
        listed = "<br>".join(f"`{name}`" for name in names)
        yield f"| {where} | {listed} | [{reason}]({link}) |"


def _page_tiers(matrix: Matrix) -> Iterator[str]:
    yield "## Tiers"
    yield ""
    yield "| tier | what | cells |"
    yield "|---|---|---|"
    for name, tier in matrix.tiers.items():
        yield f"| {name} | {tier.summary} | {sum(in_tier(cell, tier) for cell in all_cells(matrix))} |"


MADE = (
    Made("tox.ini", tox_environments, whole=False),
    Made("docker-compose.yml", compose_services, whole=False),
    Made("docker/Dockerfile", dockerfile_stages, whole=False),
    Made("docker/docker-bake.hcl", bake_file, whole=True),
    Made("docker/ci-matrix.json", ci_matrix, whole=True),
    Made("docs/matrix-cells.md", cells_page, whole=True),
    Made("docs/application-behaviour.md", behaviour_page, whole=True),
)
