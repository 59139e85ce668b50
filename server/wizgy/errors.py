"""Every exception of wizgy.

::

    WizgyError
    ├── RequestError            a request that is refused; `status` is the answer's status code
    │   ├── BadRequest                400
    │   ├── RequestTimeout            408
    │   ├── ContentTooLarge           413
    │   ├── UriTooLong                414
    │   ├── ExpectationFailed         417
    │   ├── MisdirectedRequest        421
    │   ├── HeaderFieldsTooLarge      431
    │   ├── NotImplementedHere        501
    │   ├── VersionNotSupported       505
    │   └── InsufficientStorage       507
    ├── ApplicationError        the application broke PEP 3333 (500)
    └── StartError              wizgy cannot start; `exit_code` is the exit status of the process
        ├── UsageError                2
        ├── LoadError                 3
        └── BindError                 4

The text of a `RequestError` goes into the answer, so it says which rule was broken and never repeats
what the client sent. Its cause, where it has one, is the server's fault and goes into the log alone.
"""

from __future__ import annotations


class WizgyError(Exception):
    """The base of every exception that wizgy raises on purpose."""


class RequestError(WizgyError):
    """A request that is refused.

    Attributes:
        status: the status code of the answer.
        must_close: whether the connection must close after it. It always must: once a message could not be
            read, nothing tells where the next one starts.
    """

    status: int = 400
    must_close: bool = True


class BadRequest(RequestError):
    """The bytes are not an HTTP/1 request (RFC 9112 section 3)."""


class RequestTimeout(RequestError):
    """The client was too slow in sending a request that it had begun (RFC 9110 section 15.5.9)."""

    status = 408


class ContentTooLarge(RequestError):
    """The request's content is larger than `max_body` (RFC 9110 section 15.5.14)."""

    status = 413


class UriTooLong(RequestError):
    """The request line is longer than `max_request_line` (RFC 9112 section 3)."""

    status = 414


class ExpectationFailed(RequestError):
    """An expectation other than ``100-continue`` (RFC 9110 section 10.1.1)."""

    status = 417


class MisdirectedRequest(RequestError):
    """The request is for another server, or came on a connection that its scheme forbids (RFC 9110 section 7.4)."""

    status = 421


class HeaderFieldsTooLarge(RequestError):
    """The header section has too many bytes or too many fields (RFC 6585 section 5)."""

    status = 431


class NotImplementedHere(RequestError):
    """A transfer coding or method that wizgy does not implement (RFC 9110 section 15.6.2)."""

    status = 501


class VersionNotSupported(RequestError):
    """A major version other than HTTP/1 (RFC 9110 section 15.6.6)."""

    status = 505


class InsufficientStorage(RequestError):
    """The file system has no room for the request's content (RFC 4918 section 11.5)."""

    status = 507


class ApplicationError(WizgyError):
    """The application broke a rule of PEP 3333, so its answer cannot be sent."""

    status: int = 500
    must_close: bool = False


class StartError(WizgyError):
    """wizgy cannot start.

    Attributes:
        exit_code: the exit status of the ``wizgy`` command.
    """

    exit_code: int = 2


class UsageError(StartError):
    """A setting that is unknown, malformed or contradictory."""


class LoadError(StartError):
    """The application could not be imported or found."""

    exit_code = 3


class BindError(StartError):
    """A listening socket could not be made."""

    exit_code = 4
