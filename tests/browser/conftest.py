"""A browser, and pages of invented results to open in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from matrix.report.page import render_page
from matrix.results import Results
from tests.browser.chromium import FLAGS, find_chromium, why_missing
from tests.matrix.synthetic import make_hostile, make_results

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

TITLES = {"flask": "Flask", "wsgi": "WSGI", "gunicorn-sync": "gunicorn (sync)"}

DEADLINE = 10_000.0
"""Milliseconds that the browser may take for one step."""


def pytest_configure(config: pytest.Config) -> None:
    """Say it at once, and once, when there is no browser: without one nothing here is tested."""
    if not find_chromium() and not config.option.collectonly:
        raise pytest.UsageError(f"tests/browser needs Chromium, and {why_missing()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start the browser once for all tests."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        yield launched
        launched.close()


@dataclass
class Opener:
    """Opens pages, and keeps what went wrong in them, and what they asked the network for."""

    browser: Browser
    directory: Path
    files: dict[str, Path]
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __call__(
        self,
        name: str = "small",
        state: str = "",
        *,
        size: Literal["desktop", "phone"] = "desktop",
        scheme: Literal["light", "dark"] = "light",
        scripts: bool = True,
    ) -> Page:
        """Open a page and wait until it is complete.

        Args:
            name: the name of its results.
            state: what stands behind the # of the URL.
            size: how large the window is.
            scheme: whether the person prefers light or dark.
            scripts: whether JavaScript is on.
        """
        width, height = SIZES[size]
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            java_script_enabled=scripts,
            has_touch=size == "phone",
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(DEADLINE)
        page = context.new_page()
        page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(self.files[name].as_uri() + state)
        if scripts:
            page.wait_for_selector("#report:not([hidden])", state="attached")
        return page


@pytest.fixture(scope="session")
def small() -> Results:
    """Return results of three servers, with a fault of every kind."""
    return make_results(
        servers=("wizgy", "gunicorn-sync", "wsgiref"),
        versions=("wsgi-1.0.1", "flask-3.1", "flask-3.0"),
        pythons=("3.12", "3.13"),
        cases=60,
    )


@pytest.fixture(scope="session")
def earlier(small: Results) -> Results:
    """Return an earlier run, with a cell, a version and cases more and less, and other verdicts here and there."""
    cases = [case for case in small.cases if "py3.12" not in case.cell or "wizgy" not in case.cell]
    for place in range(0, len(cases), 17):
        cases[place] = replace(cases[place], verdict="pass" if cases[place].verdict == "fail" else "fail")
    cases += [
        replace(case, cell=case.cell.replace("flask-3.0", "flask-2.3"))
        for case in small.cases
        if case.cell == "wizgy/flask-3.0/py3.13"
    ]
    cases += [replace(case, id=f"{case.id}-old") for case in cases[:3]]
    wanted = {case.cell for case in cases}
    cells = {cell.cell: cell for cell in small.cells if cell.cell in wanted}
    run = replace(small.run, run="earlier", started="2025-12-24T18:00:00Z", cells=())
    return Results(runs=(run,), cells=tuple(cells.values()), cases=tuple(cases), end=small.end)


@pytest.fixture(scope="session")
def large() -> Results:
    """Return one cell with every case that there is."""
    return make_results(servers=("wizgy",), versions=("wsgi-1.0.1",), pythons=("3.13",), faults=False)


@pytest.fixture(scope="session")
def files(
    tmp_path_factory: pytest.TempPathFactory, small: Results, earlier: Results, large: Results
) -> dict[str, Path]:
    """Write the pages, by the names of their results."""
    directory = tmp_path_factory.mktemp("pages")
    pages: dict[str, Callable[[], str]] = {
        "small": lambda: render_page(small, titles=TITLES),
        "compared": lambda: render_page(small, baseline=earlier, titles=TITLES),
        "large": lambda: render_page(large),
        "hostile": lambda: render_page(make_hostile(small)),
        "short": lambda: render_page(small, detail_bytes=1),
    }
    for name, make in pages.items():
        (directory / f"{name}.html").write_text(make(), encoding="utf-8")
    return {name: directory / f"{name}.html" for name in pages}


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path, files: dict[str, Path]) -> Iterator[Opener]:
    """Return a function that opens a page; afterwards no page may have complained or loaded anything."""
    opener = Opener(browser, tmp_path, files)
    yield opener
    for context in browser.contexts:
        context.close()
    assert opener.problems == []
    assert [url for url in opener.requests if not url.startswith(("file:", "data:"))] == []
