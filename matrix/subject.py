"""What serves at a URL: one request tells whether it is the app that the tests expect."""

from __future__ import annotations

import http.client
import time
from urllib.parse import urlsplit

from matrix.environments import SetupError
from matrix.manifest import Framework

SECONDS = 10.0
"""Seconds for a server to accept a connection, since it may only just have been started, and then to answer."""

ASK_AGAIN_SECONDS = 0.05

READ_BYTES = 4096
"""Bytes of an answer that are read: a greeting is shorter."""

SHOWN = 60


class WrongSubject(SetupError):
    """What serves at a URL is not the app that was named; the message has the question, the answer and what to do."""


def recognise(url: str, framework: Framework, seconds: float = SECONDS) -> None:
    """Ask for the greeting of a framework's app.

    Args:
        url: where it serves.
        framework: whose compat app it has to be.
        seconds: how long to wait for a connection, and then for the answer.

    Raises:
        WrongSubject: nothing serves there, or something else.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise WrongSubject(f"expected http://HOST:PORT, got {url!r}")
    deadline = time.monotonic() + seconds
    while (answer := _ask(parts.hostname, parts.port or 80, seconds)) is None:
        if time.monotonic() > deadline:
            raise WrongSubject(f"nothing answered GET {url}/hello within {seconds:g} s; start the server first")
        time.sleep(ASK_AGAIN_SECONDS)  # nothing tells when a stranger's socket listens
    if answer != f"200 with {framework.greeting!r}":
        raise WrongSubject(
            f"GET {url}/hello was answered {answer}; expected 200 with {framework.greeting!r}, as "
            f"compat_apps/{framework.name} answers: serve that app, or name the one that is served (--framework)"
        )


def _ask(host: str, port: int, seconds: float) -> str | None:
    """Return the answer to one request in words, None where there is no server yet."""
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", "/hello", headers={"Connection": "close"})
        response = connection.getresponse()
        return f"{response.status} with {_shown(_read(response, time.monotonic() + seconds))}"
    except TimeoutError:
        return f"with nothing within {seconds:g} s"
    except http.client.RemoteDisconnected:
        return None
    except http.client.HTTPException as error:
        return f"with what is no HTTP ({type(error).__name__}: {_shown(str(error))})"
    except OSError:
        return None
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse, deadline: float) -> str:
    content = b""
    while len(content) < READ_BYTES and time.monotonic() < deadline and (piece := response.read1(READ_BYTES)):
        content += piece
    return content.decode("utf-8", "backslashreplace").strip()


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
