"""Every setting, once. The command line, the environment, TOML files and the docs are made from `Config`.

Here is what a setting is and which values it takes; `wizgy.sources` reads what people have set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from wizgy.addresses import UnixAddress, find_group, parse_address
from wizgy.errors import UsageError
from wizgy.http import grammar
from wizgy.http.request import FORWARDED_FIELDS

ENVIRONMENT_PREFIX: Final = "WIZGY_"
MOST_DIGITS: Final = 18
"""Digits of a whole number: what fits into 64 bits."""
VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
"""The ASCII characters that are seen."""
MOST_LINKS: Final = 40
"""How many links of a path are followed, as Linux does."""
STANDARD_NAMES: Final = ("stdin", "stdout", "stderr")
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")

_descriptor_path = re.compile(
    r"/dev/(?P<name>stdin|stdout|stderr)|/(?:dev|proc/self|proc/thread-self)/fd/(?P<number>[0-9]{1,9})"
)


class Setting(NamedTuple):
    """The definition of one setting.

    Args:
        name: its name in Python and TOML; the flag has dashes for underscores.
        kind: turns text into a value; raises ValueError with a sentence that says what is expected.
        default: the value where nobody says another.
        help: one sentence, or two.
        metavar: what stands for the value in ``--help``; empty for a switch.
        unit: the unit of a number.
        group: the heading in ``--help``.
        repeatable: whether it may be given several times.
        listed: whether commas part several values also where they are given one by one.
        needs: the name of another setting, without which this one would be ignored.
        synonyms: what other servers call it; named when somebody tries one.
        command_only: whether `wizgy.make_server` has no use for it.
    """

    name: str
    kind: Callable[[str], object]
    default: object
    help: str
    metavar: str
    unit: str
    group: str
    repeatable: bool
    listed: bool
    needs: str
    synonyms: tuple[str, ...]
    command_only: bool

    @property
    def flag(self) -> str:
        """The command line's name of it."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment's name of it."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return not self.metavar

    def parse(self, value: object, where: str) -> object:
        """Turn what somebody wrote into a value.

        Args:
            value: text, or what a TOML file holds.
            where: where it was written, for the message.

        Raises:
            UsageError: it is not a value of this setting.
        """
        if not self.repeatable:
            return self._parse_one(value, where)
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise UsageError(f"{where}: {value!r} will not do; expected text, or an array.")
        if self.listed:
            parts = [part.strip() for item in items for part in str(item).split(",")]
            items = [part for part in parts if part]
        if not items and self.default:
            raise UsageError(f"{where}: {value!r} will not do; expected one at least.")
        return tuple(self._parse_one(item, where) for item in items)

    def _parse_one(self, value: object, where: str) -> object:
        try:
            return self.kind(_as_text(value))
        except ValueError as error:
            unit = f" ({self.unit})" if self.unit and self.unit not in str(error) else ""
            raise UsageError(f"{where}: {value!r} will not do; {error}{unit}.") from None


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError(f"a {type(value).__name__} is not expected here")


def setting(
    default: object,
    kind: Callable[[str], object],
    help: str,
    *,
    metavar: str = "",
    unit: str = "",
    group: str = "Server",
    repeatable: bool = False,
    listed: bool = False,
    needs: str = "",
    synonyms: tuple[str, ...] = (),
    command_only: bool = False,
) -> Any:
    """Define a setting as an attribute of `Config`; see `Setting` for the arguments."""
    return Setting("", kind, default, help, metavar, unit, group, repeatable, listed, needs, synonyms, command_only)


def text(value: str) -> str:
    """Any text."""
    return value


def line_of_text(value: str) -> str:
    """Text that may stand in a field value (RFC 9110 section 5.5)."""
    if not value.isascii() or not value.isprintable():
        raise ValueError("expected printable ASCII characters")
    return value


def boolean(value: str) -> bool:
    """``true`` or ``false``."""
    if value.lower() in ("1", "true", "yes", "on"):
        return True
    if value.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("expected true or false")


