"""The ``wizgy`` command: arguments to `Config`, then run.

The command line is read here and not by `argparse`, which stops at the first fault, where all faults are to be said
at once, and takes longer to import than all of wizgy's HTTP.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, NoReturn

import wizgy
from wizgy import supervisor
from wizgy.config import ENVIRONMENT_PREFIX, SETTINGS, Config, Setting
from wizgy.errors import LoadError, StartError, UsageError
from wizgy.generation import read_certificates
from wizgy.loader import enter_folder, find_start_folder, load_application
from wizgy.log import open_standard_files
from wizgy.primitives import find_replaced
from wizgy.sink import flush_all
from wizgy.sources import read_settings, show, suggest, to_toml
from wizgy.wsgi import Application

USAGE: Final = "usage: wizgy [OPTIONS] APP"
DESCRIPTION: Final = f"""\
Serve a WSGI application over HTTP.

APP is module:attr, module:attr.attr, module:factory(), module (its 'application', then its 'app'),
or path/to/file.py:attr. The current folder, or that of --chdir, is importable.

Each setting may also come from an environment variable ({ENVIRONMENT_PREFIX}THREADS=4), from a TOML file
(--config FILE) or from [tool.wizgy] of ./pyproject.toml; a flag wins over the environment, and that over a
file. What is on without a value, as --trace, is turned off again by --no-trace."""
EPILOG: Final = """\
exit status: 0 stopped as asked; 1 the first worker died before it was ready; 2 wrong usage or settings;
3 the application could not be loaded; 4 an address could not be listened on

example: wizgy --bind 0.0.0.0:8000 --threads 4 flaskapp:app"""
SEE_HELP: Final = "See wizgy --help."
NO_APPLICATION: Final = f"Provide a WSGI application object as module:callable, as in wizgy flaskapp:app. {SEE_HELP}"

OPTIONS: Final = {
    "--help": "show this help, and exit",
    "--version": "show the version, and exit",
    "--config FILE": f"TOML file with settings; also {ENVIRONMENT_PREFIX}CONFIG",
    "--check": "load settings and application, say so, and exit",
    "--print-config": "show the settings in force and where each was set, as a TOML file, and exit",
}
"""The flags that are no settings."""
SHORT: Final = {"-h": "--help", "-V": "--version"}
HELP_INDENT: Final = 26
"""Columns of the flags in ``--help``."""
WIDEST_HELP: Final = 110


class Options(NamedTuple):
    """The words of a command line, sorted.

    Args:
        app: what names the application; may be empty.
        config: the path of a TOML file, or None.
        check: whether to load everything and exit.
        print_config: whether to show the settings and exit.
        show: ``--help`` or ``--version``, or nothing.
        flags: what follows each flag that is a setting, by the setting's name; not checked yet.
        problems: what is wrong with the flags themselves, one sentence each.
    """

    app: str
    config: str | None
    check: bool
    print_config: bool
    show: str
    flags: dict[str, object]
    problems: list[str]


class Words:
    """Reads the words of a command line from left to right."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._words = deque(arguments)
        self._others: dict[str, str] = {}  # flags that are no settings, with their values
        self._flags: dict[str, object] = {}
        self._positional: list[str] = []
        self._problems: list[str] = []

    def read(self) -> Options:
        """Read all of them."""
        while self._words:
            word = self._words.popleft()
            if word == "--":
                self._positional += self._words
                break
            if word.startswith("-") and word != "-":
                flag, equals, value = word.partition("=")
                self._read_flag(SHORT.get(flag, flag), value if equals else None)
            else:
                self._positional.append(word)
        if len(self._positional) > 1 and not self._problems:  # else one may be the value of an unknown flag
            self._problems.append(f"One application at a time: {' and '.join(self._positional)} are two. {SEE_HELP}")
        others = self._others
        return Options(
            self._positional[0] if self._positional else "",
            others.get("--config"),
            "--check" in others,
            "--print-config" in others,
            next((flag for flag in others if flag in ("--help", "--version")), ""),
            self._flags,
            self._problems,
        )

    def _read_flag(self, flag: str, value: str | None) -> None:
        setting = _settings_by_flag.get(flag)
        if setting is None and flag.startswith("--no-"):
            setting = _settings_by_flag.get("--" + flag.removeprefix("--no-"))
            if setting is not None and setting.is_switch and value is None:
                self._flags[setting.name] = "false"
                return
            setting = None
        if setting is not None:
            self._read_setting(setting, value)
        elif flag == "--config":
            self._others[flag] = self._read_value(flag, "FILE", value) or ""
        elif flag in OPTIONS and value is None:
            self._others[flag] = ""
        elif flag in OPTIONS:
            self._problems.append(f"{flag} takes no value. {SEE_HELP}")
        else:
            self._problems.append(f"{flag}: there is no such flag.{_suggest_flag(flag) or ' ' + SEE_HELP}")

    def _read_setting(self, setting: Setting, value: str | None) -> None:
        if setting.is_switch:
            self._flags[setting.name] = "true" if value is None else value
            return
        value = self._read_value(setting.flag, setting.metavar, value)
        if value is None:
            return
        if setting.repeatable:
            values = self._flags.setdefault(setting.name, [])
            assert isinstance(values, list)
            values.append(value)
        else:
            self._flags[setting.name] = value

    def _read_value(self, flag: str, metavar: str, value: str | None) -> str | None:
        if value is not None:
            return value
        if not self._words or self._words[0].startswith("--"):
            self._problems.append(f"{flag}: its value is missing; expected {flag} {metavar}. {SEE_HELP}")
            return None
        return self._words.popleft()


