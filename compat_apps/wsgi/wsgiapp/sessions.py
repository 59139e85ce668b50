"""A session in a signed cookie, since plain WSGI has none: any worker process can read what another wrote."""

from __future__ import annotations

import hashlib
import hmac
import os

SECRET_KEY = os.environ.get("WSGIAPP_SECRET_KEY", "not a secret: set WSGIAPP_SECRET_KEY").encode()


def signature(value: str) -> str:
    """The proof that this application wrote the value."""
    return hmac.new(SECRET_KEY, value.encode(), hashlib.sha256).hexdigest()


def dump(count: int) -> str:
    """The cookie's value for a count."""
    return f"{count}.{signature(str(count))}"


def load(cookie: str) -> int:
    """The count in a cookie's value; 0 for a value that this application did not sign."""
    count, _, proof = cookie.partition(".")
    return int(count) if hmac.compare_digest(proof.encode(), signature(count).encode()) else 0
