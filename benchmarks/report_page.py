"""How fast the report of the matrix paints and filters: `python -m benchmarks.report_page [--results N]`.

It needs Chromium and what `requirements/browser.txt` has. First paint and the first complete page are counted from the
start of the navigation; a filter, from the change until the page is laid out again. Medians of several loads.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from matrix.report.page import render_page
from tests.browser.chromium import FLAGS, find_chromium, why_missing
from tests.matrix.synthetic import PYTHONS, SERVERS, VERSIONS, make_results

LOADS = 7

PAINTED = """() => ({
  paint: performance.getEntriesByName('first-contentful-paint')[0].startTime,
  complete: performance.getEntriesByName('report-shown')[0].startTime,
})"""

FILTERS = {
    "server": {"server": "wsgiref"},
    "section": {"section": "RFC 9112"},
    "verdict": {"verdict": "fail"},
    "search": {"q": "content length"},
    "none": {},
}

FILTER = """(hash) => {
  const began = performance.now();
  history.replaceState(null, '', hash);
  dispatchEvent(new PopStateEvent('popstate'));
  document.body.getBoundingClientRect();
  return performance.now() - began;
}"""


def measure(browser: Browser, url: str) -> dict[str, float]:
    """Load the page once and return what each step took, in milliseconds."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(url)
    for mark in ("report-shown", "first-contentful-paint"):
        page.wait_for_function(f"performance.getEntriesByName('{mark}').length")
    times: dict[str, float] = {f"load: {name}": value for name, value in page.evaluate(PAINTED).items()}
    for name, choice in FILTERS.items():
        chosen = "#" + "&".join(f"{key}={value.replace(' ', '+')}" for key, value in choice.items())
        times[f"filter: {name}"] = page.evaluate(FILTER, chosen)
    page.close()
    return times


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_page", description=__doc__)
    parser.add_argument("--results", type=int, default=10_000, metavar="N", help="about how many (%(default)s)")
    options = parser.parse_args(arguments)
    executable = find_chromium()
    if not executable:
        print(f"this needs Chromium, and {why_missing()}", file=sys.stderr)
        return 2
    cells = len(SERVERS) * len(VERSIONS) * len(PYTHONS)
    results = make_results(cases=max(1, round(options.results / cells)))
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        path = Path(directory, "report.html")
        path.write_text(render_page(results), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        loads = [measure(browser, path.as_uri()) for _ in range(LOADS)]
        print(f"{len(results.cases):,} results in {len(results.cells)} cells, {path.stat().st_size:,} bytes")
        print(f"Chromium {browser.version}, median and worst of {LOADS} loads, in milliseconds")
        browser.close()
    for name in loads[0]:
        times = [load[name] for load in loads]
        print(f"  {name:<18} {statistics.median(times):7.1f} {max(times):7.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
