"""The work tree: its commit, whether it was changed since, and which files did."""

from __future__ import annotations

import subprocess
from pathlib import Path

from matrix.manifest import ROOT, MatrixError


def tree_commit() -> str | None:
    """Return the commit of the tree in full; None outside of a repository."""
    return _git("rev-parse", "HEAD")


def tree_is_modified() -> bool:
    """Say whether tracked files differ from the commit."""
    return bool(_git("status", "--porcelain", "--untracked-files=no"))


def changed_files(revision: str) -> list[str]:
    """Return the files that differ from a revision, those that are not tracked among them.

    Raises:
        MatrixError: there is no such revision, or no repository.
    """
    changed = _git("diff", "--name-only", "--no-renames", revision, "--")
    untracked = _git("ls-files", "--others", "--exclude-standard")
    if changed is None or untracked is None:
        raise MatrixError(f"git knows no revision {revision!r} here; give a commit, a branch or a tag")
    return sorted({*changed.splitlines(), *untracked.splitlines()})


def file_at(revision: str, path: Path) -> str | None:
    """Return what a file was at a revision; None when it was not there."""
    return _git("show", f"{revision}:{path.relative_to(ROOT).as_posix()}")


def tracked_files(root: Path = ROOT) -> list[str]:
    """Return the files of the tree, tracked or not, but none that are ignored."""
    listed = _git("ls-files", "--cached", "--others", "--exclude-standard", root=root)
    if listed is not None:
        return sorted(set(listed.splitlines()))
    paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(
        path.as_posix()
        for path in paths
        if not any((part.startswith(".") and part != ".dockerignore") or part == "__pycache__" for part in path.parts)
    )


def _git(*arguments: str, root: Path = ROOT) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-c", "core.quotePath=off", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
