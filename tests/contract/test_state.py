"""What clients keep between requests: cookies, sessions, and forms with a token."""

from __future__ import annotations

import re
from html import unescape

import pytest

from tests.contract.helpers import HiddenInputs, json_object
from tests.harness.target import Target

TEXT = 'naïve <b>&amp;</b> "text" ✓'


def test_two_cookies_are_two_fields(target: Target) -> None:
    """Set-Cookie fields are never joined into one (RFC 9110 section 5.3)."""
    response = target.get("/cookies/set/flavour/plain")

    fields = response.raw.headers.getlist("Set-Cookie")
    assert [field.partition(";")[0] for field in fields] == [
        "flavour=plain",
        "flavour-again=plain",
    ]


def test_cookies_round_trip(target: Target) -> None:
    """Cookies that the app sets come back to it (RFC 6265 section 3)."""
    with target.session() as session:
        made = json_object(session.get("/cookies/set/flavour/plain"))
        assert made == {"flavour": "plain", "flavour-again": "plain"}
        assert json_object(session.get("/cookies")) == made


def test_no_cookies(target: Target) -> None:
    """A client that was given no cookies sends none (RFC 6265 section 3)."""
    assert json_object(target.get("/cookies")) == {}


def test_session_counts(target: Target) -> None:
    """The framework's session lasts from request to request (RFC 6265 section 3.1)."""
    with target.session() as session:
        assert [json_object(session.get("/session"))["count"] for _ in range(3)] == [1, 2, 3]


def test_sessions_are_apart(target: Target) -> None:
    """Two clients never share a session (RFC 6265 section 3.1)."""
    with target.session() as first, target.session() as second:
        assert json_object(first.get("/session"))["count"] == 1
        assert json_object(first.get("/session"))["count"] == 2
        assert json_object(second.get("/session"))["count"] == 1
        assert json_object(first.get("/session"))["count"] == 3


def test_form(target: Target) -> None:
    """A browser's round trip works: get the form, post it with its hidden fields, see the text."""
    with target.session() as session:
        page = session.get("/form")
        assert page.status_code == 200
        assert page.headers["Content-Type"].startswith("text/html")
        answer = session.post("/form", data={**HiddenInputs(page.text).values, "text": TEXT})

    assert answer.status_code == 200, answer.text[:500]
    shown = re.search("<output>(.*)</output>", answer.text, re.DOTALL)
    assert shown is not None
    assert unescape(shown[1]).strip() == TEXT
    assert "<b>" not in answer.text, "what was posted is not escaped"


@pytest.mark.frameworks("django", "pyramid")
@pytest.mark.parametrize("token", ["", "forged"])
def test_form_with_a_wrong_token(target: Target, token: str) -> None:
    """A framework with CSRF protection refuses a post whose token is missing or forged."""
    with target.session() as session:
        hidden = HiddenInputs(session.get("/form").text).values
        assert hidden, "the form has no token"
        answer = session.post("/form", data={**dict.fromkeys(hidden, token), "text": "text"})

    assert answer.status_code in (400, 403)


@pytest.mark.frameworks("django", "pyramid")
def test_form_without_the_cookie(target: Target) -> None:
    """A token is worth nothing without the cookie of the client that got it."""
    hidden = HiddenInputs(target.get("/form").text).values
    answer = target.post("/form", data={**hidden, "text": "text"})

    assert answer.status_code in (400, 403)
