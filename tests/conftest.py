"""The whole graph, started as a user starts it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves helpers of tests unimportable

from commands import Commands, Running


@pytest.fixture
def evergreen(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts `evergreen …`; whatever is left is killed at the end, and would have failed `survivors` before."""
    commands = Commands(tmp_path)
    yield commands
    commands.close()
