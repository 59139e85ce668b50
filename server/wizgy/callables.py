"""Whether an object can be a WSGI application, from its form alone: nothing of it is called.

Only what cannot be one is refused. Signatures are read from code objects: `inspect` believes ``__wrapped__``, which is
the signature of another function, and takes longer to import than a start should.

Source: PEP 3333, "The Application/Framework Side"
"""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple

WANTED: Final = "A WSGI application takes environ and start_response."
ATTRIBUTES: Final = ("application", "app")
"""What is looked for in a module when no attribute is named."""

_VARIABLE: Final = 0x04
_ASYNCHRONOUS: Final = 0x80 | 0x200
"""Flags of code objects: a function with ``*args``; a coroutine or asynchronous generator (`inspect.CO_VARARGS` and
so on)."""


class Signature(NamedTuple):
    """What a function of Python takes.

    Args:
        names: its positional parameters, without those that are bound.
        required: how many of them have no default.
        is_open: whether it takes any number more.
        needs_keywords: whether it has parameters without defaults that can be given by name only.
        is_async: whether a call makes a coroutine or an asynchronous generator.
    """

    names: tuple[str, ...]
    required: int
    is_open: bool
    needs_keywords: bool
    is_async: bool

    def takes(self, count: int) -> bool:
        """Whether it can be called with so many positional arguments."""
        enough = self.is_open or count <= len(self.names)
        return self.required <= count and enough and not self.needs_keywords


def find_objection(candidate: Any, name: str) -> str:
    """Why an object cannot be a WSGI application, and what to write instead; nothing where it may be one.

    Args:
        candidate: the object.
        name: how it was named, as ``module:attr``; empty where it was handed over.
    """
    subject = name or "The application"
    if not callable(candidate):
        return _object_to_value(candidate, name, subject)
    if isinstance(candidate, type):
        return _object_to_class(candidate, name, subject)
    signature = _read_signature(candidate)
    if signature is None:
        return ""
    # Who writes an application has no use for defaults; a function that makes one has.
    is_factory = isinstance(candidate, FunctionType) and not "".join(signature.names).startswith("env")
    if (
        signature.takes(0)
        and not signature.is_open
        and not signature.is_async
        and (is_factory or not signature.takes(2))
    ):
        return f"{subject} can be called without arguments: does it make the application? {WANTED} {_call(name)}"
    return _object_to_signature(signature, name, subject)


def _object_to_value(value: object, name: str, subject: str) -> str:
    if value is None and name.endswith("()"):
        return f"{subject} returned None. The function must return the application: is a return missing?"
    text = f"{subject} is of type {type(value).__name__}, not a WSGI callable."
    inner = next(
        (attribute for attribute in ATTRIBUTES if isinstance(value, ModuleType) and attribute in vars(value)), ""
    )
    if inner and isinstance(value, ModuleType):
        return f"{text} Did you mean {value.__name__}:{inner}?"
    return f"{text} Name the application itself, or a function that returns it, as module:function()."


def _object_to_signature(signature: Signature, name: str, subject: str) -> str:
    names = signature.names
    if names in (("scope",), ("scope", "receive", "send")) or (
        signature.is_async and signature.takes(3) and not signature.is_open
    ):
        return _advise_asgi(subject)
    if signature.is_async:
        return (
            f"{subject} is a coroutine function (async def), which WSGI does not have. Write it without async, or "
            "use an ASGI server if it is an ASGI application."
        )
    if signature.takes(2):
        return ""
    taken = ", ".join(names) or "keywords"
    if names[:1] in (("self",), ("cls",)):
        return f"{subject} is a method of a class and takes ({taken}). {WANTED} Name the method of an instance."
    return (
        f"{subject} takes the arguments ({taken}). {WANTED} If it makes the application, call it in a module, as "
        f"application = {_last(name) or 'create_app'}(...), and name that: module:application."
    )


def _object_to_class(kind: type, name: str, subject: str) -> str:
    call = _look_up(kind, "__call__")
    if isinstance(call, FunctionType) and _sign(call, 1).is_async:
        return _advise_asgi(subject)
    if type(kind).__call__ is not type.__call__:
        return ""  # what it makes is up to its metaclass
    new, init = _look_up(kind, "__new__"), _look_up(kind, "__init__")
    makes_itself = new is object.__new__
    maker = init if makes_itself else getattr(new, "__func__", new)
    if maker is object.__init__:
        signature = Signature((), 0, False, False, False)
    elif isinstance(maker, FunctionType):
        signature = _sign(maker, 1)
    else:
        return ""
    is_iterable = not makes_itself or any(_look_up(kind, method) for method in ("__iter__", "__getitem__"))
    if signature.takes(2) and is_iterable:
        return ""
    text = f"{subject} is a class, and what it makes is no answer to a request."
    if signature.takes(0):
        return f"{text} {_call(name)}"
    return f"{text} Make the application in a module, as application = {kind.__name__}(...), and name that."


def _advise_asgi(subject: str) -> str:
    return (
        f"{subject} is an ASGI application, and wizgy serves WSGI. Use an ASGI server, or wrap it: "
        "application = a2wsgi.ASGIMiddleware(app)."
    )


def _call(name: str) -> str:
    if not name:
        return "Pass what it returns."
    return f"Write {name}()." if not name.endswith("()") else "Name what it returns in turn."


def _last(name: str) -> str:
    return name.rpartition(":")[2].rpartition(".")[2].removesuffix("()")


def _read_signature(candidate: object) -> Signature | None:
    """What a callable takes, or None where that is not known for certain."""
    if isinstance(candidate, partial):
        inner = _read_signature(candidate.func)
        if inner is None or (candidate.keywords and not inner.is_async):
            return None
        count = len(candidate.args)
        return inner._replace(names=inner.names[count:], required=max(inner.required - count, 0))
    if isinstance(candidate, FunctionType):
        return _sign(candidate, 0)
    if isinstance(candidate, MethodType):
        function = candidate.__func__
        return _sign(function, 1) if isinstance(function, FunctionType) else None
    call = _look_up(type(candidate), "__call__")
    if isinstance(call, (staticmethod, classmethod)):
        return (
            _sign(call.__func__, int(isinstance(call, classmethod)))
            if isinstance(call.__func__, FunctionType)
            else None
        )
    return _sign(call, 1) if isinstance(call, FunctionType) else None


def _sign(function: FunctionType, bound: int) -> Signature:
    code = function.__code__
    names = code.co_varnames[bound : code.co_argcount]
    by_name = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    defaults = function.__kwdefaults__ or {}
    return Signature(
        names,
        max(len(names) - len(function.__defaults__ or ()), 0),
        bool(code.co_flags & _VARIABLE),
        any(name not in defaults for name in by_name),
        bool(code.co_flags & _ASYNCHRONOUS),
    )


def _look_up(kind: type, name: str) -> object:
    """An attribute of a class as it is written there, or None; no code of the class runs."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