def whole_number(least: int) -> Callable[[str], int]:
    """A whole number that is not below `least`."""

    def parse(value: str) -> int:
        if not (value.isascii() and value.isdigit()) or len(value) > MOST_DIGITS or int(value) < least:
            raise ValueError(f"expected a whole number from {least} up")
        return int(value)

    return parse


def worker_count(value: str) -> int:
    """A whole number from 1 up, or ``auto`` for the processors that the control group of this process allows."""
    if value == "auto":
        from wizgy.cgroup import count_processors

        return count_processors()
    try:
        return whole_number(1)(value)
    except ValueError:
        raise ValueError("expected a whole number from 1 up, or auto") from None


def seconds(least: float) -> Callable[[str], float]:
    """A number of seconds that is not below `least`."""

    def parse(value: str) -> float:
        try:
            number = float(value) if "_" not in value and value == value.strip() else -1.0
        except ValueError:
            number = -1.0
        if not least <= number < 1e9:
            raise ValueError(f"expected seconds, {least:g} or more")
        return number

    return parse


def choice(*choices: str) -> Callable[[str], str]:
    """One of a few words."""

    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError("expected " + " or ".join(choices))
        return value

    return parse


def file_path(value: str) -> str:
    """A path, from where it was said and not from where ``--chdir`` leads; nothing or ``-`` as it is."""
    try:
        return os.path.abspath(value) if value not in ("", "-") else value
    except FileNotFoundError:
        raise ValueError("expected a path from / on, as the current folder is gone") from None


def find_descriptor(path: str) -> int | None:
    """The descriptor of this process that a path stands for, as ``/dev/stdout`` and links to it do; else None.

    To open such a path would be another open file, which a socket does not have and a file begins anew.
    """
    for _ in range(MOST_LINKS):
        match = _descriptor_path.fullmatch(path)
        if match is not None:
            return int(match["number"]) if match["number"] else STANDARD_NAMES.index(match["name"])
        try:
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        except OSError:
            break
    return None


def log_path(value: str) -> str:
    """A path as `file_path` has it; one that stands for a descriptor has to be open for writing."""
    path = file_path(value)
    descriptor = find_descriptor(path)
    if descriptor is not None and descriptor > 2:  # the standard ones are there in any case
        import fcntl  # not at the top: few need it

        try:
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError:
            raise ValueError(f"expected a descriptor that is open, and {descriptor} is not") from None
        if mode == os.O_RDONLY:
            raise ValueError(f"expected a descriptor that is open for writing, and {descriptor} is not")
    return path


def access_log_format(value: str) -> str:
    """``combined``, ``common``, ``json``, or a format with directives as those of Apache httpd."""
    if value not in ("combined", "common", "json"):
        from wizgy.logline import compile_format  # not at the top: few need it

        compile_format(value)
    return value


def bind_address(value: str) -> str:
    """``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH?mode=660&group=NAME`` or ``fd:N``."""
    address = parse_address(value)
    if isinstance(address, UnixAddress) and address.group:
        find_group(address.group)
    return value


def trusted_network(value: str) -> str:
    """An address, a network in CIDR notation, or ``unix``."""
    from wizgy.http.forwarded import UNIX, parse_network  # not at the top: few need it

    if value != UNIX:
        try:
            parse_network(value)
        except ValueError as error:
            expected = "expected an address, a network as 10.0.0.0/8, or unix; for everybody 0.0.0.0/0 and ::/0"
            raise ValueError(f"{error}; {expected}") from None
    return value


def url_prefix(value: str) -> str:
    """A path, percent-encoded where it has to be, with no slash at the end."""
    from urllib.parse import quote  # not at the top: few need it

    path = quote(value.rstrip("/"), safe=VISIBLE)
    if path and not grammar.path_prefix.fullmatch(path.encode("ascii")):
        raise ValueError("expected a path that begins with a slash, as /app")
    return path


