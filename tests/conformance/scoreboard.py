"""The scoreboard: what each server made of the cases. ``python -m tests.conformance.scoreboard [--check]``.

``docs/scoreboard.json`` is what `tests.conformance.peers` measured, ``docs/scoreboard.md`` the page made from it.
Exit status: 0 when the page was written or is up to date, 1 when ``--check`` finds that it is not, or that the cases or
the servers are other ones than those that were measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from matrix.manifest import load_matrix
from tests.conformance.cases import LEVELS, Case, load_cases, select_cases
from tests.conformance.document import LEVEL_MEANINGS, escape_markdown
from tests.conformance.matching import describe_outcome

DOCS = Path(__file__).resolve().parents[2] / "docs"
DATA = DOCS / "scoreboard.json"
PAGE = DOCS / "scoreboard.md"
COMMAND = "python -m tests.conformance.scoreboard"
MEASURE = "tox -e conformance-peers"
FRAMEWORK = "wsgi"
OURS = "wizgy"

INTRODUCTION = """\
<!-- Written by `{command}` from docs/scoreboard.json, which `{measure}` measures. -->

# Scoreboard

How many of the [conformance cases](conformance-cases.md) each server passes: {count} cases, each the exact bytes that a
client sends and every outcome that its rule accepts. Every server runs as `matrix.toml` starts it, with one worker, its
own defaults for all else, in an environment of its own, and serves the plain WSGI app. A case has a process to itself
while it is played; one that fails is played again, and counts as failed when it failed twice.

{table}

{levels}

Only MUST and SHOULD are the standards' words, and the [requirements](requirements.md) say which case is about which.
The other two levels are what wizgy holds itself to, so its own row is no surprise there. Where a standard leaves a
choice, every choice is accepted, and a server may end a connection after any answer that says so. Cases have no
weight: one rule that a server leaves to others, as most do with the value of Host, fails dozens of them. "Restarts" is
how often a server had to be started again because it no longer answered on a new connection.

`{measure}` measures all of it again; `{measure} -- waitress` one server; `{measure} -- --changed` what has changed.
"""

READ_AGAIN = """\
Each of these was read again, as was every case that most servers failed: what it demands, and whether the standard
allows what the others do. That corrected some. An expectation that is not known may be ignored; malformed chunks that
an application comes upon may end in 500; a chunk-size of seventeen digits may be served; that exc_info replaces a head
is a SHOULD; a slash may stay encoded; an HTTP/1.0 answer need not say close; and a server whose connections never
persist fails two cases for it, not sixteen. What is left is the value of Host, numbers that the grammar does not have,
and what wizgy asks of itself.
"""


@dataclass(frozen=True)
class Standing:
    """What one server made of the cases.

    Args:
        name: the server, as `matrix.toml` calls it.
        title: the name as its authors write it.
        url: the page of its project.
        version: the version of it that ran.
        python: the implementation and version of Python that it ran on.
        system: the operating system.
        date: the day, as YYYY-MM-DD.
        seconds: how long it took.
        restarts: how often it no longer answered on a new connection and was started again.
        failed: the ids of the cases that failed, and what came instead.
        outdated: the ids of the cases that have changed since this server was measured.
    """

    name: str
    title: str
    url: str
    version: str
    python: str
    system: str
    date: str
    seconds: float
    restarts: int
    failed: dict[str, str]
    outdated: list[str] = field(default_factory=list)


@dataclass
class Scoreboard:
    """All that was measured.

    Args:
        cases: the id of each case that was played, and the digest of what it sends and accepts.
        servers: what each server made of them.
    """

    cases: dict[str, str] = field(default_factory=dict)
    servers: dict[str, Standing] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path = DATA) -> Scoreboard:
        """Read what was measured; nothing when there is no file."""
        if not path.exists():
            return cls()
        document = json.loads(path.read_text(encoding="utf-8"))
        standings = [Standing(**standing) for standing in document["servers"]]
        return cls(document["cases"], {standing.name: standing for standing in standings})

    def renew(self, cases: Sequence[Case]) -> None:
        """Take the cases of today for those that are measured; what changed is outdated for every server."""
        today = {case.id: digest(case) for case in cases}
        changed = {case_id for case_id in today if self.cases.get(case_id) != today[case_id]}
        for name, standing in self.servers.items():
            outdated = changed.union(standing.outdated) & today.keys()
            failed = {case_id: what for case_id, what in standing.failed.items() if case_id in today.keys() - outdated}
            self.servers[name] = replace(standing, failed=failed, outdated=sorted(outdated))
        self.cases = today

    def save(self, path: Path = DATA) -> None:
        """Write what was measured."""
        document: dict[str, Any] = {
            "command": MEASURE,
            "servers": [asdict(standing) for standing in self.servers.values()],
            "cases": self.cases,
        }
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def select_measured(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Return the cases that are played against every server: those that hold for the plain app."""
    return select_cases(cases, FRAMEWORK)


