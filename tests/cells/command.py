"""`python -m tests.cells.command ROOT ARGUMENTS`: the command line of the matrix, on the small world in ROOT."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from unittest import mock

from matrix import cli
from matrix.manifest import load_matrix
from matrix.suite import Suite
from tests.cells.small import SmallTransport


def main(root: Path, arguments: list[str]) -> int:
    """Run a command on the small world; nothing is kept of what ran."""

    class Transport(SmallTransport):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(root)

    with (
        mock.patch.object(cli, "load_matrix", functools.partial(load_matrix, root / "matrix.toml")),
        mock.patch.object(cli, "VenvTransport", Transport),
        mock.patch.object(cli, "Suite", functools.partial(Suite, root)),
        mock.patch("matrix.run.fingerprint", return_value=None),
    ):
        return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
