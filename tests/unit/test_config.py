"""Settings: where they come from, which wins, and what is said about a bad one."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
from pathlib import Path

import pytest

from wizgy.cli import OPTIONS, parse_arguments
from wizgy.config import SETTINGS, Config, Setting
from wizgy.elsewhere import LETTERS, SENTENCES
from wizgy.errors import UsageError
from wizgy.sources import check_keywords, make_config, read_file, to_toml


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
def test_every_setting_is_whole(setting: Setting) -> None:
    """Each setting has a sentence of help, a flag, a variable, and a default that its own parser accepts."""
    assert setting.help.endswith(".")
    assert setting.flag == "--" + setting.name.replace("_", "-")
    assert setting.variable == "WIZGY_" + setting.name.upper()
    default = setting.default
    assert setting.parse(list(default) if isinstance(default, tuple) else default, "here") == default
    assert setting.is_switch is isinstance(default, bool)


def test_precedence(tmp_path: Path) -> None:
    """A flag wins over the environment, that over the file, and that over the default."""
    file = tmp_path / "wizgy.toml"
    file.write_text("threads = 2\nworkers = 2\nbacklog = 2\n", "utf-8")
    config = make_config({"threads": 4}, str(file), {"WIZGY_THREADS": "3", "WIZGY_WORKERS": "3"})
    assert (config.threads, config.workers, config.backlog, config.max_body) == (4, 3, 2, 1 << 30)


def test_pyproject(tmp_path: Path) -> None:
    """Without a file named, [tool.wizgy] of pyproject.toml in the current folder counts, and a file replaces it."""
    project = tmp_path / "pyproject.toml"
    project.write_text("[project]\nname = 'x'\n[tool.wizgy]\nthreads = 2\n", "utf-8")
    (tmp_path / "empty.toml").write_text("", "utf-8")
    assert read_file(None) == {"threads": 2}
    assert read_file("empty.toml") == {}
    assert read_file(str(project)) == {"threads": 2}  # a file of that name has other tables too
    project.write_text("[project]\nname = 'x'\n", "utf-8")
    assert read_file(None) == {}
    project.write_text("tool = 3\n", "utf-8")
    assert read_file("pyproject.toml") == {}
    project.write_text("[tool]\nwizgy = 3\n", "utf-8")
    with pytest.raises(UsageError, match="expected a table of settings"):
        read_file("pyproject.toml")
    project.write_text("[tool.wizgy]\nthreads = \n", "utf-8")
    with pytest.raises(UsageError, match=r"^pyproject\.toml cannot be read: .*line 2"):
        read_file(None)


@pytest.mark.parametrize(
    "text",
    [
        "[tool]\nwizgy = {threads = 2}\n",
        "[tool]\nwizgy.threads = 2\n",
        "tool.wizgy.threads = 2\n",
        "tool.wizgy = {threads = 2}\n",
        "['tool'.\"wizgy\"]\nthreads = 2\n",
        "[project]\nname = 'wizgy-site'\n\n [ tool . wizgy ] # here\nthreads = 2\n",
    ],
)
def test_every_spelling_of_the_table(tmp_path: Path, text: str) -> None:
    """However TOML lets people write a table, its settings count."""
    (tmp_path / "pyproject.toml").write_text(text, "utf-8")
    assert read_file(None) == {"threads": 2}


def test_slips_in_the_name_of_the_table(tmp_path: Path) -> None:
    """A table that misses its bracket is an error and not a table of somebody else; a number is no table."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n[tool.wizgy\nthreads = 2\n", "utf-8")
    with pytest.raises(UsageError, match=r"^pyproject\.toml cannot be read: .*line 3"):
        read_file(None)
    (tmp_path / "pyproject.toml").write_text("[tool]\nwizgy = 3\n", "utf-8")
    with pytest.raises(UsageError, match="expected a table of settings"):
        read_file(None)
    (tmp_path / "a.toml").write_text("[tool.wizgy]\nthreads = 2\n", "utf-8")
    with pytest.raises(UsageError, match=r"^a\.toml: \[tool\.wizgy\] is for pyproject\.toml; .* stand in no table"):
        read_file("a.toml")


