"""The benchmarks' own arithmetic: statistics, what the kernel and wrk say, plans that are stopped and go on."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import accounting, figures, load, reach, report, run, servers, tables
from benchmarks.measure import shorten
from benchmarks.results import Journal, Measurement, Results
from benchmarks.workloads import WORKLOADS
from matrix.manifest import ROOT, load_matrix

HELLO = WORKLOADS["hello"]
REPORT = {
    "requests": 1000,
    "microseconds": 500_000,
    "bytes": 150_000,
    "p50": 200,
    "p99": 3000,
    **dict.fromkeys(("connect", "read", "write", "status", "timeout"), 0),
}


def wrk_output(**changes: int) -> str:
    """Return what wrk prints, its own lines and then the report of load.lua."""
    return "Running 1s test @ http://127.0.0.1:1/\n  1 threads\n\n" + json.dumps({**REPORT, **changes}) + "\n"


def test_spread_of_several() -> None:
    """The spread of values is their median and the quartiles around it."""
    assert figures.spread([5.0, 1.0, 3.0, 2.0, 4.0]) == figures.Spread(2.0, 3.0, 4.0, 5)


def test_spread_of_few() -> None:
    """One value has no spread, and no value has none at all."""
    assert figures.spread([7.0]) == figures.Spread(7.0, 7.0, 7.0, 1)
    assert figures.spread([]) is None


def test_ratios_pair_rounds() -> None:
    """A ratio is taken within a round; a round that one of both lacks counts for nothing."""
    assert figures.ratios({0: 10.0, 1: 30.0, 2: 8.0}, {0: 5.0, 2: 16.0, 3: 1.0}) == [2.0, 0.5]


def test_ratios_to_nothing() -> None:
    """A figure of zero gives no ratio."""
    assert figures.ratios({0: 1.0}, {0: 0.0}) == []


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 1.0), (50, 5.0), (90, 9.0), (98, 10.0), (99, 10.0), (100, 10.0), (10, 1.0), (11, 2.0)]
)
def test_percentile(share: float, expected: float) -> None:
    """A percentile is the smallest value that so many percent of the values do not exceed."""
    assert figures.percentile([float(value) for value in range(10, 0, -1)], share) == expected


def test_percentile_of_nothing() -> None:
    """There is no percentile of no values."""
    with pytest.raises(ValueError, match="no values"):
        figures.percentile([], 99)


def test_rotate() -> None:
    """Over twice as many rounds as servers, each is measured first, second and last equally often."""
    names = ["a", "b", "c"]
    orders = [figures.rotate(names, turn) for turn in range(6)]

    assert all(sorted(order) == names for order in orders)
    for place in range(3):
        assert sorted(order[place] for order in orders) == ["a", "a", "b", "b", "c", "c"]


def test_parse_stat() -> None:
    """The name of a process may hold spaces and brackets; the fields follow its last bracket."""
    fields = accounting.parse_stat("42 (a) b (c)) S 1 42 42 0 -1 4194560 100 200 0 0 11 12 13 14 20 0 1 0 5 6 7")

    assert fields[0] == "S"
    assert fields[11:15] == ["11", "12", "13", "14"]
    assert accounting.parse_stat("") == []


def test_parse_kilobytes() -> None:
    """Lines with a size in kB are read as bytes, all others left out."""
    assert accounting.parse_kilobytes("Name:\tpython\nVmHWM:\t   100 kB\nThreads:\t3\n") == {"VmHWM": 102_400}


def test_parse_machine() -> None:
    """Idle time and time that waits for a disk are not busy, and stolen time is counted on its own."""
    text = "cpu  100 200 300 400 500 600 700 800 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"

    found = accounting.parse_machine(text)

    assert found.busy == pytest.approx((100 + 200 + 300 + 600 + 700) / accounting.TICKS_PER_SECOND)
    assert found.stolen == pytest.approx(800 / accounting.TICKS_PER_SECOND)


@pytest.mark.parametrize(("text", "expected"), [("0-2,8\n", {0, 1, 2, 8}), ("3", {3}), ("", set())])
def test_parse_processors(text: str, expected: set[int]) -> None:
    """A list of processors has numbers and ranges."""
    assert accounting.parse_processors(text) == expected


def test_choose_processors() -> None:
    """Server and load are on different cores, not on two threads of one; with one processor they share it."""
    threads = {0: frozenset({0, 1}), 1: frozenset({0, 1}), 2: frozenset({2, 3}), 3: frozenset({2, 3})}

    assert accounting.choose_processors({0, 1, 2, 3}, threads) == (0, 3)
    assert accounting.choose_processors({0, 1}, threads) == (0, 1)
    assert accounting.choose_processors({5}, {}) == (5, 5)


def test_processor_seconds_counts_the_tree() -> None:
    """The processor time of a process has that of its children, running or waited for."""
    burn = "import time\nwhile time.process_time() < 0.2: pass\n"
    script = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
        f"child = subprocess.Popen([sys.executable, '-c', {burn + 'print(1, flush=True); input()'!r}], "
        "stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print('ready', flush=True); input(); child.communicate(b'\\n')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        tree = accounting.process_tree(process.pid)
        seconds = accounting.processor_seconds(process.pid)
        memory = accounting.read_memory(process.pid)
        process.communicate(b"\n")

    assert len(tree) == 2
    assert 0.4 <= seconds < 4.0
    assert memory.peak >= memory.now > 1_000_000


def test_processor_seconds_of_nobody() -> None:
    """A process that has ended costs nothing, and does not stop the measuring."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert accounting.processor_seconds(process.pid) == 0.0
    assert accounting.read_memory(process.pid) == accounting.Memory(0, 0)


