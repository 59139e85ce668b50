"""Every setting, once. The command line, the environment, TOML files and the docs are made from `Config`.

A value is looked for in this order: flag, environment variable, file, default.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, cast

from wizgy.errors import UsageError

ENVIRONMENT_PREFIX: Final = "WIZGY_"
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class Setting:
    """The definition of one setting.

    Args:
        name: its name in Python and TOML; the flag has dashes for underscores.
        kind: turns text into a value; raises ValueError with a sentence that says what is expected.
        default: the value where nobody says another.
        help: one sentence.
        metavar: what stands for the value in ``--help``; empty for a switch.
        unit: the unit of a number.
        group: the heading in ``--help``.
        repeatable: whether it may be given several times.
    """

    name: str
    kind: Callable[[str], object]
    default: object
    help: str
    metavar: str
    unit: str
    group: str
    repeatable: bool

    @property
    def flag(self) -> str:
        """The command line's name of it."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment's name of it."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    def parse(self, value: object, where: str) -> object:
        """Turn what somebody wrote into a value.

        Args:
            value: text, or what a TOML file holds.
            where: where it was written, for the message.

        Raises:
            UsageError: it is not a value of this setting.
        """
        try:
            if self.repeatable and isinstance(value, (list, tuple)):
                if not value:
                    raise ValueError("expected one at least")
                return tuple(self.kind(_as_text(item)) for item in value)
            if self.repeatable:
                return tuple(self.kind(item) for item in _as_text(value).split(","))
            return self.kind(_as_text(value))
        except ValueError as error:
            raise UsageError(f"{where}: {value!r} will not do; {error}.") from None


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
) -> Any:
    """Define a setting as a field of `Config`; see `Setting` for the arguments."""
    metadata = {
        "kind": kind,
        "help": help,
        "metavar": metavar,
        "unit": unit,
        "group": group,
        "repeatable": repeatable,
    }
    return dataclasses.field(default=cast(Any, default), metadata=metadata)


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
        if not (value.isascii() and value.isdigit()) or int(value) < least:
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
            number = float(value)
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


def bind_address(value: str) -> str:
    """``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH`` or ``fd:N``."""
    if value.startswith("unix:"):
        if len(value) == len("unix:"):
            raise ValueError("expected a path after unix:")
        return value
    host, colon, port = value.rpartition(":")
    if host == "fd" and port.isascii() and port.isdigit():
        return value
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError("expected HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N, with a port from 0 to 65535")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("expected an IPv6 address in brackets, as in [::1]:8888")
    return value


@dataclass(frozen=True)
class Config:
    """The settings of a server. Each has its default, so ``Config()`` is complete."""

    bind: tuple[str, ...] = setting(
        ("127.0.0.1:8888",),
        bind_address,
        "Address to listen on: HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N (an inherited socket). "
        "May be given several times; port 0 picks a free one and prints it.",
        metavar="ADDRESS",
        repeatable=True,
    )
    workers: int = setting(
        1, worker_count, "Worker processes; auto for as many as there are processors to use.", metavar="N|auto"
    )
    threads: int = setting(8, whole_number(1), "Threads of each worker that may run the application.", metavar="N")
    max_requests: int = setting(
        0,
        whole_number(0),
        "Requests after which a worker is replaced, against leaks of memory; 0 for never.",
        metavar="N",
        unit="requests",
    )
    max_requests_jitter: int = setting(
        0,
        whole_number(0),
        "Most requests to add to --max-requests, at random, so that not all workers are replaced at once.",
        metavar="N",
        unit="requests",
    )
    chdir: str = setting("", text, "Folder to change to before the application is loaded.", metavar="DIR")
    backlog: int = setting(
        1024, whole_number(1), "Connections that the kernel queues.", metavar="N", unit="connections"
    )
    max_connections: int = setting(
        0,
        whole_number(0),
        "Open connections of each worker; 0 takes what the limit of file descriptors leaves.",
        metavar="N",
        unit="connections",
    )
    server_header: str = setting("wizgy", line_of_text, "Value of the Server field; empty for none.", metavar="TEXT")
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
    )
    write_timeout: float = setting(
        30.0,
        seconds(0.1),
        "Time in which the client takes nothing of an answer; it must also take 500 bytes a second in the long run.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
    )
    graceful_timeout: float = setting(
        30.0,
        seconds(0),
        "Time for requests to finish once the server is told to stop.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
    )
    drain_delay: float = setting(
        0.0,
        seconds(0),
        "Time for which a server that is told to stop still serves and accepts, while /readyz says that it is not "
        "ready; for a load balancer to notice.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
    )
    load_timeout: float = setting(
        120.0,
        seconds(0),
        "Time for the application to load; a worker that takes longer is killed. 0 for no limit.",
        metavar="SECONDS",
        unit="seconds",
        group="Timeouts",
    )
    max_request_line: int = setting(
        8190,
        whole_number(64),
        "Longest request line.",
        metavar="BYTES",
        unit="bytes",
        group="Limits",
    )
    max_header_bytes: int = setting(
        65536,
        whole_number(256),
        "Largest header section.",
        metavar="BYTES",
        unit="bytes",
        group="Limits",
    )
    max_header_count: int = setting(
        100,
        whole_number(1),
        "Most fields in a header section.",
        metavar="N",
        unit="fields",
        group="Limits",
    )
    max_body: int = setting(
        1 << 30,
        whole_number(0),
        "Largest content of a request.",
        metavar="BYTES",
        unit="bytes",
        group="Limits",
    )
    access_log: str = setting(
        "", text, "File for one line per request; - for standard output.", metavar="FILE", group="Logs"
    )
    access_log_format: str = setting(
        "combined",
        choice("combined", "json"),
        "Form of those lines: combined or json.",
        metavar="FORMAT",
        group="Logs",
    )
    log_level: str = setting(
        "info",
        choice(*LOG_LEVELS),
        "Least level of what is logged: " + ", ".join(LOG_LEVELS) + ".",
        metavar="LEVEL",
        group="Logs",
    )
    log_format: str = setting(
        "text",
        choice("text", "json"),
        "Form of the error log: text or json.",
        metavar="FORMAT",
        group="Logs",
    )
    trace: bool = setting(
        False, boolean, "Show what goes over the wire, as curl -v does: < came, > went.", group="Logs"
    )


