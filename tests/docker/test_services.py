"""Each service of docker-compose.yml: it serves, it is locked in, it passes the suite, it stops."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import requests

from tests.docker.compose import Service, combination
from tests.harness.frameworks import ROOT

STOP_SECONDS = 3.0
"""What `docker compose stop` may take when no request runs."""

PROCESS_STATUS = """
import json
fields = (line.partition(":") for line in open("/proc/1/status"))
print(json.dumps({name: value.strip() for name, _, value in fields}))
"""

TRY_TO_WRITE = """
import json, pathlib, tempfile

def refusal(directory):
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x")
    except OSError as error:
        return error.strerror
    return None

print(json.dumps({directory: refusal(directory) for directory in ["/tmp", "/", "/srv", "/opt/venv"]}))
"""

LIMITS = """
import json, resource
print(json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE)))
"""


def test_greets_on_published_port(service: Service) -> None:
    """The service answers on 127.0.0.1 as soon as `up --wait` returns."""
    response = requests.get(f"{service.url}/hello", timeout=10)
    assert response.text == f"{service.framework.greeting}\n"
    assert service.url.startswith("http://127.0.0.1:")


def test_image_is_described(service: Service) -> None:
    """The image has a numeric user, an exec-form entry point, OCI labels and a health check."""
    config = service.image()["Config"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    assert config["Entrypoint"][0] == "python"
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert config["StopSignal"] == "SIGTERM"
    labels = {name.rpartition("opencontainers.image.")[2] for name in config["Labels"]}
    assert labels >= {"title", "description", "licenses", "version", "base.name"}


def test_root_file_system_is_read_only(service: Service) -> None:
    """Only /tmp can be written to."""
    refusals = service.python(TRY_TO_WRITE)
    assert refusals.pop("/tmp") is None
    assert set(refusals.values()) <= {"Read-only file system", "Permission denied"}
    assert service.inspect()["HostConfig"]["ReadonlyRootfs"] is True


def test_server_is_unprivileged_process_1(service: Service) -> None:
    """PID 1 is Python as a user without capabilities, who can gain none."""
    status = service.python(PROCESS_STATUS)
    assert status["Name"].startswith("python")
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"10001"}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_limits_are_in_force(service: Service) -> None:
    """Processes, memory, file descriptors and the size of /tmp are bounded."""
    host = service.inspect()["HostConfig"]
    assert 0 < host["PidsLimit"] <= 256
    assert 0 < host["Memory"] <= 512 * 1024**2
    assert host["MemorySwap"] == host["Memory"]
    assert "size=64m" in host["Tmpfs"]["/tmp"]
    assert service.python(LIMITS) == [4096, 4096]


def test_suite_passes_on_published_port(
    service: Service, record_property: Callable[[str, object], None]
) -> None:
    """The suite passes against the container, as it does against a process."""
    name = service.framework.name
    suites = ["tests/contract", "tests/conformance"]
    options = ["--framework", name, "--url", service.url, "-p", "no:cacheprovider", "--color=no"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *suites, *options],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    record_property("published port", closing_line(result.stdout))
    if result.returncode:
        report(service, result.stdout)


def test_suite_passes_over_compose_network(
    service: Service, record_property: Callable[[str, object], None]
) -> None:
    """`docker compose run --rm conformance NAME` passes and exits with status 0."""
    result = service.compose("run", "--rm", "conformance", service.framework.name)
    record_property("compose network", closing_line(result.stdout))
    if result.returncode:
        report(service, result.stdout)


def test_stops_on_sigterm_and_starts_again(service: Service) -> None:
    """`docker compose stop` ends PID 1 by SIGTERM in time, with exit status 0."""
    begin = time.monotonic()
    result = service.compose("stop", service.framework.name)
    seconds = time.monotonic() - begin
    assert result.returncode == 0, result.stdout
    assert service.inspect()["State"]["ExitCode"] == 0, service.log
    assert seconds < STOP_SECONDS
    assert service.up().returncode == 0
    assert requests.get(f"{service.url}/hello", timeout=10).status_code == 200


def closing_line(output: str) -> str:
    """Return what pytest counted, such as `203 passed in 4.05s`."""
    counts = re.findall(r"^=+ (.* in [\d.]+s.*?) =+$", output, re.M)
    return counts[-1] if counts else "ended before it counted"


def report(service: Service, output: str) -> None:
    """Fail with the tests that failed, then the end of their output and the server's log."""
    failed = re.findall(r"^(?:FAILED|ERROR) .*", output, re.M)
    lines = [f"{combination(service.framework)}: {closing_line(output)}", *failed]
    rest = "\n".join(output.splitlines()[-150:])
    pytest.fail("\n".join([*lines, "", rest, "", "Server log:", service.log]), pytrace=False)