def test_parse_wrk() -> None:
    """The report of load.lua is in microseconds; the figures are in seconds."""
    found = load.parse_wrk(wrk_output(), HELLO, client_seconds=0.25)

    assert found == load.Load(requests=1000, seconds=0.5, p50=0.0002, p99=0.003, client_seconds=0.25)
    assert found.rate == 2000


@pytest.mark.parametrize("kind", ["connect", "read", "write", "status", "timeout"])
def test_parse_wrk_refuses_errors(kind: str) -> None:
    """A measurement in which one request failed is none."""
    with pytest.raises(load.LoadError, match=f"{kind} 3"):
        load.parse_wrk(wrk_output(**{kind: 3}), HELLO)


@pytest.mark.parametrize("size", [10, 13_000])
def test_parse_wrk_refuses_other_answers(size: int) -> None:
    """Answers that are shorter or longer than the right one are an error, however fast they came."""
    with pytest.raises(load.LoadError, match="bytes on average"):
        load.parse_wrk(wrk_output(bytes=size * 1000), HELLO)


def test_parse_wrk_refuses_silence() -> None:
    """A server that answered nothing, and a wrk that reported nothing, are errors."""
    with pytest.raises(load.LoadError, match="no request"):
        load.parse_wrk(wrk_output(requests=0), HELLO)
    with pytest.raises(load.LoadError, match="unable to connect"):
        load.parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n", HELLO)


def test_check_echo() -> None:
    """The answer of /echo is right when it has the hash of what was sent."""
    load.check_echo(b'{"body_sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}', b"abc")
    for wrong in (b'{"body_sha256": "00"}', b"[]", b"<h1>Error</h1>"):
        with pytest.raises(load.LoadError):
            load.check_echo(wrong, b"abc")


def test_parse_contender() -> None:
    """A contender is a server, perhaps of another source and with options; its name is what was asked for."""
    found = servers.parse_contender(f"wizgy@{ROOT} --threads 1", load_matrix())

    assert found.name == f"wizgy@{ROOT} --threads 1"
    assert found.server.path == ROOT / "server"
    assert servers.pinned(found, 3).command[:3] == ("taskset", "--cpu-list", "3")
    assert servers.pinned(found, 3).command[-3:] == ("--threads", "1", "{application}")


@pytest.mark.parametrize("text", ["", "apache", "waitress@HEAD", "wizgy@no-such-thing", "wizgy@/"])
def test_parse_contender_refuses(text: str) -> None:
    """A server or a source that does not exist is refused."""
    with pytest.raises(servers.UsageError):
        servers.parse_contender(text, load_matrix())


