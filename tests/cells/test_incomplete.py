"""Sessions of tests that end badly: what was not brought to its end has no verdict, and no cell passes with it."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from matrix.environments import SetupError
from matrix.jury import Jury
from matrix.progress import Progress
from matrix.repro import Order, list_cases, reproduce
from matrix.results import Case, exit_status, read_results
from matrix.run import ManyCells, Plan
from matrix.runner import CellResult, CellRunner
from matrix.stop import Stop
from matrix.suite import Session, Suite
from tests.cells.small import World

CONFTEST = "tests/conftest.py"
SMALL = "tests/contract/test_small.py"
LAST = "tests/contract/test_zz.py"

FAULTS = {
    "a module that raises at import": (LAST, "import nothing_of_this_name\n"),
    "a syntax error": (LAST, "def test_(:\n"),
    "a known deviation of no test": (
        "matrix.toml",
        '\n[[known]]\ntests = ["test_small.py::test_gone"]\nservers = ["good"]\nreason = "why"\nlink = "https://x"\n',
    ),
    "an internal error after a test": (
        CONFTEST,
        "\n\ndef pytest_runtest_logfinish(nodeid):\n    if 'test_twins' in nodeid:\n        raise RuntimeError\n",
    ),
    "an internal error at the end": (
        CONFTEST,
        "\n\ndef pytest_sessionfinish():\n    raise RuntimeError\n",
    ),
    "a usage error at the start": (CONFTEST, "\n\ndef pytest_sessionstart():\n    raise pytest.UsageError('no')\n"),
    "pytest.exit in a test": (LAST, "import pytest\n\ndef test_exit():\n    pytest.exit('lost something')\n"),
    "pytest.exit in a test, with a status of 0": (
        LAST,
        "import pytest\n\ndef test_exit():\n    pytest.exit('lost something', returncode=0)\n",
    ),
    "pytest.exit in a tear-down": (
        LAST,
        (
            "import pytest\n\n@pytest.fixture\ndef leaves():\n    yield\n    pytest.exit('lost', returncode=0)\n\n"
            "def test_exit(leaves):\n    pass\n"
        ),
    ),
    "an interrupt in a test": (LAST, "def test_exit():\n    raise KeyboardInterrupt\n"),
    "os._exit in a test": (LAST, "import os\n\ndef test_exit():\n    os._exit(0)\n"),
    "os._exit in a set-up": (
        LAST,
        "import os, pytest\n\n@pytest.fixture\ndef ends():\n    os._exit(0)\n\ndef test_exit(ends):\n    pass\n",
    ),
    "a process of tests that is killed": (
        LAST,
        "import os, signal\n\ndef test_exit():\n    os.kill(os.getpid(), signal.SIGKILL)\n",
    ),
    "every test deselected": (
        CONFTEST,
        (
            "\n\nclass Nothing:\n    @pytest.hookimpl(tryfirst=True)\n"
            "    def pytest_collection_modifyitems(self, items):\n        items.clear()\n\n\n"
            "def pytest_sessionstart(session):\n    session.config.pluginmanager.register(Nothing())\n"
        ),
    ),
    "every test deselected behind the recorder": (
        CONFTEST,
        "\n\ndef pytest_collection_finish(session):\n    session.items.clear()\n",
    ),
    "some tests deselected behind the recorder": (
        CONFTEST,
        "\n\ndef pytest_collection_finish(session):\n    del session.items[3:]\n",
    ),
    "a test that is not run": (
        CONFTEST,
        (
            "\n\n@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_protocol(item):\n"
            "    return True if 'test_twins' in item.nodeid else None\n"
        ),
    ),
    "a call that is not reported": (
        CONFTEST,
        (
            "\n\n@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_protocol(item, nextitem):\n"
            "    from _pytest.runner import call_and_report\n"
            "    if 'test_twins' in item.nodeid:\n"
            "        call_and_report(item, 'setup')\n        call_and_report(item, 'teardown', nextitem=nextitem)\n"
            "        return True\n"
        ),
    ),
    "every test skipped": (
        CONFTEST,
        "\n\n@pytest.fixture(autouse=True)\ndef never():\n    pytest.skip('not today')\n",
    ),
}
"""What is added to which file of the small world."""


@pytest.fixture(params=FAULTS)
def broken(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Suite:
    """The tests of the small world with one fault."""
    root = tmp_path / "broken"
    for folder in ("tests", "matrix", "apps"):
        shutil.copytree(world.root / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(world.root / "matrix.toml", root / "matrix.toml")
    name, text = FAULTS[request.param]
    with (root / name).open("a", encoding="utf-8") as file:
        file.write(text)
    return replace(world.suite, root=root)


def run_cell(world: World, suite: Suite, cache: Path) -> tuple[int, CellResult]:
    """Run one cell as `run` does; return the exit status and what came of the cell."""
    output = cache / "results.jsonl"
    plan = Plan([world.cell("good")], "again", None, output, 1, cache=cache / "cells")
    progress = Progress(1, io.StringIO())
    runner = CellRunner(world.matrix, world.transport, suite, Stop(), kinds=("contract",))
    status = ManyCells(plan, runner, progress).run()
    results = read_results(output)
    return status, CellResult(results.cells[0], results.cases)


def test_no_session_that_ends_badly_is_a_pass(broken: Suite, world: World, tmp_path: Path) -> None:
    """However the tests end too early, the cell is not set up, says how they ended, and nothing of it is kept."""
    for _ in range(2):
        status, result = run_cell(world, broken, tmp_path)

        assert status == 3
        assert result.cell.verdict == "setup-error"
        assert result.cell.reused_from is None
        assert result.cell.explanation
        names = [case.id for case in result.cases]
        assert "test_zz.py::test_exit" not in names
        assert all(case.verdict == "pass" for case in result.cases if case.verdict != "skip")
    assert not list((tmp_path / "cells").glob("*.jsonl"))


@pytest.mark.parametrize("broken", ["a module that raises at import", "os._exit in a test"], indirect=True)
def test_repro_of_a_session_that_ends_badly(broken: Suite, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A cell that is made again passes no more than in a run when its tests do not come to their end."""
    assert reproduce(world.matrix, world.transport, broken, Order(world.cell("good"))) == 3
    assert "the tests did not come to their end" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["a module that raises at import"], indirect=True)
