"""Results as SVG badges: one for the whole matrix, one for each server, one for each version of a framework."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from matrix.report.page import environment
from matrix.results import UNEXPECTED, Cell, Results

GOOD, BAD, NONE = "#1a7f45", "#b3261e", "#5f6875"

CHARACTER_WIDTH = 6.7
"""Pixels of an average character at the badge's size of type; the text is set to the width that comes out."""

PADDING = 8


def render_badges(results: Results, *, titles: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the badges as SVG, by the names of their files.

    Args:
        results: what the badges are about.
        titles: how frameworks and servers are written, by the names that cells use.
    """
    names = titles or {}
    groups: dict[str, tuple[str, list[Cell]]] = {"matrix": ("matrix", list(results.cells))}
    for cell in results.cells:
        version = f"{names.get(cell.framework, cell.framework)} {cell.version.rpartition('-')[2]}"
        groups.setdefault(f"server-{cell.server}", (names.get(cell.server, cell.server), []))[1].append(cell)
        groups.setdefault(cell.version, (version, []))[1].append(cell)
    return {f"{name}.svg": _render(label, cells) for name, (label, cells) in groups.items()}


def write_badges(directory: Path, badges: Mapping[str, str]) -> None:
    """Write badges into a folder, which is made when it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, svg in badges.items():
        (directory / name).write_text(svg, encoding="utf-8")


def _render(label: str, cells: Iterable[Cell]) -> str:
    ran = [cell for cell in cells if cell.verdict != "skip"]
    good = sum(cell.verdict not in UNEXPECTED for cell in ran)
    message = f"{good} of {len(ran)} {'cell' if len(ran) == 1 else 'cells'}" if ran else "not run"
    colour = NONE if not ran else GOOD if good == len(ran) else BAD
    return environment.get_template("badge.svg.j2").render(
        label=label,
        message=message,
        colour=colour,
        label_width=_width(label),
        message_width=_width(message),
        padding=PADDING,
    )


def _width(text: str) -> int:
    return round(len(text) * CHARACTER_WIDTH)