def plan(rounds: int = 2) -> run.Plan:
    """Make a plan of two workloads."""
    matrix = load_matrix()
    names = ("wizgy", "granian", "nginx")
    return run.Plan(
        workloads=(HELLO, dataclasses.replace(WORKLOADS["file"], rounds=1)),
        contenders=tuple(servers.parse_contender(name, matrix) for name in names),
        rounds=rounds,
    )


def test_plan_takes_turns() -> None:
    """Each round has every workload with all its servers, in another order each time; nginx serves files alone."""
    steps = [(turn, workload.name, contender.name) for turn, workload, contender in plan().steps()]

    assert steps == [
        *((0, "hello", "wizgy"), (0, "hello", "granian")),
        *((0, "file", "wizgy"), (0, "file", "granian"), (0, "file", "nginx")),
        *((1, "hello", "granian"), (1, "hello", "wizgy")),
    ]


def test_journal_goes_on(tmp_path: Path) -> None:
    """A journal that was cut off in the middle of a line keeps what came before it."""
    path = tmp_path / "run.jsonl"
    journal = Journal.begin(path, {"rounds": 2})
    journal.add(Measurement("hello", "wizgy", 0, rate=5.0, more={"kept": 3}))
    journal.add(Measurement("hello", "granian", 0, problem="it\nfailed"))
    with path.open("a") as file:
        file.write('{"workload": "hello", "ser')

    again = Journal.read(path)
    again.add(Measurement("hello", "granian", 1, rate=1.0))

    assert Journal.read(path).measurements == again.measurements
    assert again.facts == {"rounds": 2}
    assert again.done() == {(0, "hello", "wizgy"), (0, "hello", "granian"), (1, "hello", "granian")}


def test_journal_gives_up() -> None:
    """A server that failed twice under a workload is not tried under it again."""
    failed = [Measurement("hello", "granian", turn, problem="no") for turn in range(2)]
    journal = Journal(Path(os.devnull), {}, [*failed, Measurement("hello", "wizgy", 0, problem="no")])

    assert journal.hopeless() == {("hello", "granian")}


def test_figures_of_good_rounds() -> None:
    """Figures come from the rounds that went well; a server with none has its last problem in their place."""
    found = Results(
        {},
        [
            Measurement("hello", "wizgy", 0, rate=5.0),
            Measurement("hello", "wizgy", 1, problem="no"),
            Measurement("hello", "granian", 0, problem="first"),
            Measurement("hello", "granian", 1, problem="second"),
        ],
    )

    assert found.by_turn("hello", "wizgy", lambda each: each.rate) == {0: 5.0}
    assert found.problem("hello", "wizgy") == ""
    assert found.problem("hello", "granian") == "second"
    assert found.problem("hello", "bjoern") == "not measured"


def results_of(**rates: list[float]) -> Results:
    """Make results of `hello` with so many requests a second of each server in each round."""
    facts = {
        "servers": {name: {"title": name.title(), "kind": name} for name in rates},
        "workloads": {"hello": {"title": "Plain hello"}},
    }
    measurements = [
        Measurement("hello", name, turn, rate=rate, processor=1 / rate)
        for name, found in rates.items()
        for turn, rate in enumerate(found)
    ]
    return Results(facts, measurements)


def test_results_come_back(tmp_path: Path) -> None:
    """The raw results are read as they were written, to six digits."""
    found = results_of(wizgy=[1000.0], granian=[500.0])
    found.measurements.append(Measurement("hello", "bjoern", 0, problem="no", more={"kept": 1 / 3}))
    found.write(tmp_path / "results.json")

    again = Results.read(tmp_path / "results.json")

    assert again.facts == found.facts
    assert again.measurements[:2] == found.measurements[:2]
    assert again.measurements[2].more == {"kept": 0.333333}


def test_results_refuse_other_files(tmp_path: Path) -> None:
    """A file of another kind is no results."""
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="no results"):
        Results.read(tmp_path / "other.json")


def test_servers_in_order() -> None:
    """The fastest server stands first, one that failed last."""
    found = results_of(wizgy=[2.0, 2.0], granian=[3.0, 1.5], waitress=[1.0, 1.0])
    found.measurements = [
        *(each for each in found.measurements if each.server != "waitress"),
        Measurement("hello", "waitress", 0, problem="no"),
    ]

    assert found.servers("hello") == ["granian", "wizgy", "waitress"]
    assert found.reference == "wizgy"


