"""Run the suite against one service of the compose network: `conformance NAME [pytest's options]`."""

from __future__ import annotations

import os
import sys

import pytest

from tests.harness.frameworks import MatrixError, load_matrix

PORT = 8888
WRONG_USAGE = 2


def main(arguments: list[str]) -> int:
    """Run pytest for the framework that is named first; return the exit status."""
    frameworks = load_matrix().frameworks
    if not arguments or arguments[0] not in frameworks:
        came = f"no framework is called {arguments[0]!r}" if arguments else "no framework was named"
        print(f"conformance: {came}; choose one of: {', '.join(frameworks)}", file=sys.stderr)
        return WRONG_USAGE
    name, *options = arguments
    url = f"http://{name}:{PORT}"
    suites = ["tests/contract", "tests/conformance"]
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", "160")  # else the reason of a failure is cut off
    # The root file system is read-only, so pytest can keep no cache.
    status = pytest.main([*suites, "--framework", name, "--url", url, "-p", "no:cacheprovider", *options])
    verdict = "passed" if status == pytest.ExitCode.OK else "FAILED, see the lines above"
    print(f"conformance: {frameworks[name].title} at {url}: {verdict}")
    return int(status)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MatrixError as error:
        sys.exit(f"conformance: {error}")
