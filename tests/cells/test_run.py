"""Runs of several cells: results as they come, what is used again, and being stopped."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from pathlib import Path

import jsonschema
import pytest

from matrix.cells import Cell
from matrix.manifest import ROOT
from matrix.progress import Progress
from matrix.results import Case, read_results
from matrix.run import ManyCells, Plan
from matrix.runner import CellResult, CellRunner
from matrix.stop import EXIT_INTERRUPTED, Stop
from tests.cells.small import SmallTransport, World

SCHEMA = ROOT / "matrix" / "schemas" / "results.schema.json"


class Run:
    """Runs of the small world that share a cache."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.directory = directory
        self.number = 0
        self.said = ""

    def __call__(self, *cells: Cell, fresh: bool = False, progress: type[Progress] = Progress) -> int:
        """Run cells one after the other; return the exit status."""
        self.number += 1
        output = io.StringIO()
        plan = Plan(cells, "again", None, self.output, 1, fresh, self.directory / "cells")
        told = progress(len(cells), output)
        runner = CellRunner(
            self.world.matrix,
            self.world.transport,
            self.world.suite,
            Stop(),
            on_case=told.case_ended,
            kinds=("conformance",),
        )
        status = ManyCells(plan, runner, told).run()
        self.said = output.getvalue()
        return status

    @property
    def output(self) -> Path:
        """The results of the latest run."""
        return self.directory / f"{self.number}.jsonl"

    @property
    def reused(self) -> list[str]:
        """The cells of the latest run that were not run again."""
        return [cell.cell for cell in read_results(self.output).cells if cell.reused_from]


@pytest.fixture
def run(world: World, tmp_path: Path) -> Run:
    """A run of conformance cases alone, whose tree is the small world."""
    return Run(world, tmp_path)


def test_results_follow_their_schema(run: Run, world: World) -> None:
    """Each line of the results follows the published schema, with what is needed to run it again."""
    assert run(world.cell("good")) == 0
    lines = [json.loads(line) for line in run.output.read_text().splitlines()]
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))

    for line in lines:
        validator.validate(line)
    assert [line["record"] for line in lines] == ["run", "case", "case", "cell", "end"]
    assert lines[3]["reproduce"] == f"python -m matrix repro --limit 3 --suite conformance {world.cell('good').id}"
    assert lines[1]["reproduce"] == f"python -m matrix repro --limit 3 {world.cell('good').id} first-case"


def test_what_did_not_change_is_used_again(run: Run, world: World) -> None:
    """A second run uses what came out as expected, until something that it depends on changes."""
    cells = (world.cell("good"), world.cell("other"))
    assert run(*cells) == 0
    assert run.reused == []

    assert run(*cells) == 0
    assert run.reused == [cell.id for cell in cells]
    assert "2 of them used again, as nothing had changed" in run.said

    (world.root / "compat_apps" / "plain").mkdir(parents=True, exist_ok=True)
    (world.root / "compat_apps" / "plain" / "new.py").write_text("# new\n")
    assert run(*cells) == 0
    assert run.reused == []

    assert run(*cells, fresh=True) == 0
    assert run.reused == []


class Editing(Progress):
    """Edits a file of the tree while the first cell runs, once a case of it has ended."""

    path: Path
    text: str

    def case_ended(self, cell: Cell, case: Case) -> None:
        """Edit."""
        super().case_ended(cell, case)
        self.path.write_text(self.text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "addition"),
    [
        ("tests/conformance/test_cases.py", "# changed\n"),
        ("tests/harness/target.py", "# changed\n"),
        ("compat_apps/plain/changed.py", "# changed\n"),
        (
            "matrix.toml",
            '[[known]]\ntests = ["first-case"]\nservers = ["good"]\nsometimes = true\nreason = "r"\nlink = "https://x"\n',
        ),
    ],
)
def test_what_changes_meanwhile_is_not_kept(run: Run, world: World, name: str, addition: str) -> None:
    """A cell whose inputs are not the same after it as before it is not kept, neither for those nor for these."""
    path = world.root / name
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(before, encoding="utf-8")

    class EditingThis(Editing):
        pass

    EditingThis.path, EditingThis.text = path, before + addition
    cell = world.cell("good")
    try:
        assert run(cell, progress=EditingThis) == 0
        assert [each.fingerprint for each in read_results(run.output).cells] == [None]
        assert run(cell) == 0
        assert run.reused == []
        path.write_text(before, encoding="utf-8")
        assert run(cell) == 0
        assert run.reused == []
        assert run(cell) == 0
        assert run.reused == [cell.id]
    finally:
        path.write_text(before, encoding="utf-8")