class Config:
    """The settings of a server, which do not change. Each has its default, so ``Config()`` is complete.

    Args:
        sources: where a setting was set, by its name: a flag, a variable, a file with a key.
        values: settings by name, each a value that its `Setting.parse` returns.
    """

    bind: tuple[str, ...] = setting(
        ("127.0.0.1:8888",),
        bind_address,
        "Address to listen on: HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N (an inherited socket). [::]:PORT is for IPv6 "
        "and IPv4, a name for all of its addresses. unix:PATH?mode=660&group=NAME sets the permissions of the socket. "
        "May be given several times; port 0 picks a free one and prints it.",
        metavar="ADDRESS",
        repeatable=True,
        synonyms=(
            "host",
            "port",
            "listen",
            "address",
            "socket",
            "http",
            "http_socket",
            "unix_socket",
            "uds",
            "fd",
            "insecure_bind",
        ),
        command_only=True,
    )
    workers: int = setting(
        1,
        worker_count,
        "Worker processes; auto for as many as there are processors to use.",
        metavar="N|auto",
        synonyms=("processes", "worker", "num_workers", "worker_processes"),
        command_only=True,
    )
    threads: int = setting(
        8,
        whole_number(1),
        "Threads of each worker that may run the application.",
        metavar="N",
        synonyms=("threads_per_worker", "worker_threads", "blocking_threads", "threadpool_workers"),
    )
    max_requests: int = setting(
        0,
        whole_number(0),
        "Requests after which a worker is replaced, against leaks of memory; 0 for never.",
        metavar="N",
        unit="requests",
        command_only=True,
        synonyms=("limit_max_requests", "max_worker_requests", "workers_max_requests", "maximum_requests"),
    )
    max_requests_jitter: int = setting(
        0,
        whole_number(0),
        "Most requests to add to --max-requests, at random, so that not all workers are replaced at once.",
        metavar="N",
        unit="requests",
        needs="max_requests",
        command_only=True,
        synonyms=("limit_max_requests_jitter", "max_worker_requests_jitter"),
    )
    chdir: str = setting(
        "",
        text,
        "Folder to change to before the application is loaded.",
        metavar="DIR",
        synonyms=("app_dir", "directory", "pythonpath", "python_path", "working_dir", "working_directory", "cwd"),
        command_only=True,
    )
    backlog: int = setting(
        1024,
        whole_number(1),
        "Connections that the kernel queues.",
        metavar="N",
        unit="connections",
        synonyms=("listen_backlog", "somaxconn"),
    )
    max_connections: int = setting(
        0,
        whole_number(0),
        "Open connections of each worker; 0 takes what the limit of file descriptors leaves.",
        metavar="N",
        unit="connections",
        synonyms=("worker_connections", "limit_concurrency", "connection_limit", "backpressure", "max_clients"),
    )
    server_header: str = setting(
        "wizgy",
        line_of_text,
        "Value of the Server field; empty for none.",
        metavar="TEXT",
        synonyms=("ident", "server_name", "server_software"),
    )
    reload: bool = setting(
        False,
        boolean,
        "For development: load the application anew when code changes, and show why where it does not load.",
        synonyms=("auto_reload", "autoreload", "use_reloader", "reload_on_change"),
        command_only=True,
    )
    health: bool = setting(
        False,
        boolean,
        "Answer /livez and /readyz without the application: 200 while the server lives, and while it is not told to "
        "stop.",
    )
    header_timeout: float = setting(
        10.0,
        seconds(0.1),
        "Time for a request head to come.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
        synonyms=("http1_header_read_timeout", "read_timeout", "socket_timeout", "http_timeout"),
    )
    body_timeout: float = setting(
        30.0,
        seconds(0.1),
        "Time without progress of a request's content; it must also come at 500 bytes a second in the long run.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
    )
    keepalive_timeout: float = setting(
        15.0,
        seconds(0.1),
        "Time that an idle connection stays open.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
        synonyms=(
            "keepalive",
            "keep_alive",
            "timeout_keep_alive",
            "keep_alive_timeout",
            "channel_timeout",
            "http_keepalive",
        ),
    )
    write_timeout: float = setting(
        30.0,
        seconds(0.1),
        "Time in which the client takes nothing of an answer; it must also take 500 bytes a second in the long run.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
    )
    request_timeout: float = setting(
        0.0,
        seconds(0),
        "Time that the application may take for a request; then the client is answered 504, the log shows where the "
        "application is, and the worker is replaced. 0 for no limit.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
        synonyms=("timeout", "worker_timeout", "harakiri", "http_harakiri", "timeout_request"),
    )
    graceful_timeout: float = setting(
        30.0,
        seconds(0),
        "Time for requests to finish once the server is told to stop.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
        synonyms=(
            "timeout_graceful_shutdown",
            "shutdown_timeout",
            "graceful_shutdown_timeout",
            "worker_reload_mercy",
            "shutdown_grace",
            "workers_kill_timeout",
        ),
    )
    drain_delay: float = setting(
        0.0,
        seconds(0),
        "Time for which a server that is told to stop still serves and accepts, while /readyz says that it is not "
        "ready; for a load balancer to notice.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
        command_only=True,
        synonyms=("pre_stop_delay", "shutdown_delay"),
    )
    load_timeout: float = setting(
        120.0,
        seconds(0),
        "Time for the application to load; a worker that takes longer is killed. 0 for no limit.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
        command_only=True,
        synonyms=("startup_timeout", "timeout_worker_startup", "worker_startup_timeout"),
    )
    max_request_line: int = setting(
        8190,
        whole_number(64),
        "Longest request line.",
        metavar="BYTES",
        unit="bytes",
        group="Limits",
        synonyms=("limit_request_line",),
    )
    max_header_bytes: int = setting(
        65536,
        whole_number(256),
        "Largest header section.",
        metavar="BYTES",
        unit="bytes",
        group="Limits",
        synonyms=(
            "limit_request_field_size",
            "max_request_header_size",
            "h11_max_incomplete_event_size",
            "h11_max_incomplete_size",
            "buffer_size",
            "http1_buffer_size",
        ),
    )
    max_header_count: int = setting(
        100,
        whole_number(1),
        "Most fields in a header section.",
        metavar="N",
        unit="fields",
        group="Limits",
        synonyms=("limit_request_fields",),
    )
    max_body: int = setting(
        1 << 30,
        whole_number(0),
        "Largest content of a request.",
        metavar="BYTES",
        unit="bytes",
        group="Limits",
        synonyms=(
            "max_request_body_size",
            "limit_post",
            "client_max_body_size",
            "max_content_length",
            "limit_request_body",
        ),
    )
    trust_proxy: tuple[str, ...] = setting(
        (),
        trusted_network,
        "Proxies whose Forwarded, X-Forwarded-* and PROXY protocol count: addresses, networks as 10.0.0.0/8, or unix "
        "for the peers of a Unix socket. May be given several times.",
        metavar="NETWORK",
        group="Proxies",
        repeatable=True,
        listed=True,
        synonyms=("forwarded_allow_ips", "trusted_proxy", "trusted_hosts", "proxy_allow_ips", "proxy_headers"),
    )
    forwarded_fields: tuple[str, ...] = setting(
        FORWARDED_FIELDS,
        choice(*FORWARDED_FIELDS),
        "Fields that these proxies set or remove in every request. Those of the list that are not named are taken out "
        "of the request, since a client may have written them.",
        metavar="NAME",
        group="Proxies",
        repeatable=True,
        listed=True,
        needs="trust_proxy",
        synonyms=("trusted_proxy_headers", "forwarder_headers", "secure_scheme_headers"),
    )
    keep_forwarded: bool = setting(
        False,
        boolean,
        "Leave Forwarded and X-Forwarded-* of everybody else in environ, for an application that judges them itself.",
        group="Proxies",
        synonyms=("clear_untrusted_proxy_headers",),
    )
    proxy_protocol: bool = setting(
        False,
        boolean,
        "Expect each connection to begin with the PROXY protocol, version 1 or 2, from a trusted proxy.",
        group="Proxies",
        needs="trust_proxy",
    )
    url_prefix: str = setting(
        "",
        url_prefix,
        "Path below which the application is served, its SCRIPT_NAME; what is outside of it is 404.",
        metavar="PATH",
        group="Proxies",
        synonyms=("root_path", "script_name", "mount", "proxy_path"),
    )
    certfile: tuple[str, ...] = setting(
        (),
        file_path,
        "File with a certificate and those above it, in PEM; then TLS is spoken. May be given several times: which one "
        "a client gets is chosen by the name that it asks for, else it is the first.",
        metavar="FILE",
        group="TLS",
        repeatable=True,
        synonyms=("ssl_certfile", "ssl_cert", "ssl_certificate", "tls_certfile", "cert", "certificate"),
    )
    keyfile: tuple[str, ...] = setting(
        (),
        file_path,
        "File with the private key of the certificate, in PEM; one for each --certfile in the same order, or none "
        "where the certificate's file holds it.",
        metavar="FILE",
        group="TLS",
        repeatable=True,
        needs="certfile",
        synonyms=("ssl_keyfile", "ssl_key", "tls_keyfile", "private_key", "key"),
    )
    client_ca: str = setting(
        "",
        file_path,
        "File with the certificates, in PEM, of the authorities one of which has to have signed a client's; a client "
        "without such a certificate is refused.",
        metavar="FILE",
        group="TLS",
        needs="certfile",
        synonyms=("ca_certs", "ssl_ca_certs", "ssl_ca", "cafile", "ca_file", "client_cert", "ssl_client_ca", "ca"),
    )
    access_log: str = setting(
        "",
        log_path,
        "File for one line per request; - or /dev/stdout for standard output.",
        metavar="FILE",
        group="Logs",
        synonyms=("access_logfile", "accesslog", "access_log_file", "access_log_name", "req_logger"),
    )
    access_log_format: str = setting(
        "combined",
        access_log_format,
        "Form of those lines: combined, common, json, or a format of your own as in '%h \"%r\" %>s %D'.",
        metavar="FORMAT",
        group="Logs",
        synonyms=("access_logformat", "access_log_fmt", "log_fmt"),
    )
    log_level: str = setting(
        "info",
        choice(*LOG_LEVELS),
        "Least level of what is logged: " + ", ".join(LOG_LEVELS) + ".",
        metavar="LEVEL",
        group="Logs",
        synonyms=("debug", "verbose", "quiet", "loglevel", "disable_logging"),
    )
    log_format: str = setting(
        "text",
        choice("text", "json"),
        "Form of the error log: text or json.",
        metavar="FORMAT",
        group="Logs",
    )
    request_id: bool = setting(
        False,
        boolean,
        "Give each request an id: X-Request-ID of a trusted proxy, or one of its own. It is in environ as "
        "wizgy.request_id, in X-Request-ID of the answer, and with what the application writes to wsgi.errors.",
        group="Logs",
        synonyms=("request_id_header",),
    )
    trace: bool = setting(
        False, boolean, "Show what goes over the wire, as curl -v does: < came, > went.", group="Logs"
    )

    def __init__(self, sources: Mapping[str, str] | None = None, **values: object) -> None:
        unknown = values.keys() - SETTINGS.keys()
        if unknown:
            raise TypeError(f"There is no setting {', '.join(unknown)}.")
        self.__dict__.update({name: setting.default for name, setting in SETTINGS.items()}, **values)
        self.__dict__["_sources"] = dict(sources or {})

    def source(self, name: str) -> str:
        """Where a setting was set: ``--threads``, ``WIZGY_THREADS``, a file with a key; ``default`` for nowhere."""
        return str(self.__dict__["_sources"].get(name, "default"))

    def replace(self, **values: object) -> Config:
        """A copy with other values."""
        return Config(self.__dict__["_sources"], **{**self.as_dict(), **values})

    def as_dict(self) -> dict[str, object]:
        """All settings by name."""
        return {name: self.__dict__[name] for name in SETTINGS}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A Config does not change; make another with replace({name}=...).")

    def __eq__(self, other: object) -> bool:
        """Whether all settings are the same, wherever they were set."""
        return isinstance(other, Config) and self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self.as_dict().items())})"


SETTINGS: Final[dict[str, Setting]] = {
    name: value._replace(name=name) for name, value in vars(Config).items() if isinstance(value, Setting)
}