def test_columns() -> None:
    """A ratio above 1 is good for the first server, of rates and of processor time alike; it has none to itself."""
    found = results_of(wizgy=[200.0, 400.0, 300.0], granian=[100.0, 100.0, 100.0])

    assert tables.RATE.cell(found, "hello", "wizgy") == "300"
    assert tables.RATE_RATIO.cell(found, "hello", "granian") == "3.00 (2.50 to 3.50)"
    assert tables.PROCESSOR_RATIO.cell(found, "hello", "granian") == "3.00 (2.50 to 3.50)"
    assert tables.RATE_RATIO.cell(found, "hello", "wizgy") == ""
    assert tables.RATE_RATIO.heading(found) == "wizgy ÷ it"


def test_goals() -> None:
    """A goal is judged by the fastest of its peers, and a goal that was not measured is neither reached nor missed."""
    found = results_of(wizgy=[300.0], bjoern=[400.0], fastwsgi=[200.0], granian=[100.0])
    inline = ("bjoern", "fastwsgi")

    assert reach.times(0.7, "hello", inline, "x").judge(found).met is True
    missed = reach.times(0.8, "hello", inline, "x").judge(found)
    assert missed.met is False
    assert missed.measured.startswith("0.75 (0.75 to 0.75) times Bjoern")
    assert reach.times(1, "flask", inline, "x").judge(found) == reach.NOT_MEASURED
    assert reach.bound("x", "hello", lambda each: each.rate, 299, "{:.0f}").judge(found).met is False
    assert reach.bound("x", "hello", lambda each: each.rate, 299, "{:.0f}", least=True).judge(found).met is True


def test_goals_name_workloads_and_servers() -> None:
    """Every goal is about a workload and servers that there are."""
    matrix = load_matrix()

    assert {goal.text.partition(":")[0] for goal in reach.GOALS} <= WORKLOADS.keys()
    assert {*reach.INLINE, *reach.PURE_PYTHON, *servers.NATIVE} <= set(servers.names(matrix))


def test_page() -> None:
    """The page has the reference in bold, says why a server failed, and its table has one cell for each column."""
    found = results_of(wizgy=[100.0, 100.0], granian=[50.0, 200.0])
    found.measurements.append(Measurement("hello", "granian", 2, problem="no"))
    found.measurements.append(Measurement("hello", "bjoern", 0, problem="it | <broke>\nat line 3"))
    found.facts["servers"]["bjoern"] = {"title": "bjoern", "kind": "bjoern"}
    for server in found.facts["servers"].values():
        server["command"] = "taskset"
    found.facts["workloads"]["hello"]["command"] = "wrk"
    machine = {"processors": 2, "model": "M", "system": "S", "libc": "L", "wrk": "W", "load_average": 0.1}
    found.facts |= {"made": "2026", "rounds": 2, "seconds": 1.0, "threads": 8, "nice": 0, "machine": machine}

    lines = list(report.make_page(found, {"plot.svg": "A plot"}))

    table = lines.index("### Plain hello") + 2
    assert {line.replace("\\|", "").count("|") for line in lines[table : table + 5]} == {10}
    assert lines[table + 2].startswith("| Granian | 125 | 1.25 (0.88 to 1.62) |")
    assert lines[table + 3].startswith("| **Wizgy** | 100 |")
    assert lines[table + 4].startswith("| bjoern | failed: it \\| &lt;broke> |")
    assert "![A plot](plot.svg)" in lines
    assert "at line 3" in lines
    assert "| hello: at least 1 times granian | not measured |  |" not in lines


def test_a_problem_names_no_place_of_this_machine() -> None:
    """What a page repeats of a log is the same on every machine."""
    log = f'{ROOT}/.matrix/a/lib/python3.11/x.py: oh\n  File "/opt/py/3.11.7/lib/python3.11/wsgiref/util.py", line 2'
    assert shorten(log) == '.matrix/a/lib/python3.11/x.py: oh\n  File "lib/python3.11/wsgiref/util.py", line 2'
