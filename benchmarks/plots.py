"""Plots of a run as SVG: bars for each server, in colours that most people can tell apart, on light and on dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.figures import Spread
from benchmarks.results import Results, What
from benchmarks.servers import EXTRA, NATIVE
from benchmarks.tables import MEBIBYTE

TEXT = "#737b85"  # stands out from white and from near black
COLOURS = {  # of Okabe and Ito, who chose them for every kind of colour vision
    "wizgy": "#d55e00",
    "peer in Python": "#0072b2",
    "peer in C or Rust": "#009e73",
    "not a WSGI server": "#8a8a8a",
}

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text: it can be found, and read aloud
    "svg.hashsalt": "wizgy",  # the same figures make the same file
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}

BAR_HEIGHT = 0.24
"""Inches for one server."""


@dataclass(frozen=True)
class Panel:
    """One part of a plot: a figure of every server under one workload."""

    workload: str
    what: What
    form: str = "{:,.0f}"


@dataclass(frozen=True)
class Plot:
    """A file with panels, two in a row. `better` says where the better end is; the best server stands on top."""

    file: str
    title: str
    better: str
    panels: tuple[Panel, ...]
    logarithmic: bool = False

    @property
    def more_is_better(self) -> bool:
        """Whether a longer bar is the better one."""
        return self.better.startswith("longer")


def rates(*workloads: str) -> tuple[Panel, ...]:
    """Return panels of requests a second."""
    return tuple(Panel(workload, lambda each: each.rate) for workload in workloads)


PLOTS = (
    Plot(
        "frameworks.svg",
        "Requests a second, one process",
        "longer is better",
        rates("hello", "flask", "django", "pyramid"),
    ),
    Plot(
        "processor.svg",
        "Processor time of a request, in microseconds",
        "shorter is better",
        tuple(Panel(name, lambda each: each.processor * 1e6) for name in ("hello", "flask", "django", "pyramid")),
    ),
    Plot(
        "workloads.svg",
        "Requests a second, one process",
        "longer is better",
        rates("browser", "close", "json", "file", "upload", "download", "blocking", "mixed"),
    ),
    Plot(
        "latency.svg",
        "Milliseconds until an answer is whole: half of them (dot), 99 of 100 (bar's end)",
        "further left is better",
        tuple(Panel(name, lambda each: each.p99 * 1e3, "{:,.3g}") for name in ("hello", "flask", "blocking", "mixed")),
        logarithmic=True,
    ),
    Plot(
        "memory.svg",
        "Peak memory in MiB",
        "shorter is better",
        tuple(
            Panel(name, lambda each: each.memory / MEBIBYTE) for name in ("hello", "upload", "download", "huge-upload")
        ),
    ),
)


def draw_all(results: Results, folder: Path) -> dict[str, str]:
    """Write every plot that has something to show; return the names of the files with what they show."""
    drawn = {}
    with mpl.rc_context(STYLE):
        for plot in PLOTS:
            panels = [panel for panel in plot.panels if panel.workload in results.workloads]
            if panels:
                figure = draw(results, plot, panels)
                figure.savefig(folder / plot.file, transparent=True, metadata={"Date": None})
                drawn[plot.file] = f"{plot.title} ({plot.better})"
    return drawn


def draw(results: Results, plot: Plot, panels: Sequence[Panel]) -> Figure:
    """Draw one plot."""
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    servers = max(len(results.servers(panel.workload)) for panel in panels)
    height = rows * (servers * BAR_HEIGHT + 0.75) + 0.8
    figure = Figure(figsize=(4.9 * columns, height), layout="constrained")
    figure.suptitle(f"{plot.title} ({plot.better})", x=0.01, ha="left", fontsize=11, fontweight="bold")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for panel, axis in zip(panels, axes, strict=False):
        draw_panel(results, plot, panel, axis)
    for axis in list(axes)[len(panels) :]:
        axis.set_axis_off()
    add_legend(figure, plot)
    return figure


def draw_panel(results: Results, plot: Plot, panel: Panel, axis: Any) -> None:
    """Draw the bars of one workload."""
    found = {name: results.spread(panel.workload, name, panel.what) for name in results.servers(panel.workload)}
    in_order = sorted(
        ((name, each) for name, each in found.items() if each),
        key=lambda pair: pair[1].median,
        reverse=plot.more_is_better,
    )
    measured = dict(in_order)
    names = [*measured, *(name for name in found if name not in measured)]
    if plot.logarithmic:
        draw_range(results, panel, axis, list(measured))
    else:
        draw_bars(results, panel, axis, measured)
    start = axis.get_xlim()[0]
    for place in range(len(measured), len(names)):
        axis.annotate(
            "failed" if results.problem(panel.workload, names[place]) else "", (start, place), (4, 0), **BESIDE
        )
    axis.set_yticks(range(len(names)), [results.title(name) for name in names])
    for label, name in zip(axis.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name == results.reference else "normal")
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.margins(x=0.14)
    axis.tick_params(left=False, labelsize=8.5)
    axis.xaxis.set_major_locator(mpl.ticker.LogLocator() if plot.logarithmic else mpl.ticker.MaxNLocator(4))
    axis.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_title(results.facts["workloads"][panel.workload]["title"], loc="left", fontsize=10)


BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}


def draw_bars(results: Results, panel: Panel, axis: Any, measured: dict[str, Spread]) -> None:
    """Draw medians as bars, with the quartiles as whiskers."""
    axis.barh(
        range(len(measured)),
        [each.median for each in measured.values()],
        xerr=[
            [each.median - each.low for each in measured.values()],
            [each.high - each.median for each in measured.values()],
        ],
        color=[COLOURS[kind(results, name)] for name in measured],
        height=0.72,
        ecolor=TEXT,
        error_kw={"lw": 1},
    )
    for place, each in enumerate(measured.values()):
        axis.annotate(panel.form.format(each.median), (each.high, place), (4, 0), **BESIDE)


def draw_range(results: Results, panel: Panel, axis: Any, names: Sequence[str]) -> None:
    """Draw where half and 99 of 100 answers lie, on a logarithmic scale."""
    axis.set_xscale("log")
    for place, name in enumerate(names):
        colour = COLOURS[kind(results, name)]
        half = results.median(panel.workload, name, lambda each: each.p50 * 1e3) or 0.0
        most = results.median(panel.workload, name, panel.what) or 0.0
        axis.plot([half, most], [place, place], color=colour, lw=4, solid_capstyle="butt")
        axis.plot([half], [place], "o", color=colour, ms=6)
        axis.annotate(panel.form.format(most), (most, place), (4, 0), **BESIDE)


def kind(results: Results, name: str) -> str:
    """Return which of the four kinds a server is."""
    server = results.facts["servers"][name]["kind"]
    if server in EXTRA:
        return "not a WSGI server"
    if server == "wizgy":
        return "wizgy"
    return "peer in C or Rust" if server in NATIVE else "peer in Python"


def add_legend(figure: Figure, plot: Plot) -> None:
    """Say what the colours mean, and the whiskers."""
    handles: list[Any] = [Patch(color=colour, label=name) for name, colour in COLOURS.items()]
    if not plot.logarithmic:
        handles.append(Line2D([], [], color=TEXT, lw=1, label="middle half of the rounds"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=8.5)
