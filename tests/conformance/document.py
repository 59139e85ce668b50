"""Write the docs pages of all cases and requirements: ``python -m tests.conformance.document [--check]``.

Exit status: 0 when the pages were written or are up to date, 1 when ``--check`` finds that they are not, or when cases
and requirements do not fit together.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from tests.conformance import requirements
from tests.conformance.cases import (
    LEVELS,
    Await,
    Case,
    CaseError,
    HalfClose,
    Pause,
    Reconnect,
    SendBytes,
    Step,
    load_cases,
)
from tests.conformance.matching import describe_outcome

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance-cases.md"
COMMAND = "python -m tests.conformance.document"
MAX_SHOWN = 600

INTRODUCTION = """\
<!-- Written by `{command}` from tests/conformance/cases/. Change the cases, then run it again. -->

# Conformance cases

{count} cases, each of them the exact bytes that a client sends and every outcome that its rule
accepts. They run against any server:

```console
$ python -m tests.conformance.run --url http://127.0.0.1:8888 --framework wsgi
$ python -m tests.conformance.run --url http://127.0.0.1:8888 9112-6.3-te-and-cl
```

| level | what it means | cases |
|---|---|---:|
{levels}

Where several answers are accepted, a server may also end the connection after the first of them or a later one,
if that answer says so: no standard makes connections persist. Only "answers a further request" is about that.

A case that names no app holds for every compat app. Control bytes and bytes above ASCII are written
as in Python; `→` marks what the client does besides sending.
"""

LEVEL_MEANINGS = {
    "MUST": "the section says MUST or MUST NOT, or its grammar leaves no other reading",
    "SHOULD": "the section says SHOULD",
    "security": "the standard leaves room, and servers were attacked through that room",
    "robustness": "the server stays alive, bounded and clear whatever the client does",
}


def section_key(section: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts sections as their documents do: 2.2 before 10.1."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|[^\d\s.]+", section)
    )


def make_page(cases: Sequence[Case]) -> str:
    """Return the whole page as Markdown."""
    return "\n".join(_iterate_blocks(cases))


def _iterate_blocks(cases: Sequence[Case]) -> Iterator[str]:
    counts = Counter(case.level for case in cases)
    levels = "\n".join(f"| {level} | {LEVEL_MEANINGS[level]} | {counts[level]} |" for level in LEVELS)
    yield INTRODUCTION.format(command=COMMAND, count=len(cases), levels=levels)
    ordered = sorted(cases, key=lambda case: section_key(case.section))
    for section, group in groupby(ordered, key=lambda case: case.section):
        yield f"## {section}\n"
        for case in group:
            yield from _describe_case(case)


def _describe_case(case: Case) -> Iterator[str]:
    yield f'<a id="{case.id}"></a>\n'
    yield f"### `{case.id}`\n"
    yield f"{escape_markdown(case.rule)}\n"
    yield f"- Level: {case.level}"
    yield f"- Source: {_link(case.source)}"
    if case.frameworks:
        yield f"- Apps: {', '.join(case.frameworks)}"
    for outcome in case.expect:
        yield f"- Accepted: {code(describe_outcome(outcome))}"
    yield "\n```text"
    yield from describe_steps(case.send)
    yield "```\n"


def describe_steps(steps: Iterable[Step]) -> Iterator[str]:
    """Yield what a case sends, a line for each line that it sends."""
    for step in steps:
        if isinstance(step, SendBytes):
            yield from _describe_bytes(step.data)
        elif isinstance(step, Pause):
            yield f"→ wait {step.seconds:g} s"
        elif isinstance(step, Await):
            within = f" for at most {step.within:g} s" if step.within else ""
            yield f"→ wait for {escape_bytes(step.data)}{within}"
        elif isinstance(step, Reconnect):
            yield "→ close the connection and open a new one"
        elif isinstance(step, HalfClose):
            yield "→ close the writing side"
        else:
            yield "→ reset the connection"


def _describe_bytes(data: bytes) -> Iterator[str]:
    if len(data) > MAX_SHOWN:
        yield f"→ {len(data)} bytes: {escape_bytes(data[:40])} ... {escape_bytes(data[-20:])}"
        return
    yield from (escape_bytes(line) for line in data.splitlines(keepends=True) if line)


def escape_bytes(data: bytes) -> str:
    """Write bytes as printable ASCII, the others as a Python literal has them."""
    return repr(data)[2:-1].replace("\\'", "'")


def escape_markdown(text: str) -> str:
    """Keep Markdown and HTML from reading markup into plain text."""
    return re.sub(r"([\\`*_<>\[\]|&])", r"\\\1", text)


def code(text: str) -> str:
    """Return text as inline code, whatever backticks are in it."""
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def _link(source: str) -> str:
    return f"<{source}>" if re.fullmatch(r"https?://\S+", source) else escape_markdown(source)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Write the pages of all cases and requirements.")
    parser.add_argument("--check", action="store_true", help="fail if a page is out of date")
    options = parser.parse_args(arguments)
    cases = load_cases()
    try:
        pages = {
            PAGE: make_page(cases),
            requirements.PAGE: requirements.make_page(requirements.load_requirements(), cases, COMMAND),
        }
    except CaseError as error:
        print(error, file=sys.stderr)
        return 1
    if not options.check:
        for path, page in pages.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(page, encoding="utf-8")
        return 0
    drifted = [path for path, page in pages.items() if not is_written(path, page)]
    for path in drifted:
        print(f"{path.name} is not what the cases say; run `{COMMAND}`", file=sys.stderr)
    return 1 if drifted else 0


def is_written(path: Path, page: str) -> bool:
    """Tell whether a file is a page."""
    return path.is_file() and path.read_text(encoding="utf-8") == page


if __name__ == "__main__":
    sys.exit(main())
