"""Write what is published about the records of `matrix.results`: their JSON Schema, and a page of documentation.

`python -m matrix.schema` writes `matrix/schemas/results.schema.json` and `docs/matrix-results.md`; with `--check` it
only says whether they are up to date, with exit status 1 when they are not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matrix.records import describe, schema_of
from matrix.results import (
    EVENT_BYTES,
    EXCHANGE_BYTES,
    FORMAT,
    LEAST_BYTES,
    MAX_EVENTS,
    RECORDS,
    TAIL_BYTES,
    VERDICT_MEANINGS,
    VERDICTS,
    Blame,
    Deviation,
    Event,
    Exchange,
    Host,
    Provenance,
    Tool,
)

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "matrix" / "schemas" / "results.schema.json"
PAGE = ROOT / "docs" / "matrix-results.md"
COMMAND = "python -m matrix.schema"

PARTS: tuple[type[Any], ...] = (Tool, Host, Provenance, Exchange, Event, Blame, Deviation)

INTRODUCTION = """\
<!-- Written by `{command}` from matrix/results.py. Change that, then run it again. -->

# Results of the matrix

A run of the matrix writes one file of JSON lines: each line is one record, an object whose key `record` says which.
Its JSON Schema (draft 2020-12) is [`matrix/schemas/results.schema.json`](../matrix/schemas/results.schema.json); this
is format {format}.

1. A `run` record opens the file.
2. A `case` record follows for each test that ended, and a `cell` record for each cell that ended, in the order in
   which they ended. Cells may run at the same time, so the records of several may alternate.
3. An `end` record closes the file.

Lines are only appended, each whole. When the run is killed, the file has no `end` record, and perhaps a torn last line
with no line feed: a reader leaves that line out. A cell that has cases and no `cell` record did not end. Keys that have
their default (empty, null, false, or as the tables say) are left out. A reader refuses keys that it does not know; the
number of the format goes up with every change.

```python
from pathlib import Path
from matrix.results import read_results

results = read_results(Path("results.jsonl"))
failing = [case.id for case in results.cases if case.verdict == "fail"]
```

## Verdicts

The worst first. The verdict of a cell is the worst of its cases'; the first six make the run fail.

| verdict | meaning |
|---|---|
{verdicts}

The exit status of a run is 0 when everything was as expected, 1 when something was not, 2 when the command was used
wrongly, and 3 when nothing but the setting-up failed.

## Bytes

Bytes from the wire are written as text in which each character from U+0000 to U+00FF is one byte (ISO 8859-1):
`event["data"].encode("latin-1")` gives them back. Of an event at most {event} bytes are kept, the last {tail} of them
from its end, and `omitted` counts those between them; of an exchange, about {exchange} bytes, and at least {least} of
each event. Of an exchange with more than {events} events the middle is left out, and a `note` says so.

## Records
"""


def make_schema() -> str:
    """Return the JSON Schema as text."""
    schema = schema_of(
        RECORDS,
        "Results of the compatibility matrix",
        f"One line of a file of results, format {FORMAT}. Written by `{COMMAND}` from matrix/results.py.",
    )
    return json.dumps(schema, indent=2) + "\n"


def make_page() -> str:
    """Return the page about the schema as Markdown."""
    verdicts = "\n".join(f"| `{verdict}` | {VERDICT_MEANINGS[verdict]} |" for verdict in VERDICTS)
    introduction = INTRODUCTION.format(
        command=COMMAND,
        format=FORMAT,
        verdicts=verdicts,
        event=EVENT_BYTES,
        tail=TAIL_BYTES,
        exchange=EXCHANGE_BYTES,
        least=LEAST_BYTES,
        events=MAX_EVENTS,
    )
    records = [_describe_record(f"`{name}`", record) for name, record in RECORDS.items()]
    parts = [_describe_record(f"`{part.__name__.lower()}`", part) for part in PARTS]
    return "\n".join([introduction, *records, "## Their parts\n", *parts])


def _describe_record(title: str, record: type[Any]) -> str:
    lines = [f"### {title}\n", f"{record.__doc__ or ''}".split("\n\n")[0].strip(), ""]
    lines += ["| key | type | meaning |", "|---|---|---|"]
    for field in describe(record):
        optional = "" if field.required else " (optional)"
        lines.append(f"| `{field.name}` | {field.type}{optional} | {field.description} |")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check both files; return the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on drift")
    options = parser.parse_args(arguments)
    made = {SCHEMA: make_schema(), PAGE: make_page()}
    if not options.check:
        for path, text in made.items():
            path.write_text(text, encoding="utf-8")
        return 0
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: is not what matrix/results.py says; run `{COMMAND}`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
