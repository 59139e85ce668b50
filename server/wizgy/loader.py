"""From ``module:attr`` to a WSGI application."""

from __future__ import annotations

import importlib
import os
import re
import sys
from types import CoroutineType, ModuleType
from typing import Final, cast

from wizgy import standard
from wizgy.callables import ATTRIBUTES, find_objection
from wizgy.errors import LoadError, UsageError
from wizgy.standard import keep_standard
from wizgy.wsgi import Application

MISSING: Final = object()

_call_with_arguments = re.compile(r"[^:]+:(?P<call>[^\W\d][\w.]*\(.+\))", re.DOTALL)
_reference = re.compile(r"(?P<module>[^:]+?)(?::(?P<attributes>[^\W\d]\w*(?:\.[^\W\d]\w*)*)(?P<call>\(\))?)?")


def find_start_folder() -> str:
    """The name of the current folder: that of the shell where it is right, so that a link in it can be followed again.

    A release is often reached by a link, as /srv/current, and a deployment makes the link lead elsewhere.
    """
    name = os.environ.get("PWD", "")
    try:
        is_right = os.path.isabs(name) and os.path.samestat(os.stat(name), os.stat(os.curdir))
        if is_right and os.access(name, os.X_OK):
            return name
    except OSError:
        pass  # the variable is an old one
    return os.curdir


def enter_folder(name: str) -> None:
    """Make a folder the current one.

    Args:
        name: what `find_start_folder` gave.

    Raises:
        LoadError: it is gone.
    """
    try:
        os.chdir(name)
        os.getcwd()  # a folder that was removed can be entered by those who are in it
    except PermissionError:
        pass  # who started this process was allowed to, and this user is in it
    except OSError as error:
        place = "The current folder" if name == os.curdir else f"The folder {name}"
        raise LoadError(
            f"{place} is gone ({error.strerror}). Start wizgy in one that stays, or name it with --chdir."
        ) from None


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
    match = _read_reference(reference)
    folder = os.getcwd()
    keep_standard(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = _import(match["module"])
    attributes, application = _find(module, match["attributes"])
    name = f"{match['module']}:{attributes}{match['call'] or ''}"
    if match["call"]:
        application = _call(application, name)
    objection = find_objection(application, name)
    if objection:
        raise LoadError(objection)
    return cast(Application, application)


def _read_reference(reference: str) -> re.Match[str]:
    match = _reference.fullmatch(reference)
    if match is None:
        called = _call_with_arguments.fullmatch(reference)
        if called is not None:
            raise UsageError(
                f"{reference!r} has arguments, and wizgy calls without any, as in flaskapp:create_app(). Make the "
                f"application in a module, as application = {called['call']}, and name that: module:application."
            )
        raise UsageError(
            f"{reference!r} is not of the form module:callable, as in flaskapp:app or flaskapp:create_app()."
        )
    if "/" in match["module"] and not match["module"].endswith(".py"):
        attributes = reference[len(match["module"]) :]
        raise UsageError(
            f"{reference!r} names no module; write {match['module']}.py{attributes} for a file, "
            "or package.module:app for what can be imported."
        )
    return match


def _call(factory: object, name: str) -> object:
    """Call what makes the application."""
    try:
        made: object = factory()  # type: ignore[operator]
    except BaseException as error:  # noqa: BLE001 - whatever a factory does, SystemExit included
        raise LoadError(_explain(f"{name} failed:", error)) from None
    if isinstance(made, CoroutineType):
        made.close()
        raise LoadError(f"{name} returned a coroutine. What makes the application must not be async.")
    return made


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
    if name in sys.modules:  # another module, which others have imported by this name
        name = os.path.basename(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = os.path.dirname(os.path.realpath(path))
    keep_standard(folder)
    sys.path.insert(0, folder)
    spec.loader.exec_module(module)
    return module


def _find(module: ModuleType, attributes: str | None) -> tuple[str, object]:
    """What is named, or else what is there, with its name."""
    if attributes is None:
        for name in ATTRIBUTES:
            if (application := _look_up(module, name)) is not MISSING:
                return name, application
        raise LoadError(
            f"{_describe(module)} has neither 'application' nor 'app'; name one as {module.__name__}:callable."
            f"{_find_hidden(module)}"
        )
    found: object = module
    for name in attributes.split("."):
        found = _look_up(found, name)
        if found is MISSING:
            hint = _find_hidden(module) or _suggest(module, attributes)
            raise LoadError(f"{_describe(module)} has no {attributes!r}.{hint}")
    return attributes, found


def _describe(module: ModuleType) -> str:
    """A module with the file that it is from: it may be another than is thought."""
    return f"{module.__name__} ({getattr(module, '__file__', None) or 'which has no file'})"


def _find_hidden(module: ModuleType) -> str:
    """A word on a file of the current folder that another module of its name keeps from being imported."""
    name = f"{module.__name__.partition('.')[0]}.py"
    own = getattr(module, "__file__", None)
    if not os.path.isfile(name) or (own is not None and os.path.realpath(own).startswith(os.path.realpath(os.curdir))):
        return ""
    return f" It hides the {name} of this folder, which needs another name."


def _suggest(module: ModuleType, attributes: str) -> str:
    """What may have been meant: a callable of a similar name, else one of the usual name."""
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    near = standard.difflib.get_close_matches(attributes, names, n=1) or [name for name in ATTRIBUTES if name in names]
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
    lines = standard.traceback.format_exception(type(error), error, trace)
    return f"{text}\n{''.join(lines).rstrip()}"


def _is_ours(filename: str) -> bool:
    return filename == __file__ or "importlib" in filename
