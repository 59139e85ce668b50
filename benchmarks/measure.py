"""One measurement: a server is started, checked, warmed up, loaded, watched, and stopped."""

from __future__ import annotations

import dataclasses
import http.client
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import huge, idle, mixed
from benchmarks.accounting import process_tree, processor_seconds, read_machine, read_memory
from benchmarks.load import Load, LoadError, check_answer, run_wrk
from benchmarks.results import Measurement
from benchmarks.servers import Contender, environment_of, pinned
from benchmarks.workloads import THREADS, Workload
from matrix.environments import SetupError
from matrix.manifest import ROOT
from matrix.processes import Running, StartError, start

WARM_UP_SECONDS = 0.15

PLACE_OF_PYTHON = re.compile(r"(?<![^\s\"'])/[^\s\"']*/(?=lib/python3)")
"""Where Python is installed, in front of the name of a file of its library."""

VARIABLES = {"PYTHONDONTWRITEBYTECODE": ""}
"""Unset: a server that compiles its modules anew each time starts slower than it does for anybody else."""


@dataclass(frozen=True)
class Settings:
    """How to measure: for how long, with which Python, the server and the load on which processors."""

    seconds: float
    python: str
    server_processor: int
    load_processor: int


def measure(workload: Workload, contender: Contender, turn: int, settings: Settings) -> Measurement:
    """Measure a server under a workload; one that fails gives a measurement that says how."""
    try:
        if workload.kind == "idle":
            idle.allow_descriptors()
        environment = environment_of(contender.server, settings.python)
        with start(
            pinned(contender, settings.server_processor),
            environment,
            workload.app.directory,
            workload.app.name,
            threads=THREADS,
            variables=VARIABLES,
        ) as running:
            try:
                measurement = _measure_running(workload, contender, turn, settings, running)
                running.kill()  # how gracefully it stops, and how long it takes over it, is not measured
                return measurement
            except LoadError as error:
                raise LoadError(f"{error}{_last_words(running)}") from error
    except (SetupError, StartError, LoadError) as error:
        return Measurement(workload.name, contender.name, turn, problem=shorten(str(error)))


def _last_words(running: Running) -> str:
    log = running.read_log().strip()
    return f"\nlog:\n{log[-1000:]}" if log else ""


def shorten(problem: str) -> str:
    """Take the places of the checkout and of Python out of a message, so that it is the same on every machine."""
    return PLACE_OF_PYTHON.sub("", problem.replace(f"{ROOT}/", ""))


def _measure_running(
    workload: Workload, contender: Contender, turn: int, settings: Settings, running: Running
) -> Measurement:
    if workload.kind not in CHECKED_UNDER_LOAD:
        check_answer(workload, running.host, running.port)
    if workload.kind == "start":
        seconds = running.start_seconds
        load, used = Load(1, seconds, p50=seconds, p99=seconds, client_seconds=0.0), Usage()
        used.server = processor_seconds(running.pid)
    else:
        load, used = _load_running(workload, settings, running)
    if running.process.poll() is not None:
        raise LoadError(f"it ended with status {running.process.returncode} under load")
    return Measurement(
        workload=workload.name,
        server=contender.name,
        turn=turn,
        rate=load.rate,
        p50=load.p50,
        p99=load.p99,
        processor=used.server / load.requests,
        memory=read_memory(running.pid).peak,
        server_busy=used.server / load.seconds,
        client_busy=load.client_seconds / load.seconds,
        others_busy=used.others,
        more={**load.more, "processes": len(process_tree(running.pid))},
    )


@dataclass
class Usage:
    """Processor seconds of the server while a load ran, and how many processors anything else kept busy meanwhile."""

    server: float = 0.0
    others: float = 0.0


def _load_running(workload: Workload, settings: Settings, running: Running) -> tuple[Load, Usage]:
    """Warm a server up, load it, and watch what it uses."""
    if workload.kind not in CHECKED_UNDER_LOAD:
        warm_up(workload, running.host, running.port)
    run = LOADS.get(workload.kind, run_wrk)
    with ExitStack() as stack:
        more = stack.enter_context(idle.beside(running)) if workload.kind == "idle" else {}
        spent, machine, clock = processor_seconds(running.pid), read_machine(), time.perf_counter()
        load = run(workload, running.url, settings.load_processor, settings.seconds)
        spent = processor_seconds(running.pid) - spent
        passed, now = time.perf_counter() - clock, read_machine()
    busy = now.busy - machine.busy + now.stolen - machine.stolen
    others = max(busy - spent - load.client_seconds, 0.0) / passed
    return dataclasses.replace(load, more={**load.more, **more}), Usage(spent, others)


CHECKED_UNDER_LOAD = ("huge-upload", "huge-download")
"""Loads that look at the one answer themselves; what came before them would count in the peak of memory."""

LOADS: dict[str, Callable[[Workload, str, int, float], Load]] = {
    "mixed": mixed.run,
    "huge-upload": huge.run,
    "huge-download": huge.run,
}


def warm_up(workload: Workload, host: str, port: int) -> None:
    """Let a server answer for a while, so that what happens only once is over."""
    if workload.kind in ("upload", "json"):  # the right answer needs a request with content
        check_answer(workload, host, port)
        return
    until = time.monotonic() + WARM_UP_SECONDS
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        while time.monotonic() < until:
            connection.request("GET", workload.path)
            connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        raise LoadError(f"it stopped answering while it was warmed up: {error!r}") from error
    finally:
        connection.close()
