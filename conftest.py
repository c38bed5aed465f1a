"""What holds for every test of every package."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def _no_shared_memory_for_nodes(request: pytest.FixtureRequest) -> Iterator[None]:
    """In the packages' tests, nodes come and go beside a participant that stays: they talk over UDP.

    Where Fast DDS finds the shared memory of an earlier process that seems unwell, as all do on a loaded machine, it
    makes a new one under the same name. Whoever was there before goes on writing to the old one, and the new node
    never hears from it (eProsima/Fast-DDS 5053, 5469). Whole graphs, in `tests/`, run with what users have.
    """
    with pytest.MonkeyPatch.context() as patch:
        if Path(__file__).parent / "src" in request.path.parents:
            patch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
        yield


@pytest.fixture(autouse=True)
def _scheduling_is_left_alone() -> Iterator[None]:
    """A test, or a library that it uses, must not leave this process with another priority or fewer processors.

    Whatever is started after it would inherit that: once, an encoder's SCHED_FIFO 99 starved containers for an hour.
    """
    before = _scheduling()
    yield
    if (after := _scheduling()) != before:
        pytest.fail(f"the test changed how this process is scheduled, from {before} to {after}")


def _scheduling() -> tuple[object, ...]:
    return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, os.sched_getaffinity(0), os.nice(0)