def digest(case: Case) -> str:
    """Return what changes when a case sends or accepts something else."""
    text = repr((case.send, [describe_outcome(outcome) for outcome in case.expect]))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def find_drift(board: Scoreboard, cases: Sequence[Case], servers: Sequence[str]) -> Iterator[str]:
    """Yield why what was measured no longer stands, a sentence for each reason."""
    today = {case.id: digest(case) for case in cases}
    for word, ids in {
        "is no case any more": board.cases.keys() - today.keys(),
        "was not measured": today.keys() - board.cases.keys(),
        "has changed since it was measured": {
            i for i in today.keys() & board.cases.keys() if today[i] != board.cases[i]
        },
    }.items():
        yield from (f"{case_id} {word}" for case_id in sorted(ids))
    yield from (f"{name} was not measured" for name in servers if name not in board.servers)
    yield from (f"{name} is no server of the scoreboard any more" for name in board.servers if name not in servers)
    for standing in board.servers.values():
        yield from (f"{case_id} was not measured with {standing.name}" for case_id in standing.outdated)
        yield from (f"{standing.name} failed {i}, which is no case" for i in standing.failed if i not in board.cases)


# The page


def make_page(board: Scoreboard, cases: Sequence[Case]) -> str:
    """Return the page as Markdown; the best server first."""
    standings = sorted(board.servers.values(), key=lambda standing: (len(standing.failed), standing.title.lower()))
    levels = "\n".join(["| level | what it means |", "|---|---|", *(f"| {n} | {LEVEL_MEANINGS[n]} |" for n in LEVELS)])
    table = "\n".join(_iterate_table(standings, cases))
    introduction = INTRODUCTION.format(command=COMMAND, measure=MEASURE, count=len(cases), table=table, levels=levels)
    return "\n".join([introduction, *_iterate_lonely(standings, cases), *_iterate_failures(standings, cases)])


def _iterate_table(standings: Sequence[Standing], cases: Sequence[Case]) -> Iterator[str]:
    yield f"| server | version | {' | '.join(LEVELS)} | all | restarts | on | measured |"
    yield f"|---|---|{'---:|' * (len(LEVELS) + 2)}---|---|"
    total = Counter(case.level for case in cases)
    for standing in standings:
        passed = Counter(case.level for case in cases if case.id not in standing.failed)
        levels = " | ".join(f"{passed[level]}/{total[level]}" for level in LEVELS)
        yield (
            f"| [{standing.title}]({standing.url}) | {standing.version} | {levels} | "
            f"{sum(passed.values())}/{len(cases)} | {standing.restarts} | {standing.python}, {standing.system} | "
            f"{standing.date} |"
        )


def _iterate_lonely(standings: Sequence[Standing], cases: Sequence[Case]) -> Iterator[str]:
    others = [standing for standing in standings if standing.name != OURS]
    lonely = [case for case in cases if others and all(case.id in standing.failed for standing in others)]
    yield "## Cases that no other server passes\n"
    yield READ_AGAIN
    yield "| case | level | rule |"
    yield "|---|---|---|"
    yield from (f"| {_link(case)} | {case.level} | {escape_markdown(case.rule)} |" for case in lonely)
    yield ""


def _iterate_failures(standings: Sequence[Standing], cases: Sequence[Case]) -> Iterator[str]:
    yield "## What failed\n"
    for standing in standings:
        failed = [case for case in cases if case.id in standing.failed]
        yield f"<details>\n<summary>{standing.title} {standing.version}: {len(failed)} failed</summary>\n"
        if failed:
            yield "| case | level | what came |"
            yield "|---|---|---|"
        for case in failed:
            yield f"| {_link(case)} | {case.level} | {escape_markdown(standing.failed[case.id])} |"
        yield "\n</details>\n"


def _link(case: Case) -> str:
    return f"[{case.id}](conformance-cases.md#{case.id})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Write the page of the scoreboard.")
    parser.add_argument("--check", action="store_true", help="fail if what was measured no longer stands")
    options = parser.parse_args(arguments)
    cases = select_measured(load_cases())
    board = Scoreboard.load(DATA)
    problems = list(find_drift(board, cases, [server.name for server in load_matrix().servers_for("conformance")]))
    if problems:
        print(f"{DATA.name}:", *problems, f"run `{MEASURE} -- --changed`", sep="\n  ", file=sys.stderr)
        return 1
    page = make_page(board, cases)
    if not options.check:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
        print(f"{PAGE.name} is not what {DATA.name} says; run `{COMMAND}`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
