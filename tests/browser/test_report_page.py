"""The report as a person uses it: with a mouse, with keys alone, on a phone, in the dark."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from matrix import diff
from matrix.results import UNEXPECTED, VERDICTS, Case, Results, worst
from tests.browser.conftest import Opener
from tests.matrix.synthetic import HOSTILE, write_results

MAX_ROWS = 60
"""So many rows of the list may exist at once, however long it is."""


def tile(page: Page, cell: str) -> Locator:
    """Return the tile of a cell."""
    return page.locator(f'.tile[data-cell="{cell}"]')


def listed(page: Page) -> int:
    """Return how many cases the list says that it has."""
    text = page.locator("#list-count").inner_text()
    return 0 if text.startswith("no case") else int(re.match(r"[\d,]+", text)[0].replace(",", ""))  # type: ignore[index]


def case_with(results: Results, verdict: str, *, cell: str | None = None) -> Case:
    """Return a conformance case with a verdict and an exchange."""
    return next(
        case
        for case in results.cases
        if case.verdict == verdict and case.kind == "conformance" and case.exchange and cell in (None, case.cell)
    )


def state(**values: str) -> str:
    """Return the part of a URL that chooses."""
    return "#" + "&".join(f"{name}={quote(value, safe=':/,')}" for name, value in values.items())


def distinct(cases: Iterable[Case]) -> int:
    """Return how many cases there are, each counted once over all cells."""
    return len({(case.kind, case.id) for case in cases})


def opened(page: Page, case: Case) -> Locator:
    """Return the panel of a case once it is open."""
    panel = page.locator("#case")
    expect(panel.locator("h2 code")).to_have_text(case.id)
    return panel


# The grid


def test_the_grid_comes_first_and_what_fails_first_in_it(open_page: Opener) -> None:
    """The first column is that of the server with most failures, and the cell's tile counts them."""
    page = open_page()
    heads = page.locator("#grid thead th").all_inner_texts()

    assert heads[0] == "wsgiref"
    grid, cases = page.locator("#grid").bounding_box(), page.locator("#list").bounding_box()
    assert grid
    assert cases
    assert grid["y"] < cases["y"]


def test_every_tile_says_what_its_cell_came_to(open_page: Opener, small: Results) -> None:
    """The name of each tile has the count of every verdict in the cell; a cell without cases has its own."""
    page = open_page()
    by_cell: dict[str, Counter[str]] = {cell.cell: Counter() for cell in small.cells}
    for case in small.cases:
        by_cell[case.cell][case.verdict] += 1

    for cell in small.cells:
        counts = by_cell[cell.cell] or Counter({cell.verdict: 1})
        words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        expect(tile(page, cell.cell)).to_have_attribute("aria-label", re.compile(f": {re.escape(words)}$"))
        expect(tile(page, cell.cell)).to_have_class(re.compile(rf"\bv-{worst(counts)}\b"))  # type: ignore[arg-type]


def test_a_cell_opens_its_cases(open_page: Opener, small: Results) -> None:
    """A tile opens its cell: what it was made of, the command that runs it again, and its cases alone."""
    cell = next(cell for cell in small.cells if cell.verdict == "fail")
    page = open_page()
    tile(page, cell.cell).click()

    panel = page.locator("#cell")
    expect(panel.locator(".command code")).to_have_text(cell.reproduce)
    panel.locator("summary").click()
    expect(panel).to_contain_text(str(cell.provenance.interpreter))
    expect(panel).to_contain_text(cell.provenance.packages[0])
    assert listed(page) == distinct(case for case in small.cases if case.cell == cell.cell)
    assert f"cell={cell.cell}" in page.url


def test_cells_without_cases_say_why(open_page: Opener, small: Results) -> None:
    """What could not be set up, or was skipped, is listed with its reason."""
    page = open_page()
    without = [cell for cell in small.cells if cell.verdict in ("setup-error", "skip")]

    assert len(without) == 2
    for cell in without:
        row = page.locator("#caseless li", has_text=cell.cell)
        expect(row).to_contain_text(cell.explanation.split("\n")[0])


# Filters

