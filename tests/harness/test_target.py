"""The target of the tests: its URL, and waiting for it."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.harness.target import TargetError, split_url, wait_accepting


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8881", ("127.0.0.1", 8881)),
        ("http://flask:8888/", ("flask", 8888)),
        ("http://[::1]:8888", ("::1", 8888)),
        ("http://localhost", ("localhost", 80)),
    ],
)
def test_url(url: str, address: tuple[str, int]) -> None:
    """A target is named by an http URL with a host and perhaps a port."""
    assert split_url(url) == address


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:80", "https://h", "http://", "http://h/path", "http://h?query", "http://h:port"],
)
def test_unusable_url(url: str) -> None:
    """Any other URL is refused with a message that says what was expected."""
    with pytest.raises(TargetError, match="expected http://HOST:PORT"):
        split_url(url)


def test_nothing_listens() -> None:
    """Waiting for a target that never comes ends at the deadline, and says what to do."""
    with socket.socket() as bound:
        # Bound, but not listening: nothing else can take the port meanwhile.
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(TargetError, match=r"within 0\.2 s .*; start the server first"):
            wait_accepting(url, 0.2)


def test_target_that_comes_late() -> None:
    """Waiting ends as soon as the target accepts connections."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        timer = threading.Timer(0.2, server.listen)
        timer.start()
        wait_accepting(f"http://127.0.0.1:{server.getsockname()[1]}", 10)
        timer.join()
