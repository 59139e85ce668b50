"""Serve one of the compat apps with wizgy: `python compat_apps/serve.py NAME [wizgy's options]`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
WRONG_USAGE = 2


def main(arguments: list[str]) -> int:  # noqa: RET503 - the last line does not return
    """Become wizgy, serving the framework that is named first; return only on wrong usage."""
    document = tomllib.loads((ROOT / "matrix.toml").read_text(encoding="utf-8"))
    frameworks = document["frameworks"]
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: tox -e serve -- NAME [OPTIONS]\n\nNAME is one of: {', '.join(frameworks)}.")
        print("OPTIONS are those of wizgy: tox -e serve -- NAME --help lists them.")
        return 0
    if not arguments or arguments[0] not in frameworks:
        came = f"no framework is called {arguments[0]!r}" if arguments else "no framework was named"
        print(f"serve: {came}; choose one of: {', '.join(frameworks)}", file=sys.stderr)
        return WRONG_USAGE
    name, *options = arguments
    framework = frameworks[name]
    directory = str(ROOT / framework["directory"])
    command = [sys.executable, "-m", "wizgy", *options, "--chdir", directory]
    os.execv(sys.executable, [*command, framework["application"]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
