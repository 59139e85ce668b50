"""One test for each conformance case, and one more which sends its bytes one at a time.

All selected cases are played at the same time by a few threads; each test waits for its own result.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import TypeAlias

import pytest

from matrix.recorder import OBSERVATION, Observation
from tests.conformance.cases import Case, load_cases
from tests.conformance.matching import describe_outcome
from tests.conformance.runner import Exchange, format_exchange, start_all
from tests.harness.target import Target

CASES = load_cases()
Exchanges: TypeAlias = dict[str, Future[Exchange]]

DEADLINE = 120.0
"""Seconds for one case, with the wait until its turn comes."""


def parametrise(cases: tuple[Case, ...]) -> pytest.MarkDecorator:
    """Make one test of each case; its id is that of the case, its marker names its apps."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(
                case,
                id=case.id,
                marks=[pytest.mark.frameworks(*case.frameworks)] if case.frameworks else [],
            )
            for case in cases
        ],
    )


def select_items(request: pytest.FixtureRequest, *test_names: str) -> list[Case]:
    """Return the cases of those tests which are part of this run."""
    cases: dict[str, Case] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname in test_names:
            case = item.callspec.params["case"]
            assert isinstance(case, Case)
            cases[case.id] = case
    return list(cases.values())


def play_all(
    request: pytest.FixtureRequest, cases: list[Case], target: Target, split: int | None
) -> Iterator[Exchanges]:
    """Start to play cases, and stop when their tests are done."""
    jobs = request.config.getoption("--jobs")
    executor, futures = start_all(cases, target.host, target.port, jobs=jobs, split=split)
    yield futures
    executor.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, target: Target) -> Iterator[Exchanges]:
    """The exchanges of the cases, sent in the segments in which they are written."""
    names = (test_case.__name__, test_case_one_byte_at_a_time.__name__)
    yield from play_all(request, select_items(request, *names), target, None)


@pytest.fixture(scope="module")
def split(request: pytest.FixtureRequest, target: Target) -> Iterator[Exchanges]:
    """The exchanges of the cases, sent one byte at a time."""
    yield from play_all(request, select_items(request, test_case_one_byte_at_a_time.__name__), target, 1)


def describe_failure(exchange: Exchange, target: Target, test_name: str) -> str:
    """Tell everything that a person needs to see the failure again."""
    framework = f"--framework {target.framework.name}"
    option = " --split 1" if test_name == test_case_one_byte_at_a_time.__name__ else ""
    case_id = exchange.case.id
    return format_exchange(
        exchange,
        f'pytest "tests/conformance/test_cases.py::{test_name}[{case_id}]" {framework}\n'
        "  or, against a server that runs: "
        f"python -m tests.conformance.run --url {target.url} {framework}{option} {case_id}",
    )


def observe(exchange: Exchange, target: Target) -> Observation:
    """Return what a run of the matrix keeps of an exchange."""
    case = exchange.case
    return Observation(
        rule=case.rule,
        level=case.level,
        section=case.section,
        source=case.source,
        expected=tuple(describe_outcome(outcome) for outcome in case.expect),
        got=exchange.explanation,
        events=exchange.events,
        address=f"{target.host}:{target.port}",
    )


@parametrise(CASES)
def test_case(case: Case, target: Target, whole: Exchanges, request: pytest.FixtureRequest) -> None:
    """What the server answers to the bytes of the case is an outcome that its rule accepts."""
    exchange = whole[case.id].result(DEADLINE)
    request.node.stash[OBSERVATION] = observe(exchange, target)
    if not exchange.passed:
        pytest.fail(describe_failure(exchange, target, test_case.__name__), pytrace=False)


@parametrise(tuple(case for case in CASES if case.split))
def test_case_one_byte_at_a_time(
    case: Case, target: Target, whole: Exchanges, split: Exchanges, request: pytest.FixtureRequest
) -> None:
    """How the bytes of a message come in segments changes nothing (RFC 9112 section 2.2)."""
    exchange = split[case.id].result(DEADLINE)
    request.node.stash[OBSERVATION] = observe(exchange, target)
    if not exchange.passed:
        name = test_case_one_byte_at_a_time.__name__
        pytest.fail(describe_failure(exchange, target, name), pytrace=False)
    assert exchange.statuses == whole[case.id].result(DEADLINE).statuses
