"""A connection that a proxy may have made for somebody else.

Rules of this file:

- What is said of somebody else counts only from a peer that `--trust-proxy` names.
- With `--proxy-protocol` a connection begins with a preamble, from a trusted peer, or it is closed. From then on the
  client that the preamble tells is the peer: its Forwarded and X-Forwarded-* count where it is trusted too. Where the
  preamble tells of no client, they never count.
- The application sees what the client sees: its address, the scheme, host and port that it asked for, and the path
  that a proxy took off the front.
"""

from __future__ import annotations

from collections.abc import Mapping

from wizgy.config import Config
from wizgy.connection import Connection, Service
from wizgy.http.forwarded import DEFAULT_PORTS, Origin, Trust, find_origin, split_host
from wizgy.http.request import FORWARDED_FIELDS, FieldSection, RequestHead, RequestLine, is_forwarded
from wizgy.log import logger
from wizgy.proxy import MalformedPreamble, Preamble, parse_preamble
from wizgy.throttle import Throttle
from wizgy.transport import Transport
from wizgy.wsgi import Environ, cgi_name, environ_of_fields


class Front:
    """What the connections of a process share that concerns proxies.

    Args:
        config: the settings.
    """

    def __init__(self, config: Config) -> None:
        self.trust = Trust(config.trust_proxy)
        self.forwarded_fields = frozenset(config.forwarded_fields)
        self.left_out = frozenset(FORWARDED_FIELDS) - self.forwarded_fields
        self.keep_forwarded = config.keep_forwarded
        self.proxy_protocol = config.proxy_protocol
        self._throttle = Throttle()

    def notice(self, peer: str, why: str) -> None:
        """Log that a connection was closed, now and then: a stranger may make any number of them."""
        if self._throttle.admits():
            logger.warning("A connection of %s was closed: %s", peer or "the Unix socket", why)


class ProxiedConnection(Connection):
    """One accepted socket, whose peer may be a proxy.

    Args:
        front: what such connections share.
        service: what all connections share.
        sock: the socket, not blocking.
        client: the peer's address and port as text; both empty for a Unix socket.
        environ: the part of `environ` that is the same for every request of this listener.

    Attributes:
        trusted: whether the peer that wrote the requests is a trusted proxy.
    """

    __slots__ = ("_front", "_peer", "_preamble", "_told", "_told_client", "_told_fields", "trusted")

    def __init__(
        self, front: Front, service: Service, sock: Transport, client: tuple[str, str], environ: Environ
    ) -> None:
        super().__init__(service, sock, client, environ)
        self._front = front
        self._peer = client
        self._preamble: bytearray | None = bytearray() if front.proxy_protocol else None  # what came of it so far
        self._told: Environ = {}  # what trusted proxies tell, in the last header section
        self._told_client = client  # who made the request, by that
        self._told_fields: FieldSection | None = None  # that header section
        self.trusted = front.trust.includes(client[0])

    # Called by the owner.
    def advance(self) -> bool:
        """Do what can be done without waiting.

        Returns:
            Whether the application is due: `respond` should be called.
        """
        if self._preamble is not None and not self._read_preamble(self._preamble):
            return False
        return super().advance()

    # Any thread may call it.
    def is_idle(self) -> bool:
        """Whether no byte of a request, or of what goes before it, has come since the last answer."""
        return not self._preamble and super().is_idle()

    def _read_preamble(self, received: bytearray) -> bool:
        """Read until the preamble is there (True), or more bytes are needed or the connection is closed (False)."""
        self.again = False
        if not self.trusted:
            self._refuse_peer("--proxy-protocol is for proxies that --trust-proxy names, and it is none.")
            return False
        while data := self._receive():
            received += data
            try:
                preamble = parse_preamble(received)
            except MalformedPreamble as error:
                self._refuse_peer(f"{error} Does the proxy send it (send-proxy, proxy_protocol on)?")
                return False
            if preamble is not None:
                self._preamble = None
                self._take_preamble(preamble)
                self._begin(bytes(received[preamble.size :]))
                return True
        self._found_empty()
        return False

    def _refuse_peer(self, why: str) -> None:
        self._front.notice(self._peer[0], why)
        self.close()

    def _take_preamble(self, preamble: Preamble) -> None:
        """Put what it tells in the place of what the socket tells."""
        source = preamble.source
        self.trusted = False
        if source is not None:
            self._client = self._peer = source
            self.trusted = bool(source.address) and self._front.trust.includes(source.address)
        self._environ = environ_of_preamble(self._environ, preamble)

    def _begin(self, received: bytes) -> None:
        """Go on with what came after the preamble."""
        self._buffer += received

    def _begin_request(self, head: RequestHead, *, followed: bool = False) -> None:
        if self.trusted:
            self._head = head  # a refusal looks at it
            if head.fields is not self._told_fields or head.line.authority:
                self._find_origin(head)
            self._client = self._told_client
        super()._begin_request(head, followed=followed)
        if head.line.authority and self._head is head and "HTTP_HOST" in self._told:
            # What proxies tell goes before the target, which is what one of them asked for.
            self._head = head._replace(line=head.line._replace(authority=""))

    def _find_origin(self, head: RequestHead) -> None:
        values = head.fields.values
        if not self._front.left_out.isdisjoint(values):
            names = [name for name in values if name in self._front.left_out]
            self._service.notice_left_out(names, self._peer[0], "If your proxy sets it, add it to --forwarded-fields")
        origin = find_origin(values, self._front.forwarded_fields, self._front.trust.includes)
        host = origin.host or head.line.authority or values.get("host", "")
        self._told_client = origin.client or self._peer
        self._told = environ_of_origin(origin, host, self._environ["wsgi.url_scheme"])
        # The target has a say in it, where it names a host: that is not for the next request.
        self._told_fields = None if head.line.authority else head.fields
        self._environ_fields = None

    def _forget_request(self) -> None:
        super()._forget_request()
        self._client = self._peer  # until the next head tells whose it is

    def _is_secure_enough(self, line: RequestLine) -> bool:
        return self._told.get("wsgi.url_scheme") == "https" or super()._is_secure_enough(line)

    def _environ_of(self, fields: FieldSection) -> Environ:
        if self.trusted:
            return environ_of_fields(self._environ, fields, self._client) | self._told
        if not self._front.keep_forwarded:
            return super()._environ_of(fields)
        kept = {name: value for name, value in fields.values.items() if is_forwarded(name)}
        return environ_of_fields(self._environ, fields, self._client) | environ_of_forwarded(kept)


