"""What is asked of the servers: each workload with its app, its requests, and what a right answer is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.apps import bulk
from benchmarks.apps.hello import CONTENT as HELLO
from benchmarks.servers import APPS, ASSETS, BARE_APP, BARE_LOOP, NGINX
from matrix.manifest import Framework, load_matrix

BLOCKING_SECONDS = 0.010
"""How long the view of the workload `blocking` blocks."""

THREADS = 8
"""Threads of each server that run the app, where a server has threads."""


@dataclass(frozen=True)
class App:
    """An application as a server is told to load it, in its folder."""

    name: str
    directory: Path


@dataclass(frozen=True)
class Workload:
    """One kind of work.

    Attributes:
        name: what the command line calls it.
        title: what it is, in a few words.
        path: the request-target.
        app: what is served.
        content: what the answer must be; None where it depends on the request.
        kind: what load.lua sends; `mixed`, `idle`, `start` and those of 1 GiB are loads of their own.
        connections: how many are kept busy.
        servers: those of no app that can do this work too.
        rounds: the most that are worth their time.
    """

    name: str
    title: str
    path: str
    app: App
    content: bytes | None
    kind: str = "get"
    connections: int = 16
    servers: tuple[str, ...] = ()
    rounds: int | None = None


def _greeting(framework: Framework) -> bytes:
    return f"{framework.greeting}\n".encode()


def _framework(framework: Framework) -> Workload:
    app = App(framework.application, framework.directory)
    return Workload(framework.name, framework.title, "/hello", app, _greeting(framework), servers=(BARE_APP,))


def _all() -> list[Workload]:
    frameworks = load_matrix().frameworks
    compat = frameworks["wsgi"]
    hello, moved, routes = App("hello:app", APPS), App("bulk:app", APPS), App(compat.application, compat.directory)
    file = (ASSETS / "mebibyte.bin").read_bytes()
    limit = (BARE_LOOP,)
    return [
        Workload("hello", "Plain hello", "/hello", hello, HELLO, servers=limit),
        *(_framework(frameworks[name]) for name in ("flask", "django", "pyramid")),
        Workload("browser", "Varied browser heads", "/hello", hello, HELLO, kind="browser", servers=limit),
        Workload("close", "A connection per request", "/hello", hello, HELLO, kind="close", servers=limit),
        Workload("json", "1 KB of JSON posted", "/echo", routes, None, kind="json"),
        Workload("upload", "10 MB upload", "/", moved, b"%d\n" % bulk.LENGTH, kind="upload", connections=4),
        Workload("download", "10 MB answer", "/", moved, bulk.content(), connections=4),
        Workload("file", "1 MiB file", "/file", routes, file, servers=(NGINX,)),
        Workload("blocking", "10 ms blocking view", "/slow/10", routes, b"slow\n", connections=32),
        Workload("mixed", "99 fast to 1 slow (50 ms)", "/hello", routes, _greeting(compat), kind="mixed"),
        Workload("huge-upload", "1 GiB upload", "/", moved, None, kind="huge-upload", rounds=1),
        Workload("huge-download", "1 GiB answer", "/gibibyte", moved, None, kind="huge-download", rounds=1),
        Workload("start", "Start until first answer", "/hello", hello, HELLO, kind="start"),
        Workload("idle", "Beside 10,000 idle connections", "/hello", hello, HELLO, kind="idle", rounds=2),
    ]


WORKLOADS = {workload.name: workload for workload in _all()}
