"""What a reload renews: the settings and the listening sockets."""

from __future__ import annotations

from dataclasses import dataclass

from wizgy.config import Config
from wizgy.listeners import Listener, open_listener


@dataclass(eq=False)
class Generation:
    """The settings that workers are started with. Each loads the application as it is when it starts.

    Args:
        config: the settings.
        listeners: the listening sockets, in the order of `config.bind`.
    """

    config: Config
    listeners: list[Listener]


def open_generation(config: Config, before: Generation | None = None) -> Generation:
    """Listen on every address of the settings.

    Args:
        config: the settings.
        before: what is in force. Where an address is the same its socket stays open: nobody is refused meanwhile.

    Raises:
        BindError: an address cannot be listened on. What was opened for nothing is closed.
    """
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
        discard(opened)
        raise
    return Generation(config, listeners)


def discard(listeners: list[Listener]) -> None:
    """Close listening sockets for good."""
    for listener in listeners:
        listener.close()
        listener.remove()