def test_names_that_cannot_be_collected(broken: Suite, world: World) -> None:
    """Where the tests cannot be collected, that is said; no case is said to be unknown."""
    with pytest.raises(SetupError, match="nothing_of_this_name"):
        list(list_cases(broken, world.cell("good"), ["contract"]))


@pytest.mark.parametrize(
    ("said", "status", "finished"),
    [(0, 0, True), (1, 1, True), (0, -9, True), (0, 1, False), (1, 0, False), (2, 2, False), (5, 5, False)],
)
def test_only_two_statuses_are_an_end(said: int, status: int, finished: bool) -> None:
    """The tests ended only where pytest said 0 or 1, and its process ended so too, or hung and was killed."""
    session = Session(lambda case: None)
    session.take(b'{"collected": 0}\n{"finished": %d}\n' % said)
    assert session.end(status, "").finished == finished


def test_end_without_a_record_of_each_is_none() -> None:
    """The tests ended only where each that was collected has a record."""
    session = Session(lambda case: None)
    session.take(b'{"collected": 1}\n{"finished": 0}\n')
    end = session.end(0, "")
    assert not end.finished
    assert "status 0, 0 of 1 cases have a verdict" in end.describe()


def test_skip_on_a_peer_says_nothing(world: World) -> None:
    """A peer that skips a case neither passes nor fails it: it is not asked whose fault the case is."""
    jury = Jury(world.matrix, world.transport, world.suite, Stop())
    name = "test_small.py::test_rule"
    case = Case(cell=world.cell("good").id, id=name, kind="contract", verdict="skip", seconds=0, reproduce="again")
    for server in world.matrix.servers_for("matrix"):
        cell = world.cell(server.name)
        jury._hear(cell, [replace(case, cell=cell.id)])
    assert not jury._heard

    failing = replace(case, cell=world.cell("rude").id, verdict="fail")
    [judged] = jury.judge(world.cell("rude"), [failing])
    assert judged.blame is not None
    assert judged.blame.on == "this server only"
    assert exit_status([judged.verdict]) == 1
