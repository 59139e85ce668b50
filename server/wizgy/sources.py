"""What people have set: flags over ``WIZGY_*`` variables over a TOML file over defaults.

Whatever is wrong is said at once, each with where it was set and what may have been meant.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from wizgy.config import ENVIRONMENT_PREFIX, SETTINGS, Config, Setting
from wizgy.errors import UsageError

FILE_VARIABLE: Final = ENVIRONMENT_PREFIX + "CONFIG"
PROJECT_FILE: Final = "pyproject.toml"
LEAST_LIKENESS: Final = 0.75
"""How much of two names has to be the same for one to be a slip for the other."""
COMMENT_COLUMN: Final = 34
"""Where the comments of ``--print-config`` begin, unless a value is longer."""

_service_variable = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""What Kubernetes sets in every container for a Service of the name ``wizgy``, after ``WIZGY_``."""
_project_table = re.compile(rb"""^[ \t]*\[?[ \t]*["']?tool["']?[ \t]*\.[ \t]*["']?wizgy\b""", re.MULTILINE)
"""Settings, or what was meant to be: a line with a slip is found too, for TOML to say what is wrong with it."""
_project_key = re.compile(rb"""^[ \t]*["']?wizgy["']?[ \t]*(\.|=[ \t]*[^ \t"'])""", re.MULTILINE)
"""Settings if it stands under ``[tool]``; it may be another tool's, which has a dependency of that name."""


class Settings:
    """Collects values, where each was set, and all that is wrong with them.

    Attributes:
        problems: sentences, each with where it was said.
    """

    def __init__(self) -> None:
        self._values: dict[str, object] = {}
        self._sources: dict[str, str] = {}
        self.problems: list[str] = []

    def take(self, name: str, value: object, where: str, spell: Callable[[Setting], str]) -> None:
        """Take what was set; a later one replaces it.

        Args:
            name: the name of the setting, which may not exist.
            value: text, or what a TOML file holds.
            where: where it was set.
            spell: how a setting is written there, for a hint.
        """
        setting = SETTINGS.get(name)
        if setting is None:
            self.problems.append(f"{where}: there is no such setting.{suggest(name, spell)}")
            return
        try:
            self._values[name] = setting.parse(value, where)
            self._sources[name] = where
        except UsageError as error:
            self.problems.append(str(error))

    def take_environment(self, environment: Mapping[str, str]) -> None:
        """Take the ``WIZGY_*`` variables."""
        for variable, value in environment.items():
            name = variable.removeprefix(ENVIRONMENT_PREFIX)
            if name == variable or variable == FILE_VARIABLE or _is_service_variable(name, value):
                continue
            self.take(name.lower(), value, variable, lambda setting: setting.variable)

    def take_file(self, path: str | None) -> None:
        """Take a TOML file, or without a path ``[tool.wizgy]`` of ./pyproject.toml where there is one."""
        try:
            table = read_file(path)
        except UsageError as error:
            self.problems.append(str(error))
            return
        for key, value in table.items():
            self.take(key, value, f"{path or PROJECT_FILE}: {key}", lambda setting: setting.name)

    def finish(self) -> Config:
        """Put the settings together.

        Raises:
            UsageError: something is wrong; the text says all of it.
        """
        if not self.problems:
            config = Config(self._sources, **self._values)
            self.problems += contradictions(config)
            if not self.problems:
                return config
        if len(self.problems) == 1:
            raise UsageError(self.problems[0])
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        raise UsageError(f"{len(self.problems)} things are wrong with the settings:{lines}")


def suggest(name: str, spell: Callable[[Setting], str]) -> str:
    """What is there in place of a setting that is not: what may have been meant, or a sentence; or nothing."""
    # Not at the top: they are needed only where something is wrong.
    from difflib import get_close_matches

    from wizgy.elsewhere import SENTENCES

    known = {synonym: setting for setting in SETTINGS.values() for synonym in (*setting.synonyms, setting.name)}
    near = [setting for setting in SETTINGS.values() if name in setting.synonyms]
    if not near:
        if name in SENTENCES:
            return f" {SENTENCES[name]}"
        # Of what is far off another server's meaning is likelier than a slip.
        matches = get_close_matches(name, [*known, *SENTENCES], n=3, cutoff=LEAST_LIKENESS)
        if matches and matches[0] in SENTENCES:
            return f" {SENTENCES[matches[0]]}"
        near = list({known[match].name: known[match] for match in matches if match in known}.values())
    return f" Did you mean {' or '.join(map(spell, near))}?" if near else ""


def contradictions(config: Config) -> list[str]:
    """What cannot be meant together, one sentence each."""
    found = []
    for setting in SETTINGS.values():
        value = getattr(config, setting.name)
        if setting.needs and value != setting.default and not getattr(config, setting.needs):
            other = SETTINGS[setting.needs]
            found.append(
                f"{config.source(setting.name)}: {show(value)} means nothing without {other.name}; "
                f"set that too ({other.flag} {other.metavar}), or neither."
            )
    twice = {address for address in config.bind if config.bind.count(address) > 1 and not address.endswith(":0")}
    found += [f"{config.source('bind')}: {address} is there twice." for address in sorted(twice)]
    return found


