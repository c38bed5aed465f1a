"""What holds for every test of every package."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


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
