"""When an app raises: the client can tell, learns no secrets, and the server lives on."""

from __future__ import annotations

from itertools import chain

import pytest
import requests

from tests.harness.target import Target

CUT_SHORT = (requests.exceptions.ChunkedEncodingError, requests.ConnectionError)
"""How requests reports that an answer did not end as its framing says."""


def test_error(target: Target) -> None:
    """An exception before the head is answered with 500 (RFC 9110 section 15.6.1)."""
    assert target.get("/error").status_code == 500


def test_error_tells_nothing(target: Target) -> None:
    """The answer to a failed request shows neither a traceback nor what was sent."""
    text = target.get("/error", params={"secret": "hunter2"}).text

    assert "Traceback" not in text
    assert "RuntimeError" not in text
    assert "hunter2" not in text


def test_error_is_for_one_request(target: Target) -> None:
    """After many failures every later request is answered (PEP 3333, Error Handling)."""
    with target.session() as session:
        for _ in range(20):
            assert session.get("/error").status_code == 500
            assert session.get("/hello").text == f"{target.framework.greeting}\n"


def test_error_in_stream(target: Target) -> None:
    """An exception after the head cuts the answer short, and it shows (RFC 9112 section 8)."""
    with target.session() as session:
        response = session.get("/error/stream", stream=True)
        assert response.status_code == 200
        received = bytearray()
        with pytest.raises(CUT_SHORT):
            received.extend(chain.from_iterable(response.iter_content(None)))

    assert b"first chunk\n".startswith(received)


def test_error_in_stream_is_for_one_request(target: Target) -> None:
    """After an answer that was cut short the next request is answered (PEP 3333, Error Handling)."""
    for _ in range(20):
        with pytest.raises(CUT_SHORT):
            target.get("/error/stream")
        assert target.get("/hello").text == f"{target.framework.greeting}\n"