SETTINGS: Final = {
    definition.name: Setting(definition.name, default=definition.default, **definition.metadata)
    for definition in dataclasses.fields(Config)
}


def find_setting(name: str, where: str) -> Setting:
    """The setting of that name.

    Raises:
        UsageError: there is none; the message names one that is near.
    """
    if name in SETTINGS:
        return SETTINGS[name]
    near = get_close_matches(name, SETTINGS, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UsageError(f"{where}: there is no setting {name!r}.{hint}")


def from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    """The settings in ``WIZGY_*`` variables.

    Raises:
        UsageError: one is unknown or has a value that will not do.
    """
    values = {}
    for variable, value in environment.items():
        if variable.startswith(ENVIRONMENT_PREFIX):
            name = variable[len(ENVIRONMENT_PREFIX) :].lower()
            values[name] = find_setting(name, f"environment variable {variable}").parse(value, variable)
    return values


def from_file(path: str | None) -> dict[str, object]:
    """The settings in a TOML file, or without a path in ``[tool.wizgy]`` of ./pyproject.toml.

    Raises:
        UsageError: the file cannot be read, or a setting is unknown or has a value that will not do.
    """
    file = Path(path or "pyproject.toml")
    if path is None and not file.is_file():
        return {}
    try:
        # Not at the top: CPython 3.10 has none, and most starts need none.
        tomllib: Any = importlib.import_module("tomllib")
    except ModuleNotFoundError:
        if path is None:
            return {}
        raise UsageError("--config needs Python 3.11 or newer, which reads TOML.") from None
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from None
    if path is None:
        document = document.get("tool", {}).get("wizgy", {})
    return {name: find_setting(name, str(file)).parse(value, f"{file}: {name}") for name, value in document.items()}


def make_config(flags: Mapping[str, object], file: str | None, environment: Mapping[str, str] | None = None) -> Config:
    """Put the settings together: flags over environment over file over defaults.

    Args:
        flags: values by setting name.
        file: the path of a TOML file, or None for ``[tool.wizgy]`` of ./pyproject.toml.
        environment: the environment variables; those of the process by default.

    Raises:
        UsageError: one is unknown, malformed or contradictory.
    """
    values = from_file(file)
    values.update(from_environment(os.environ if environment is None else environment))
    values.update(flags)
    return Config(**cast(dict[str, Any], values))


def check_keywords(settings: Mapping[str, object]) -> Config:
    """Make a `Config` from the keyword arguments of `wizgy.serve` and `wizgy.make_server`.

    Raises:
        UsageError: one is unknown or has a value that will not do.
    """
    values = {name: find_setting(name, "wizgy").parse(value, f"setting {name}") for name, value in settings.items()}
    return Config(**cast(dict[str, Any], values))
