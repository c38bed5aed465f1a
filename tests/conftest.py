"""The whole graph, started as a user starts it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves helpers of tests unimportable

from commands import Commands, Running

if TYPE_CHECKING:
    from containers import Workplace
    from release_support import Cloud


@pytest.fixture
def evergreen(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts `evergreen …`; whatever is left is killed at the end, and would have failed `survivors` before."""
    commands = Commands(tmp_path)
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of moto's AWS, one for all tests."""
    from release_support import moto_server  # noqa: PLC0415  moto takes seconds to load

    with moto_server() as url:
        yield url


@pytest.fixture
def cloud(tmp_path: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A fresh AWS account with two robots."""
    from release_support import make_cloud  # noqa: PLC0415

    with make_cloud(tmp_path / "cloud", moto_url, monkeypatch) as made:
        yield made


@pytest.fixture(scope="session")
def workplace() -> Iterator[Workplace]:
    """Where the stories' images are made, one for all of them."""
    import containers  # noqa: PLC0415

    with containers.workplace() as made:
        yield made
