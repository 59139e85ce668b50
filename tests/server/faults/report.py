"""Figures as data in ``docs/reliability.json``, and the page that is made from them."""

from __future__ import annotations

import json
import os
import platform
import sys
from typing import Any

from matrix.manifest import load_matrix
from tests.harness.frameworks import ROOT
from tests.server.faults.case import FAULTS, Outcome

DATA = ROOT / "docs" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"
OWN = "wizgy"
SIGNS = {True: "✓", False: "✗", None: ""}

INTRODUCTION = """\
# Faults, and what they cost

Each fault is provoked on real processes of 2 workers with 4 threads each, where the server has such settings, and
otherwise with its defaults. A *probe* is a GET every 100 ms from another client, on a connection of its own. What is
written as a promise is wizgy's own; the other servers made none, and their figures only show what the same
provocation costs there. The page is made from `docs/reliability.json` by `python -m tests.server.faults --write`, and
that is written by

```console
$ tox -e faults                              # wizgy
$ tox -e faults -- --others                  # and gunicorn, waitress, cheroot and granian
$ tox -e faults -- --server granian --only 5,7
```

A quick form of each fault runs with `tox -e server`, in CI.
"""


def load() -> dict[str, Any]:
    """The figures: by server, its version and by number of the fault what was measured."""
    if not DATA.exists():
        return {}
    found: dict[str, Any] = json.loads(DATA.read_text("utf-8"))
    return found


def keep(server: str, version: str | None, number: int, outcome: Outcome, date: str) -> None:
    """Put one figure among the others."""
    data = load()
    entry = data.setdefault(server, {"faults": {}})
    entry["version"] = version
    entry["machine"] = f"Linux {platform.release()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    entry["faults"][str(number)] = {"kept": outcome.kept, "figure": outcome.figure, "date": date}
    entry["faults"] = dict(sorted(entry["faults"].items(), key=lambda item: int(item[0])))
    DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")


def render() -> str:
    """The page."""
    data = load()
    own = data.get(OWN, {"faults": {}})
    lines = [INTRODUCTION, "## wizgy", ""]
    lines += ["| | fault | promise | measured | kept | on |", "|---|---|---|---|---|---|"]
    for fault in FAULTS:
        figure = own["faults"].get(str(fault.number))
        measured = [figure["figure"], SIGNS[figure["kept"]], figure["date"]] if figure else ["not yet", "", ""]
        lines.append(f"| {fault.number} | {fault.title} | {fault.promise} | {' | '.join(measured)} |")
    others = [name for name in data if name != OWN]
    if others:
        titles = [f"{load_matrix().server(name).title} {data[name]['version'] or ''}".strip() for name in others]
        signs = "✓ and ✗ say whether wizgy's promise would have been kept, — that the server has no such feature."
        lines += ["", "## Others", "", signs, ""]
        lines += [f"| | fault | {' | '.join(titles)} |", "|---|---|" + "---|" * len(others)]
        for fault in FAULTS:
            if not fault.for_others:
                continue
            cells = [cell(data[name]["faults"].get(str(fault.number))) for name in others]
            lines.append(f"| {fault.number} | {fault.title} | {' | '.join(cells)} |")
    if "machine" in own:
        lines += ["", f"Measured on {own['machine']}, a virtual machine that others use as well."]
    return "\n".join(lines) + "\n"


def cell(figure: dict[str, Any] | None) -> str:
    """One figure of another server."""
    return f"{SIGNS[figure['kept']]} {figure['figure']}".strip() if figure else "not yet"


def write() -> None:
    """Write the page."""
    PAGE.write_text(render(), "utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


def check() -> int:
    """Say whether the page is what the figures say; returns the exit status."""
    if PAGE.read_text("utf-8") == render():
        return 0
    print(
        "docs/reliability.md is not made from docs/reliability.json: python -m tests.server.faults --write",
        file=sys.stderr,
    )
    return 1