FILTERED: list[tuple[str, dict[str, str], Callable[[Case], bool]]] = [
    ("server", {"server": "wsgiref"}, lambda case: case.cell.startswith("wsgiref/")),
    ("framework", {"framework": "flask"}, lambda case: "/flask-" in case.cell),
    ("version", {"framework": "flask-3.0"}, lambda case: "/flask-3.0/" in case.cell),
    ("python", {"python": "3.12"}, lambda case: case.cell.endswith("py3.12")),
    ("document", {"section": "RFC 9112"}, lambda case: (case.section or "").startswith("RFC 9112")),
    (
        "section",
        {"section": "RFC 9112 section 6"},
        lambda case: bool(re.match(r"RFC 9112 section 6(\.|,|$)", case.section or "")),
    ),
    ("no section", {"section": "none"}, lambda case: case.section is None),
    ("kind", {"kind": "contract"}, lambda case: case.kind == "contract"),
    ("level", {"level": "security"}, lambda case: case.level == "security"),
    ("verdict", {"verdict": "fail"}, lambda case: case.verdict == "fail"),
    ("verdicts", {"verdict": "known,crash"}, lambda case: case.verdict in ("known", "crash")),
    ("words", {"q": "length content"}, lambda case: {"content", "length"} <= words_of(case)),
    (
        "everything at once",
        {"server": "wsgiref", "framework": "flask-3.1", "python": "3.13", "section": "RFC 9112", "verdict": "fail"},
        lambda case: (
            case.cell == "wsgiref/flask-3.1/py3.13"
            and (case.section or "").startswith("RFC 9112")
            and case.verdict == "fail"
        ),
    ),
]


def words_of(case: Case) -> set[str]:
    """Return which of two words are somewhere in what the search looks at."""
    text = f"{case.id} {case.rule} {case.section or ''}".lower()
    return {word for word in ("content", "length") if word in text}


@pytest.mark.parametrize(("choice", "wanted"), [row[1:] for row in FILTERED], ids=[row[0] for row in FILTERED])
def test_a_filter_in_the_url_chooses(
    open_page: Opener, small: Results, choice: dict[str, str], wanted: Callable[[Case], bool]
) -> None:
    """A URL with filters shows just the results that they let through: in the list, and in every tile."""
    page = open_page(state=state(**choice))
    found = [case for case in small.cases if wanted(case)]

    assert listed(page) == distinct(found)
    by_cell = Counter(case.cell for case in found)
    with_cases = {case.cell for case in small.cases}
    for cell in with_cases:
        if not by_cell[cell]:
            expect(tile(page, cell)).to_have_class(re.compile(r"\bout\b"))
            continue
        expect(tile(page, cell)).not_to_have_class(re.compile(r"\bout\b"))
        label = str(tile(page, cell).get_attribute("aria-label"))
        assert sum(map(int, re.findall(r"(\d+) [a-z-]+(?:,|$)", label))) == by_cell[cell]


def test_every_filter_is_kept_in_the_url(open_page: Opener) -> None:
    """What is chosen by hand stands in the URL; that URL shows the same again, and Back undoes one choice."""
    page = open_page()
    page.select_option("#filter-server", "wsgiref")
    page.select_option("#filter-framework", "flask-3.1")
    page.select_option("#filter-python", "3.13")
    page.select_option("#filter-section", "RFC 9112")
    page.locator('#legend [data-value="fail"]').click()
    page.fill("#filter-q", "field")
    count = listed(page)

    assert page.url.partition("#")[2] == (
        "server=wsgiref&framework=flask-3.1&python=3.13&section=RFC+9112&q=field&verdict=fail"
    )
    page.reload()
    page.wait_for_selector("#report:not([hidden])")
    assert listed(page) == count
    assert page.input_value("#filter-server") == "wsgiref"
    assert page.input_value("#filter-q") == "field"
    expect(page.locator('#legend [data-value="fail"]')).to_have_attribute("aria-pressed", "true")
    page.go_back()
    expect(page.locator('#legend [data-value="fail"]')).to_have_attribute("aria-pressed", "false")
    page.locator("#reset").click()
    assert page.url.endswith("#")
    expect(page.locator("#reset")).to_be_hidden()


def test_the_legend_counts_what_the_other_filters_leave(open_page: Opener, small: Results) -> None:
    """Each verdict shows how many results choosing it would leave, whatever verdict is chosen now."""
    page = open_page(state=state(server="wsgiref", verdict="pass"))
    counts = Counter(case.verdict for case in small.cases if case.cell.startswith("wsgiref/"))

    for verdict in ("fail", "pass", "known"):
        button = page.locator(f'#legend [data-value="{verdict}"]')
        if counts[verdict]:
            expect(button.locator(".number")).to_have_text(f"{counts[verdict]:,}")


