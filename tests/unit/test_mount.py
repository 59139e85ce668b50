"""Applications below a path: --url-prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizgy.mount import mount, raw_path


def ask(prefix: str, target: str, script_name: str = "") -> tuple[str, str, str]:
    """Ask for a target: status, and SCRIPT_NAME and PATH_INFO as the application sees them."""
    seen = ["", ""]
    statuses: list[str] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        seen[:] = environ["SCRIPT_NAME"], environ["PATH_INFO"]
        start_response("200 OK", [])
        return []

    def start_response(status: str, fields: object) -> Callable[[bytes], None]:
        statuses.append(status[:3])
        return lambda data: None

    path = unquote_to_bytes(raw_path(target)).decode("latin-1")
    environ = {"REQUEST_URI": target, "SCRIPT_NAME": script_name, "PATH_INFO": path}
    list(mount(application, prefix)(environ, start_response))
    return statuses[0], seen[0], seen[1]


@pytest.mark.parametrize(
    ("prefix", "target", "script_name", "path_info"),
    [
        ("/app", "/app", "/app", ""),
        ("/app", "/app/", "/app", "/"),
        ("/app", "/app?x=/y", "/app", ""),
        ("/app", "/app/x/y?z", "/app", "/x/y"),
        ("/app", "/app//x", "/app", "//x"),
        ("/app", "/app/a%2Fb", "/app", "/a/b"),
        ("/app", "/app/%", "/app", "/%"),
        ("/app", "/%61pp/x", "/app", "/x"),
        ("/app", "http://host/app/x", "/app", "/x"),
        ("/a/b", "/a/b/c", "/a/b", "/c"),
        ("/caf\xe9", "/caf%c3%A9/x", "/caf\xc3\xa9", "/x"),
        ("/caf%C3%A9", "/caf%c3%a9/%E2%82%AC", "/caf\xc3\xa9", "/\xe2\x82\xac"),
    ],
)
def test_below(prefix: str, target: str, script_name: str, path_info: str) -> None:
    """The prefix moves to SCRIPT_NAME, each part decoded once (RFC 3875 section 4.1.13)."""
    assert ask(prefix, target) == ("200", script_name, path_info)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/ap",
        "/apple",
        "/APP",
        "//app",
        "/x/app",
        "/app%2Fx",
        "/%2Fapp",
        "/x/../app",
        "/app%",
        "/app%3Fx",
        "http://app",
    ],
)
def test_outside(target: str) -> None:
    """What is not below the prefix is not found, and the application does not see it."""
    assert ask("/app", target) == ("404", "", "")


def test_prefix_of_a_proxy_comes_first() -> None:
    """A prefix that a proxy took off stands before the server's own."""
    assert ask("/app", "/app/x", "/outer") == ("200", "/outer/app", "/x")


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=4))
def test_the_whole_path_is_kept(segments: list[bytes]) -> None:
    """SCRIPT_NAME and PATH_INFO together are the whole path (PEP 3333, "environ Variables")."""
    target = "/app/" + "/".join("".join(f"%{byte:02x}" for byte in segment) for segment in segments)
    status, script_name, path_info = ask("/app", target)
    assert status == "200"
    assert script_name + path_info == unquote_to_bytes(target).decode("latin-1")
