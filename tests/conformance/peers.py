"""Play the cases against every server of the scoreboard: ``python -m tests.conformance.peers [SERVER ...]``.

Each server of `matrix.toml` that is for the scoreboard is installed in an environment of its own and serves the plain
WSGI app, one server after the other. A server runs as several processes on ports of their own, and each of them plays
one case at a time: a case meets no other, and a process that dies or hangs is known by its case. It is started again.

What was measured is kept after each server, in `docs/scoreboard.json`, so that a run may be ended and taken up; the
page `docs/scoreboard.md` is written when it is whole. Exit status: 0 when all was measured, 1 when a server could not
be set up or started, 2 when the command cannot be used.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import queue
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from types import TracebackType
from typing import TextIO

from matrix.environments import Environment, SetupError, environment
from matrix.manifest import Framework, Matrix, MatrixError, Server, load_matrix
from matrix.processes import Running, StartError, start
from tests.conformance.cases import Case, load_cases
from tests.conformance.runner import Exchange, TargetError, play
from tests.conformance.scoreboard import (
    DATA,
    FRAMEWORK,
    PAGE,
    Scoreboard,
    Standing,
    find_drift,
    make_page,
    select_measured,
)

PYTHON = "3.13"
PROCESSES = 20
"""How many processes of one server: they mostly wait for answers that never come."""

MEASURED = 0
NOT_MEASURED = 1
WRONG_USAGE = 2

NO_START = "did not accept a connection"


class Player:
    """One process of a server, which plays one case at a time and is started again when it no longer answers.

    Args:
        server: what to start.
        home: where it is installed.
        framework: whose app it serves.
    """

    def __init__(self, server: Server, home: Environment, framework: Framework) -> None:
        self.restarts = 0
        self._server = server
        self._home = home
        self._framework = framework
        self._stack = ExitStack()
        self._running: Running | None = None

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def judge(self, case: Case) -> str | None:
        """Play a case; what came when it failed twice, else None.

        Raises:
            StartError: the server does not start.
        """
        # Once may be the fault of a machine that is busy.
        return self._play(case) and self._play(case)

    def _play(self, case: Case) -> str | None:
        running = self._start()
        try:
            exchange = play(case, running.host, running.port)
        except TargetError:
            self._stop_dead()
            return NO_START
        if not exchange.alive:
            self._stop_dead()
        return None if exchange.passed else describe_exchange(exchange)

    def _start(self) -> Running:
        if self._running is None:
            framework = self._framework
            self._running = self._stack.enter_context(
                start(self._server, self._home, framework.directory, framework.application)
            )
        return self._running

    def _stop_dead(self) -> None:
        self.restarts += 1
        self._running = None
        self._stack.close()


def describe_exchange(exchange: Exchange) -> str:
    """Say in a few words what came."""
    if not exchange.alive:
        return "the server no longer answered on a new connection"
    for line in exchange.explanation.splitlines():
        if "the answer is malformed" in line:
            return line[line.index("the answer is malformed") :][:160]
    answers = ", ".join(
        str(response.status) + ("" if response.complete else " cut short") for response in exchange.responses
    )
    ending = {"eof": "closed", "reset": "reset", None: "left open"}[exchange.ended]
    return f"{answers or 'no answer'}; {ending}"


class Progress:
    """Says how far a run is: on a terminal in one line, else in a line for each tenth.

    Args:
        title: what runs.
        total: how many steps there are.
        output: where to say it.
    """

    def __init__(self, title: str, total: int, output: TextIO) -> None:
        self._title = title
        self._total = total
        self._output = output
        self._done = 0
        self._failed = 0
        self._lock = threading.Lock()

    def step(self, *, failed: bool) -> None:
        """Count one more step."""
        with self._lock:
            self._done += 1
            self._failed += failed
            line = f"{self._title}: {self._done} of {self._total} cases, {self._failed} failed"
            if self._output.isatty():
                end = "\n" if self._done == self._total else ""
                print(f"\r\x1b[K{line}", end=end, file=self._output, flush=True)
            elif self._done * 10 // self._total != (self._done - 1) * 10 // self._total:
                print(line, file=self._output, flush=True)


def measure(players: Sequence[Player], cases: Sequence[Case], progress: Progress) -> dict[str, str]:
    """Play cases on several processes of one server; return the ids of those that failed, and what came.

    Raises:
        StartError: the server does not start.
    """
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)
    failed: dict[str, str] = {}
    broken: list[StartError] = []

    def work(player: Player) -> None:
        while not broken:
            try:
                case = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                what = player.judge(case)
            except StartError as error:
                broken.append(error)
                return
            if what is not None:
                failed[case.id] = what
            progress.step(failed=what is not None)

    threads = [threading.Thread(target=work, args=(player,)) for player in players]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    return {case.id: failed[case.id] for case in cases if case.id in failed}


def measure_server(
    server: Server,
    matrix: Matrix,
    cases: Sequence[Case],
    board: Scoreboard,
    options: argparse.Namespace,
    output: TextIO,
) -> None:
    """Measure one server, and put it onto the scoreboard.

    Raises:
        SetupError: it could not be installed.
        StartError: it does not start.
    """
    home = environment(server, FRAMEWORK, options.python)
    standing = describe_server(server, home)
    known = board.servers.get(server.name)
    keep = known if options.changed and known and is_the_same(known, standing) else None
    chosen = [case for case in cases if keep is None or case.id in keep.outdated]
    began = time.monotonic()
    with ExitStack() as stack:
        players = [
            stack.enter_context(Player(server, home, matrix.framework(FRAMEWORK)))
            for _ in range(min(options.processes, len(chosen)))
        ]
        failed = measure(players, chosen, Progress(server.title, len(chosen), output))
    restarts = sum(player.restarts for player in players)
    if keep:
        failed |= keep.failed
        restarts += keep.restarts
    board.servers[server.name] = dataclasses.replace(
        standing,
        seconds=round(time.monotonic() - began, 1),
        restarts=restarts,
        failed={case.id: failed[case.id] for case in cases if case.id in failed},
    )


def describe_server(server: Server, home: Environment) -> Standing:
    """Return the standing of a server that has not been measured yet."""
    interpreter = home.interpreter
    own = f"{interpreter.implementation} {interpreter.version}"
    version = home.version_of(server.distribution) if server.distribution else None
    return Standing(
        name=server.name,
        title=server.title,
        url=server.url,
        version=version or ("this tree" if server.path else interpreter.version),
        python=own,
        system=f"{platform.system()} {platform.machine()}",
        date=datetime.now(timezone.utc).date().isoformat(),
        seconds=0.0,
        restarts=0,
        failed={},
    )


def is_the_same(one: Standing, other: Standing) -> bool:
    """Tell whether two measurements are of the same version on the same Python and system."""
    return (one.version, one.python, one.system) == (other.version, other.python, other.system)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.peers", description="Play the conformance cases against every server."
    )
    parser.add_argument("servers", nargs="*", metavar="SERVER", help="only these, as matrix.toml calls them")
    parser.add_argument("--changed", action="store_true", help="only cases that changed since they were measured")
    parser.add_argument("--python", default=PYTHON, metavar="X.Y", help="the Python to run on (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=PROCESSES, metavar="N", help="of each server (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, output: TextIO) -> int:
    """Measure the chosen servers; return the exit status.

    Raises:
        MatrixError: a server is unknown, or not for the scoreboard.
    """
    matrix = load_matrix()
    everyone = {server.name: server for server in matrix.servers_for("conformance")}
    for name in options.servers:
        if matrix.server(name).name not in everyone:
            raise MatrixError(f"{name} is not for the scoreboard; choose from {', '.join(everyone)}")
    chosen = [everyone[name] for name in options.servers] or list(everyone.values())
    cases = select_measured(load_cases())
    board = Scoreboard.load(DATA)
    board.renew(cases)
    status = MEASURED
    for server in chosen:
        try:
            measure_server(server, matrix, cases, board, options, output)
        except (SetupError, StartError) as error:
            print(f"{server.title} was not measured: {error}", file=output)
            status = NOT_MEASURED
            continue
        board.servers = {name: board.servers[name] for name in everyone if name in board.servers}
        board.save(DATA)
    if not list(find_drift(board, cases, list(everyone))):
        PAGE.write_text(make_page(board, cases), encoding="utf-8")
        print(f"{DATA.name} and {PAGE.name} are written", file=output)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    try:
        return run(parse_arguments(arguments), sys.stdout)
    except MatrixError as error:
        print(f"tests.conformance.peers: {error}", file=sys.stderr)
        return WRONG_USAGE


if __name__ == "__main__":
    sys.exit(main())
