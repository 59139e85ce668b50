"""Run the conformance cases against any server: ``python -m tests.conformance.run --url URL``.

The server must run one of the compat apps, or an app which has their routes ``/hello``, ``/echo``
and ``/environ``. Exit status: 0 when every case passed, 1 when one failed, 2 when the command or
the target cannot be used.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

from tests.conformance.cases import LEVELS, Case, load_cases, select_cases
from tests.conformance.runner import (
    DEADLINE,
    Exchange,
    TargetError,
    format_exchange,
    is_alive,
    start_all,
)

PASSED = 0
FAILED = 1
WRONG_USAGE = 2


class UsageError(Exception):
    """The command cannot be carried out as it was given."""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.run",
        description="Run the conformance cases against a server that runs a compat app.",
    )
    parser.add_argument("ids", nargs="*", metavar="CASE-ID", help="only these cases")
    parser.add_argument("--url", required=True, help="the server, as http://HOST:PORT")
    parser.add_argument(
        "--framework",
        metavar="NAME",
        help="the compat app that the server runs; without it, the cases that hold for every app",
    )
    parser.add_argument("--level", action="append", choices=LEVELS, help="only cases of this level")
    parser.add_argument("--split", type=_positive, metavar="BYTES", help="send at most so many bytes at a time")
    parser.add_argument("--jobs", type=_positive, default=8, help="cases at the same time (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every result to a file")
    parser.add_argument("--verbose", action="store_true", help="show passing exchanges as well")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def split_url(url: str) -> tuple[str, int]:
    """Return host and port of a URL.

    Raises:
        UsageError: it is not ``http://HOST[:PORT]``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise UsageError(f"--url {url}: {error}; give http://HOST:PORT") from error
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise UsageError(f"--url {url}: give http://HOST:PORT")
    return parts.hostname, port


def choose_cases(options: argparse.Namespace) -> tuple[Case, ...]:
    """Return the cases that the command line asks for.

    Raises:
        UsageError: an id is unknown, or nothing is left.
    """
    try:
        cases = select_cases(load_cases(), options.framework, options.ids)
    except KeyError as error:
        app = f"the app {options.framework}" if options.framework else "every app (--framework?)"
        raise UsageError(f"no case for {app} has the id {error}") from error
    if options.level:
        cases = tuple(case for case in cases if case.level in options.level)
    if options.split:
        cases = tuple(case for case in cases if case.split)
    if not cases:
        raise UsageError("no case is left to run")
    return cases


def make_reproduce(options: argparse.Namespace, case: Case) -> str:
    """Return the command which plays one case again."""
    words = ["python", "-m", "tests.conformance.run", "--url", options.url]
    if options.framework:
        words += ["--framework", options.framework]
    if options.split:
        words += ["--split", str(options.split)]
    return shlex.join([*words, case.id])


def summarise(exchanges: Sequence[Exchange]) -> str:
    """Count passes and failures by level and list the ids that failed."""
    total = Counter(exchange.case.level for exchange in exchanges)
    passed = Counter(exchange.case.level for exchange in exchanges if exchange.passed)
    lines = [f"{'level':<12}{'passed':>8}{'failed':>8}{'total':>8}"]
    lines += [
        f"{level:<12}{passed[level]:>8}{total[level] - passed[level]:>8}{total[level]:>8}"
        for level in LEVELS
        if total[level]
    ]
    everything = sum(total.values())
    good = sum(passed.values())
    lines.append(f"{'all':<12}{good:>8}{everything - good:>8}{everything:>8}")
    failed = [e.case for e in exchanges if not e.passed]
    if failed:
        lines += ["", "failed:", *(f"  {case.id} ({case.level})" for case in failed)]
    return "\n".join(lines)


def make_record(exchange: Exchange, reproduce: str) -> dict[str, Any]:
    """Return one result as JSON values; bytes are written as Latin-1, the same as in the cases."""
    return {
        "id": exchange.case.id,
        "level": exchange.case.level,
        "section": exchange.case.section,
        "passed": exchange.passed,
        "statuses": list(exchange.statuses),
        "ended": exchange.ended,
        "reused": exchange.reused,
        "alive": exchange.alive,
        "explanation": exchange.explanation,
        "seconds": round(exchange.seconds, 3),
        "sent": exchange.sent[:4096].decode("latin-1"),
        "received": exchange.received[:4096].decode("latin-1"),
        "reproduce": reproduce,
    }


def write_json(path: Path, options: argparse.Namespace, exchanges: Iterable[Exchange]) -> None:
    """Write all results to a file."""
    document = {
        "url": options.url,
        "framework": options.framework,
        "split": options.split,
        "results": [make_record(e, make_reproduce(options, e.case)) for e in exchanges],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def run(options: argparse.Namespace, output: TextIO) -> int:
    """Play the chosen cases and report.

    Raises:
        UsageError: the arguments cannot be used.
        TargetError: the target does not answer.
    """
    host, port = split_url(options.url)
    cases = choose_cases(options)
    if not is_alive(host, port, DEADLINE):
        raise TargetError(f"GET {options.url}/hello is not answered as a compat app answers it")
    executor, futures = start_all(cases, host, port, jobs=options.jobs, split=options.split)
    try:
        exchanges = [_report(futures[case.id], options, output) for case in cases]
    finally:
        executor.shutdown(cancel_futures=True)
    print(summarise(exchanges), file=output)
    if options.json:
        write_json(options.json, options, exchanges)
    return PASSED if all(exchange.passed for exchange in exchanges) else FAILED


def _report(future: Future[Exchange], options: argparse.Namespace, output: TextIO) -> Exchange:
    exchange = future.result()
    if options.verbose or not exchange.passed:
        reproduce = make_reproduce(options, exchange.case)
        print(format_exchange(exchange, reproduce), end="\n\n", file=output, flush=True)
    return exchange


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parse_arguments(arguments)
    try:
        return run(options, sys.stdout)
    except (UsageError, TargetError) as error:
        print(f"tests.conformance.run: {error}", file=sys.stderr)
        return WRONG_USAGE


if __name__ == "__main__":
    sys.exit(main())
