"""``python -m wizgy.healthcheck [URL]``: exits 0 when the URL answers with a 2xx or 3xx status, else 1.

It is for container images, which then need no curl. It reads the settings of the server from where the server reads
them too, but for flags. Without a URL it asks ``/readyz``, which ``wizgy --health`` answers, at the first address.
"""

from __future__ import annotations

import http.client
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from wizgy.addresses import InheritedSocket, UnixAddress, parse_address
from wizgy.config import Config
from wizgy.errors import UsageError
from wizgy.http.forwarded import Trust
from wizgy.sources import make_config

if TYPE_CHECKING:
    import ssl

PATH: Final = "/readyz"
TIMEOUT: Final = 3.0
"""Seconds to wait for the answer."""
PREAMBLE: Final = b"PROXY UNKNOWN\r\n"
"""What a proxy sends that speaks for nobody else (PROXY protocol, section 2.1)."""
ON_THIS_MACHINE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a server is asked that listens everywhere."""
USAGE: Final = f"""\
usage: python -m wizgy.healthcheck [--certfile FILE [--keyfile FILE]] [URL]

Exits 0 when URL answers with a 2xx or 3xx status, else 1. URL is http://..., https://... (certificates are not
verified: it asks its own machine) or unix:PATH. Default: {PATH}, which wizgy --health answers, at the first address
of the settings.

The settings are those of WIZGY_* variables, WIZGY_CONFIG and ./pyproject.toml. With WIZGY_PROXY_PROTOCOL it begins
with a preamble of that protocol; WIZGY_TRUST_PROXY has to name this machine. With WIZGY_CLIENT_CA it shows the
certificate of --certfile, in PEM, else the server's own."""


class Unhealthy(Exception):
    """The server does not answer as it should; the text says how it does."""


class Certificate(NamedTuple):
    """What a client shows of itself.

    Args:
        certfile: a certificate in PEM; empty for none.
        keyfile: its key; empty where the certificate's file holds it.
    """

    certfile: str = ""
    keyfile: str = ""


class Connection(http.client.HTTPConnection):
    """HTTP over TCP or a Unix socket, as the server wants it.

    Args:
        host: the name or address, also for the Host field.
        port: the port; None for that of the scheme.
        path: the path of a Unix socket, which is connected to in place of them; empty for none.
        trust: who may send the preamble of the PROXY protocol, or None where there is to be none.
        context: what to speak TLS with, or None.
    """

    def __init__(
        self, host: str, port: int | None, path: str, trust: Trust | None, context: ssl.SSLContext | None
    ) -> None:
        if context is not None:
            self.default_port = http.client.HTTPS_PORT
        super().__init__(host, port, timeout=TIMEOUT)
        self._path = path
        self._trust = trust
        self._context = context

    def connect(self) -> None:
        """Connect.

        Raises:
            Unhealthy: the server takes no preamble from here.
            OSError: it cannot be connected to.
        """
        if self._path:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(TIMEOUT)
            self.sock.connect(self._path)
        else:
            self.sock = socket.create_connection((self.host, self.port), TIMEOUT)
        if self._trust is not None:
            here = "" if self._path else self.sock.getsockname()[0]
            if not self._trust.includes(here):
                raise Unhealthy(
                    f"takes no connection from here: with WIZGY_PROXY_PROTOCOL, WIZGY_TRUST_PROXY has to name "
                    f"{here or 'unix'} as well"
                )
            self.sock.sendall(PREAMBLE)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)


def default_url(config: Config) -> str:
    """Where a server with these settings can be asked.

    Raises:
        ValueError: that is not known.
    """
    address = parse_address(config.bind[0])
    if isinstance(address, UnixAddress):
        return f"unix:{address.path}"
    if isinstance(address, InheritedSocket):
        raise ValueError("nobody knows from here where that is; give the URL as an argument")
    host = ON_THIS_MACHINE.get(address.host, address.host)
    scheme = "https" if config.certfile else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{address.port}{PATH}"


