"""Where Chromium is, and how it is started."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    """Return the program: the one that WIZGY_CHROMIUM names, else the first that is on the PATH."""
    if named := os.environ.get("WIZGY_CHROMIUM"):
        return shutil.which(named)
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def why_missing() -> str:
    """Return why there is no program, and what to do."""
    if named := os.environ.get("WIZGY_CHROMIUM"):
        return f"WIZGY_CHROMIUM={named} is no program that can be run"
    return (
        f"none is on this machine (looked for {', '.join(NAMES)}): install it (`apt install chromium`), "
        "or name its program in WIZGY_CHROMIUM"
    )