def test_code_of_another_time_keeps_nothing(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose own code was changed since it started neither keeps a result nor uses one again."""
    cell = world.cell("good")
    assert run(cell) == 0
    monkeypatch.setattr("matrix.fingerprints._HARNESS", ["matrix/run.py of another time"])
    for _ in range(2):
        assert run(cell) == 0
        assert run.reused == []


def test_control_of_changed_files_is_run_again(world: World) -> None:
    """The control is shared by the servers of a run as long as its files stay the same, and no longer."""
    runner = CellRunner(world.matrix, world.transport, world.suite, Stop(), kinds=("conformance",))
    assert [runner.run(world.cell(server)).cell.verdict for server in ("good", "other")] == ["pass", "pass"]
    assert len(runner.controls._done) == 1

    test = world.root / "tests" / "control" / "test_control.py"
    before = test.read_text(encoding="utf-8")
    try:
        test.write_text(before + "\ndef test_other():\n    assert False\n", encoding="utf-8")
        assert runner.run(world.cell("rude")).cell.verdict == "app-error"
    finally:
        test.write_text(before, encoding="utf-8")


def test_kept_result_that_cannot_be_read(run: Run, world: World) -> None:
    """A kept result that is not whole is as good as none."""
    cell = world.cell("good")
    assert run(cell) == 0
    [kept] = (run.directory / "cells").glob("*.jsonl")
    text = kept.read_text(encoding="ascii")
    for part in ("", text[: len(text) // 2], "".join(text.splitlines(keepends=True)[:-1])):
        kept.write_text(part, encoding="ascii")
        assert run(cell) == 0
        assert run.reused == []


def test_failures_are_run_again(run: Run, world: World) -> None:
    """What did not come out as expected is never used again."""
    for _ in range(2):
        assert run(world.cell("absent")) == 3
        assert run.reused == []
        assert "SETUP ERROR absent/plain-1" in run.said


class Interrupting(Progress):
    """Sends INT to this process, as a person does, once the first cell has ended."""

    def cell_ended(self, cell: Cell, result: CellResult) -> None:
        """Say so, and interrupt."""
        super().cell_ended(cell, result)
        if self._ended == 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_run_can_be_stopped_and_goes_on(run: Run, world: World) -> None:
    """A run that is stopped says so, keeps what has ended, and the same command goes on from there."""
    cells = (world.cell("good"), world.cell("other"), world.cell("mute"))
    assert threading.current_thread() is threading.main_thread()

    assert run(*cells, progress=Interrupting) == EXIT_INTERRUPTED
    results = read_results(run.output)
    assert results.end is not None
    assert results.end.interrupted
    assert "stopped; the same command goes on from here" in run.said
    done = [cell.cell for cell in results.cells]
    assert done
    assert len(done) < len(cells)
    assert set(results.unfinished) == {cell.id for cell in cells} - set(done)

    assert run(*cells) == 0
    assert run.reused == done


class Stuck(SmallTransport):
    """Waits for what no signal ends, as for another run that installs the same; INT is sent meanwhile."""

    def prepare(self, cell: Cell) -> None:
        """Wait without end."""
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait()


def test_run_ends_though_a_thread_is_stuck(world: World, tmp_path: Path) -> None:
    """A run that is stopped ends in time, even if one of its cells cannot be stopped."""
    told = Progress(1, io.StringIO())
    runner = CellRunner(world.matrix, Stuck(world.root), world.suite, Stop())
    plan = Plan([world.cell("good")], "again", None, tmp_path / "results.jsonl", 1, fresh=True, cache=tmp_path)

    assert ManyCells(plan, runner, told).run() == EXIT_INTERRUPTED
    assert read_results(plan.output).unfinished == (world.cell("good").id,)