def check(url: str, config: Config, certificate: Certificate) -> str:
    """Ask `url` once.

    Args:
        url: an http or https URL, or ``unix:`` and the path of a socket, which is asked for ``/readyz``; empty for
            `default_url`.
        config: the settings of the server.
        certificate: what to show of itself.

    Returns:
        What is wrong, or nothing.

    Source: RFC 9110 section 15
    """
    try:
        url = url or default_url(config)
        connection, target = _prepare(url, config, certificate)
    except ValueError as error:
        return f"{url or config.bind[0]!r} is not a URL that can be asked: {error}"
    except OSError as error:
        return f"the certificate to show cannot be read: {error}"
    try:
        connection.request("GET", target, headers={"Connection": "close"})
        status = connection.getresponse().status
    except Unhealthy as error:
        return f"{url} {error}"
    except (OSError, http.client.HTTPException) as error:
        return f"{url} does not answer: {error}{_advise(config, certificate, error)}"
    finally:
        connection.close()
    return "" if 200 <= status < 400 else f"{url} answers {status}"


def _advise(config: Config, certificate: Certificate, error: Exception) -> str:
    """What may be missing where a server ends a connection, or a handshake."""
    if config.client_ca and not isinstance(error, ConnectionRefusedError):
        shown = certificate.certfile or "the server's own certificate"
        return f" (WIZGY_CLIENT_CA wants one that it has signed, and {shown} was shown; give another with --certfile)"
    if isinstance(error, (http.client.RemoteDisconnected, ConnectionResetError)):
        return " (flags of the server are not known here: set WIZGY_PROXY_PROTOCOL, or whatever it is, as variables)"
    return ""


def _prepare(url: str, config: Config, certificate: Certificate) -> tuple[Connection, str]:
    """The connection to open, and what to ask for.

    Raises:
        ValueError: there is no such URL.
        OSError: the certificate cannot be read.
    """
    trust = Trust(config.trust_proxy) if config.proxy_protocol else None
    if url.startswith(("unix:", "fd:")):
        address = parse_address(url)
        if not isinstance(address, UnixAddress):
            raise ValueError("nobody knows from here where that is; give the URL as an argument")
        context = _make_context(config, certificate) if config.certfile else None
        return Connection("localhost", None, address.path, trust, context), PATH
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not host or parts.scheme not in ("http", "https"):
        raise ValueError("expected http://HOST:PORT/PATH, https://HOST:PORT/PATH or unix:PATH")
    context = _make_context(config, certificate) if parts.scheme == "https" else None
    return Connection(host, port, "", trust, context), target


def _make_context(config: Config, certificate: Certificate) -> ssl.SSLContext:
    """What to speak TLS with.

    Raises:
        OSError: the certificate cannot be read.
    """
    import ssl  # not at the top: most servers are asked without

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate.certfile:
        context.load_cert_chain(certificate.certfile, certificate.keyfile or None)
    elif config.client_ca and config.certfile:
        context.load_cert_chain(config.certfile[0], config.keyfile[0] if config.keyfile else None)
    return context


def read_arguments(arguments: Sequence[str]) -> tuple[str, Certificate] | None:
    """The URL, or nothing, and the certificate to show; None where they are not as `USAGE` says."""
    url, values, words = "", {"--certfile": "", "--keyfile": ""}, list(arguments)
    while words:
        flag, equals, value = words.pop(0).partition("=")
        if flag in values and (equals or words):
            values[flag] = value if equals else words.pop(0)
        elif flag.startswith("-") or url:
            return None
        else:
            url = flag + equals + value
    if values["--keyfile"] and not values["--certfile"]:
        return None
    return url, Certificate(values["--certfile"], values["--keyfile"])


def main(arguments: list[str], environment: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns its exit status."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    read = read_arguments(arguments)
    if read is None:
        print(USAGE)
        return 2
    try:
        wrong = check(read[0], make_config({}, None, environment), read[1])
    except UsageError as error:
        wrong = str(error)
    if wrong:
        print(f"wizgy.healthcheck: {wrong}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
