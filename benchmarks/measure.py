"""One measurement: a server is started, checked, warmed up, loaded, watched, and stopped."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import idle, mixed
from benchmarks.accounting import process_tree, processor_seconds, read_machine, read_memory
from benchmarks.load import Load, LoadError, check_answer, run_wrk
from benchmarks.servers import Contender, environment_of, pinned
from benchmarks.workloads import THREADS, Workload
from matrix.environments import SetupError
from matrix.manifest import ROOT
from matrix.processes import Running, StartError, start

WARM_UP_SECONDS = 0.15


@dataclass(frozen=True)
class Settings:
    """How to measure: for how long, with which Python, the server and the load on which processors."""

    seconds: float
    python: str
    server_processor: int
    load_processor: int


@dataclass(frozen=True)
class Measurement:
    """What came of one server under one workload in one round.

    Attributes:
        problem: why there are no figures; empty when there are.
        rate: requests a second.
        p50, p99: seconds until an answer was whole.
        processor: processor seconds of the server's process tree for a request.
        memory: bytes that its process tree took at most.
        server_busy, client_busy: the share of a processor that server and load used.
        others_busy: the processors that anything else on the machine used, or that its host took away.
        more: what this workload alone has.
    """

    workload: str
    server: str
    turn: int
    problem: str = ""
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    processor: float = 0.0
    memory: int = 0
    server_busy: float = 0.0
    client_busy: float = 0.0
    others_busy: float = 0.0
    more: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {name: value for name, value in asdict(self).items() if value not in ("", {})}


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
        ) as running:
            try:
                return _measure_running(workload, contender, turn, settings, running)
            except LoadError as error:
                raise LoadError(f"{error}{_last_words(running)}") from error
    except (SetupError, StartError, LoadError) as error:
        return Measurement(workload.name, contender.name, turn, problem=shorten(str(error)))


def _last_words(running: Running) -> str:
    log = running.read_log().strip()
    return f"\nlog:\n{log[-1000:]}" if log else ""


def shorten(problem: str) -> str:
    """Take the place of the checkout out of a message, so that it is the same on every machine."""
    return problem.replace(f"{ROOT}/", "")


def _measure_running(
    workload: Workload, contender: Contender, turn: int, settings: Settings, running: Running
) -> Measurement:
    check_answer(workload, running.host, running.port)
    warm_up(workload, running.host, running.port)
    with ExitStack() as stack:
        more: dict[str, float] = {}
        if workload.kind == "idle":
            more = stack.enter_context(idle.beside(running))
        seconds, machine, clock = processor_seconds(running.pid), read_machine(), time.perf_counter()
        load = LOADS.get(workload.kind, run_wrk)(workload, running.url, settings.load_processor, settings.seconds)
        spent, now, passed = processor_seconds(running.pid) - seconds, read_machine(), time.perf_counter() - clock
    if running.process.poll() is not None:
        raise LoadError(f"it ended with status {running.process.returncode} under load")
    busy = (now.busy - machine.busy) + (now.stolen - machine.stolen)
    return Measurement(
        workload=workload.name,
        server=contender.name,
        turn=turn,
        rate=load.rate,
        p50=load.p50,
        p99=load.p99,
        processor=spent / load.requests,
        memory=read_memory(running.pid).peak,
        server_busy=spent / load.seconds,
        client_busy=load.client_seconds / load.seconds,
        others_busy=max(busy - spent - load.client_seconds, 0.0) / passed,
        more={**more, **load.more, "processes": len(process_tree(running.pid))},
    )


LOADS: dict[str, Callable[[Workload, str, int, float], Load]] = {"mixed": mixed.run}


def warm_up(workload: Workload, host: str, port: int) -> None:
    """Let a server answer for a while, so that what happens only once is over."""
    if workload.kind in ("upload", "json"):
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