def show(value: object) -> str:
    """A value as a person would write it on the command line."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "none"


def _is_service_variable(name: str, value: str) -> bool:
    match = _service_variable.fullmatch(name)
    return match is not None and (name != "PORT" or "://" in value)


def read_file(path: str | None) -> dict[str, Any]:
    """The settings in a TOML file, as they stand there.

    Args:
        path: a file; in a ``pyproject.toml`` the table ``[tool.wizgy]`` counts. None for ./pyproject.toml, which
            need not be there, nor be readable.

    Raises:
        UsageError: the file cannot be read, or is no TOML.
    """
    name = path or PROJECT_FILE
    is_project = os.path.basename(name) == PROJECT_FILE
    try:
        with open(name, "rb") as file:
            data = file.read()
    except OSError as error:
        if path is None:
            return {}  # nobody asked for it: a folder that may not be read is as good as one without it
        if isinstance(error, FileNotFoundError):
            raise UsageError(f"{name} cannot be read: there is no such file.") from None
        raise UsageError(f"{name} cannot be read: {error.strerror}.") from None
    if path is None and not _project_table.search(data) and not (_project_key.search(data) and _find_tomllib()):
        return {}  # most projects have a pyproject.toml that is not about wizgy, and reading TOML takes a while
    tomllib = _import_tomllib(name)
    try:
        document: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{name} cannot be read: {error}.") from None
    if not is_project:
        if "tool" in document:
            raise UsageError(f"{name}: [tool.wizgy] is for {PROJECT_FILE}; settings of other files stand in no table.")
        return document
    tool = document.get("tool")
    table = tool.get("wizgy", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise UsageError(f"{name}: wizgy = {table!r} will not do; expected a table of settings, [tool.wizgy].")
    return table


def _find_tomllib() -> str | None:
    import importlib.util

    return next((module for module in ("tomllib", "tomli") if importlib.util.find_spec(module) is not None), None)


def _import_tomllib(name: str) -> Any:
    import importlib  # not at the top: most starts need none

    module = _find_tomllib()
    if module is not None:
        return importlib.import_module(module)
    version = ".".join(map(str, sys.version_info[:2]))
    raise UsageError(
        f"{name} cannot be read: Python {version} reads no TOML. Use Python 3.11 or newer, or pip install tomli, "
        f"or set flags or {ENVIRONMENT_PREFIX}* variables instead."
    )


def make_config(flags: Mapping[str, object], file: str | None, environment: Mapping[str, str] | None = None) -> Config:
    """Put the settings together: flags over environment over file over defaults.

    Args:
        flags: values by setting name.
        file: the path of a TOML file, or None for that of the environment, or else ``[tool.wizgy]`` of
            ./pyproject.toml.
        environment: the environment variables; those of the process by default.

    Raises:
        UsageError: one is unknown, malformed or contradictory; the text says all that is wrong.
    """
    return read_settings(flags, file, environment, []).finish()


def read_settings(
    flags: Mapping[str, object], file: str | None, environment: Mapping[str, str] | None, problems: list[str]
) -> Settings:
    """Read the settings from everywhere; the same arguments as `make_config`, and what is wrong already."""
    environment = os.environ if environment is None else environment
    settings = Settings()
    settings.problems += problems
    settings.take_file(file or environment.get(FILE_VARIABLE) or None)
    settings.take_environment(environment)
    for name, value in flags.items():
        settings.take(name, value, SETTINGS[name].flag, lambda setting: setting.flag)
    return settings


def check_keywords(keywords: Mapping[str, object], *, embedded: bool = False) -> Config:
    """Make a `Config` from the keyword arguments of `wizgy.serve` and `wizgy.make_server`.

    Args:
        keywords: values by setting name.
        embedded: whether they are for `wizgy.make_server`, which starts no processes.

    Raises:
        UsageError: one is unknown or has a value that will not do; the text says all that is wrong.
    """
    settings = Settings()
    for name, value in keywords.items():
        if embedded and name in SETTINGS and SETTINGS[name].command_only:
            settings.problems.append(f"{name}: only the wizgy command and wizgy.serve have a use for it.")
            continue
        settings.take(name, value, name, lambda setting: setting.name)
    return settings.finish()


def to_toml(config: Config, *, commented: bool = False) -> str:
    """The settings as a TOML document that ``--config`` reads.

    Args:
        config: the settings.
        commented: whether the help of each setting stands above it, in place of where it was set.
    """
    blocks: dict[str, list[str]] = {}
    for setting in SETTINGS.values():
        lines = blocks.setdefault(setting.group, [f"# {setting.group}"])
        line = f"{setting.name} = {to_toml_value(getattr(config, setting.name))}"
        if commented:
            lines += [f"# {setting.help}", line]
        else:
            lines.append(f"{line} ".ljust(COMMENT_COLUMN) + f"# {_printable(config.source(setting.name))}")
    return "\n\n".join("\n".join(lines) for lines in blocks.values())


def to_toml_value(value: object) -> str:
    """A value of a setting as TOML has it."""
    import json  # not at the top: a start needs none

    # JSON's numbers, booleans and arrays of strings are TOML's too, and its strings but for two things: TOML
    # has no surrogate pairs, and wants DEL escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _printable(comment: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in comment)
