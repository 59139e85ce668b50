"""Settings: where they come from, which wins, and what is said about a bad one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from wizgy.cli import parse_arguments, to_toml
from wizgy.config import SETTINGS, Config, check_keywords, find_setting, from_environment, from_file, make_config
from wizgy.errors import UsageError

needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="the standard library reads no TOML")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this repository's files nor this process's environment have a say."""
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("WIZGY_")]:
        monkeypatch.delenv(variable)


def test_defaults_are_complete() -> None:
    """With nothing said the settings are those of the documentation."""
    config = make_config({}, None, {})
    assert config == Config()
    assert (config.bind, config.workers, config.threads) == (("127.0.0.1:8888",), 1, 8)
    timeouts = (config.header_timeout, config.body_timeout, config.keepalive_timeout, config.write_timeout)
    assert timeouts == (10.0, 30.0, 15.0, 30.0)
    limits = (config.max_request_line, config.max_header_bytes, config.max_header_count, config.max_body)
    assert limits == (8190, 65536, 100, 1 << 30)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_every_setting_is_whole(setting: object) -> None:
    """Each setting has a sentence of help, a flag, a variable, and a default that its own parser accepts."""
    from wizgy.config import Setting

    assert isinstance(setting, Setting)
    assert setting.help.endswith(".")
    assert setting.flag == "--" + setting.name.replace("_", "-")
    assert setting.variable == "WIZGY_" + setting.name.upper()
    default = setting.default
    assert setting.parse(list(default) if isinstance(default, tuple) else default, "here") == default
    assert (setting.metavar == "") is isinstance(default, bool)


@needs_toml
def test_precedence(tmp_path: Path) -> None:
    """A flag wins over the environment, that over the file, and that over the default."""
    file = tmp_path / "wizgy.toml"
    file.write_text("threads = 2\nworkers = 2\nbacklog = 2\n", "utf-8")
    config = make_config({"threads": 4}, str(file), {"WIZGY_THREADS": "3", "WIZGY_WORKERS": "3"})
    assert (config.threads, config.workers, config.backlog, config.max_body) == (4, 3, 2, 1 << 30)


@needs_toml
def test_pyproject(tmp_path: Path) -> None:
    """Without a file named, [tool.wizgy] of pyproject.toml in the current folder counts, and a file replaces it."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n[tool.wizgy]\nthreads = 2\n", "utf-8")
    (tmp_path / "empty.toml").write_text("", "utf-8")
    assert from_file(None) == {"threads": 2}
    assert from_file("empty.toml") == {}
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n", "utf-8")
    assert from_file(None) == {}


def test_no_toml_in_this_python(tmp_path: Path) -> None:
    """Where Python reads no TOML, a file that is named is refused with the reason; where it does, it is read."""
    (tmp_path / "a.toml").write_text("threads = 3\n", "utf-8")
    if sys.version_info >= (3, 11):
        assert from_file("a.toml") == {"threads": 3}
    else:
        with pytest.raises(UsageError, match=r"3\.11"):
            from_file("a.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", "0"),
        ("threads", "-1"),
        ("threads", "1.5"),
        ("threads", "\u0663"),
        ("threads", "1_0"),
        ("threads", " 1"),
        ("threads", ""),
        ("threads", True),
        ("threads", None),
        ("threads", [1]),
        ("header_timeout", "0"),
        ("header_timeout", "nan"),
        ("header_timeout", "inf"),
        ("header_timeout", "soon"),
        ("graceful_timeout", "-1"),
        ("max_request_line", "63"),
        ("trace", "perhaps"),
        ("trace", "2"),
        ("log_level", "loud"),
        ("access_log_format", "xml"),
        ("server_header", "a\r\nb"),
        ("server_header", "\xe9"),
        ("bind", "8888"),
        ("bind", "localhost"),
        ("bind", "localhost:http"),
        ("bind", ":8888"),
        ("bind", "localhost:65536"),
        ("bind", "::1:8888"),
        ("bind", "unix:"),
        ("bind", "fd:x"),
        ("bind", "localhost:1,"),
        ("bind", []),
        ("bind", ()),
        ("bind", [None]),
    ],
)
def test_bad_values(name: str, value: object) -> None:
    """A bad value is refused with where it stood, what it was and what is expected."""
    with pytest.raises(UsageError) as caught:
        SETTINGS[name].parse(value, "over there")
    message = str(caught.value)
    assert message.startswith(f"over there: {value!r} will not do; ")
    assert message.endswith(".")
    assert "expected" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:0", ("127.0.0.1:0",)),
        ("[::1]:8888,localhost:1", ("[::1]:8888", "localhost:1")),
        ("unix:/a b/c:d", ("unix:/a b/c:d",)),
        ("fd:3", ("fd:3",)),
    ],
)
def test_addresses(text: str, expected: tuple[str, ...]) -> None:
    """Each form of an address is accepted, and several with commas between."""
    assert SETTINGS["bind"].parse(text, "here") == expected


def test_near_names() -> None:
    """An unknown name is refused, with one that is near where there is one."""
    with pytest.raises(UsageError, match=r"^there: there is no setting 'worker'\. Did you mean workers\?$"):
        find_setting("worker", "there")
    with pytest.raises(UsageError, match=r"^there: there is no setting 'xyzzy'\.$"):
        find_setting("xyzzy", "there")
    with pytest.raises(UsageError, match=r"WIZGY_TREADS.*Did you mean threads"):
        from_environment({"WIZGY_TREADS": "3"})
    with pytest.raises(UsageError, match="Did you mean max_body"):
        check_keywords({"max_bodies": 3})


def test_environment_of_others() -> None:
    """Only WIZGY_ variables are looked at."""
    assert from_environment({"THREADS": "x", "XWIZGY_THREADS": "x", "WIZGY_THREADS": "3"}) == {"threads": 3}


def test_keywords_are_checked_like_the_rest() -> None:
    """The keywords of `wizgy.serve` take Python values and are checked."""
    config = check_keywords({"bind": "127.0.0.1:0", "threads": 2, "trace": True, "body_timeout": 1.5})
    assert (config.bind, config.threads, config.trace, config.body_timeout) == (("127.0.0.1:0",), 2, True, 1.5)
    assert check_keywords({"bind": ["127.0.0.1:0", "unix:/a"]}).bind == ("127.0.0.1:0", "unix:/a")


@needs_toml
def test_toml_round_trip(tmp_path: Path) -> None:
    """What is printed is read back to the same settings, whatever characters are in it."""
    _, config = parse_arguments(
        ["--bind", 'unix:/é😀\x7f\x01"\\', "--bind", "[::1]:1", "--write-timeout", "0.25", "--trace", "--chdir", "ß"]
    )
    (tmp_path / "printed.toml").write_text(to_toml(config), "utf-8")
    assert make_config({}, "printed.toml", {}) == config
