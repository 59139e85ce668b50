"""Certificates and their keys: files to what TLS needs, and which certificate is for which name.

Rules of this file:

- TLS 1.2 at least, HTTP/1.1 by ALPN, no renegotiation.
- RFC 6066 section 3: a client names the host that it wants, and gets the certificate for it, else the first one.
- RFC 9525 section 6.3: a certificate is for the DNS names among its subject alternative names; ``*`` stands for one
  whole label at the left. The common name is not looked at.
- What is wrong with a file is said with its name and what to do.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from wizgy.config import Config
from wizgy.errors import UsageError

SUBJECT_ALT_NAME: Final = bytes((0x06, 0x03, 0x55, 0x1D, 0x11))
"""The extension's identifier, 2.5.29.17, in DER."""
_usual_hook: Final = sys.unraisablehook
_SEQUENCE, _OCTET_STRING, _EXTENSIONS, _DNS_NAME = 0x30, 0x04, 0xA3, 0x82


def make_context(config: Config) -> ssl.SSLContext:
    """Read the certificates of the settings, of which there is one at least.

    Raises:
        UsageError: a file cannot be read, or is not what it should be.
    """
    pairs = _pair(config)
    contexts = [_load(config, certfile, keyfile) for certfile, keyfile in pairs]
    if len(contexts) > 1:
        _choose_by_name(contexts, [names_in_file(certfile) for certfile, _ in pairs])
    return contexts[0]


def _pair(config: Config) -> list[tuple[str, str]]:
    """Certificates with their keys; a key may be in the file of its certificate."""
    if not config.keyfile:
        return [(certfile, certfile) for certfile in config.certfile]
    if len(config.keyfile) != len(config.certfile):
        raise UsageError(
            f"{config.source('keyfile')}: {len(config.keyfile)} keys for {len(config.certfile)} certificates; say one "
            "--keyfile for each --certfile, in the same order, or none where each file holds both."
        )
    return list(zip(config.certfile, config.keyfile, strict=True))


def _load(config: Config, certfile: str, keyfile: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, config, certfile, keyfile)
    if config.client_ca:
        _load_client_ca(context, config)
    return context


def _load_pair(context: ssl.SSLContext, config: Config, certfile: str, keyfile: str) -> None:
    where = f"{config.source('certfile')}: {certfile}"
    read_certificate(certfile, where)
    is_encrypted = False

    def refuse() -> str:
        """Called where the key is encrypted: nobody is there to type a password."""
        nonlocal is_encrypted
        is_encrypted = True
        return ""

    where_key = f"{config.source('keyfile')}: {keyfile}" if keyfile != certfile else where
    try:
        context.load_cert_chain(certfile, keyfile, password=refuse)
    except ssl.SSLError as error:
        if is_encrypted:
            what = "the key is encrypted; decrypt it with 'openssl pkey', or have a proxy hold it."
        elif error.reason == "KEY_VALUES_MISMATCH":
            what = f"it is not the key of the certificate in {certfile}."
        elif keyfile == certfile:
            what = "it holds no private key; say where that is with --keyfile."
        else:
            what = f"it holds no private key in PEM that can be read ({error.reason})."
        raise UsageError(f"{where_key}: {what}") from None
    except OSError as error:
        raise UsageError(f"{where_key}: {error.strerror}.") from None


def _load_client_ca(context: ssl.SSLContext, config: Config) -> None:
    where = f"{config.source('client_ca')}: {config.client_ca}"
    try:
        context.load_verify_locations(config.client_ca)
    except ssl.SSLError:
        raise UsageError(f"{where}: it holds no certificates in PEM.") from None
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}.") from None
    context.verify_mode = ssl.CERT_REQUIRED


def read_certificate(path: str, where: str) -> bytes:
    """Read the first certificate of a PEM file, as DER.

    Args:
        path: the file.
        where: what it is called in a message.

    Raises:
        UsageError: there is none.
    """
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}.") from None
    start = text.find(ssl.PEM_HEADER)
    end = text.find(ssl.PEM_FOOTER, start)
    try:
        if min(start, end) < 0:
            raise ValueError
        return ssl.PEM_cert_to_DER_cert(text[start : end + len(ssl.PEM_FOOTER)])
    except ValueError:
        raise UsageError(f"{where}: it holds no certificate in PEM ('{ssl.PEM_HEADER}').") from None


def names_in_file(path: str) -> list[str]:
    """The names that the first certificate of a PEM file is for."""
    return list(parse_names(read_certificate(path, path)))


def _choose_by_name(contexts: Sequence[ssl.SSLContext], names: Sequence[Sequence[str]]) -> None:
    """Have the first context hand a connection to the one whose certificate is for the name that is asked for."""
    by_name: dict[str, ssl.SSLContext] = {}
    for context, its_names in zip(contexts, names, strict=True):
        for name in its_names:
            by_name.setdefault(name, context)

    def choose(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
        if name is not None:
            name = name.lower().rstrip(".")
            connection.context = by_name.get(name) or by_name.get("*." + name.partition(".")[2]) or first

    contexts[0].sni_callback = choose
    if sys.unraisablehook is _usual_hook:
        sys.unraisablehook = _ignore_bad_names


def _ignore_bad_names(unraisable: sys.UnraisableHookArgs) -> None:
    """Leave out what CPython would write to standard error for every client that asks for a name that is not ASCII.

    It decodes the name before it calls back, refuses the client (RFC 6066 section 3), and asks nobody about the log.
    """
    if not (isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes)):
        _usual_hook(unraisable)


def parse_names(certificate: bytes) -> Iterator[str]:
    """Yield the DNS names among the subject alternative names of a certificate in DER, lower case.

    Source: RFC 5280 sections 4.1 and 4.2.1.6
    """
    (_, whole), *_ = _elements(certificate)
    (_, to_be_signed), *_ = _elements(whole)
    for tag, value in _elements(to_be_signed):
        if tag == _EXTENSIONS:
            (_, extensions), *_ = _elements(value)
            for _, extension in _elements(extensions):
                if extension.startswith(SUBJECT_ALT_NAME):
                    yield from _parse_alternative_names(extension)


def _parse_alternative_names(extension: bytes) -> Iterator[str]:
    for tag, value in _elements(extension):
        if tag == _OCTET_STRING:
            (_, names), *_ = _elements(value)
            for kind, name in _elements(names):
                if kind == _DNS_NAME:
                    yield name.decode("ascii", "replace").lower()


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and value of each element in DER (X.690 section 8.1); OpenSSL has read it before, so it is whole."""
    position = 0
    while position < len(data):
        tag, length, start = data[position], data[position + 1], position + 2
        if length & 0x80:  # the length of the length
            count = length & 0x7F
            length, start = int.from_bytes(data[start : start + count], "big"), start + count
        position = start + length
        yield tag, data[start:position]