# Cases


def test_a_case_shows_the_wire(open_page: Opener, small: Results) -> None:
    """A case shows each event with its time and its bytes, what was expected and what came, and the section."""
    case = case_with(small, "fail")
    page = open_page(state=state(case=f"conformance:{case.id}", at=case.cell))
    panel = opened(page, case)

    assert case.exchange
    whole = panel.locator(".timeline").inner_text()
    for event in case.exchange.events:
        assert f"{event.at:.3f} s" in whole
    answer = panel.locator(".timeline .received .bytes").first.inner_text()
    assert answer.startswith("HTTP/1.1 200 OK\\r\\n\nServer: ")
    for outcome in case.expected:
        expect(panel.locator(".expected")).to_contain_text(outcome)
    expect(panel.locator(".got")).to_contain_text(case.got)
    expect(panel.locator(".facts")).to_contain_text(str(case.section))
    assert case.blame
    expect(panel.locator(".blame")).to_contain_text(case.blame.on)


def test_bytes_in_hexadecimal(open_page: Opener, small: Results) -> None:
    """Every byte can be read in hexadecimal, and the URL keeps that choice; the focus stays on the switch."""
    case = case_with(small, "fail")
    page = open_page(state=state(case=f"conformance:{case.id}", at=case.cell))
    opened(page, case).locator("[data-mode=hex]").click()

    assert case.exchange
    sent = next(event for event in case.exchange.events if event.kind == "sent").data.encode("latin-1")
    dump = page.locator(".timeline .sent .hex").first.inner_text()
    found = bytes.fromhex("".join(line[8:55] for line in dump.splitlines()))
    assert found == sent
    assert "bytes=hex" in page.url
    expect(page.locator("[data-mode=hex]")).to_be_focused()


def test_the_command_is_copied(open_page: Opener, small: Results) -> None:
    """The copy button puts the command that reproduces the case on the clipboard, and says so."""
    case = case_with(small, "fail")
    page = open_page(state=state(case=f"conformance:{case.id}", at=case.cell))
    button = opened(page, case).locator(".copy")
    button.click()

    expect(button).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == case.reproduce


def test_a_case_opens_where_it_fares_worst(open_page: Opener, small: Results) -> None:
    """With no cell chosen the case opens in a cell that fails it, and the other cells are one click away."""
    case = case_with(small, "fail")
    other = next(each for each in small.cases if each.id == case.id and each.verdict == "pass")
    page = open_page(state=state(case=f"conformance:{case.id}"))

    expect(opened(page, case).locator("h2 .pill")).to_have_text(re.compile("fail"))
    page.locator(f'.dot[href*="at={other.cell}"]').click()
    expect(page.locator("#case h2 .pill")).to_have_text(re.compile("pass"))
    expect(page.locator("#case .command code")).to_have_text(other.reproduce)
    expect(page.locator(".dot[aria-current]")).to_be_focused()


def test_a_case_opens_where_the_filters_look(open_page: Opener, small: Results) -> None:
    """A case that is listed for a verdict opens in a cell in which it has that verdict."""
    case = next(
        each
        for each in small.cases
        if each.verdict == "fail" and any(other.id == each.id and other.verdict == "pass" for other in small.cases)
    )
    page = open_page(state=state(case=f"{case.kind}:{case.id}", verdict="pass"))

    expect(opened(page, case).locator("h2 .pill")).to_have_text(re.compile("pass"))


def test_bytes_that_were_left_out_are_said_to_be(open_page: Opener, small: Results) -> None:
    """When the page had to do without the bytes of passing cases, a passing case says so and still has its command."""
    case = case_with(small, "pass")
    page = open_page("short", state(case=f"conformance:{case.id}", at=case.cell))
    panel = opened(page, case)

    expect(panel).to_contain_text("were left out of this page")
    expect(panel.locator(".command code")).to_have_text(case.reproduce)


def test_the_list_is_as_long_as_it_says(open_page: Opener, large: Results) -> None:
    """Thousands of cases make a few rows at a time; scrolling brings the last one."""
    page = open_page("large")
    total = distinct(large.cases)
    assert total > 2000
    assert listed(page) == total
    assert page.locator("#list li").count() <= MAX_ROWS

    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    last = page.locator(f'#list li[aria-posinset="{total}"]')
    expect(last).to_be_in_viewport()
    expect(last).to_have_attribute("aria-setsize", str(total))
    assert page.locator("#list li").count() <= MAX_ROWS


