"""Instructions of a request, counted by callgrind on a live server: a figure that no other program disturbs.

Processor time varies by a third from one minute to the next where others share the machine; the count of the same
requests varies by a thousandth. It says nothing of the kernel's part and of caches, so it stands beside the processor
time and not in its place. What it is for is to compare a server with itself: `check` fails when a request costs more
than the committed figures allow.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.accounting import process_tree
from benchmarks.servers import APPS, BARE_APP, REFERENCE, Contender, UsageError, environment_of
from benchmarks.workloads import THREADS, WORKLOADS, Workload
from matrix.environments import Environment, SetupError
from matrix.manifest import ROOT
from matrix.processes import Running, StartError, start

FIGURES: Final = ROOT / "docs" / "benchmarks" / "instructions.json"
COUNTED: Final = ("hello", "browser", "flask", "django", "pyramid", "json", "close")
"""The workloads whose requests can be counted."""
GATE: Final = ("hello", "flask")
"""Those that may not come to cost more. How a connection ends depends on when its client is scheduled, so the same
requests with a connection each differ by a tenth."""
ALLOWED: Final = 1.03
"""How much more is taken for chance, or for another build of the same Python."""
SERVERS: Final = (REFERENCE, "granian", "bjoern", "fastwsgi", "waitress", "cheroot", BARE_APP)
"""Those that do not serve in a process that they fork, where callgrind cannot be asked for anything."""
CONNECTIONS: Final = 4
WARM_UP: Final = 200
"""Requests before the count: caches are filled, and nothing is imported any more."""
BATCHES: Final = 8
"""Counts, of which the least is taken: what a request costs when nothing else happens in between."""
REQUESTS: Final = 100
"""Requests of each."""
SECONDS: Final = 60.0
"""Seconds that a start, or one answer, may take under callgrind."""

CONTENT_LENGTH = re.compile(rb"\r\nContent-Length: ?(\d+)\r\n", re.IGNORECASE)
TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)


class CountError(Exception):
    """A server could not be counted; the message says why."""


@dataclass(frozen=True)
class Figures:
    """Instructions of one request, and what they were counted on.

    Args:
        python: the interpreter.
        counts: for each workload the instructions of each server.
    """

    python: str
    counts: dict[str, dict[str, int]]

    @classmethod
    def read(cls, path: Path = FIGURES) -> Figures:
        """Read the committed figures.

        Raises:
            UsageError: there are none.
        """
        try:
            data = json.loads(path.read_text("utf-8"))
            return cls(data["python"], data["counts"])
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"{path.name} cannot be read: {error!r}; `instructions --write` makes it") from error

    def write(self, path: Path = FIGURES) -> None:
        """Write them, to be committed."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", "utf-8")


def describe_python() -> str:
    """The interpreter that runs, and how it was built."""
    return f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}"


def need_callgrind() -> None:
    """Raise unless callgrind is there.

    Raises:
        UsageError: it is missing; the message says how to install it.
    """
    if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
        raise UsageError("callgrind, which counts, is not installed: `apt-get install valgrind` (Debian, Ubuntu)")


def count(workload: Workload, contender: Contender, python: str) -> int:
    """Count the instructions of one request.

    Args:
        workload: what is asked.
        contender: the server.
        python: the Python that it runs on, as 3.11.

    Raises:
        CountError: the server does not start, does not answer, or cannot be counted.
    """
    try:
        environment = environment_of(contender.server, python)
        with _start(workload, contender, environment) as (running, folder):
            client = Client(workload, running.host, running.port)
            client.ask(WARM_UP)
            processes = [pid for pid in process_tree(running.pid) if _control(pid, "--instr=on")]
            client.ask(CONNECTIONS)
            total = min(_count_batch(client, folder, processes, number) for number in range(1, BATCHES + 1))
            if total < REQUESTS:
                raise CountError(f"{contender.name} serves in a process that it forks, where callgrind cannot be asked")
            return round(total / REQUESTS)
    except (SetupError, StartError, OSError) as error:
        raise CountError(f"{contender.name} with {workload.name}: {error}") from error


