"""What systemd gives a service, and what it is told: sockets that are open already, and notifications.

Nothing here needs systemd: without its variables in the environment nothing happens.

Source: sd_listen_fds(3), sd_notify(3)
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from typing import Final

from wizgy.config import Config
from wizgy.log import logger
from wizgy.primitives import monotonic

FIRST_DESCRIPTOR: Final = 3
"""SD_LISTEN_FDS_START."""
SHORTEST_PAUSE: Final = 0.01
"""Seconds between two signs of life, however impatient the watchdog."""


def inherited_sockets(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The addresses, as ``--bind`` has them, of the sockets that systemd has opened for this very process."""
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    return [f"fd:{FIRST_DESCRIPTOR + number}" for number in range(int(count))]


def bind_inherited(config: Config, environment: Mapping[str, str] = os.environ) -> Config:
    """Listen on what systemd has opened, where nobody says another address.

    Args:
        config: the settings.
        environment: the environment variables.
    """
    inherited = inherited_sockets(environment)
    if inherited and config.source("bind") == "default":
        return config.replace(bind=tuple(inherited))
    for address in inherited:
        if address not in config.bind:
            logger.warning("systemd has opened %s, which no --bind names: nobody answers there.", address)
    return config


class Notifier:
    """Tells systemd how the service is.

    Args:
        environment: the environment variables.

    Attributes:
        alive_at: when `alive` is to be called next, in seconds of the monotonic clock.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # @: an abstract one
        interval = environment.get("WATCHDOG_USEC", "")
        for_us = environment.get("WATCHDOG_PID") in (None, str(os.getpid()))
        is_watched = for_us and interval.isascii() and interval.isdigit() and int(interval) > 0
        self._pause = max(int(interval) / 2e6, SHORTEST_PAUSE) if is_watched else math.inf
        self.alive_at = monotonic() + self._pause

    def ready(self, status: str) -> None:
        """It serves, or a reload has come to its end."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(monotonic() * 1e6)}", "STATUS=Reloading.")

    def stopping(self) -> None:
        """It finishes what it has begun."""
        self._send("STOPPING=1", "STATUS=Finishing what it has begun.")

    def alive(self) -> None:
        """It is alive, where systemd wants to know (WatchdogSec=); twice in the time that it waits."""
        now = monotonic()
        if now >= self.alive_at:
            self.alive_at = now + self._pause
            self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            logger.debug("systemd cannot be told %s: %s", assignments[0], error)
