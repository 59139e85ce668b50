"""Addresses: each form that `--bind` takes, and what is expected in place of others."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wizgy import listeners
from wizgy.addresses import (
    InheritedSocket,
    TCPAddress,
    UnixAddress,
    find_group,
    is_for_both_families,
    parse_address,
)
from wizgy.config import Config
from wizgy.errors import BindError
from wizgy.generation import open_generation
from wizgy.listeners import Listener, find_purpose, open_listeners


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", TCPAddress("127.0.0.1", 80)),
        ("localhost:0", TCPAddress("localhost", 0)),
        ("*:80", TCPAddress("0.0.0.0", 80)),
        ("[::1]:65535", TCPAddress("::1", 65535)),
        ("fd:3", InheritedSocket(3)),
        ("unix:/run/a.sock", UnixAddress("/run/a.sock", None, "")),
        ("unix:a b.sock", UnixAddress("a b.sock", None, "")),
        ("unix:/a?mode=660", UnixAddress("/a", 0o660, "")),
        ("unix:/a?mode=0600", UnixAddress("/a", 0o600, "")),
        ("unix:/a?group=www-data", UnixAddress("/a", 0o660, "www-data")),
        ("unix:/a?group=33&mode=770", UnixAddress("/a", 0o770, "33")),
        ("unix:/a?", UnixAddress("/a", None, "")),
        ("unix:/a?b?", UnixAddress("/a?b", None, "")),
        ("unix:/a?b?mode=666", UnixAddress("/a?b", 0o666, "")),
    ],
)
def test_forms(text: str, expected: tuple[Any, ...]) -> None:
    """Every form is parsed; options stand after the last question mark."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N"),
        ("localhost", "expected HOST:PORT"),
        ("localhost:http", "expected HOST:PORT"),
        ("localhost:99999", "with a port from 0 to 65535"),
        ("localhost:٣", "expected HOST:PORT"),
        (":8000", "expected HOST:PORT, as 127.0.0.1:8000, or 0.0.0.0:8000 for"),
        ("8000", "expected HOST:PORT, as 127.0.0.1:8000"),
        ("::1:8000", "expected an IPv6 address in brackets"),
        ("http://127.0.0.1:8000", "without http://, as 127.0.0.1:8000"),
        ("tcp://127.0.0.1:8000/", "without tcp://, as 127.0.0.1:8000"),
        ("https://[::1]:8000", "without https://, as [::1]:8000"),
        ("http://localhost", "without http://, as localhost:8000"),
        ("localhost:8000/path", "expected HOST:PORT, [IPV6]:PORT"),
        ("app.sock", "as unix:app.sock"),
        ("fd://3", "expected fd:3"),
        ("/run/a.sock", "expected unix:PATH for a Unix socket, as unix:/run/a.sock"),
        ("unix:", "expected a path after unix:"),
        ("unix:?mode=660", "expected a path after unix:"),
        ("unix:/a?mode=rw", "expected three octal digits"),
        ("unix:/a?mode=888", "expected three octal digits"),
        ("unix:/a?mode=66", "expected three octal digits"),
        ("unix:/a?mode=", "expected three octal digits"),
        ("unix:/a?group=", "expected mode=660 or group=NAME"),
        ("unix:/a?owner=root", "expected mode=660 or group=NAME"),
        ("unix:/a?b", "a path that has one ends with another"),
    ],
)
def test_other_forms(text: str, expected: str) -> None:
    """What is none is refused, with what is expected in its place."""
    with pytest.raises(ValueError, match=r"^expected ") as caught:
        parse_address(text)
    assert expected in str(caught.value)


def test_groups() -> None:
    """A group is found by its name or number, and one that is not there is refused."""
    name, *_ = grp.getgrgid(os.getgid())
    assert find_group(name) == os.getgid()
    assert find_group("123456") == 123456
    with pytest.raises(ValueError, match="'no such group' is none"):
        find_group("no such group")


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], True),
        (["[::1]:81", "unix:/a", "fd:3"], True),
        (["0.0.0.0:81"], True),
        (["0.0.0.0:80"], False),
        (["127.0.0.1:80"], False),
    ],
)
def test_both_families(others: list[str], expected: bool) -> None:
    """`[::]:PORT` is for IPv4 too, unless another address has the port for IPv4."""
    addresses = [parse_address(text) for text in ["[::]:80", *others]]
    assert is_for_both_families(addresses[0], addresses) is expected
    assert not is_for_both_families(parse_address("[::1]:80"), [])


def resolve_to(*hosts: str) -> Callable[..., Any]:
    """A `getaddrinfo` for which every name has these addresses."""

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        families = [socket.AF_INET6 if ":" in host else socket.AF_INET for host in hosts]
        places = [(host, port, 0, 0) if ":" in host else (host, port) for host in hosts]
        return [(family, 1, 6, "", place) for family, place in zip(families, places, strict=True)]

    return getaddrinfo


