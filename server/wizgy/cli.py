"""The ``wizgy`` command: arguments to `Config`, then run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import wizgy
from wizgy import supervisor
from wizgy.config import ENVIRONMENT_PREFIX, SETTINGS, Config, make_config
from wizgy.errors import StartError, UsageError
from wizgy.loader import load_application
from wizgy.wsgi import Application

DESCRIPTION: Final = "Serve a WSGI application over HTTP."
EPILOG: Final = f"""\
APP is module:attr, module:attr.attr, module:factory(), module (its 'application', then its 'app'),
or path/to/file.py:attr. The current folder, or that of --chdir, is importable.

Each setting may also come from an environment variable ({ENVIRONMENT_PREFIX}THREADS=4), from a TOML file
(--config FILE) or from [tool.wizgy] of ./pyproject.toml; a flag wins over the environment, and that over a
file.

exit status: 0 stopped as asked; 2 wrong usage or settings; 3 the application could not be loaded;
4 an address could not be listened on

example: wizgy --bind 0.0.0.0:8000 --threads 4 flaskapp:app
"""


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, and where help is."""

    def error(self, message: str) -> NoReturn:
        """Report wrong usage."""
        raise UsageError(f"{message[:1].upper()}{message[1:]}. See wizgy --help.")


def make_parser() -> argparse.ArgumentParser:
    """The command line, made from the settings."""
    parser = Parser(
        prog="wizgy",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("app", nargs="?", metavar="APP", default="", help="the WSGI application")
    parser.add_argument("--version", action="version", version=f"wizgy {wizgy.__version__}")
    parser.add_argument("--config", metavar="FILE", default=None, help="TOML file with settings")
    parser.add_argument(
        "--check", action="store_true", default=False, help="load settings and application, say so, and exit"
    )
    parser.add_argument(
        "--print-config", action="store_true", default=False, help="show the settings in force, and exit"
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in SETTINGS.values():
        if setting.group not in groups:
            groups[setting.group] = parser.add_argument_group(setting.group)
        group = groups[setting.group]
        if not setting.metavar:
            group.add_argument(setting.flag, action="store_true", dest=setting.name, help=setting.help)
            continue
        group.add_argument(
            setting.flag,
            dest=setting.name,
            action="append" if setting.repeatable else "store",
            metavar=setting.metavar,
            help=f"{setting.help} Default: {_show_default(setting.default)}.".replace("%", "%%"),
        )
    return parser


def _show_default(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "none"


def to_toml(config: Config) -> str:
    """The settings as a TOML document that `--config` reads."""
    lines = []
    for name, value in dataclasses.asdict(config).items():
        # JSON's numbers, booleans and arrays of strings are TOML's too, and its strings but for two things: TOML
        # has no surrogate pairs, and wants DEL escaped.
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        lines.append(f"{name} = {text}")
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str]) -> tuple[argparse.Namespace, Config]:
    """Read the command line, the environment and the settings file.

    Raises:
        UsageError: one of them is wrong.
    """
    options = make_parser().parse_args(arguments)
    flags = {
        name: setting.parse(getattr(options, name), setting.flag)
        for name, setting in SETTINGS.items()
        if hasattr(options, name)
    }
    config = make_config(flags, options.config)
    if config.access_log not in ("", "-"):
        # Where it was said, not where --chdir leads.
        config = dataclasses.replace(config, access_log=os.path.abspath(config.access_log))
    return options, config


def load(reference: str, folder: str) -> Application:
    """Change to `folder`, if there is one, and import the application.

    Raises:
        UsageError: there is no such folder.
        LoadError: the application cannot be imported.
    """
    if folder:
        try:
            os.chdir(folder)
        except OSError as error:
            raise UsageError(f"--chdir {folder}: {error.strerror}.") from None
    return load_application(reference)


def run(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status.

    Raises:
        StartError: it cannot start.
    """
    options, config = parse_arguments(arguments)
    if options.print_config:
        print(to_toml(config))
        return 0
    if not options.app:
        raise UsageError(
            "Provide a WSGI application object as module:callable, as in wizgy flaskapp:app. See wizgy --help."
        )
    if options.check:
        load(options.app, config.chdir)
        print(f"wizgy: {options.app} loads, and the settings are valid.")
        return 0
    return supervisor.run(lambda config: load(options.app, config.chdir), config, lambda: parse_arguments(arguments)[1])


def main() -> NoReturn:
    """The ``wizgy`` command."""
    try:
        sys.exit(run(sys.argv[1:]))
    except StartError as error:
        print(f"wizgy: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
