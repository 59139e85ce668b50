"""A system that has no more of something, whose clock steps, or that is a container."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.harness.frameworks import ROOT
from tests.server.client import HELLO, connect, get, processor_seconds, read_answer, request
from tests.server.faults.case import (
    FAMILIES_WITH_SIGNALS,
    NOT_THERE,
    Case,
    Outcome,
    Probes,
    Target,
    elapsed,
    fault,
    show_seconds,
)
from tests.server.faults.clients import MEBIBYTE, abort_at_random
from tests.server.faults.reloads import reload
from tests.server.load import USER_AGENT, Load


@fault(9, "Fewer file descriptors than clients", "CPU under 5 %; log under 1 KB/s; serving again within 1 s")
def few_descriptors(case: Case) -> Outcome:
    """A server that can accept no more waits quietly, and goes on when it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        target = case.start(workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (worker,) = case.wait_workers(target, 1)
    seconds = case.size(2, 10)
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(target.address))
        Probes().during(target.address, 0)
        elapsed(lambda: target.returncode is not None, 0.5)
        began, used, logged = time.monotonic(), processor_seconds(worker), len(target.log)
        ended = elapsed(lambda: target.returncode is not None, seconds)
        share = (processor_seconds(worker) - used) / (time.monotonic() - began) if ended is None else 0.0
        rate = (len(target.log) - logged) / (time.monotonic() - began)
    again = elapsed(target.answers, 15)
    if ended is not None or again is None:
        return Outcome(False, "does not serve again")
    figure = f"CPU {share:.0%}; log {rate:.0f} B/s; serving again after {show_seconds(again)}"
    return Outcome(share < 0.05 * case.size(2, 1) and rate < 1024 and again < case.size(3, 1), figure)


