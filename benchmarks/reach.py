"""What the project set out to reach, and whether these results do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.results import Results, What
from benchmarks.tables import KIBIBYTE, MEBIBYTE, more, tell
from benchmarks.workloads import BLOCKING_SECONDS, THREADS

WIZGY = "wizgy"
INLINE = ("bjoern", "fastwsgi")
PURE_PYTHON = ("gunicorn-sync", "gunicorn-gthread", "waitress", "cheroot", "uvicorn")
THREADED = ("gunicorn-sync", "gunicorn-gthread", "waitress", "cheroot")


@dataclass(frozen=True)
class Outcome:
    """What was measured, and whether that is enough; None when it was not measured."""

    measured: str
    met: bool | None


@dataclass(frozen=True)
class Goal:
    """One thing to reach."""

    text: str
    judge: Callable[[Results], Outcome]


NOT_MEASURED = Outcome("not measured", None)


def times(factor: float, workload: str, peers: Sequence[str], who: str) -> Goal:
    """Make the goal to be so many times as fast as the fastest of some peers."""

    def judge(results: Results) -> Outcome:
        rates = {peer: results.median(workload, peer, lambda each: each.rate) for peer in peers}
        fastest = max(peers, key=lambda peer: rates[peer] or 0.0)
        found = results.ratio(workload, WIZGY, fastest, lambda each: each.rate)
        cheaper = results.ratio(workload, fastest, WIZGY, lambda each: each.processor)
        if found is None or cheaper is None:
            return NOT_MEASURED
        measured = f"{tell(found, '{:.2f}')} times {results.title(fastest)}; by CPU {tell(cheaper, '{:.2f}')}"
        return Outcome(measured, found.median >= factor)

    return Goal(f"{workload}: at least {factor:g} times {who}", judge)


def bound(text: str, workload: str, what: What, limit: float, form: str, *, least: bool = False) -> Goal:
    """Make the goal that the median of a figure is at most so much, or at least."""

    def judge(results: Results) -> Outcome:
        found = results.spread(workload, WIZGY, what)
        if found is None:
            return NOT_MEASURED
        return Outcome(tell(found, form), found.median >= limit if least else found.median <= limit)

    return Goal(f"{workload}: {text}", judge)


def _framework(name: str) -> list[Goal]:
    return [
        times(1.05, name, ("granian",), "granian"),
        times(0.93, name, INLINE, "the faster of bjoern and FastWSGI, which are written in C"),
        times(2, name, PURE_PYTHON, "the fastest peer in pure Python"),
    ]


GOALS = [
    times(1, "hello", ("granian",), "granian"),
    times(5, "hello", THREADED, "the fastest of gunicorn, waitress and cheroot"),
    times(0.7, "hello", ("bjoern",), "bjoern"),
    times(0.55, "hello", ("bare-loop",), "a bare epoll loop in Python"),
    *(goal for name in ("flask", "django", "pyramid") for goal in _framework(name)),
    bound(
        f"at least 95 % of what {THREADS} threads can do",
        "blocking",
        lambda each: each.rate * BLOCKING_SECONDS / THREADS * 100,
        95,
        "{:.1f} %",
        least=True,
    ),
    bound("p99 of the fast ones under 5 ms", "mixed", lambda each: each.p99 * 1e3, 5, "{:.2f} ms"),
    times(1, "mixed", ("granian",), "granian with 8 threads"),
    times(0.8, "file", ("nginx",), "nginx"),
    times(1, "upload", ("gunicorn-gthread",), "gunicorn gthread"),
    bound("in under 64 MiB", "huge-upload", lambda each: each.memory / MEBIBYTE, 64, "{:.0f} MiB"),
    bound("in under 64 MiB", "huge-download", lambda each: each.memory / MEBIBYTE, 64, "{:.0f} MiB"),
    bound("10,000 connections kept open", "idle", more("kept"), 10_000, "{:,.0f}", least=True),
    bound("at most 4 KiB for each", "idle", more("bytes_each", 1 / KIBIBYTE), 4, "{:.1f} KiB"),
    bound("idle CPU under 2 %", "idle", more("quiet_busy", 100), 2, "{:.2f} %"),
    bound("p99 of a probe under 50 ms", "idle", more("probe_p99", 1e3), 50, "{:.1f} ms"),
    bound("answers within 150 ms of being started", "start", lambda each: each.p50 * 1e3, 150, "{:.0f} ms"),
]
