"""The page of all settings is what the settings make of it, and what it shows happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.harness.frameworks import ROOT
from wizgy.config import SETTINGS, Config
from wizgy.sources import make_config

PAGE = (ROOT / "docs" / "settings.md").read_text("utf-8")
SCRIPT = [sys.executable, str(ROOT / "docs" / "write_settings.py"), "--check"]


def test_page_is_up_to_date() -> None:
    """docs/settings.md is written from the settings; the check says by which command."""
    ended = subprocess.run(SCRIPT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_page_has_every_setting() -> None:
    """Each flag, variable and key is on the page, in a table and in the complete file."""
    for setting in SETTINGS.values():
        for name in setting.flag, setting.variable:
            assert re.search(rf"`{name}\b", PAGE), name
        assert f"\n{setting.name} = " in PAGE


def test_complete_file_is_read(tmp_path: Path) -> None:
    """The complete file of the page sets every setting, to its default."""
    (tmp_path / "a.toml").write_text(PAGE.partition("```toml\n")[2].partition("```")[0], "utf-8")
    config = make_config({}, str(tmp_path / "a.toml"), {})
    assert config == Config()
    assert "default" not in {config.source(name) for name in SETTINGS}


def test_example_of_faults_is_what_is_said() -> None:
    """What the page shows as the answer to wrong settings is the answer."""
    shown = PAGE.partition("$ WIZGY_TREADS=4 wizgy --keepalive 5 app:app\n")[2].partition("```")[0]
    script = "import sys; from wizgy.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", script, "--keepalive", "5", "app:app"],
        env={"WIZGY_TREADS": "4", "PYTHONPATH": str(ROOT / "server")},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (2, shown)
