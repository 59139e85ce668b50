"""Certificates: the names that they are for, and what an application learns of a client's."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizgy.certificates import parse_names
from wizgy.secure import environ_of_certificate, format_name

WITH_NAMES = """\
-----BEGIN CERTIFICATE-----
MIICbTCCAhKgAwIBAgIUDazJ1ej/qCYDtiqkkqjiY2zIAh4wCgYIKoZIzj0EAwIw
QDEXMBUGA1UECgwOdHJ1c3RtZSB2MS4yLjExJTAjBgNVBAsMHFRlc3RpbmcgQ0Eg
I0k0N3RzejVUZVBNR1FuQTIwIBcNMDAwMTAxMDAwMDAwWhgPMzAwMDAxMDEwMDAw
MDBaMEIxFzAVBgNVBAoMDnRydXN0bWUgdjEuMi4xMScwJQYDVQQLDB5UZXN0aW5n
IGNlcnQgI2JVdjBrbC1MNTA4QUtJaGswWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARxKOnAU5D32Bmrae1+8gUay/QwldFRNQ8tNKJ+1u00Y/iCidSLl4W0PPk2r4nz
sb4xKQKq86nFioi25WdPA9x3o4HlMIHiMB0GA1UdDgQWBBQcv03s6ns3yonWF5qg
xeHSP+lkiDAMBgNVHRMBAf8EAjAAMB8GA1UdIwQYMBaAFGPCiMsHhqDty4WDmDWk
/GgevP/fMFYGA1UdEQEB/wRMMEqCDHNob3AuZXhhbXBsZYIOKi5zaG9wLmV4YW1w
bGWHBMAAAgGBD2FubkBleGFtcGxlLm9yZ4ITeG4tLWNhZi1kbWEuZXhhbXBsZTAO
BgNVHQ8BAf8EBAMCBaAwKgYDVR0lAQH/BCAwHgYIKwYBBQUHAwIGCCsGAQUFBwMB
BggrBgEFBQcDAzAKBggqhkjOPQQDAgNJADBGAiEA/RHUAaX4OP0+M3v5kUKW03Ei
SSCLxaApDQD4kpxxOoACIQDC9yuT9OVj/H3EfWQFaYdLgrHVO2k8s/hU/YXqnI59
4g==
-----END CERTIFICATE-----
"""
"""For shop.example, *.shop.example and xn--caf-dma.example, an IP address and an e-mail address."""

WITHOUT_NAMES = """\
-----BEGIN CERTIFICATE-----
MIIBGjCBwaADAgECAgEBMAoGCCqGSM49BAMCMBcxFTATBgNVBAMMDG9ubHkuZXhh
bXBsZTAeFw0yMDAxMDEwMDAwMDBaFw0zMDAxMDEwMDAwMDBaMBcxFTATBgNVBAMM
DG9ubHkuZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABD5DhLWSw6Mk
BtmckR59LegBxppXIalVvhVML2R+lpNNaG/iOXHMDO1BQ3e+JaC/1a3/qF/Mw/fE
jkvzlhXj/c4wCgYIKoZIzj0EAwIDSAAwRQIgeagza2Ge9OTpEh3IXPw7EuE0wuJK
A5YmrvB2lQL/ocUCIQCtNa9+ngvPfh2Y46vZjs7+6GHBJyraHfqvN6lnGFt1rA==
-----END CERTIFICATE-----
"""
"""For only.example, in its common name alone."""


def test_names() -> None:
    """A certificate is for the DNS names among its subject alternative names (RFC 9525 section 6.3)."""
    names = list(parse_names(ssl.PEM_cert_to_DER_cert(WITH_NAMES)))
    assert names == ["shop.example", "*.shop.example", "xn--caf-dma.example"]


def test_common_name_is_no_name() -> None:
    """The common name is not looked at (RFC 9525 section 2)."""
    assert list(parse_names(ssl.PEM_cert_to_DER_cert(WITHOUT_NAMES))) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ((), ""),
        (
            ((("countryName", "DE"),), (("organizationName", "A"),), (("commonName", "b"),)),
            "CN=b,O=A,C=DE",
        ),
        (((("commonName", "a"), ("userId", "b")),), "CN=a+UID=b"),
        (((("commonName", 'a, "b" <c>; d+e\\'),),), 'CN=a\\, \\"b\\" \\<c\\>\\; d\\+e\\\\'),
        (((("commonName", "#a "),),), "CN=\\#a\\ "),
        (((("commonName", " "),),), "CN=\\ "),
        (((("commonName", "a\r\nX: b\0\x7f"),),), "CN=a\\0D\\0AX: b\\00\\7F"),
        (((("commonName", "Zo\u00eb"),),), "CN=Zo\xc3\xab"),
        (((("1.2.3.4", "x"),),), "1.2.3.4=x"),
    ],
)
def test_distinguished_names(name: tuple[tuple[tuple[str, str], ...], ...], text: str) -> None:
    """A distinguished name is one line of text with what is special in it escaped (RFC 4514 sections 2.3 and 2.4)."""
    assert format_name(name) == text


@given(st.text(max_size=20))
def test_no_name_ends_a_line(value: str) -> None:
    """Whoever chose the name of a certificate, it is one line of Latin-1 (PEP 3333, "Unicode Issues")."""
    text = format_name(((("commonName", value),),))
    text.encode("latin-1")
    assert not {character for character in text if ord(character) < 0x20 or character == "\x7f"}


def test_environ() -> None:
    """The keys are those of mod_ssl; what a certificate does not have is not there, or empty."""
    environ = environ_of_certificate(
        {
            "subject": ((("commonName", "ann"),),),
            "issuer": ((("organizationName", "CA"),),),
            "serialNumber": "01",
            "notBefore": "Jan  1 00:00:00 2000 GMT",
            "notAfter": "Jan  1 00:00:00 3000 GMT",
            "subjectAltName": (("email", "ann@example.org"), ("DNS", "a.example"), ("DNS", "b.example")),
        }
    )
    assert environ == {
        "SSL_CLIENT_S_DN": "CN=ann",
        "SSL_CLIENT_S_DN_CN": "ann",
        "SSL_CLIENT_I_DN": "O=CA",
        "SSL_CLIENT_M_SERIAL": "01",
        "SSL_CLIENT_V_START": "Jan  1 00:00:00 2000 GMT",
        "SSL_CLIENT_V_END": "Jan  1 00:00:00 3000 GMT",
        "SSL_CLIENT_SAN_Email_0": "ann@example.org",
        "SSL_CLIENT_SAN_DNS_0": "a.example",
        "SSL_CLIENT_SAN_DNS_1": "b.example",
    }
    assert environ_of_certificate({})["SSL_CLIENT_S_DN"] == ""
