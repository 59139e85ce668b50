"""The fuzz target for head, body, trailers and response head, guided by coverage through atheris.

::

    python -m fuzz.fuzz_http [libFuzzer's options] [DIRECTORY ...]

With no directory it starts from `fuzz/corpus` and the seeds that the conformance cases give, and puts what it finds
into a temporary directory, an input that fails among it.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from fuzz.make_corpus import write_seeds

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    """Run libFuzzer; it ends the process."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["wizgy"]):
        check = importlib.import_module("fuzz.checks").check
    # libFuzzer starts itself again to merge, through a shell, by its first argument.
    arguments = [f"{sys.executable} -m fuzz.fuzz_http", *sys.argv[1:]]
    if all(argument.startswith("-") for argument in arguments[1:]):
        found = Path(tempfile.mkdtemp(prefix="wizgy-fuzz-"))
        write_seeds(found)
        # Of two options of one name the later one wins, so what was given stays.
        arguments.insert(1, f"-artifact_prefix={found}/")
        arguments += [str(found), str(CORPUS)]
    atheris.Setup(arguments, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
