"""The commands on a terminal: they end, they draw, they survive a resize, and a second Ctrl-C ends them."""

from __future__ import annotations

import sys
from pathlib import Path

from matrix.manifest import ROOT
from tests.cells.small import World
from tests.cells.terminal import Terminal

SHOW_CURSOR = "\x1b[?25h"


def small_command(world: World, *arguments: str) -> list[str]:
    """Return the command line of the matrix on the small world."""
    return [sys.executable, "-m", "tests.cells.command", str(world.root), *arguments]


def run_command(world: World, output: Path, *cells: str, options: tuple[str, ...] = ()) -> list[str]:
    """Return the command that runs cells of the small world."""
    names = [world.cell(name).id for name in cells]
    return small_command(world, "run", *names, "--output", str(output), "--suite", "contract", *options)


def test_run_ends(world: World, tmp_path: Path) -> None:
    """A run whose output is a terminal ends by itself, and gives the cursor back."""
    command = run_command(world, tmp_path / "results.jsonl", "good", "other", options=("--limit", "3"))
    with Terminal(command, ROOT) as terminal:
        status = terminal.wait()

    assert status == 1, terminal.text
    assert "[2/2]" in terminal.text
    assert terminal.output.rindex(SHOW_CURSOR) > terminal.output.rindex("\x1b[?25l")
