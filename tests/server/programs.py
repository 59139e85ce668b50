"""nginx and HAProxy as processes, configured with what the docs print."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.frameworks import ROOT
from tests.server.client import connect, wait_until

GUIDE = ROOT / "docs" / "behind-a-proxy.md"
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])

NGINX = """\
daemon off;
master_process off;
error_log {folder}/error.log info;
pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
{blocks}
}}
"""

HAPROXY = """\
global
    log stdout format raw daemon info
defaults
    timeout connect 5s
    timeout client 30s
    timeout server 30s
{blocks}
"""


def find(name: str) -> str:
    """The path of a program; without it the test is skipped, but not in CI, which has to install it."""
    path = shutil.which(name, path=SEARCHED)
    if path is None:
        message = f"{name} is not installed: apt-get install {name}"
        if os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return path


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def printed(language: str, replaced: Mapping[str, str]) -> str:
    """The configuration that the guide prints, with other addresses and files.

    Args:
        language: that of the blocks, ``nginx`` or ``haproxy``.
        replaced: what stands for what; each has to be there.
    """
    text = "".join(re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    for one, other in replaced.items():
        assert one in text, f"{GUIDE.name} prints no {one!r} for {language}"
        text = text.replace(one, other)
    return text


@contextmanager
def running(command: list[str], ports: list[int], log: Path) -> Iterator[None]:
    """Run a program until it is no longer needed; wait until its ports accept."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            for port in ports:
                wait_until(lambda port=port: is_open(process, port, log), f"{command[0]} accepts")  # type: ignore[misc]
            yield
        finally:
            process.terminate()
            process.wait(10)


def is_open(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    """Whether a port accepts; a program that has ended will never."""
    assert process.poll() is None, log.read_text("utf-8", "replace")
    try:
        connect(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@contextmanager
def nginx(blocks: str, ports: list[int], folder: Path) -> Iterator[None]:
    """Run nginx with some blocks inside of ``http``."""
    program = find("nginx")
    user = "user root;\n" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(user + NGINX.format(folder=folder, blocks=blocks), "utf-8")
    with running(
        [program, "-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log"], ports, folder / "nginx.out"
    ):
        yield


@contextmanager
def haproxy(blocks: str, ports: list[int], folder: Path) -> Iterator[None]:
    """Run HAProxy with some sections."""
    program = find("haproxy")
    file = folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(blocks=blocks), "utf-8")
    with running([program, "-db", "-f", str(file)], ports, folder / "haproxy.out"):
        yield