# Comparing


def check_comparison(page: Page, earlier: Results, later: Results) -> None:
    """Check the counts and one filter of a page that compares two runs."""
    differences = [each for each in diff.compare(earlier, later) if each.kind != "cell"]
    counts = Counter(each.change for each in differences)
    for change in diff.CHANGES:
        number = page.locator(f'#changes [data-value="{change}"] .number')
        expect(number).to_have_text(f"{counts[change]:,}")
    for change in ("regressed", "gone"):
        page.locator(f'#changes [data-value="{change}"]').click()
        found = {(each.kind, each.id) for each in differences if each.change == change}
        assert found
        assert listed(page) == len(found)
        page.locator(f'#changes [data-value="{change}"]').click()


def test_two_runs_are_compared(open_page: Opener, earlier: Results, small: Results) -> None:
    """The page counts and filters the same changes as `matrix diff` does, those in cells that are gone among them."""
    page = open_page("compared")

    expect(page.locator("#compared")).to_contain_text("Compared with run earlier of 2025-12-24 18:00 UTC")
    check_comparison(page, earlier, small)
    expect(tile(page, "wizgy/flask-2.3/py3.13")).to_have_attribute("aria-label", re.compile("results gone$"))


def test_a_case_says_what_it_was(open_page: Opener, earlier: Results, small: Results) -> None:
    """A case that regressed shows both verdicts."""
    regressed = next(each for each in diff.compare(earlier, small) if each.change == "regressed" and each.id)
    page = open_page("compared", state(case=f"{regressed.kind}:{regressed.id}", at=regressed.cell))

    expect(page.locator("#case")).to_contain_text(f"{regressed.before} in the earlier run, {regressed.after} now")


def test_a_file_is_compared_in_the_page(open_page: Opener, earlier: Results, small: Results, tmp_path: Path) -> None:
    """The results of any run can be opened in the page to compare with, and taken away again."""
    path = write_results(tmp_path / "earlier.jsonl", earlier)
    page = open_page()
    before = listed(page)
    page.locator("#about summary").click()
    page.locator("#compare-file").set_input_files(path)

    check_comparison(page, earlier, small)
    page.locator("#compare-end").click()
    expect(page.locator("#compared")).to_be_hidden()
    expect(tile(page, "wizgy/flask-2.3/py3.13")).to_have_count(0)
    assert listed(page) == before


def test_a_file_that_is_no_results_is_refused(open_page: Opener, tmp_path: Path) -> None:
    """The page says what is wrong with the file, and goes on as it was."""
    path = tmp_path / "other.jsonl"
    path.write_text('{"record": "case"}\n')
    page = open_page()
    page.locator("#about summary").click()
    page.locator("#compare-file").set_input_files(path)

    expect(page.locator("#compare-problem")).to_contain_text("other.jsonl is no file of results: it does not start")
    expect(page.locator("#compared")).to_be_hidden()


# Keys