def environ_of_forwarded(fields: Mapping[str, str]) -> Environ:
    """The keys of Forwarded and X-Forwarded-*; names with ``_`` stay out, as those of other fields do."""
    return {cgi_name(name): value for name, value in fields.items() if "_" not in name}


def environ_of_origin(origin: Origin, host: str, scheme: str) -> Environ:
    """What trusted proxies tell, as the part of `environ` that it changes.

    Args:
        origin: what they tell.
        host: the host that was asked for, by them or by the request itself; may be empty.
        scheme: the scheme of the connection.

    Source: PEP 3333, "URL Reconstruction"
    """
    environ = environ_of_forwarded(origin.fields)
    if origin.prefix:
        environ["SCRIPT_NAME"] = origin.prefix
    if not (origin.scheme or origin.host or origin.port):
        return environ
    if origin.scheme and origin.scheme != scheme:
        scheme = environ["wsgi.url_scheme"] = origin.scheme
        environ["HTTPS"] = "on" if scheme == "https" else "off"
    name, port = split_host(host)
    if name:
        if not port and origin.port and origin.port != DEFAULT_PORTS[scheme]:
            host = f"{name}:{origin.port}"
        environ["HTTP_HOST"] = host
        environ["SERVER_NAME"] = name
    environ["SERVER_PORT"] = origin.port or port or DEFAULT_PORTS[scheme]
    return environ


def environ_of_preamble(environ: Environ, preamble: Preamble) -> Environ:
    """The part of `environ` that is the same for every request of a connection, with what its preamble tells."""
    changed = environ.copy()
    if preamble.destination is not None and preamble.destination.address:
        address, port = preamble.destination
        changed["SERVER_NAME"] = f"[{address}]" if ":" in address else address
        changed["SERVER_PORT"] = port
    if preamble.secure:
        changed["wsgi.url_scheme"], changed["HTTPS"] = "https", "on"
    return changed
