"""Records in JSON from frozen dataclasses: the checks of the reader and the JSON Schema come from the same fields.

A field is declared with `about()`. Its type says what is read; what `about()` is told says the rest. Types may be
`str`, `int`, `float`, `bool`, a `Literal` of texts, another dataclass, any of these or `None`, or a tuple of any
length of these. The jsonschema package would check the same, and takes many times as long.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

Check: TypeAlias = Callable[[Any], Any]
"""Takes a value of JSON; returns the value of Python, or raises `RecordError`."""

SHOWN = 80
"""Characters of a wrong value that an error shows."""

_Record = TypeVar("_Record")


class RecordError(ValueError):
    """A record is not what it has to be; the message says where, what was expected, and what came.

    Args:
        problem: what was expected, and what came.
        where: the place within the record, as `.exchange.events[0].data`.
    """

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(f"{where}: {problem}")
        self.problem = problem
        self.where = where

    def within(self, outer: str) -> RecordError:
        """Return the same error, seen from further out."""
        return RecordError(self.problem, outer + self.where)


def about(
    description: str,
    *,
    default: Any = dataclasses.MISSING,
    pattern: str | None = None,
    minimum: int | None = None,
) -> Any:
    """Declare a field of a record.

    Args:
        description: what it means, for the schema and its page.
        default: the value that is not written; none: the field has to be there.
        pattern: a regular expression that a text has to match whole.
        minimum: the least that a number may be.
    """
    metadata = {"description": description, "pattern": pattern, "minimum": minimum}
    return dataclasses.field(default=default, metadata=metadata)


def encode(record: Any) -> dict[str, Any]:
    """Return a record as values of JSON, without the fields that have their default."""
    return {
        field.name: _encode_value(value)
        for field in dataclasses.fields(record)
        if (value := getattr(record, field.name)) != field.default
    }


def decode(record_type: type[_Record], values: object, where: str) -> _Record:
    """Return the record that values of JSON stand for.

    Raises:
        RecordError: a field is missing, unknown, of another type, or outside what it may be.
    """
    try:
        record: _Record = _record_check(record_type)(values)
    except RecordError as error:
        raise error.within(where) from None
    return record


def schema_of(record_types: Mapping[str, type[Any]], title: str, description: str) -> dict[str, Any]:
    """Return the JSON Schema of a line that is one of several records, told apart by the text under `record`.

    Args:
        record_types: the records by that text.
        title: the title of the schema.
        description: what the schema describes.
    """
    definitions: dict[str, Any] = {}
    for name, record_type in record_types.items():
        definition = _schema_of_record(record_type, definitions)
        definition["properties"] = {"record": {"const": name}, **definition["properties"]}
        definition["required"] = ["record", *definition["required"]]
        definitions[name] = definition
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in record_types],
        "$defs": dict(sorted(definitions.items())),
    }


@dataclass(frozen=True)
class FieldText:
    """What the page of the schema says about one field."""

    name: str
    type: str
    required: bool
    description: str


def describe(record_type: type[Any]) -> list[FieldText]:
    """Return what is to say about each field of a record."""
    hints = typing.get_type_hints(record_type)
    return [
        FieldText(
            field.name,
            _name_type(hints[field.name]),
            field.default is dataclasses.MISSING,
            field.metadata["description"],
        )
        for field in dataclasses.fields(record_type)
    ]


def _encode_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_encode_value(each) for each in value]
    return encode(value) if dataclasses.is_dataclass(value) else value


# Checks


_checks: dict[type[Any], Check] = {}
"""The checks that were made, since a check is made once and used for every line."""


def _record_check(record_type: type[Any]) -> Check:
    if record_type not in _checks:
        _checks[record_type] = _make_record_check(record_type)
    return _checks[record_type]


def _make_record_check(record_type: type[Any]) -> Check:
    hints = typing.get_type_hints(record_type)
    fields = dataclasses.fields(record_type)
    checks = {field.name: _check(hints[field.name], field.metadata) for field in fields}
    required = [field.name for field in fields if field.default is dataclasses.MISSING]

    def check(values: Any) -> Any:
        if not isinstance(values, dict):
            raise _wrong("an object", values)
        for name in required:
            if name not in values:
                raise RecordError(f"the key {name!r} is missing")
        found = {}
        for name, value in values.items():
            if name not in checks:
                raise RecordError(f"there is no key {name!r}; there are: {', '.join(checks)}")
            try:
                found[name] = checks[name](value)
            except RecordError as error:
                raise error.within(f".{name}") from None
        return record_type(**found)

    return check


def _check(hint: Any, metadata: Mapping[str, Any]) -> Check:
    inner, optional = _without_none(hint)
    if dataclasses.is_dataclass(inner) and isinstance(inner, type):
        check = _record_check(inner)
    elif typing.get_origin(inner) is typing.Literal:
        check = _choice_check(typing.get_args(inner))
    elif typing.get_origin(inner) is tuple:
        check = _list_check(_check(typing.get_args(inner)[0], metadata))
    elif inner is str:
        check = _text_check(metadata["pattern"])
    else:
        check = _number_check(inner, metadata["minimum"])
    return (lambda value: None if value is None else check(value)) if optional else check


def _choice_check(choices: tuple[str, ...]) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, str) or value not in choices:
            raise _wrong(f"one of: {', '.join(choices)}", value)
        return value

    return check


def _list_check(check_each: Check) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, list):
            raise _wrong("a list", value)
        found: list[Any] = []
        try:
            for each in value:
                found.append(check_each(each))  # noqa: PERF401 -- its length says where an error is
        except RecordError as error:
            raise error.within(f"[{len(found)}]") from None
        return tuple(found)

    return check


def _text_check(pattern: str | None) -> Check:
    matches = re.compile(pattern).fullmatch if pattern else None

    def check(value: Any) -> Any:
        if not isinstance(value, str):
            raise _wrong("a text", value)
        if matches and not matches(value):
            raise _wrong(f"a text like {pattern}", value)
        return value

    return check


def _number_check(number: type[Any], minimum: int | None) -> Check:
    accepted, name = {bool: ((bool,), "true or false"), int: ((int,), "a whole number")}.get(
        number, ((int, float), "a number")
    )

    def check(value: Any) -> Any:
        if type(value) not in accepted:
            raise _wrong(name, value)
        if minimum is not None and value < minimum:
            raise _wrong(f"{name}, at least {minimum}", value)
        return value

    return check


def _wrong(expected: str, value: object) -> RecordError:
    shown = repr(value)
    shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"
    return RecordError(f"expected {expected}, got {shown}")


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return a type without `None`, and whether `None` was part of it."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    (inner,) = [each for each in typing.get_args(hint) if each is not type(None)]
    return inner, True


# The schema


def _schema_of_record(record_type: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(record_type)
    properties = {}
    for field in dataclasses.fields(record_type):
        properties[field.name] = {
            "description": field.metadata["description"],
            **_schema_of_type(hints[field.name], field.metadata, definitions),
        }
    return {
        "description": (record_type.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip(),
        "type": "object",
        "required": [field.name for field in dataclasses.fields(record_type) if field.default is dataclasses.MISSING],
        "additionalProperties": False,
        "properties": properties,
    }


def _schema_of_type(hint: Any, metadata: Mapping[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    inner, optional = _without_none(hint)
    found: dict[str, Any]
    if dataclasses.is_dataclass(inner) and isinstance(inner, type):
        name = inner.__name__.lower()
        definitions.setdefault(name, _schema_of_record(inner, definitions))
        found = {"$ref": f"#/$defs/{name}"}
    elif typing.get_origin(inner) is typing.Literal:
        found = {"enum": list(typing.get_args(inner))}
    elif typing.get_origin(inner) is tuple:
        found = {"type": "array", "items": _schema_of_type(typing.get_args(inner)[0], metadata, definitions)}
    elif inner is str:
        pattern = metadata["pattern"]
        found = {"type": "string", **({"pattern": f"^(?:{pattern})$"} if pattern else {})}
    else:
        minimum = metadata["minimum"]
        type_name = {bool: "boolean", int: "integer", float: "number"}[inner]
        found = {"type": type_name, **({"minimum": minimum} if minimum is not None else {})}
    return {"anyOf": [found, {"type": "null"}]} if optional else found


def _name_type(hint: Any) -> str:
    inner, optional = _without_none(hint)
    if typing.get_origin(inner) is typing.Literal:
        name = ", ".join(f"`{choice}`" for choice in typing.get_args(inner))
    elif typing.get_origin(inner) is tuple:
        name = f"list of {_name_type(typing.get_args(inner)[0])}"
    elif dataclasses.is_dataclass(inner) and isinstance(inner, type):
        name = f"[{inner.__name__.lower()}](#{inner.__name__.lower()})"
    else:
        name = {str: "text", bool: "true or false", int: "whole number", float: "number"}[inner]
    return f"{name}, or null" if optional else name