@contextmanager
def _start(workload: Workload, contender: Contender, environment: Environment) -> Iterator[tuple[Running, Path]]:
    """Start a server under callgrind, which does not count yet; gives it and the folder of the counts."""
    server = contender.server
    command: Sequence[str] = server.command
    if contender.is_wizgy:
        command = ("{python}", f"{APPS}/one_process.py", "{host}", "{port}", "{threads}", "{application}")
    with tempfile.TemporaryDirectory(prefix="callgrind-") as folder:
        counting = (
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--trace-children=yes"),
            *(f"--callgrind-out-file={folder}/%p", f"--vgdb-prefix={tempfile.gettempdir()}/vgdb-pipe"),
            *command,
        )
        with start(
            dataclasses.replace(server, command=counting),
            environment,
            workload.app.directory,
            workload.app.name,
            threads=THREADS,
            variables={"PYTHONHASHSEED": "0"},
            seconds=SECONDS,
        ) as running:
            yield running, Path(folder)
            running.kill()


def _count_batch(client: Client, folder: Path, processes: Sequence[int], number: int) -> int:
    """The instructions of a batch of requests, in all processes; `number` is how many were counted before, plus one."""
    for pid in processes:
        _control(pid, "--zero")
    client.ask(REQUESTS)
    return sum(_read_total(folder, pid, number) for pid in processes if _control(pid, "--dump"))


def _control(pid: int, request: str) -> bool:
    """Ask callgrind for something; returns whether it did that. In a process that was forked it does nothing."""
    told = subprocess.run(["callgrind_control", request, str(pid)], capture_output=True, text=True, check=False)
    return "OK." in told.stdout


def _read_total(folder: Path, pid: int, number: int) -> int:
    found = TOTALS.search((folder / f"{pid}.{number}").read_text("utf-8"))
    if found is None:
        raise CountError("callgrind has written no total")
    return int(found[1])


class Client:
    """Sends the requests of a workload, and reads every answer whole before it sends the next.

    Args:
        workload: what is asked.
        host: where.
        port: where.
    """

    def __init__(self, workload: Workload, host: str, port: int) -> None:
        self._address = host, port
        self._closes = workload.kind == "close"
        self._requests = [make_request(workload, number) for number in range(50)]

    def ask(self, count: int) -> None:
        """Send so many requests, over several connections in turn.

        Raises:
            CountError: an answer is not 200.
            OSError: there is no answer.
        """
        with ExitStack() as stack:
            socks = [stack.enter_context(self._connect()) for _ in range(0 if self._closes else CONNECTIONS)]
            for number in range(count):
                request = self._requests[number // CONNECTIONS % len(self._requests)]
                if self._closes:
                    with self._connect() as sock:
                        self._ask_once(sock, request)
                else:
                    self._ask_once(socks[number % CONNECTIONS], request)

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=SECONDS)

    def _ask_once(self, sock: socket.socket, request: bytes) -> None:
        sock.sendall(request)
        answer = b""
        while not self._is_whole(answer):
            piece = sock.recv(65536)
            if not piece:
                break
            answer += piece
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise CountError(f"an answer is {answer[:80]!r}")

    def _is_whole(self, answer: bytes) -> bool:
        """Whether an answer is whole; where the connection ends with it, that is for its end to tell."""
        head, end, content = answer.partition(b"\r\n\r\n")
        found = CONTENT_LENGTH.search(head + b"\r\n")
        return bool(end and found and len(content) >= int(found[1]) and not self._closes)


