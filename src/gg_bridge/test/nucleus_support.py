"""What tests of the port to a nucleus share: a stand-in whose environment this process has, and waiting."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gg_bridge.testing import StandInNucleus
from gg_bridge.testing.character import CharacterName

WAIT_S = 60.0
_POLL_S = 0.005


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S:g} s"
        threading.Event().wait(_POLL_S)


@contextmanager
def running(character: CharacterName, environment: pytest.MonkeyPatch, **settings: Any) -> Iterator[StandInNucleus]:
    """A stand-in, to which `gg_bridge.nucleus.connect` now leads."""
    with (
        tempfile.TemporaryDirectory(prefix="gg") as folder,  # pytest's own are too long for a socket
        StandInNucleus(character, Path(folder, "ipc"), **settings) as stand_in,
    ):
        adopt(stand_in, environment)
        yield stand_in


def adopt(stand_in: StandInNucleus, environment: pytest.MonkeyPatch) -> None:
    for name, value in stand_in.environment().items():
        environment.setenv(name, value)