def test_tables_of_others(tmp_path: Path) -> None:
    """Other tools that name wizgy set nothing."""
    text = "[tool.poetry.dependencies]\nwizgy = {version = '1'}\n[tool.uv.sources.wizgy]\npath = '.'\n"
    (tmp_path / "pyproject.toml").write_text(text, "utf-8")
    assert read_file(None) == {}


def test_no_toml_in_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing reads TOML, a file with settings is refused and says what to do; one without is no matter."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'wizgy'\n", "utf-8")
    (tmp_path / "a.toml").write_text("threads = 3\n", "utf-8")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert read_file(None) == {}
    (tmp_path / "pyproject.toml").write_text("[tool.poetry.dependencies]\nwizgy = {version = '1'}\n", "utf-8")
    assert read_file(None) == {}
    with pytest.raises(UsageError, match=r"^a\.toml cannot be read: .*Python 3\.11 or newer, or pip install tomli"):
        read_file("a.toml")
    (tmp_path / "pyproject.toml").write_text("[ tool . wizgy ]\nthreads = 3\n", "utf-8")
    with pytest.raises(UsageError, match=r"^pyproject\.toml cannot be read"):
        read_file(None)


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
        ("access_log_format", "%Z"),
        ("access_log_format", "%(h)s"),
        ("access_log_format", "%h\n"),
        ("threads", "9" * 5000),
        ("header_timeout", "1_0"),
        ("header_timeout", " 1"),
        ("bind", 8888),
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
    shown = value[0] if isinstance(value, list) and value and name == "bind" else value
    assert message.startswith(f"over there: {shown!r} will not do; " if "," not in str(shown) else "over there: ''")
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


def complaint(flags: dict[str, object] | None = None, file: str | None = None, **environment: str) -> str:
    """What is said about wrong settings."""
    with pytest.raises(UsageError) as caught:
        make_config(flags or {}, file, environment)
    return str(caught.value)


def test_near_names() -> None:
    """An unknown name is refused, with those that are near, written as they are written there."""
    assert complaint(WIZGY_TREADS="3") == "WIZGY_TREADS: there is no such setting. Did you mean WIZGY_THREADS?"
    assert complaint(WIZGY_XYZZY="3") == "WIZGY_XYZZY: there is no such setting."
    assert complaint(WIZGY_PORT="80") == "WIZGY_PORT: there is no such setting. Did you mean WIZGY_BIND?"
    with pytest.raises(UsageError, match=r"^max_bodies: there is no such setting\. Did you mean max_body\b"):
        check_keywords({"max_bodies": 3})


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """Every fault of every source is in one message, each with where it was set."""
    (tmp_path / "a.toml").write_text("thread = 1\nthreads = 0\n[logs]\ntrace = 1\n", "utf-8")
    text = complaint({"backlog": "x", "bind": ["a", "b:1"]}, "a.toml", WIZGY_MAX_BODY="-1", WIZGY_XYZZY="")
    first, *lines = text.splitlines()
    assert first == "7 things are wrong with the settings:"
    for line, where in zip(
        lines,
        ("a.toml: thread", "a.toml: threads", "a.toml: logs", "WIZGY_MAX_BODY", "WIZGY_XYZZY", "--backlog", "--bind"),
        strict=True,
    ):
        assert line.startswith(f"  {where}: ")


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--preload", " Each worker loads the application itself."),
        ("--pid", " wizgy writes no pid file"),
        ("--daemon", " wizgy stays in the foreground"),
        ("--umask", " The permissions of a Unix socket are part of its address"),
        ("--log-file", " The error log goes to standard error"),
        ("--statsd-host", " wizgy sends no metrics"),
        ("--statsd-hosts", " wizgy sends no metrics"),
        ("--no-sendfile", " Plain files are always sent by the kernel."),
        ("--factory", " A factory is named with its brackets"),
        ("--worker-tmp-dir", " Temporary files of requests are in TMPDIR"),
        ("--keep-alive", " Did you mean --keepalive-timeout?"),
        ("--worker-connections", " Did you mean --max-connections?"),
        ("--keyfil", " Did you mean --keyfile"),
        ("--outbuf-overflow", " See wizgy --help."),
        ("-p", " A port is part of the address"),
        ("-k", " There is one kind of worker"),
        ("-x", " See wizgy --help."),
        ("-p8000", " A port is part of the address"),
    ],
)
def test_flags_of_other_servers(flag: str, expected: str) -> None:
    """A flag of another server gets the flag that does the same, or the reason why there is none; else no guess."""
    with pytest.raises(UsageError) as caught:
        parse_arguments([flag, "value", "a:app"])
    assert str(caught.value).startswith(f"{flag}: there is no such flag.{expected}")


