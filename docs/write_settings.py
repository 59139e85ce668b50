"""Write the page of all settings: ``python docs/write_settings.py [--check]``.

Exit status: 0 when the page was written or is up to date, 1 when ``--check`` finds that it is not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "server"))

from wizgy.cli import OPTIONS  # noqa: E402 - it need not be installed
from wizgy.config import SETTINGS, Config, Setting  # noqa: E402
from wizgy.logline import COMBINED, COMMON, DIRECTIVES  # noqa: E402
from wizgy.sources import to_toml, to_toml_value  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"
COMMAND = "python docs/write_settings.py"
INTRODUCTION = f"""\
<!-- Written by `{COMMAND}` from server/wizgy/config.py. Change the settings there, then run it again. -->

# Settings

Each setting is a flag of the `wizgy` command, an environment variable, a key of a TOML file, and a keyword argument of
`wizgy.serve(app, …)`. Those that concern one process are keyword arguments of `wizgy.make_server((host, port), app, …)`
too. Where one is set twice, a flag wins over the environment, and that over a file.

- **Flags**: `--threads 4` or `--threads=4`. A switch such as `--trace` takes no value; `--no-trace` turns off what a
  file or a variable turned on.
- **Environment**: `WIZGY_THREADS=4`; a switch is `true` or `false`. An unknown variable that begins with `WIZGY_` is an
  error, but for those that Kubernetes sets for a Service called `wizgy`.
- **TOML**: `--config FILE` or `WIZGY_CONFIG`, whose settings stand in no table, as `threads = 4`; without, the table
  `[tool.wizgy]` of `pyproject.toml` in the current folder. Python 3.10 reads TOML only when `tomli` is installed.

`wizgy --print-config` shows the settings in force and where each was set, as a TOML file. `wizgy --check APP` loads
them and the application, and exits. What is wrong is said all at once, and the exit status is 2:

```console
$ WIZGY_TREADS=4 wizgy --keepalive 5 app:app
wizgy: 2 things are wrong with the settings:
  --keepalive: there is no such flag. Did you mean --keepalive-timeout?
  WIZGY_TREADS: there is no such setting. Did you mean WIZGY_THREADS?
```

`bind` may be given several times; in a variable with commas between, in TOML as an array ([all its
forms](operations.md#addresses)). Paths are relative to the
folder in which `wizgy` was started. Flags that are no settings:

| flag | what it does |
|---|---|
"""
FORMATS = f"""\
## Formats of the access log

- `combined` is `{COMBINED}`.
- `common` is `{COMMON}`.
- `json` is one object a line: `time`, `remote_addr`, `method`, `target`, `protocol`, `status`, `content_length`,
  `duration` in seconds, `referer`, `user_agent`, `request_id`, and `traceparent` where the client sent a valid one.

In a format of your own these directives count, with the meaning that they have in Apache httpd. What a client may
choose is escaped: every byte that is not printable ASCII, every quote and every backslash becomes `\\xHH`.

| directive | what it stands for |
|---|---|
"""


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def make_page() -> str:
    """Return the whole page as Markdown."""
    return INTRODUCTION + "\n".join(_iterate_lines()) + "\n"


def _iterate_lines() -> Iterator[str]:
    for flag, text in OPTIONS.items():
        yield f"| `{flag}` | {cell(text)} |"
    groups: dict[str, list[Setting]] = {}
    for setting in SETTINGS.values():
        groups.setdefault(setting.group, []).append(setting)
    for group, settings in groups.items():
        yield from ("", f"## {group}", "", "| flag, variable, key | default | unit | what it is |", "|---|---|---|---|")
        for setting in settings:
            flag = f"{setting.flag} {setting.metavar}".rstrip()
            names = f"`{flag}`<br>`{setting.variable}`<br>`{setting.name}`".replace("|", "\\|")
            yield f"| {names} | `{to_toml_value(setting.default)}` | {setting.unit} | {cell(setting.help)} |"
    yield ""
    yield FORMATS.rstrip("\n")
    for meaning, same in groupby(DIRECTIVES, key=lambda directive: DIRECTIVES[directive][0]):
        yield f"| {', '.join(f'`{directive}`' for directive in same)} | {cell(meaning)} |"
    yield "| `%{Field}i` | field of the request, `-` where there is none |"
    yield "| `%{Field}o` | field of the application's answer, `-` where there is none |"
    yield from ("", "## A complete file", "", "Every setting with its default, for `--config`:", "")
    yield from ("```toml", to_toml(Config(), commented=True), "```")


def main(arguments: Sequence[str]) -> int:
    """Write the page, or check it."""
    page = make_page()
    if list(arguments) == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page:
            return 0
        print(f"{PAGE.relative_to(ROOT)} is not what the settings make of it: run {COMMAND}", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}: {len(SETTINGS)} settings")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
