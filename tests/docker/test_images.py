"""Each image: the suite against it, its hardening, its health check and its end."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import requests

from tests.docker.compose import Project, run
from tests.harness.frameworks import load_matrix

MATRIX = load_matrix()
NAMES = tuple(MATRIX.frameworks)
LAST_LINES = 40

each_framework = pytest.mark.parametrize("name", NAMES)


def last_lines(text: str) -> str:
    """Return the end of a long output."""
    return "\n".join(text.splitlines()[-LAST_LINES:])


@each_framework
def test_greeting(project: Project, name: str) -> None:
    """A service that is up answers on its published port of 127.0.0.1."""
    answer = requests.get(f"{project.url(name)}/hello", timeout=10)

    assert answer.text == f"{MATRIX.frameworks[name].greeting}\n"
    assert answer.headers["Server"] == "wizgy"


@each_framework
def test_suite_against_published_port(project: Project, name: str) -> None:
    """The whole suite, unchanged, passes against the container (RFC 9110, RFC 9112, PEP 3333)."""
    suites = ["tests/contract", "tests/conformance"]
    target = ["--framework", name, "--url", project.url(name)]

    outcome = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *suites, *target])

    assert outcome.returncode == 0, f"{name}: the suite failed against its container\n{last_lines(outcome.stdout)}"


@each_framework
def test_hardening(project: Project, name: str) -> None:
    """The container runs as a numeric user with nothing to write to and no privilege to gain."""
    inspected = project.inspect(name)
    host = inspected["HostConfig"]

    assert inspected["Config"]["User"] == "10001:10001"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["PidsLimit"] > 0
    assert host["Memory"] > 0
    assert [limit["Name"].removeprefix("RLIMIT_").lower() for limit in host["Ulimits"]] == ["nofile"]
    assert list(host["Tmpfs"]) == ["/tmp"]
    assert {binding["HostIp"] for binding in host["PortBindings"]["8888/tcp"]} == {"127.0.0.1"}
    assert inspected["Config"]["Labels"]["org.opencontainers.image.licenses"] == "MIT"


@each_framework
def test_one_supervisor_as_first_process(project: Project, name: str) -> None:
    """Wizgy itself is the first process, with no shell around it, so that signals reach it."""
    processes = run(["docker", "top", project.inspect(name)["Id"], "-o", "pid,ppid,args"]).stdout

    first = project.inspect(name)["State"]["Pid"]
    line = next(line for line in processes.splitlines()[1:] if line.split()[0] == str(first))
    assert "wizgy" in line
    assert "sh -c" not in line


@each_framework
def test_health_check(project: Project, name: str) -> None:
    """The health check needs nothing but Python, and tells a good URL from a bad one."""
    assert project.inspect(name)["State"]["Health"]["Status"] == "healthy"
    module = ["python", "-m", "wizgy.healthcheck"]
    assert project.compose("exec", "-T", name, *module, "http://127.0.0.1:8888/hello").returncode == 0
    assert project.compose("exec", "-T", name, *module, "http://127.0.0.1:8888/no-such-page").returncode == 1


def test_suite_over_the_network(project: Project) -> None:
    """`docker compose run --rm conformance NAME` runs the suite over the network and exits with its result."""
    options = ["--profile", "conformance", "run", "--rm", "--no-deps", "--pull", "never", "conformance"]

    outcome = project.compose(*options, "flask", "-q", "-k", "not one_byte_at_a_time")

    assert outcome.returncode == 0, last_lines(outcome.stdout + outcome.stderr)
    assert "conformance: Flask at http://flask:8888: passed" in outcome.stdout


def test_suite_finds_a_broken_route(project: Project, tmp_path: Path) -> None:
    """A route that is broken on purpose makes the suite exit 1, with a line that names the test."""
    broken = tmp_path / "main.py"
    broken.write_text(
        "from flaskapp import app\n\n\n"
        "def application(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/redirect':\n"
        "        environ['PATH_INFO'] = '/hello'\n"
        "    return app(environ, start_response)\n"
    )
    tmp_path.chmod(0o755)
    broken.chmod(0o644)
    override = tmp_path / "override.yml"
    override.write_text(f"services:\n  flask:\n    volumes: ['{broken}:/srv/compat_apps/flask/main.py:ro']\n")
    twin = Project(("flask",), name=f"{project.name}-broken", override=override)
    try:
        for image in ("flask", "conformance"):  # the same images under the twin's name
            source = run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", f"{project.name}-{image}"])
            name = source.stdout.split()[0]
            run(["docker", "tag", name, name.replace(project.name, twin.name, 1)])
        twin.checked("up", "--detach", "--wait", "--no-build", "--pull", "never", "flask")
        options = ["--profile", "conformance", "run", "--rm", "--no-deps", "--pull", "never", "conformance"]

        outcome = twin.compose(*options, "flask", "-q", "-k", "redirect or hello")

        assert outcome.returncode == 1, last_lines(outcome.stdout + outcome.stderr)
        assert "FAILED tests/contract" in outcome.stdout
        assert "redirect" in outcome.stdout
    finally:
        twin.remove()


def test_wrong_name(project: Project) -> None:
    """The suite's image refuses a name that is no framework, and says which there are."""
    options = ["--profile", "conformance", "run", "--rm", "--no-deps", "--pull", "never", "conformance"]

    outcome = project.compose(*options, "flusk")

    assert outcome.returncode == 2
    assert "choose one of: wsgi, flask, django, pyramid" in outcome.stdout + outcome.stderr


def test_stop(project: Project) -> None:
    """All services end within 3 seconds of TERM, with status 0 (run last: it stops them)."""
    began = time.monotonic()
    project.checked("stop")
    seconds = time.monotonic() - began

    assert seconds < 3.0
    assert {name: project.inspect(name)["State"]["ExitCode"] for name in NAMES} == dict.fromkeys(NAMES, 0)
