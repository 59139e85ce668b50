"""Every rule of the conformance suite, over TLS."""

from __future__ import annotations

import pytest

from tests.conformance.cases import load_cases
from tests.conformance.runner import format_exchange, start_all
from tests.harness.frameworks import load_matrix
from tests.harness.process import ServerProcess
from tests.server.tls_client import Authority
from tests.server.tls_tunnel import Tunnel

DEADLINE = 120.0
"""Seconds for one case, with the wait until its turn comes."""

OF_THE_SCHEME = {
    "9110-7.4-https-without-tls",
    "pep3333-environ-no-field-sets-plain-variable",  # HTTPS is a plain variable that TLS sets
    "pep3333-environ-wsgi-url-scheme",
    "reading-environ-forwarded",
    "reading-environ-forwarded-proto",
}
"""Cases that want the scheme http, or what comes with it, and so must not pass here."""


def test_conformance_over_tls(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the server answers to the bytes of a case depends on no transport (RFC 9110 section 4.2.2)."""
    authority = Authority.make(tmp_path_factory.mktemp("authority"))
    framework = load_matrix().frameworks["wsgi"]
    cases = [case for case in load_cases() if not case.frameworks or framework.name in case.frameworks]
    arguments = ["--bind", "127.0.0.1:0", "--certfile", authority.issue("localhost")]
    with ServerProcess([*arguments, "--chdir", str(framework.directory), framework.application]) as server:
        with Tunnel(server.wait_ready(), authority.client()) as tunnel:
            executor, futures = start_all(cases, *tunnel.address)
            with executor:
                exchanges = [future.result(DEADLINE) for future in futures.values()]
        assert server.stop() == 0
    failed = {exchange.case.id: exchange for exchange in exchanges if not exchange.passed}
    told = [format_exchange(failed[name], f"pytest {__file__}") for name in failed.keys() - OF_THE_SCHEME]
    assert failed.keys() == OF_THE_SCHEME, "\n\n".join(told[:5])
