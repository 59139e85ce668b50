"""Django's admin: a real application with sessions, CSRF tokens, redirects and a database."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest
import requests

from tests.contract.helpers import HiddenInputs
from tests.harness.target import Target, TargetSession

pytestmark = pytest.mark.frameworks("django")


@pytest.fixture
def admin(target: Target) -> Iterator[TargetSession]:
    """Give a client that is logged in to the admin."""
    with target.session() as session:
        answer = log_in(session, "admin")
        assert answer.status_code == 302, answer.text[:500]
        yield session


def log_in(session: TargetSession, password: str) -> requests.Response:
    """Send the login form of the admin, with the token and cookie that came with it."""
    page = session.get("/admin/login/", params={"next": "/admin/"})
    assert page.status_code == 200
    credentials = {"username": "admin", "password": password}
    return session.post("/admin/login/", data={**HiddenInputs(page.text).values, **credentials})


def test_stranger_is_sent_to_the_login(target: Target) -> None:
    """Who is not logged in is redirected to the login page (RFC 9110 section 15.4.3)."""
    response = target.get("/admin/")

    assert response.status_code == 302
    assert response.headers["Location"] == "/admin/login/?next=/admin/"


def test_wrong_password(target: Target) -> None:
    """A wrong password gets the login page again, and no way in."""
    with target.session() as session:
        assert log_in(session, "guessed").status_code == 200
        assert session.get("/admin/").status_code == 302


def test_login(admin: TargetSession) -> None:
    """The right password opens the admin, and the session keeps it open (RFC 6265 section 3)."""
    index = admin.get("/admin/")

    assert index.status_code == 200
    assert "/admin/compat/message/" in index.text


def test_login_redirects(target: Target) -> None:
    """A client that follows redirects ends at the page it wanted (RFC 9110 section 15.4)."""
    with target.session() as session:
        page = session.request("GET", "/admin/compat/message/", follow=True)
        assert page.url.startswith(f"{target.url}/admin/login/")
        form = {**HiddenInputs(page.text).values, "username": "admin", "password": "admin"}
        answer = session.request("POST", "/admin/login/", data=form, follow=True)

    assert answer.status_code == 200
    assert answer.url == f"{target.url}/admin/compat/message/"


def test_add_and_list(admin: TargetSession) -> None:
    """An object that is added in the admin is in its list, and gone once it is deleted."""
    text = f"naïve message {uuid.uuid4()}"
    added = _submit(admin, "/admin/compat/message/add/", text=text)
    assert added.status_code == 302, added.text[:500]

    (listed,) = _messages(admin, text)
    deleted = _submit(admin, f"{listed}/delete/", post="yes")
    assert deleted.status_code == 302, deleted.text[:500]
    assert _messages(admin, text) == []


def test_logout(admin: TargetSession) -> None:
    """After the logout the same client is a stranger again."""
    token = HiddenInputs(admin.get("/admin/").text).values
    assert admin.post("/admin/logout/", data=token).status_code == 200
    assert admin.get("/admin/").status_code == 302


def _messages(session: TargetSession, text: str) -> list[str]:
    """Return the paths of the messages with a text, as the admin's list links them."""
    page = session.get("/admin/compat/message/", params={"q": text})
    assert page.status_code == 200, page.text[:500]
    link = rf'<th[^>]*><a href="(/admin/compat/message/\d+)/change/[^"]*">{re.escape(text)}</a>'
    return re.findall(link, page.text)


def _submit(session: TargetSession, path: str, **fields: str) -> requests.Response:
    page = session.get(path)
    assert page.status_code == 200, page.text[:500]
    return session.post(path, data={**HiddenInputs(page.text).values, **fields})
