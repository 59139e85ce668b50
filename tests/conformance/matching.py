"""Compare received responses with the outcomes that a case accepts. Pure functions, no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.conformance.cases import ExpectedResponse, Outcome
from tests.conformance.reader import Response


def is_status_expected(status: int, patterns: Sequence[str]) -> bool:
    """Tell whether a status matches one of ``"400"`` or ``"4xx"``."""
    return any(
        str(status) == pattern or (pattern.endswith("xx") and str(status)[0] == pattern[0]) for pattern in patterns
    )


def find_differences(expected: ExpectedResponse, response: Response) -> Iterator[str]:
    """Yield in words each way in which a response is not what was expected."""
    if not is_status_expected(response.status, expected.statuses):
        yield f"status {response.status} is not {join_words(expected.statuses)}"
    if expected.version is not None and f"1.{response.minor_version}" != expected.version:
        yield f"the version is HTTP/1.{response.minor_version}, not HTTP/{expected.version}"
    if expected.interim is not None and response.interim != expected.interim:
        yield f"the interim answers are {list(response.interim)}, not {list(expected.interim)}"
    if response.complete != expected.complete:
        yield "the answer is cut short" if expected.complete else "the answer is not cut short"
    if expected.framing is not None and response.framing != expected.framing:
        yield f"the framing is {response.framing}, not {expected.framing}"
    yield from _find_field_differences(expected, response)
    yield from _find_body_differences(expected, response.body)


def _find_field_differences(expected: ExpectedResponse, response: Response) -> Iterator[str]:
    for name, pattern in expected.headers:
        value = response.get_field(name)
        if value is None:
            yield f"the field {name} is missing"
        elif not pattern.fullmatch(value):
            yield f"the field {name} is {value!r}, which does not match {pattern.pattern!r}"
    for name in expected.no_headers:
        value = response.get_field(name)
        if value is not None:
            yield f"the field {name} must not be there; it is {value!r}"


def _find_body_differences(expected: ExpectedResponse, body: bytes) -> Iterator[str]:
    if expected.body is not None and body != expected.body:
        yield f"the body is {shorten(body)}, not {shorten(expected.body)}"
    if expected.body_length is not None and len(body) != expected.body_length:
        yield f"the body has {len(body)} bytes, not {expected.body_length}"
    if expected.body_matches and not expected.body_matches.search(body):
        yield f"{expected.body_matches.pattern!r} is not found in the body {shorten(body)}"
    if expected.body_lacks and (found := expected.body_lacks.search(body)):
        yield f"the body must not contain {shorten(found[0])}"
    if expected.json is not None:
        yield from _find_json_differences(expected.json, body)


def _find_json_differences(expected: Mapping[str, Any], body: bytes) -> Iterator[str]:
    try:
        document = json.loads(body)
    except ValueError:
        yield f"the body is not JSON: {shorten(body)}"
        return
    yield from _compare_json(expected, document, "the JSON body")


def _compare_json(expected: Any, found: Any, place: str) -> Iterator[str]:
    if not isinstance(expected, Mapping):
        if found != expected or isinstance(found, bool) != isinstance(expected, bool):
            yield f"{place} is {found!r}, not {expected!r}"
    elif not isinstance(found, Mapping):
        yield f"{place} is {found!r}, not an object"
    else:
        for key, value in expected.items():
            if key in found:
                yield from _compare_json(value, found[key], f"{place}[{key!r}]")
            else:
                yield f"{place} has no {key!r}"


def find_outcome_differences(outcome: Outcome, responses: Sequence[Response]) -> list[str]:
    """Tell in words why the responses are not those of an outcome; empty when they are."""
    wanted = len(outcome.responses)
    differences = [
        f"answer {number}: {difference}"
        for number, (expected, response) in enumerate(zip(outcome.responses, responses, strict=False), start=1)
        for difference in find_differences(expected, response)
    ]
    if len(responses) != wanted:
        statuses = f" ({', '.join(str(r.status) for r in responses)})" if responses else ""
        differences.append(f"{len(responses)} complete answers{statuses} came, not {wanted}")
    return differences


def describe_outcome(outcome: Outcome) -> str:
    """Describe an acceptable outcome in words."""
    ends = {
        "closed": "then the connection is closed",
        "open": "then the connection answers a further request",
        "any": "the connection may stay open or not",
    }
    if not outcome.responses:
        return f"no answer; {ends[outcome.then]}"
    answers = ", then ".join(describe_response(response) for response in outcome.responses)
    return f"{answers}; {ends[outcome.then]}"


def describe_response(expected: ExpectedResponse) -> str:
    """Describe an expected response in words."""
    details = list(_describe_details(expected))
    return join_words(expected.statuses) + (f" ({'; '.join(details)})" if details else "")


def _describe_details(expected: ExpectedResponse) -> Iterator[str]:
    if expected.head:
        yield "answer to HEAD, no body"
    if expected.version:
        yield f"in HTTP/{expected.version}"
    if expected.interim is not None:
        before = ", ".join(map(str, expected.interim))
        yield f"after {before}" if before else "with no interim answer"
    if not expected.complete:
        yield "cut short"
    if expected.framing:
        yield f"framing {expected.framing}"
    for name, pattern in expected.headers:
        yield f"{name} matches {pattern.pattern}"
    for name in expected.no_headers:
        yield f"no {name}"
    yield from _describe_body(expected)


def _describe_body(expected: ExpectedResponse) -> Iterator[str]:
    if expected.body is not None:
        yield f"body {shorten(expected.body)}"
    if expected.body_length is not None:
        yield f"body of {expected.body_length} bytes"
    if expected.body_matches:
        yield f"body has {expected.body_matches.pattern.decode('latin-1')}"
    if expected.body_lacks:
        yield f"body lacks {expected.body_lacks.pattern.decode('latin-1')}"
    if expected.json is not None:
        yield f"JSON with {json.dumps(expected.json)}"


def join_words(words: Sequence[str]) -> str:
    """Join words as a choice: ``400``, ``400 or 501``, ``400, 404 or 501``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} or {words[-1]}"


def shorten(data: bytes, limit: int = 200) -> str:
    """Show bytes as a literal; of long ones the beginning, the end and the length."""
    if len(data) <= limit:
        return repr(data)
    end = limit // 4
    return f"{data[: limit - end]!r} ... {data[-end:]!r} ({len(data)} bytes)"
