"""What a request carries reaches the framework whole: method, query, fields, cookies, body."""

from __future__ import annotations

import json

import pytest
import requests

from tests.contract.helpers import MEBIBYTE, chunks, json_object, pattern, sha256
from tests.harness.target import Target, read_response


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_method(target: Target, method: str) -> None:
    """The request method reaches the app, case and all (PEP 3333, REQUEST_METHOD)."""
    echo = json_object(target.request(method, "/echo"))

    assert echo["method"] == method
    assert echo["path"] == "/echo"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_body_of_any_method(target: Target, method: str, framing: str) -> None:
    """Any method may carry a body, and it reaches the app (RFC 9112 section 6)."""
    body = b"a body of thirty-one bytes, here"
    data = body if framing == "content-length" else chunks(body, 7)
    echo = json_object(target.request(method, "/echo", data=data))

    assert echo["body_length"] == len(body)
    assert echo["body_sha256"] == sha256(body)


def test_query_string(target: Target) -> None:
    """Query parameters reach the app, repeated and empty ones too (PEP 3333, QUERY_STRING)."""
    query = [("multi", "1"), ("multi", "2"), ("empty", ""), ("text", "naïve & fünf = 5+1 ✓")]
    echo = json_object(target.get("/echo", params=query))

    assert echo["query"] == {
        "multi": ["1", "2"],
        "empty": [""],
        "text": ["naïve & fünf = 5+1 ✓"],
    }


def test_no_query_string(target: Target) -> None:
    """A request without a query has no parameters (PEP 3333, QUERY_STRING)."""
    assert json_object(target.get("/echo"))["query"] == {}


def test_header_fields(target: Target) -> None:
    """Field values reach the app without the whitespace around them (RFC 9110 section 5.5)."""
    sent = {"X-Plain": "value", "X-Inner-Space": "two words,  kept", "X-Number-1": "42"}
    headers = json_object(target.get("/echo", headers=sent))["headers"]

    assert headers["x-plain"] == "value"
    assert headers["x-inner-space"] == "two words,  kept"
    assert headers["x-number-1"] == "42"
    assert headers["host"] == target.authority


def test_many_and_long_header_fields(target: Target) -> None:
    """Sixty fields, one of 4000 bytes, are nothing unusual (RFC 9110 section 5.4)."""
    sent = {f"X-Field-{number}": f"value {number}" for number in range(60)}
    sent["X-Long"] = "long" * 1000
    headers = json_object(target.get("/echo", headers=sent))["headers"]

    assert {name: headers.get(name.lower()) for name in sent} == sent


def test_repeated_header_field(target: Target) -> None:
    """Field lines of one name reach the app as one list, in order (RFC 9110 section 5.2)."""
    lines = ["GET /echo HTTP/1.1", f"Host: {target.authority}", "X-Multi: one", "X-Multi: two"]
    with target.connect() as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        status, body = read_response(connection)

    assert status == 200
    value = json.loads(body)["headers"]["x-multi"]
    assert [element.strip() for element in value.split(",")] == ["one", "two"]


def test_cookies(target: Target) -> None:
    """Cookies of the request reach the app, each on its own (RFC 6265 section 4.2)."""
    cookies = {"first": "1", "second": "two", "third": "a-b_c.d"}

    assert json_object(target.get("/echo", cookies=cookies))["cookies"] == cookies


def test_urlencoded_form(target: Target) -> None:
    """Fields of an HTML form reach the app, repeated and empty ones too (PEP 3333, wsgi.input)."""
    fields = [("multi", "1"), ("multi", "2"), ("empty", ""), ("text", "naïve & fünf = 5+1 ✓")]
    echo = json_object(target.post("/echo", data=fields))

    assert echo["form"] == {"multi": ["1", "2"], "empty": [""], "text": ["naïve & fünf = 5+1 ✓"]}
    assert echo["headers"]["content-type"] == "application/x-www-form-urlencoded"