@contextmanager
def small_folder(folder: Path) -> Iterator[bool]:
    """A folder on a file system of one megabyte; gives whether it could be made."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    made = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield made
    finally:
        if made:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@fault(
    16,
    "An upload's spool on a full file system; standard error is a pipe that nobody reads",
    "507 for that request only, files removed; every other request is answered",
)
def full_file_system(case: Case) -> Outcome:
    """What has no room costs the request that needs it; a log that cannot be written costs none."""
    with small_folder(case.folder / "small") as made:
        if not made:
            return Outcome(None, "needs to mount a small file system")
        target = case.start(workers=1, variables={"TMPDIR": str(case.folder / "small")})
        status = upload(target, 3 * MEBIBYTE)
        small = upload(target, 500_000)
        left = elapsed(lambda: used(case.folder / "small") == 0, 5)
        target.kill()
    silent = answered_with_silent_log(case)
    asked = case.size(300, 3000)
    figure = f"{status or 'no answer'}, then {small or 'no answer'}; files {'removed' if left is not None else 'stay'}"
    told = f"{figure}; {silent} of {asked} answered while nobody reads the log"
    return Outcome(status == 507 and small == 200 and left is not None and silent == asked, told)


def upload(target: Target, size: int) -> int:
    """The status of an upload, 0 for none."""
    with connect(target.address) as sock:
        try:
            sock.sendall(request("/upload", f"Content-Length: {size}", method="POST"))
            with suppress(ConnectionError):
                sock.sendall(b"a" * size)
            return read_answer(sock, "POST")[0].status
        except Exception:
            return 0


def used(folder: Path) -> int:
    """The bytes that are used on a file system."""
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def answered_with_silent_log(case: Case) -> int:
    """How many requests are answered while the log is a pipe that nobody reads, and each other request logs much."""
    target = case.start(workers=1, prefix=["sh", "-c", '"$@" 2>&1 | sleep 1000', "sh"])
    answered = 0
    for _ in range(case.size(300, 3000)):
        try:
            get(target.address, "/fail")
            answered += get(target.address)[0] == 200
        except Exception:
            break
    target.kill()
    return answered


@fault(17, "Log rotation (rename, USR1) 100 times under load", "as many lines as requests, none split")
def rotated_log(case: Case) -> Outcome:
    """USR1 has the log opened anew, and no line is lost or torn."""
    file = case.folder / "access.log"
    arguments = f"--access-logfile {file}"
    if case.family not in FAMILIES_WITH_SIGNALS:
        return NOT_THERE
    target = case.start(settings={"access_log": str(file)}, variables={"GUNICORN_CMD_ARGS": arguments})
    case.wait_workers(target, 2)
    target.wait_answer()
    rotations = case.size(10, 100)
    with Load(target.address, pause=0.001) as load:
        for number in range(rotations):
            asked = load.asked
            elapsed(partial(has_asked, load, asked + 20), 5, 0.005)
            file.rename(case.folder / f"access.log.{number}")
            target.signal(signal.SIGUSR1)
            elapsed(file.exists, 5, 0.005)
    target.stop(40)
    lines = [line for log in case.folder.glob("access.log*") for line in log.read_text("ascii").splitlines()]
    hello = [line for line in lines if re.search(r'"GET /hello HTTP/1\.1" 200 ', line)]
    torn = len(lines) - len(hello)
    ours = sum(line.endswith(f'"{USER_AGENT}"') for line in hello)  # others waited for the server to be ready
    figure = f"{load.answered:,} requests, {ours:,} lines, {torn} torn; {len(load.failures)} failed"
    return Outcome(not load.failures and torn == 0 and ours == load.answered, figure)


def has_asked(load: Load, count: int) -> bool:
    """Whether so many requests have come to an end."""
    return load.asked >= count


@fault(21, "The clock steps by an hour", "no worker killed, no connection cut")
def clock_step(case: Case) -> Outcome:
    """Deadlines are of the monotonic clock."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    if library is None:
        return Outcome(None, "needs libfaketime")
    clock = case.folder / "clock"
    clock.write_text("+0\n", "ascii")
    variables = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    try:
        target = case.start(variables=variables)
        before = case.wait_workers(target, 2)
    except AssertionError:
        if case.family == "wizgy":
            raise
        # The library breaks the time.sleep() of newer Pythons, and so servers that sleep.
        return Outcome(None, "cannot be measured: it does not start with libfaketime")
    with connect(target.address) as kept, connect(target.address) as half:
        kept.sendall(HELLO)
        first = read_answer(kept)[0].getheader("Date")
        half.sendall(HELLO[:20])
        steps = 0
        for step in "+3600\n", "-3600\n":
            clock.write_text(step, "ascii")
            probes = Probes().during(target.address, case.size(1, 6) / 2)
            try:
                kept.sendall(HELLO)
                steps += read_answer(kept)[0].getheader("Date") != first and not probes.failed
            except OSError:
                return Outcome(False, "a connection that was kept open is cut")
        try:
            half.sendall(HELLO[20:])
            whole = read_answer(half)[0].status == 200
        except Exception:
            whole = False
    same = case.workers(target) == before
    figure = f"{'no' if same else 'a'} worker killed; {'no connection' if whole else 'a half head'} cut"
    return Outcome(same and whole and steps == 2, figure)


@fault(
    22,
    "Mixed traffic with aborts and 20 reloads, for ten minutes",
    "memory slope under 1 MiB an hour and worker; none failed",
)
def mixed_traffic(case: Case) -> Outcome:
    """Memory stays, whatever has come and gone. The reloads come first: new workers have grown less than old ones."""
    case.write_application("changing", "hello\n")
    target = case.start("changing:app")
    case.wait_workers(target, 2)
    seconds = case.size(4, 600)
    stopping = threading.Event()
    rude = threading.Thread(target=be_rude, args=(target, stopping))
    samples: list[tuple[float, float]] = []
    began = time.monotonic()
    with Load(target.address, pause=0.02) as load:
        rude.start()
        reloaded = reload(case, target, case.size(1, 20))
        while (now := time.monotonic() - began) < seconds:
            elapsed(lambda: target.returncode is not None, seconds / 60)
            if now > seconds / 3:  # caches and allocators have grown by then
                samples.append((now, case.memory(target) / MEBIBYTE))
        stopping.set()
        rude.join()
    if target.returncode is not None:
        return Outcome(False, "the server ends")
    if not reloaded:
        return Outcome(False, "a reload does not come to its end")
    per_hour, grown = slope(samples) * 3600, samples[-1][1] - samples[0][1]
    # A slope over seconds tells nothing; the processes are the supervisor and two workers.
    kept = per_hour < 2 if case.full else grown < 30
    figure = f"{per_hour:+.1f} MiB an hour" if case.full else f"{grown:+.1f} MiB"
    figure += f" over {seconds} s; {len(load.failures)} of {load.asked:,} failed"
    return Outcome(kept and not load.failures, figure)