_settings_by_flag = {setting.flag: setting for setting in SETTINGS.values()}


def _suggest_flag(flag: str) -> str:
    name = flag.lstrip("-").replace("-", "_")
    if not flag.startswith("--"):
        from wizgy.elsewhere import LETTERS  # not at the top: it is needed only where something is wrong

        return f" {LETTERS[name[0]]}" if name[:1] in LETTERS else ""
    return suggest(name.removeprefix("no_").lower(), lambda setting: setting.flag)


def read_options(arguments: Sequence[str]) -> Options:
    """Sort the words of a command line; what is wrong with it is in `Options.problems`."""
    return Words(arguments).read()


def parse_arguments(arguments: Sequence[str]) -> tuple[Options, Config]:
    """Read the command line, the environment and the settings file.

    Raises:
        UsageError: something is wrong; the text says all of it.
    """
    options = read_options(arguments)
    return options, read_settings(options.flags, options.config, None, options.problems).finish()


def format_help() -> str:
    """The text of ``--help``, made from the settings, as wide as the terminal."""
    import shutil  # not at the top: a start needs none

    width = min(shutil.get_terminal_size().columns - 2, WIDEST_HELP)
    blocks = [USAGE, DESCRIPTION]
    blocks.append("\n".join(["Options:", *_format_flag("APP", "the WSGI application", width), *_format_options(width)]))
    groups: dict[str, list[str]] = {}
    for setting in SETTINGS.values():
        lines = groups.setdefault(setting.group, [f"{setting.group}:"])
        text = setting.help if setting.is_switch else f"{setting.help} Default: {show(setting.default)}."
        lines += _format_flag(f"{setting.flag} {setting.metavar}".rstrip(), text, width)
    blocks += ["\n".join(lines) for lines in groups.values()]
    return "\n\n".join([*blocks, EPILOG])


def _format_options(width: int) -> Iterator[str]:
    for flag, text in OPTIONS.items():
        yield from _format_flag(flag, text, width)


def _format_flag(flag: str, text: str, width: int) -> list[str]:
    import textwrap

    indent = " " * HELP_INDENT
    lines = textwrap.wrap(text, max(width, HELP_INDENT + 20), initial_indent=indent, subsequent_indent=indent)
    head = f"  {flag}"
    if len(head) < HELP_INDENT - 1:
        return [head.ljust(HELP_INDENT) + lines[0].lstrip(), *lines[1:]]
    return [head, *lines]


def load(reference: str, config: Config, start: str = os.curdir) -> Application:
    """Change to the folder of the settings, if there is one, and import the application.

    Args:
        reference: what names the application.
        config: the settings.
        start: the folder that the command was started in.

    Raises:
        UsageError: there is no such folder.
        LoadError: the application cannot be imported, or its folder is gone.
    """
    if not os.path.isabs(config.chdir):
        enter_folder(start)
    if config.chdir:
        try:
            os.chdir(config.chdir)
        except OSError as error:
            raise UsageError(f"{config.source('chdir')}: {config.chdir}: {error.strerror}.") from None
    return load_application(reference)


def _configure(arguments: Sequence[str], options: Options, start: str) -> Config:
    """Read the settings, now or for a reload, from the folder that the server was started in.

    Raises:
        StartError: a setting is wrong, or the folder is gone.
    """
    try:
        enter_folder(start)
    except LoadError:
        if not os.path.isabs(str(options.flags.get("chdir", ""))):
            raise
    config = parse_arguments(arguments)[1]
    return config if start == os.curdir else config.replace(chdir=os.path.join(start, config.chdir))


def run(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status.

    Raises:
        StartError: it cannot start.
    """
    options = read_options(arguments)
    if options.show:
        print(format_help() if options.show == "--help" else f"wizgy {wizgy.__version__}")
        return 0
    options, config = parse_arguments(arguments)
    if options.print_config:
        print(to_toml(config))
        return 0
    if not options.app:
        raise UsageError(NO_APPLICATION)
    if options.check:
        read_certificates(config)
        load(options.app, config)
        print(f"wizgy: {options.app} loads, and the settings are valid.")
        return 0
    start = find_start_folder()
    if config.reload:
        from wizgy.reloader import share_memory

        share_memory()

    def configure() -> Config:
        return _configure(arguments, options, start)

    try:
        return supervisor.run(lambda config: load(options.app, config, start), configure(), configure)
    finally:
        flush_all()
        for number in supervisor.CAUGHT:
            signal.signal(number, signal.SIG_IGN)  # it ends anyway, and its exit status is its own


def main() -> NoReturn:
    """The ``wizgy`` command."""
    open_standard_files()
    try:
        if replaced := find_replaced():
            raise LoadError(replaced)
        sys.exit(run(sys.argv[1:]))
    except StartError as error:
        print(f"wizgy: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