def test_chunked_form(target: Target) -> None:
    """A chunked form is parsed like any other (RFC 9112 section 7.1.3)."""
    echo = json_object(
        target.post(
            "/echo",
            data=chunks(b"multi=1&multi=2&text=hello", 5),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
    )

    assert echo["form"] == {"multi": ["1", "2"], "text": ["hello"]}


def test_multipart_form(target: Target) -> None:
    """Fields of a multipart form reach the app, and so does the body's every byte (RFC 7578)."""
    fields = {"text": (None, "naïve ✓"), "other": (None, "two\r\nlines")}
    request = requests.Request("POST", f"{target.url}/echo", files=fields).prepare()
    assert isinstance(request.body, bytes)
    echo = json_object(
        target.post("/echo", data=request.body, headers={"Content-Type": request.headers["Content-Type"]})
    )

    assert echo["form"] == {"text": ["naïve ✓"], "other": ["two\r\nlines"]}
    assert echo["body_sha256"] == sha256(request.body)


def test_json(target: Target) -> None:
    """A JSON body reaches the app byte by byte, with its media type (PEP 3333, CONTENT_TYPE)."""
    body = json.dumps({"text": "naïve ✓", "list": [1, 2.5, None]}).encode()
    headers = {"Content-Type": "application/json; charset=utf-8"}
    echo = json_object(target.post("/echo", data=body, headers=headers))

    assert echo["headers"]["content-type"] == "application/json; charset=utf-8"
    assert echo["body_sha256"] == sha256(body)
    assert echo["form"] == {}


def test_no_body(target: Target) -> None:
    """A request with no framing field has no body (RFC 9112 section 6.3, item 7)."""
    echo = json_object(target.get("/echo"))

    assert echo["content_length"] is None
    assert echo["body_length"] == 0
    assert echo["body_sha256"] == sha256(b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_empty_body(target: Target, method: str) -> None:
    """A body with a Content-Length of 0 is an empty one (RFC 9110 section 8.6)."""
    echo = json_object(target.request(method, "/echo", headers={"Content-Length": "0"}))

    assert echo["content_length"] == 0
    assert echo["body_length"] == 0
    assert echo["body_sha256"] == sha256(b"")


def test_empty_chunked_body(target: Target) -> None:
    """A chunked body may consist of the last chunk alone (RFC 9112 section 7.1)."""
    echo = json_object(target.post("/echo", data=chunks(b"", 1)))

    assert echo["body_length"] == 0
    assert echo["body_sha256"] == sha256(b"")


@pytest.mark.parametrize("length", [1, 8192, 65536, 3 * MEBIBYTE + 1])
def test_fixed_length_body(target: Target, length: int) -> None:
    """A body of a given Content-Length reaches the app whole (RFC 9112 section 6.2)."""
    body = pattern(length)
    echo = json_object(target.post("/echo", data=body))

    assert echo["content_length"] == length
    assert echo["body_length"] == length
    assert echo["body_sha256"] == sha256(body)


@pytest.mark.parametrize(
    ("length", "chunk_size"),
    [(1, 1), (300, 1), (8192, 4096), (65537, 1000), (3 * MEBIBYTE + 1, 65536)],
)
def test_chunked_body(target: Target, length: int, chunk_size: int) -> None:
    """A chunked body reaches the app whole, however it is cut (RFC 9112 section 7.1.3)."""
    body = pattern(length)
    echo = json_object(target.post("/echo", data=chunks(body, chunk_size)))

    assert echo["body_length"] == length
    assert echo["body_sha256"] == sha256(body)


def test_chunked_body_has_a_length_for_the_app(target: Target) -> None:
    """A decoded body has a Content-Length and no transfer coding (RFC 9112 section 7.1.3)."""
    echo = json_object(target.post("/echo", data=chunks(b"0123456789", 3)))

    assert echo["content_length"] == 10
    assert "transfer-encoding" not in echo["headers"]


def test_expect_continue(target: Target) -> None:
    """A request that expects 100 (Continue) gets its final answer (RFC 9110 section 10.1.1)."""
    echo = json_object(target.post("/echo", data=b"body", headers={"Expect": "100-continue"}))

    assert echo["body_sha256"] == sha256(b"body")


def test_upload(target: Target) -> None:
    """Uploaded files keep their order, names, types and bytes (RFC 7578 section 4)."""
    files = [
        ("document", ("plain.txt", b"some text\r\n", "text/plain")),
        ("document", ("naïve name.bin", pattern(70000), "application/octet-stream")),
        ("other", ("empty.html", b"", "text/html")),
    ]
    response = target.post("/upload", files=files, data={"note": "a field, not a file"})

    assert response.status_code == 200, response.text[:500]
    assert response.json() == [
        {
            "field": field,
            "filename": filename,
            "content_type": content_type,
            "size": len(content),
            "sha256": sha256(content),
        }
        for field, (filename, content, content_type) in files
    ]


def test_large_upload(target: Target) -> None:
    """A file of 3 MiB, which frameworks spool to disk, arrives whole (PEP 3333, wsgi.input)."""
    content = pattern(3 * MEBIBYTE)
    response = target.post("/upload", files={"file": ("large.bin", content)})

    assert response.status_code == 200, response.text[:500]
    (uploaded,) = response.json()
    assert uploaded["size"] == len(content)
    assert uploaded["sha256"] == sha256(content)
