"""The environ that an app is called with, and what frameworks rebuild from it."""

from __future__ import annotations

import ipaddress
import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.helpers import chunks, json_object
from tests.harness.target import Target, read_response

REQUIRED_STRINGS = [
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "REMOTE_ADDR",
    "wsgi.url_scheme",
]

REQUIRED_OBJECTS = [
    "wsgi.version",
    "wsgi.input",
    "wsgi.errors",
    "wsgi.multithread",
    "wsgi.multiprocess",
    "wsgi.run_once",
]


def environ_of(target: Target, **options: Any) -> dict[str, Any]:
    """Return the string variables of the environ of `GET /environ`."""
    strings = json_object(target.get("/environ", **options))["strings"]
    assert isinstance(strings, dict)
    return strings


@pytest.mark.parametrize("name", REQUIRED_STRINGS)
def test_required_strings(target: Target, name: str) -> None:
    """The CGI variables are there, as native strings (PEP 3333, environ Variables)."""
    assert name in json_object(target.get("/environ"))["strings"]


@pytest.mark.parametrize("name", REQUIRED_OBJECTS)
def test_required_objects(target: Target, name: str) -> None:
    """The `wsgi.` variables are there (PEP 3333, environ Variables)."""
    assert name in json_object(target.get("/environ"))["types"]


@pytest.mark.parametrize(
    ("name", "type_name"),
    [
        ("wsgi.version", "tuple"),
        ("wsgi.multithread", "bool"),
        ("wsgi.multiprocess", "bool"),
        ("wsgi.run_once", "bool"),
    ],
)
def test_types(target: Target, name: str, type_name: str) -> None:
    """`wsgi.version` is a tuple, and the flags are truth values (PEP 3333, environ Variables)."""
    assert json_object(target.get("/environ"))["types"][name] == type_name


def test_request_line(target: Target) -> None:
    """The request line is taken apart into its variables (PEP 3333, environ Variables)."""
    strings = environ_of(target, params="a=1&b=%20x")

    assert strings["REQUEST_METHOD"] == "GET"
    assert strings["SCRIPT_NAME"] + strings["PATH_INFO"] == "/environ"
    assert strings["QUERY_STRING"] == "a=1&b=%20x"
    assert strings["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert strings["wsgi.url_scheme"] == "http"


def test_protocol_of_an_old_client(target: Target) -> None:
    """SERVER_PROTOCOL is the version that the client sent (PEP 3333, environ Variables)."""
    with target.connect() as connection:
        connection.sendall(b"GET /environ HTTP/1.0\r\nHost: " + target.authority.encode())
        connection.sendall(b"\r\n\r\n")
        status, body = read_response(connection)

    assert status == 200
    assert json.loads(body)["strings"]["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_server_name_and_port(target: Target) -> None:
    """SERVER_NAME and SERVER_PORT are never empty (PEP 3333, environ Variables)."""
    strings = environ_of(target)

    assert strings["SERVER_NAME"]
    assert strings["SERVER_PORT"].isdecimal()
    if target.process is not None:
        # Behind a published port of a container the server knows another one.
        assert int(strings["SERVER_PORT"]) == target.port


def test_remote_address(target: Target) -> None:
    """REMOTE_ADDR is the address of the peer (RFC 3875 section 4.1.8)."""
    remote_address = ipaddress.ip_address(environ_of(target)["REMOTE_ADDR"])

    if target.process is not None:
        # A client of a container is seen as the gateway of its network.
        assert remote_address.is_loopback


def test_content_variables(target: Target) -> None:
    """Content-Type and Content-Length are not among the HTTP_ ones (RFC 3875 section 4.1.18)."""
    headers = {"Content-Type": "text/x-sample; a=b"}
    strings = environ_of(target, data=b"12345", headers=headers)

    assert strings["CONTENT_TYPE"] == "text/x-sample; a=b"
    assert strings["CONTENT_LENGTH"] == "5"
    assert "HTTP_CONTENT_TYPE" not in strings
    assert "HTTP_CONTENT_LENGTH" not in strings


def test_no_content_variables(target: Target) -> None:
    """A request without a body has no length and no type to tell (PEP 3333, environ Variables)."""
    strings = environ_of(target)

    assert strings.get("CONTENT_TYPE", "") == ""
    assert strings.get("CONTENT_LENGTH", "") == ""


def test_chunked_request(target: Target) -> None:
    """A decoded body has its length, and no transfer coding left over (RFC 9112 section 7.1.3)."""
    answer = json_object(target.get("/environ", data=chunks(b"12345", 2)))

    assert answer["strings"].get("CONTENT_LENGTH") == "5"
    assert "HTTP_TRANSFER_ENCODING" not in answer["strings"]
    assert answer["types"].get("wsgi.input_terminated") == "bool"


def test_header_variables(target: Target) -> None:
    """A field is named HTTP_, upper case, with `_` for `-` (RFC 3875 section 4.1.18)."""
    strings = environ_of(target, headers={"X-Some-Field": "value"})

    assert strings["HTTP_X_SOME_FIELD"] == "value"
    assert strings["HTTP_HOST"] == target.authority


def test_ambiguous_names_are_left_out(target: Target) -> None:
    """No name with `_` passes for one with `-`, nor Proxy for a setting (RFC 3875 section 4.1.18)."""
    headers = {"X_Ambiguous": "underscore", "Proxy": "http://proxy.example"}
    strings = environ_of(target, headers=headers)

    assert "HTTP_X_AMBIGUOUS" not in strings
    assert "HTTP_PROXY" not in strings


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [("example.test:8042", "example.test", 8042), ("example.test", "example.test", 80)],
)
def test_url_from_host(target: Target, authority: str, host: str, port: int) -> None:
    """The URL is rebuilt from the Host that the client named (PEP 3333, URL Reconstruction)."""
    url = json_object(target.get("/url", headers={"Host": authority}))

    assert url["scheme"] == "http"
    assert url["host"] == host
    assert url["port"] == port
    assert url["script_name"] == ""
    assert url["path_info"] == "/url"


def test_redirect_keeps_the_host(target: Target) -> None:
    """A redirect leads back to the host that the client named (PEP 3333, URL Reconstruction)."""
    response = target.get("/redirect", headers={"Host": "example.test:8042"})

    assert response.headers["Location"] in ("/hello", "http://example.test:8042/hello")


def test_url_and_address_agree(target: Target) -> None:
    """The framework sees the peer that the server saw (RFC 3875 section 4.1.8)."""
    url = json_object(target.get("/url"))

    assert url["host"] == target.host
    assert url["port"] == target.port
    assert url["remote_addr"] == environ_of(target)["REMOTE_ADDR"]


def test_forwarded_fields_of_a_stranger(target: Target) -> None:
    """Forwarded fields of a peer that is not trusted change nothing (RFC 7239 section 8.1)."""
    forwarded = {
        "Forwarded": "for=203.0.113.9;proto=https;host=forged.test",
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "forged.test",
    }

    assert json_object(target.get("/url", headers=forwarded)) == json_object(target.get("/url"))


@pytest.mark.parametrize("text", ["plain", "naïve", "日本語", "😀", "two words", "100%", "a+b", "x=1&y", "~tilde-._"])
def test_path_segment(target: Target, text: str) -> None:
    """A percent-encoded UTF-8 path segment is decoded exactly once (PEP 3333, Unicode Issues)."""
    assert json_object(target.get(f"/utf8/{quote(text, safe='')}"))["text"] == text
