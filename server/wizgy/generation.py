"""What a reload renews: the settings and the listening sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wizgy.config import Config
from wizgy.listeners import Listener, open_listener

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
    taken_over = list(zip(before.config.bind, before.listeners, strict=True)) if before else []
    listeners: list[Listener] = []
    opened: list[Listener] = []
    try:
        for address in config.bind:
            same = next((pair for pair in taken_over if pair[0] == address), None)
            if same is not None:
                taken_over.remove(same)
                listeners.append(same[1])
            else:
                opened.append(open_listener(address, config.backlog))
                listeners.append(opened[-1])
    except BaseException:
        withdraw(opened)
        raise
    return Generation(config, listeners, tls)


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