def make_request(workload: Workload, number: int) -> bytes:
    """The bytes of a request; those of a browser differ from one to the next."""
    fields, content, method, target = [("Host", "127.0.0.1:8888")], b"", "GET", workload.path
    if workload.kind == "close":
        fields.append(("Connection", "close"))
    elif workload.kind == "json":
        method, content = "POST", b'{"name": "' + b"x" * 1012 + b'"}'
        fields += [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    elif workload.kind == "browser":
        target += f"?page={number}&sort=newest"
        fields += [
            *BROWSER,
            ("Referer", f"http://www.example.org/articles/{number}"),
            ("Cookie", f"session=1f0c6a2e9d{number * 7919:08x}; theme=dark; consent=2024-01-31"),
            ("If-None-Match", f'W/"{number * 104729:08x}"'),
        ]
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("ascii") + content


BROWSER: Final = (
    ("Connection", "keep-alive"),
    ("sec-ch-ua", '"Chromium";v="130", "Google Chrome";v="130", "Not?A_Brand";v="99"'),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", '"Linux"'),
    ("Upgrade-Insecure-Requests", "1"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0.0.0 Safari/537.36"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Dest", "document"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-GB,en-US;q=0.9,en;q=0.8"),
)
"""Fields that a browser sends with every request."""


def serves(workload: Workload, contender: Contender) -> bool:
    """Whether a server can do the work: the bare loop neither closes nor reads content."""
    return contender.server.name != BARE_APP or workload.kind not in ("close", "json")


def find_excess(found: Figures, committed: Figures) -> list[str]:
    """The workloads of the gate that cost more than the committed figures allow, each with a sentence.

    Another build of Python needs more or fewer instructions for everything, so the committed figures are scaled by
    what the bare loop with the same application takes here and there.

    Args:
        found: what was counted now; it has the bare loop with hello.
        committed: what was counted before.

    Raises:
        UsageError: the committed figures lack a workload.
    """
    try:
        scale = found.counts["hello"][BARE_APP] / committed.counts["hello"][BARE_APP]
        limits = {name: committed.counts[name][REFERENCE] * scale * ALLOWED for name in GATE}
    except KeyError as error:
        raise UsageError(f"{FIGURES.name} has no figure for {error}; `instructions --write` makes it") from error
    return [
        f"{name}: a request takes {found.counts[name][REFERENCE]:,} instructions, and at most {limit:,.0f} are allowed"
        for name, limit in limits.items()
        if found.counts[name][REFERENCE] > limit
    ]


def make_table(figures: Figures) -> list[list[str]]:
    """Rows for a person: each workload with the thousands of instructions that each server takes."""
    servers = [name for name in SERVERS if any(name in counts for counts in figures.counts.values())]
    servers += sorted({name for counts in figures.counts.values() for name in counts} - {*servers})
    rows = [["workload", *servers]]
    for name, counts in figures.counts.items():
        rows.append([name, *(f"{counts[server] / 1000:.1f} k" if server in counts else "-" for server in servers)])
    return rows


def choose(names: Sequence[str] | None, allowed: Sequence[str]) -> tuple[Workload, ...]:
    """The workloads that were asked for.

    Raises:
        UsageError: one of them cannot be counted.
    """
    wanted = [name for group in names or [] for name in group.split(",")] or list(allowed)
    for name in wanted:
        if name not in COUNTED:
            raise UsageError(f"no workload {name!r} can be counted; choose from: {', '.join(COUNTED)}")
    return tuple(WORKLOADS[name] for name in wanted)


PAGE: Final = FIGURES.with_suffix(".md")
INTRODUCTION: Final = """\
# Instructions of a request

<!-- Made by `tox -e bench -- instructions --write`; not by hand. -->

Counted by callgrind on a live server, after a warm-up: user space only, {requests} requests over {connections}
connections, the least of {batches} counts. {python}. The same count comes out within half a per cent however busy the
machine is, so this is what CI compares: a request of {gate} may take at most {allowed:.0%} more than stands here,
scaled by what the bare loop takes on the Python at hand. The kernel's part, caches, and the hand-offs between threads
are not in it; the [processor times](README.md) are.
"""


def make_page(figures: Figures) -> str:
    """The page with the table."""
    text = INTRODUCTION.format(
        requests=REQUESTS,
        batches=BATCHES,
        connections=CONNECTIONS,
        python=figures.python,
        gate=" or ".join(GATE),
        allowed=ALLOWED - 1,
    )
    header, *rows = make_table(figures)
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return text + "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
