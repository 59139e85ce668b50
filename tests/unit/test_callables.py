"""What can be a WSGI application, and what cannot: told from its form, with the line to write instead."""

from __future__ import annotations

import functools
import unittest.mock
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from wizgy.callables import find_objection


def plain(environ: Any, start_response: Any) -> Any:
    """An application."""


def with_more(environ: Any, start_response: Any, extra: int = 0) -> Any:
    """An application with an option."""


def with_defaults(environ: Any = None, start_response: Any = None) -> Any:
    """An application whose arguments have defaults."""


def open_function(*args: Any, **more: Any) -> Any:
    """Takes anything."""


def needs_option(environ: Any, start_response: Any, *, option: int) -> Any:
    """Cannot be called without an option."""


def three(settings: Any, environ: Any, start_response: Any) -> Any:
    """An application that lacks its settings."""


def view(request: Any) -> Any:
    """What a framework calls."""


@functools.wraps(view)
def adapted(*args: Any) -> Any:
    """An application that says it were a view."""


class Instance:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...

    def handle(self, environ: Any, start_response: Any) -> Any: ...

    @classmethod
    def of_class(cls, environ: Any, start_response: Any) -> Any: ...


class Static:
    @staticmethod
    def __call__(environ: Any, start_response: Any) -> Any: ...


class OnRequest:
    """An application as a class, as PEP 3333 shows it."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        yield b""


class OfNew:
    def __new__(cls, environ: Any, start_response: Any) -> Any:
        return [b""]


class Meta(type):
    def __call__(cls, environ: Any, start_response: Any) -> Any:
        return [b""]


class OfMeta(metaclass=Meta):
    pass


class Proxy:
    """What looks everything up in another object."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("looked up too early")

    __call__ = property(lambda self: plain)


ACCEPTED: dict[str, Any] = {
    "a function": plain,
    "a lambda": lambda e, s: [],
    "more with a default": with_more,
    "defaults": with_defaults,
    "any arguments": open_function,
    "a decorator that keeps another signature": adapted,
    "an instance": Instance(),
    "a bound method": Instance().handle,
    "a class method": Instance.of_class,
    "a static __call__": Static(),
    "a partial": functools.partial(three, {}),
    "a partial by name": functools.partial(three, settings={}),
    "a partial of an instance": functools.partial(Instance()),
    "a class that is iterated": OnRequest,
    "a class with __new__": OfNew,
    "a metaclass": OfMeta,
    "a subclass of a list": type("Pieces", (list,), {}),
    "a C function": print,
    "a C callable": functools.lru_cache(plain),
    "a mock": unittest.mock.Mock(),
    "a proxy": Proxy(),
}


@pytest.mark.parametrize("candidate", ACCEPTED.values(), ids=ACCEPTED)
def test_what_may_be_an_application(candidate: Any) -> None:
    """Nothing that could serve a request is refused (PEP 3333, "The Application/Framework Side")."""
    assert find_objection(candidate, "module:app") == ""


def create() -> Any:
    """A factory."""


def create_with_options(config: Any = None, testing: bool = False) -> Any:
    """A factory with options."""


def create_with_settings(**settings: Any) -> Any:
    """A factory with any options."""


def create_with_name(name: str) -> Any:
    """A factory with an argument."""


async def coroutine(environ: Any, start_response: Any) -> Any:
    """WSGI's arguments, and no WSGI."""


async def generator(environ: Any, start_response: Any) -> Any:
    """An asynchronous generator."""
    yield b""


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """ASGI."""


def old_asgi(scope: Any) -> Any:
    """ASGI of two calls."""


def plain_asgi(scope: Any, receive: Any, send: Any) -> Any:
    """ASGI in a function that is not asynchronous."""


class ASGIInstance:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class App:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class Framework:
    def __init__(self, name: str, folder: str = "") -> None: ...

    def __call__(self, environ: Any, start_response: Any) -> Any: ...


@dataclass
class Record:
    name: str
    size: int


REFUSED: dict[str, tuple[Any, str]] = {
    "a factory": (create, "Write module:app()."),
    "a factory with options": (create_with_options, "Write module:app()."),
    "a factory with settings": (create_with_settings, "Write module:app()."),
    "a lambda without arguments": (lambda: plain, "Write module:app()."),
    "a bound factory": (functools.partial(create_with_name, "x"), "Write module:app()."),
    "a factory with an argument": (create_with_name, "takes the arguments (name)."),
    "a view": (view, "takes the arguments (request)."),
    "an option without a default": (needs_option, "takes the arguments (environ, start_response)."),
    "an unbound method": (Instance.handle, "Name the method of an instance."),
    "a coroutine function": (coroutine, "is a coroutine function (async def)"),
    "an asynchronous generator": (generator, "is a coroutine function (async def)"),
    "ASGI": (asgi, "is an ASGI application"),
    "old ASGI": (old_asgi, "is an ASGI application"),
    "ASGI without async": (plain_asgi, "is an ASGI application"),
    "an ASGI object": (ASGIInstance(), "is an ASGI application"),
    "an ASGI class": (ASGIInstance, "is an ASGI application"),
    "an ASGI method": (ASGIInstance().__call__, "is an ASGI application"),
    "a partial of ASGI": (functools.partial(asgi, {}), "async def"),
    "a class": (App, "Write module:app()."),
    "a class that needs arguments": (Framework, "application = Framework(...)"),
    "a class that is not iterated": (Record, "application = Record(...)"),
    "None": (None, "is of type NoneType, not a WSGI callable"),
    "text": ("module:app", "is of type str, not a WSGI callable"),
}


@pytest.mark.parametrize(("candidate", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_one(candidate: Any, expected: str) -> None:
    """What no request could be served with is named, with what to write instead."""
    objection = find_objection(candidate, "module:app")
    assert objection.startswith("module:app ")
    assert expected in objection


@pytest.mark.parametrize("candidate", [create, App, coroutine])
def test_what_is_handed_over(candidate: Callable[..., Any]) -> None:
    """An application that has no name is called so."""
    assert find_objection(candidate, "").startswith("The application ")
    assert "()." not in find_objection(candidate, "")
