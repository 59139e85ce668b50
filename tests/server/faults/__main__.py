"""``python -m tests.server.faults``: provoke faults, keep their figures, and write ``docs/reliability.md``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path

from matrix.environments import environment
from matrix.manifest import load_matrix
from tests.server.faults import clients, processes, reloads, report, stress, systems
from tests.server.faults.case import FAULTS, Case, Fault, Outcome

MODULES = (clients, processes, reloads, stress, systems)
"""Those that put faults into the list."""
OTHERS = ("gunicorn-gthread", "waitress", "cheroot", "granian")
PYTHON = "3.13"


def run(fault: Fault, server: str, python: str, *, full: bool) -> Outcome:
    """Put one fault to one server."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        try:
            with Case(load_matrix().server(server), python, full, Path(folder)) as case:
                return fault.provoke(case)
        except Exception as error:
            traceback.print_exc()
            # Of wizgy that is a failure; of another server it may be this suite's.
            return Outcome(False if server == "wizgy" else None, f"could not be measured: {type(error).__name__}")


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="tox -e faults --", description=__doc__)
    parser.add_argument("--server", action="append", help="one of matrix.toml; may be repeated; default: wizgy")
    parser.add_argument("--others", action="store_true", help=f"wizgy and {', '.join(OTHERS)}")
    parser.add_argument("--only", help="numbers of faults, as 1,5,13")
    parser.add_argument("--quick", action="store_true", help="small counts, for which no figures are kept")
    parser.add_argument("--check", action="store_true", help="run nothing; is the page what the figures say?")
    parser.add_argument("--write", action="store_true", help="run nothing; write the page from the figures")
    arguments = parser.parse_args()
    if arguments.check:
        return report.check()
    if arguments.write:
        report.write()
        return 0
    servers = arguments.server or (["wizgy", *OTHERS] if arguments.others else ["wizgy"])
    numbers = {int(word) for word in arguments.only.split(",")} if arguments.only else None
    broken = 0
    for server in servers:
        made = environment(server, "wsgi", PYTHON)
        distribution = load_matrix().server(server).distribution
        version = made.version_of(distribution) if distribution else None
        for fault in FAULTS:
            if (numbers and fault.number not in numbers) or (server != "wizgy" and not fault.for_others):
                continue
            began = time.monotonic()
            outcome = run(fault, server, made.python, full=not arguments.quick)
            mark = {True: "kept", False: "BROKEN", None: "not run"}[outcome.kept]
            seconds = time.monotonic() - began
            print(f"{server} {fault.number:2} {mark:7} {seconds:5.1f} s  {fault.title}: {outcome.figure}", flush=True)
            broken += outcome.kept is False and server == "wizgy"
            if not arguments.quick:
                report.keep(server, version, fault.number, outcome, datetime.now(timezone.utc).date().isoformat())
    if not arguments.quick:
        report.write()
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
