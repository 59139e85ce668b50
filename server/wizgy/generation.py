"""What a reload renews: the settings and the listening sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wizgy.addresses import TCPAddress, parse_address
from wizgy.config import Config
from wizgy.errors import BindError
from wizgy.listeners import Listener, find_purpose, open_listeners
from wizgy.log import logger

if TYPE_CHECKING:
    from ssl import SSLContext


class Generation:
    """The settings that workers are started with. Each loads the application as it is when it starts.

    Args:
        config: the settings.
        listeners: the listening sockets, in the order of `config.bind`.
        tls: the certificates, or None. All workers have the same keys of session tickets with it.
    """

    def __init__(self, config: Config, listeners: list[Listener], tls: SSLContext | None) -> None:
        self.config = config
        self.listeners = listeners
        self.tls = tls

    def permit(self) -> None:
        """Give the Unix sockets that were taken over the permissions that are in the settings now."""
        addresses = {find_purpose(address, ()): parse_address(address) for address in self.config.bind}
        for listener in self.listeners:
            if listener.is_unix and listener.purpose in addresses:
                try:
                    listener.permit(addresses[listener.purpose])
                except (OSError, ValueError) as error:
                    logger.warning("%s keeps its permissions: %s.", listener.host, error)


def open_generation(config: Config, before: Generation | None = None) -> Generation:
    """Read the certificates, and listen on every address of the settings.

    Args:
        config: the settings.
        before: what is in force. Where an address is the same its socket stays open: nobody is refused meanwhile.

    Raises:
        UsageError: a certificate or key will not do.
        BindError: an address cannot be listened on. What was opened for nothing is closed.
    """
    tls = read_certificates(config)
    left = list(before.listeners) if before else []
    listeners: list[Listener] = []
    opened: list[Listener] = []
    try:
        for address in config.bind:
            purpose = find_purpose(address, config.bind)
            same = next((listener.siblings for listener in left if listener.purpose == purpose), None)
            if same is None:
                same = _open(address, config, before)
                opened += same
            left = [listener for listener in left if listener not in same]
            listeners += same
    except BaseException:
        withdraw(opened)
        raise
    return Generation(config, listeners, tls)


def _open(address: str, config: Config, before: Generation | None) -> list[Listener]:
    try:
        return open_listeners(address, config.backlog, config.bind)
    except BindError as error:
        parsed = parse_address(address)
        port = parsed.port if isinstance(parsed, TCPAddress) else 0
        if port and before is not None and any(listener.port == port for listener in before.listeners):
            raise BindError(
                f"{error} This server itself has port {port}: to have it elsewhere, stop the server and start it."
            ) from None
        raise


def read_certificates(config: Config) -> SSLContext | None:
    """The certificates of the settings, or None where there are none.

    Raises:
        UsageError: a certificate or key will not do.
    """
    if not config.certfile:
        return None
    from wizgy.certificates import make_context  # not at the top: ssl takes a while to import, and few need it

    return make_context(config)


def withdraw(listeners: list[Listener]) -> None:
    """Close listening sockets; those that were inherited can be listened on again."""
    for listener in listeners:
        listener.close()
        listener.remove()


def discard(listeners: list[Listener]) -> None:
    """Close listening sockets for good."""
    withdraw(listeners)
    for listener in listeners:
        listener.close_inherited()
