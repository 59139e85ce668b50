"""Which figures of a workload are shown, in what form; the terminal and the report show the same."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.figures import Spread
from benchmarks.results import Measurement, Results, What
from benchmarks.workloads import BLOCKING_SECONDS, THREADS

KIBIBYTE, MEBIBYTE, GIGA = 1 << 10, 1 << 20, (1 << 30) / 1e9


@dataclass(frozen=True)
class Column:
    """One figure.

    Attributes:
        title: what stands above it; `{}` is the server that the others are compared to.
        what: the figure.
        form: how it is written.
        ratio: empty for the figure itself; `ours` for the reference's over this server's, `theirs` for the opposite.
    """

    title: str
    what: What
    form: str
    ratio: str = ""

    def heading(self, results: Results) -> str:
        """Return what stands above the column."""
        return self.title.format(results.reference)

    def cell(self, results: Results, workload: str, server: str) -> str:
        """Return what stands in the row of a server: a median, of ratios with their quartiles."""
        if not self.ratio:
            median = results.median(workload, server, self.what)
            return "" if median is None else self.form.format(median)
        if server == results.reference:
            return ""
        over, under = (results.reference, server) if self.ratio == "ours" else (server, results.reference)
        return tell(results.ratio(workload, over, under, self.what), self.form)


def tell(found: Spread | None, form: str) -> str:
    """Return a median with its quartiles in brackets."""
    if found is None:
        return ""
    return f"{form.format(found.median)} ({form.format(found.low)} to {form.format(found.high)})"


def more(name: str, factor: float = 1.0) -> What:
    """Return the figure of that name among those that one workload alone has."""

    def what(measurement: Measurement) -> float:
        return measurement.more.get(name, 0.0) * factor

    return what


RATE = Column("requests/s", lambda each: each.rate, "{:,.0f}")
RATE_RATIO = Column("{} ÷ it", lambda each: each.rate, "{:.2f}", ratio="ours")
PROCESSOR = Column("CPU µs", lambda each: each.processor * 1e6, "{:,.1f}")
PROCESSOR_RATIO = Column("its CPU ÷ {}'s", lambda each: each.processor, "{:.2f}", ratio="theirs")
MEDIAN = Column("p50 ms", lambda each: each.p50 * 1e3, "{:,.2f}")
NINETY_NINTH = Column("p99 ms", lambda each: each.p99 * 1e3, "{:,.2f}")
MEMORY = Column("peak MiB", lambda each: each.memory / MEBIBYTE, "{:,.0f}")
BUSY = Column("CPU used", lambda each: each.server_busy * 100, "{:.0f} %")
GIGABYTES = Column("MB/s", lambda each: each.rate * GIGA * 1e3, "{:,.0f}")
SECONDS = Column("CPU s", lambda each: each.processor, "{:,.2f}")
STARTED = Column("ms until answered", lambda each: each.p50 * 1e3, "{:,.0f}")
START_PROCESSOR = Column("CPU ms", lambda each: each.processor * 1e3, "{:,.0f}")
IDEAL = Column(
    f"of what {THREADS} threads can do", lambda each: each.rate * BLOCKING_SECONDS / THREADS * 100, "{:.1f} %"
)
STARVED = Column("connections never answered", more("starved"), "{:.0f}")
OPENED = Column("idle connections", more("opened"), "{:,.0f}")
KEPT = Column("kept open", more("kept"), "{:,.0f}")
EACH = Column("KiB each", more("bytes_each", 1 / KIBIBYTE), "{:,.1f}")
QUIET = Column("idle CPU", more("quiet_busy", 100), "{:.2f} %")
PROBE = Column("probe p99 ms", more("probe_p99", 1e3), "{:,.1f}")

USUAL = (RATE, RATE_RATIO, PROCESSOR, PROCESSOR_RATIO, MEDIAN, NINETY_NINTH, MEMORY, BUSY)
HUGE = (GIGABYTES, RATE_RATIO, SECONDS, PROCESSOR_RATIO, MEMORY)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "blocking": (RATE, IDEAL, RATE_RATIO, PROCESSOR, MEDIAN, NINETY_NINTH, MEMORY),
    "mixed": (RATE, RATE_RATIO, PROCESSOR, PROCESSOR_RATIO, MEDIAN, NINETY_NINTH, STARVED, MEMORY),
    "huge-upload": HUGE,
    "huge-download": HUGE,
    "start": (STARTED, RATE_RATIO, START_PROCESSOR, PROCESSOR_RATIO, MEMORY),
    "idle": (OPENED, KEPT, EACH, QUIET, PROBE, RATE, RATE_RATIO, PROCESSOR),
}
"""The columns of workloads whose point is another than speed."""


def columns(workload: str) -> tuple[Column, ...]:
    """Return the columns of a workload."""
    return COLUMNS.get(workload, USUAL)
