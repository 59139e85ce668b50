"""From ``module:attr`` to a WSGI application."""

from __future__ import annotations

import importlib
import os
import re
import sys
from types import ModuleType
from typing import Final, cast

from wizgy.errors import LoadError, UsageError
from wizgy.wsgi import Application

ATTRIBUTES: Final = ("application", "app")
"""What is looked for in a module when no attribute is named."""

MISSING: Final = object()

_reference = re.compile(r"(?P<module>[^:]+?)(?::(?P<attributes>[^\W\d]\w*(?:\.[^\W\d]\w*)*)(?P<call>\(\))?)?")


def load_application(reference: str) -> Application:
    """Import a WSGI application.

    Args:
        reference: ``module:attr``, ``module:attr.attr``, ``module:factory()``, ``module`` or
            ``path/to/file.py:attr``. The current folder is importable.

    Raises:
        UsageError: the reference has another form.
        LoadError: the module cannot be imported, has no such attribute, or it is not callable. Its text holds
            the traceback of an application that failed.
    """
    match = _reference.fullmatch(reference)
    if match is None:
        raise UsageError(
            f"{reference!r} is not of the form module:callable, as in flaskapp:app or flaskapp:create_app()."
        )
    if "/" in match["module"] and not match["module"].endswith(".py"):
        attributes = reference[len(match["module"]) :]
        raise UsageError(
            f"{reference!r} names no module; write {match['module']}.py{attributes} for a file, "
            "or package.module:app for what can be imported."
        )
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = _import(match["module"])
    application = _find(module, match["attributes"])
    if match["call"]:
        try:
            application = application()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - whatever a factory does, SystemExit included
            raise LoadError(_explain(f"{reference} failed:", error)) from None
    if not callable(application):
        raise LoadError(
            f"{reference} is of type {type(application).__name__}, not a WSGI callable. Name the application itself, "
            "or a function that returns it, as module:function()."
        )
    return cast(Application, application)


def _import(name: str) -> ModuleType:
    try:
        if name.endswith(".py"):
            return _import_file(name)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise LoadError(
                f"There is no module {name!r} in {os.getcwd()} or among the installed packages. "
                "Name another, or the folder that it is in with --chdir."
            ) from None
        raise LoadError(_explain(f"Importing {name} failed:", error)) from None
    except BaseException as error:  # noqa: BLE001 - whatever a module does when it is imported, SystemExit included
        raise LoadError(_explain(f"Importing {name} failed:", error)) from None


def _import_file(path: str) -> ModuleType:
    import importlib.util  # not at the top: few starts need it

    if not os.path.isfile(path):
        raise LoadError(f"There is no file {path}.")
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    spec.loader.exec_module(module)
    return module


def _find(module: ModuleType, attributes: str | None) -> object:
    if attributes is None:
        for name in ATTRIBUTES:
            if (application := _look_up(module, name)) is not MISSING:
                return application
        raise LoadError(
            f"{module.__name__} has neither 'application' nor 'app'; name one as {module.__name__}:callable."
        )
    found: object = module
    for name in attributes.split("."):
        found = _look_up(found, name)
        if found is MISSING:
            raise LoadError(f"{module.__name__} has no {attributes!r}.{_suggest(module, attributes)}")
    return found


def _suggest(module: ModuleType, attributes: str) -> str:
    """What may have been meant: a callable of a similar name, else one of the usual name."""
    from difflib import get_close_matches  # not at the top: few starts need it

    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    near = get_close_matches(attributes, names, n=1) or [name for name in ATTRIBUTES if name in names]
    return f" Did you mean {module.__name__}:{near[0]}?" if near else ""


def _look_up(owner: object, name: str) -> object:
    """An attribute, or `MISSING`. Looking it up may run code: that of a property, or a module's ``__getattr__``."""
    try:
        return getattr(owner, name)
    except AttributeError:
        return MISSING
    except BaseException as error:  # noqa: BLE001 - whatever the application does, SystemExit included
        raise LoadError(_explain(f"Looking up {name!r} failed:", error)) from None


def _explain(text: str, error: BaseException) -> str:
    """Add the traceback, from the application's own first line on."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    import traceback  # not at the top: it takes a while, and there should be no need

    lines = traceback.format_exception(type(error), error, trace)
    return f"{text}\n{''.join(lines).rstrip()}"


def _is_ours(filename: str) -> bool:
    return filename == __file__ or "importlib" in filename