def test_everything_with_keys_alone(open_page: Opener, small: Results) -> None:
    """Search, go down the list, open a case, go on to the next, copy its command, and leave: no mouse."""
    page = open_page()
    page.keyboard.press("/")
    expect(page.locator("#filter-q")).to_be_focused()
    page.keyboard.type("field")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    first = page.locator('#list li[aria-posinset="2"] a')
    expect(first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#case-title")).to_be_focused()
    title = page.locator("#case-title code").inner_text()
    page.keyboard.press("c")
    expect(page.locator("#case .copy")).to_have_text("Copied")
    page.keyboard.press("j")
    expect(page.locator("#case-title code")).not_to_have_text(title)
    expect(page.locator('#list li[aria-posinset="3"] a')).to_be_focused()
    page.keyboard.press("k")
    expect(page.locator("#case-title code")).to_have_text(title)
    page.keyboard.press("Escape")
    expect(page.locator("#case")).to_be_hidden()
    expect(first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator('#list li[aria-posinset="3"] a')).to_be_focused()


def test_tab_reaches_the_grid_and_the_list(open_page: Opener) -> None:
    """Tab goes through filters, tiles and cases in the order of the page, although the list is below the screen."""
    page = open_page()
    seen: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(str(page.evaluate("document.activeElement.closest('#filters, #grid, #list, #legend')?.id")))
        if seen[-1] == "list":
            break

    assert [name for name in dict.fromkeys(seen) if name != "None"] == ["legend", "filters", "grid", "list"]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_escape_closes_the_cell_and_gives_the_focus_back(open_page: Opener, small: Results) -> None:
    """A cell that was opened with Enter is left with Escape, to the tile that it came from."""
    cell = next(cell.cell for cell in small.cells if cell.verdict == "fail")
    page = open_page()
    tile(page, cell).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#cell-title")).to_be_focused()
    page.keyboard.press("Escape")

    expect(page.locator("#cell")).to_be_hidden()
    expect(tile(page, cell)).to_be_focused()


def test_keys_are_told_and_can_be_turned_off(open_page: Opener) -> None:
    """The question mark shows the keys; those of one character can be turned off (WCAG 2.2, 2.1.4)."""
    page = open_page()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.locator("#keys-on").uncheck()
    page.locator("#help button").click()
    page.keyboard.press("/")

    expect(page.locator("#help")).to_be_hidden()
    expect(page.locator("#filter-q")).not_to_be_focused()


# Everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("view", ["overview", "case", "cell", "compared"])
def test_accessibility(open_page: Opener, small: Results, view: str, size: Any, scheme: Any) -> None:
    """Roles, names, contrast and the sizes of targets hold WCAG 2.2 AA, as far as axe can tell."""
    case = case_with(small, "fail")
    states = {
        "overview": ("small", ""),
        "case": ("small", state(case=f"conformance:{case.id}", at=case.cell)),
        "cell": ("small", state(cell=case.cell)),
        "compared": ("compared", state(change="regressed")),
    }
    page = open_page(*states[view], size=size, scheme=scheme)
    if view == "case":
        opened(page, case)
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": rules}})

    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("view", ["", "case"])
def test_a_phone_needs_no_sideways_scrolling(open_page: Opener, small: Results, view: str) -> None:
    """On a narrow screen only the grid and byte dumps scroll sideways, inside themselves."""
    case = case_with(small, "fail")
    page = open_page(state=state(case=f"conformance:{case.id}", at=case.cell) if view else "", size="phone")
    if view:
        opened(page, case)

    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_phone_gets_the_case_as_a_page(open_page: Opener, small: Results) -> None:
    """On a phone an open case covers the screen, filters fold away, and Back closes the case."""
    page = open_page(size="phone")
    expect(page.locator("#filter-form")).to_be_hidden()
    page.locator("#filters-button").tap()
    expect(page.locator("#filter-server")).to_be_visible()
    page.locator("#filters-button").tap()
    page.locator("#list a").first.tap()
    panel = page.locator("#case")
    expect(panel).to_be_visible()
    assert panel.bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 844}

    page.go_back()
    expect(panel).to_be_hidden()


def test_nothing_from_a_server_runs(open_page: Opener, small: Results) -> None:
    """Markup in bytes, texts, ids and links is shown as characters, in every view: nothing runs, nothing is made."""
    case = case_with(small, "fail")
    page = open_page("hostile", state(case=f"conformance:{case.id}", at=case.cell, cell=case.cell))
    panel = opened(page, case)
    for summary in page.locator("summary").all():
        summary.click()

    shown = HOSTILE.replace("\x00\x1b", "").replace("\xff", "").partition("[31m")[0]
    for place in (".expected", ".got", ".blame", ".notice", ".command", ".timeline", ".log", ".explanation"):
        expect(panel.locator(place).first).to_contain_text(shown)
    expect(page.locator("#cell .provenance")).to_contain_text(shown)
    assert page.title() == "Compatibility matrix"
    assert page.locator("img").count() == 0
    assert page.locator('[href^="javascript:" i]').count() == 0
    assert page.locator("script:not([id])").count() == 1
    panel.locator("[data-mode=hex]").click()
    expect(panel.locator(".hex").first).to_contain_text("</script><script")
    assert page.title() == "Compatibility matrix"


def test_without_scripts_there_is_a_table(open_page: Opener, small: Results) -> None:
    """With JavaScript off the page is a table of cells and verdicts, and does not seem to load."""
    page = open_page(scripts=False)

    expect(page.locator("#loading")).to_be_hidden()
    rows = page.locator("noscript tbody tr")
    expect(rows).to_have_count(len(small.cells))
    bad = sum(case.verdict in UNEXPECTED for case in small.cases) + sum(
        cell.verdict == "setup-error" for cell in small.cells
    )
    expect(page.locator("h1")).to_contain_text(f"{bad} results not as expected")