def test_sentences_about_other_servers() -> None:
    """No sentence is about a setting that there is, and each flag that one names exists."""
    ours = {name for setting in SETTINGS.values() for name in (setting.name, *setting.synonyms)}
    assert not ours & set(SENTENCES)
    flags = {
        flag for sentence in (*SENTENCES.values(), *LETTERS.values()) for flag in re.findall(r"--[a-z-]+", sentence)
    }
    known = {setting.flag for setting in SETTINGS.values()} | {flag.split()[0] for flag in OPTIONS}
    assert flags <= known
    synonyms = [name for setting in SETTINGS.values() for name in setting.synonyms]
    assert len(synonyms) == len(set(synonyms))


def test_project_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ./pyproject.toml that cannot be opened, and that nobody asked for, is as good as none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").mkdir()
    assert make_config({}, None, {}) == Config()
    assert complaint(file="pyproject.toml") == "pyproject.toml cannot be read: Is a directory."
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        assert make_config({}, None, {}) == Config()
        assert complaint(file="a.toml") == "a.toml cannot be read: Permission denied."


def refuse(*arguments: object) -> None:
    """An `open` in a folder that may not be entered."""
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_faults_of_the_command_line_are_said_at_once() -> None:
    """Unknown flags, missing values and bad values are in one message; a switch takes none, or true or false."""
    with pytest.raises(UsageError) as caught:
        parse_arguments(["--treads", "4", "-w", "3", "a:app", "--no-threads", "--trace=perhaps", "--check=1", "--bind"])
    assert str(caught.value).splitlines()[1:] == [
        "  --treads: there is no such flag. Did you mean --threads?",
        "  -w: there is no such flag. Did you mean --workers?",
        "  --no-threads: there is no such flag. Did you mean --threads?",
        "  --check takes no value. See wizgy --help.",
        "  --bind: its value is missing; expected --bind ADDRESS. See wizgy --help.",
        "  --trace: 'perhaps' will not do; expected true or false.",
    ]


def test_command_line() -> None:
    """Flags and application come in any order; = or a space; a repeated flag adds up, or the last one counts."""
    options, config = parse_arguments(
        ["--threads=2", "a:app", "--bind", "a:1", "--threads", "3", "--bind=b:2", "--access-log", "-", "--trace"]
    )
    assert (options.app, config.threads, config.bind, config.access_log) == ("a:app", 3, ("a:1", "b:2"), "-")
    assert config.trace
    assert not parse_arguments(["--trace", "--no-trace"])[1].trace
    assert not parse_arguments(["--trace", "--trace=false"])[1].trace
    assert parse_arguments(["--threads", "2", "--", "--app"])[0].app == "--app"
    with pytest.raises(UsageError, match="a:app and b:app are two"):
        parse_arguments(["a:app", "b:app"])


