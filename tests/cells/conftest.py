"""The small world, made once."""

from __future__ import annotations

import pytest

from tests.cells.small import SmallTransport, World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Apps and servers of a few lines, with their tests and their matrix.toml."""
    root = make_world(tmp_path_factory.mktemp("world"))
    return World(root, SmallTransport(root))