def be_rude(target: Target, stopping: threading.Event) -> None:
    """Abort requests at random points, again and again."""
    seed = 0
    while not stopping.is_set():
        seed += 1
        abort_at_random(target.address, 5, seed)
        stopping.wait(0.2)


def slope(samples: list[tuple[float, float]]) -> float:
    """The slope of the line that is nearest to some points (least squares)."""
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread


CONTAINER_FLAGS = [
    *("--read-only", "--tmpfs", "/tmp:size=16m,mode=1777,noexec,nosuid,nodev", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges:true", "--user", "10001:10001"),
    *("--pids-limit", "64", "--memory", "128m", "--memory-swap", "128m", "--ulimit", "nofile=256"),
]


@fault(
    24,
    "The container flags: non-root, read-only, a small /tmp, no capabilities, limits for pids, memory, descriptors",
    "starts, serves, reloads, stops",
    for_others=False,
)
def container_flags(case: Case) -> Outcome:
    """The image's Python runs wizgy of this tree under every restriction."""
    docker = shutil.which("docker")
    if not case.full or docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        return Outcome(None, "needs a Docker engine; tests/docker runs the images so")
    image = "python:3.13-slim"
    run = [docker, "run", "--rm", "--detach", "--init=false", *CONTAINER_FLAGS, "--publish", "127.0.0.1:0:8888"]
    volumes = ["--volume", f"{ROOT / 'server'}:/server:ro", "--volume", f"{ROOT / 'tests' / 'server'}:/app:ro"]
    command = ["python", "-m", "wizgy", "--bind", "0.0.0.0:8888", "--workers", "2", "--chdir", "/app", "served:app"]
    started = subprocess.run(
        [*run, *volumes, "--env", "PYTHONPATH=/server", image, *command], capture_output=True, text=True
    )
    if started.returncode:
        return Outcome(None, f"the engine cannot run it: {started.stderr.strip().splitlines()[-1]}")
    name = started.stdout.strip()
    try:
        ports = json.loads(subprocess.check_output([docker, "inspect", "-f", "{{json .NetworkSettings.Ports}}", name]))
        address = ("127.0.0.1", int(ports["8888/tcp"][0]["HostPort"]))
        served = elapsed(lambda: answers(address), 20)
        uploaded = upload_to(address, 3 * MEBIBYTE)
        subprocess.run([docker, "kill", "--signal", "HUP", name], check=True, capture_output=True)
        reloaded = elapsed(lambda: "Reloaded" in logs_of(docker, name), 20, 0.1)
        began = time.monotonic()
        subprocess.run([docker, "kill", "--signal", "TERM", name], check=True, capture_output=True)
        code = subprocess.check_output([docker, "wait", name], text=True).strip()
        stopped = time.monotonic() - began
    finally:
        subprocess.run([docker, "rm", "--force", name], capture_output=True)
    figure = f"serves: {served is not None}; upload {uploaded}; reloads: {reloaded is not None}"
    kept = served is not None and uploaded == 200 and reloaded is not None and code == "0"
    return Outcome(kept, f"{figure}; stops after {show_seconds(stopped)} with {code}")


def answers(address: tuple[str, int]) -> bool:
    """Whether something answers there."""
    with suppress(OSError):
        return get(address)[0] == 200
    return False


def upload_to(address: tuple[str, int], size: int) -> int:
    """The status of an upload, 0 for none."""
    with socket.create_connection(address, 10) as sock:
        try:
            sock.sendall(request("/upload", f"Content-Length: {size}", method="POST") + b"a" * size)
            return read_answer(sock, "POST")[0].status
        except Exception:
            return 0


def logs_of(docker: str, name: str) -> str:
    """What a container has written."""
    return subprocess.run([docker, "logs", name], capture_output=True, text=True).stderr
