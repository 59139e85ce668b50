"""The application of a framework, loaded in process and held to PEP 3333."""

from __future__ import annotations

import gc
import importlib
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING
from wsgiref.validate import validator

import pytest

from tests.control.client import Client
from tests.harness.frameworks import Framework

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


@pytest.fixture(scope="module")
def unchecked_application(framework: Framework) -> Iterator[WSGIApplication]:
    """The app of `--framework` alone."""
    module, _, attribute = framework.application.partition(":")
    sys.path.insert(0, str(framework.directory))
    loaded: WSGIApplication = getattr(importlib.import_module(module), attribute)
    yield loaded
    # WebOb leaves its temporary files to the garbage collector: let no later test see the warning.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del loaded
        gc.collect()


@pytest.fixture(scope="module")
def application(unchecked_application: WSGIApplication) -> WSGIApplication:
    """The app of `--framework`, wrapped in the standard library's validator."""
    return validator(unchecked_application)


@pytest.fixture
def client(application: WSGIApplication) -> Client:
    """A client of the app, with an empty cookie jar."""
    return Client(application)