def test_contradictions() -> None:
    """What would be ignored without another setting is refused, with where it was set."""
    expected = "WIZGY_MAX_REQUESTS_JITTER: 3 means nothing without max_requests; set that too (--max-requests N)"
    assert complaint(WIZGY_MAX_REQUESTS_JITTER="3").startswith(expected)
    assert make_config({}, None, {"WIZGY_MAX_REQUESTS_JITTER": "3", "WIZGY_MAX_REQUESTS": "5"}).max_requests == 5
    assert complaint({"bind": ["a:1", "b:1", "a:1"]}) == "--bind: a:1 is there twice."
    assert make_config({"bind": ["a:0", "a:0"]}, None, {}).bind == ("a:0", "a:0")


def test_every_need_is_a_setting() -> None:
    """What a setting needs, or is called elsewhere, is known, and no other setting has that name."""
    for setting in SETTINGS.values():
        assert setting.needs in SETTINGS or not setting.needs
        assert not set(setting.synonyms) & SETTINGS.keys()


def test_sources(tmp_path: Path) -> None:
    """Each value knows where it was set; a copy with other values knows it too."""
    (tmp_path / "a.toml").write_text("workers = 2\nthreads = 2\n", "utf-8")
    config = make_config({"threads": "3"}, None, {"WIZGY_BACKLOG": "5", "WIZGY_CONFIG": "a.toml"})
    assert [config.source(name) for name in ("threads", "backlog", "workers", "max_body")] == [
        "--threads",
        "WIZGY_BACKLOG",
        "a.toml: workers",
        "default",
    ]
    assert config.replace(threads=4).source("backlog") == "WIZGY_BACKLOG"
    assert to_toml(config).splitlines()[2].split("#")[1] == " a.toml: workers"


def test_config_does_not_change() -> None:
    """A Config is a value: it cannot be changed, and knows no names but those of settings."""
    config = Config(threads=3)
    with pytest.raises(AttributeError, match="does not change"):
        config.threads = 4
    assert (config.threads, config.replace(threads=4).threads) == (3, 4)
    with pytest.raises(TypeError, match="treads"):
        Config(treads=3)
    assert "threads=3" in repr(config)
    assert config != Config()


def test_environment_of_others() -> None:
    """Only WIZGY_ variables are looked at, and not those that Kubernetes makes of a Service called wizgy."""
    environment = {
        "THREADS": "x",
        "XWIZGY_THREADS": "x",
        "WIZGY_THREADS": "3",
        "WIZGY_SERVICE_HOST": "10.0.0.1",
        "WIZGY_SERVICE_PORT": "80",
        "WIZGY_SERVICE_PORT_HTTP": "80",
        "WIZGY_PORT": "tcp://10.0.0.1:80",
        "WIZGY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "WIZGY_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert make_config({}, None, environment) == Config(threads=3)


def test_keywords_are_checked_like_the_rest() -> None:
    """The keywords of `wizgy.serve` take Python values and are checked."""
    config = check_keywords({"bind": "127.0.0.1:0", "threads": 2, "trace": True, "body_timeout": 1.5})
    assert (config.bind, config.threads, config.trace, config.body_timeout) == (("127.0.0.1:0",), 2, True, 1.5)
    assert check_keywords({"bind": ["127.0.0.1:0", "unix:/a"]}).bind == ("127.0.0.1:0", "unix:/a")
    with pytest.raises(UsageError, match="workers: only the wizgy command"):
        check_keywords({"workers": 2}, embedded=True)


def test_toml_round_trip(tmp_path: Path) -> None:
    """What is printed is read back to the same settings, whatever characters are in it."""
    _, config = parse_arguments(
        ["--bind", 'unix:/é😀\x7f\x01"\\', "--bind", "[::1]:1", "--write-timeout", "0.25", "--trace", "--chdir", "ß"]
    )
    (tmp_path / "printed.toml").write_text(to_toml(config), "utf-8")
    assert make_config({}, "printed.toml", {}) == config