def close(opened: list[Listener]) -> list[tuple[str, int]]:
    """Close listeners; returns where they listened."""
    places = [(listener.host, listener.port) for listener in opened]
    for listener in opened:
        listener.close()
    return places


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (["127.0.0.1", "127.0.0.2"], ["127.0.0.1", "127.0.0.2"]),
        (["127.0.0.1", "127.0.0.1"], ["127.0.0.1"]),
        (["198.51.100.1", "127.0.0.1"], ["127.0.0.1"]),
        (["127.0.0.1", "2001:db8::1"], ["127.0.0.1"]),
    ],
)
def test_name_is_listened_on_at_all_addresses(
    monkeypatch: pytest.MonkeyPatch, hosts: list[str], expected: list[str]
) -> None:
    """Of a name every address of this machine is listened on, at one port; those of others are passed over."""
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to(*hosts))
    places = close(open_listeners("name:0", 16))
    assert [host for host, _ in places] == expected
    assert len({port for _, port in places}) == 1


def test_name_that_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name none of whose addresses is this machine's cannot be listened on."""
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to("198.51.100.1", "198.51.100.2"))
    with pytest.raises(BindError, match=r"Cannot listen on name:0: .* It has to be an address of this machine"):
        open_listeners("name:0", 16)


def test_name_of_which_one_address_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name one of whose addresses is taken cannot be listened on, and the other addresses are given back."""
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to("127.0.0.1", "127.0.0.2"))
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match="Address already in use"):
            open_listeners(f"name:{port}", 16)
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_free_port_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is free at the first address and taken at another is not the end of it."""
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to("127.0.0.1", "127.0.0.2"))
    open_at, calls = listeners._open_at, []

    def refuse_twice(*arguments: Any) -> socket.socket:
        calls.append(arguments)
        if len(calls) in (2, 4):
            raise OSError(errno.EADDRINUSE, "in use")
        return open_at(*arguments)

    monkeypatch.setattr(listeners, "_open_at", refuse_twice)
    assert len(close(open_listeners("name:0", 16))) == 2
    assert len(calls) == 6


def test_permissions_are_set_before_anybody_can_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Unix socket accepts nobody before it has its mode and its group."""
    path = tmp_path / "socket"
    seen: list[int] = []
    chmod = os.chmod

    def refuse_before(name: Any, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(str(path))
        seen.append(mode)
        chmod(name, mode)

    monkeypatch.setattr(os, "chmod", refuse_before)
    (listener,) = open_listeners(f"unix:{path}?mode=640&group={os.getgid()}", 16)
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid, seen) == (0o640, os.getgid(), [0o640])
    listener.close()
    listener.remove()


def test_permissions_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that this user may not give the socket to is said, and no socket is left behind."""

    def refuse(*arguments: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(BindError, match="Only a member of the group, or root"):
        open_listeners(f"unix:{tmp_path}/socket?group=0", 16)
    assert list(tmp_path.iterdir()) == []


def test_purposes() -> None:
    """Two addresses have one purpose where a socket of one can take the place of the other's."""
    assert find_purpose("unix:/a", ()) == find_purpose("unix:/a?mode=660", ())
    assert find_purpose("[::]:80", ["[::]:80"]) != find_purpose("[::]:80", ["[::]:80", "0.0.0.0:80"])
    assert find_purpose("a:80", ()) == find_purpose("a:80", ["b:80"]) != find_purpose("a:81", ())


def test_reload_keeps_all_sockets_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload keeps each socket whose address is still wanted, and closes none that it did not open."""
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to("127.0.0.1", "127.0.0.2"))
    config = Config(bind=("name:0", "name:0"))
    before = open_generation(config)
    assert len(before.listeners) == 4
    assert open_generation(config, before).listeners == before.listeners
    fewer = open_generation(Config(bind=("name:0",)), before)
    assert fewer.listeners == before.listeners[:2]
    more = open_generation(config, fewer)
    assert more.listeners[:2] == before.listeners[:2]
    assert not set(more.listeners[2:]) & set(before.listeners)
    close(before.listeners)
    close(more.listeners[2:])


def test_reload_that_meets_its_own_port() -> None:
    """A reload to another address at a port of this server fails, and says that it is its own."""
    before = open_generation(Config(bind=("127.0.0.1:0",)))
    port = before.listeners[0].port
    with pytest.raises(BindError, match=f"Address already in use.*This server itself has port {port}"):
        open_generation(Config(bind=(f"0.0.0.0:{port}",)), before)
    close(before.listeners)


def test_mapped_addresses() -> None:
    """A client with an IPv4 address has that, on a socket for both families too (RFC 4291 section 2.5.5.2)."""
    try:
        (listener,) = open_listeners("[::]:0", 16)
    except BindError:
        pytest.skip("this machine has no IPv6")
    assert listener.ready_line(secure=False).endswith(f" on :: port {listener.port} ... (IPv6 and IPv4)")
    listener.sock.setblocking(True)
    for host in "127.0.0.1", "::1":
        threading.Thread(target=lambda host=host: socket.create_connection((host, listener.port)).close()).start()
        sock, client = listener.accept()
        sock.close()
        assert client[0] == host
    listener.close()
