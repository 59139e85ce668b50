"""Why the server answered by itself, or did not talk to a client at all: told in the error log.

Rules of this file:

- Each kind of refusal is logged a few times a minute; then only how many there were. A flood of them costs little.
- A refusal is the client's doing, and is logged as information. What the server lacks is a warning.
"""

from __future__ import annotations

from typing import Final

from wizgy.http.request import RequestHead
from wizgy.log import ErrorLog
from wizgy.logline import escape
from wizgy.throttle import Throttle

MOST_ALIKE: Final = 5
"""Refusals of a kind to log in each minute."""


class Refusals:
    """What a process has refused.

    Args:
        errors: the error log.
    """

    def __init__(self, errors: ErrorLog) -> None:
        self._errors = errors
        self._throttle = Throttle(MOST_ALIKE)

    def note(
        self,
        client: tuple[str, str],
        status: int,
        reason: str,
        *,
        head: RequestHead | None = None,
        request_id: str = "",
        begin: str = "",
        fault: str = "",
    ) -> None:
        """Log that a request was refused.

        Args:
            client: the client's address and port.
            status: the status code of the response.
            reason: a sentence that says why; one of a bounded number.
            head: the request head, as far as it was read.
            request_id: the id of the request.
            begin: what the client sent in place of a request line.
            fault: what the server lacks, where it is at fault; for the log alone.
        """
        if not self._throttle.admits(reason):
            return
        text = f"{_name(client)} was answered with {status}: {reason}"
        if fault:
            text += f" ({fault})"
        if head is None and begin:
            text += f' It began with "{escape(begin)}".'
        self._errors.report(text, head=head, request_id=request_id, level="warning" if fault else "info")

    def note_handshake(self, client: tuple[str, str], reason: str) -> None:
        """Log that a client and the server could not agree on TLS."""
        if self._throttle.admits(f"No TLS: {reason}"):
            self._errors.info("No TLS with %s: %s", _name(client), reason)

    def tell_withheld(self, *, early: bool = False) -> None:
        """Log how many refusals were not logged, once their minute is over.

        Args:
            early: whether to do so before it is over, since the server stops.
        """
        for reason, count in self._throttle.take_withheld(early=early).items():
            self._errors.info("%d more within a minute: %s", count, reason)


def _name(client: tuple[str, str]) -> str:
    address, port = client
    if not address:
        return "A client without an address"
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}" if port else host
