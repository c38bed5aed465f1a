"""The steps of a release: one module each; here what a step is, and how they are carried out and undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from evergreen.release.errors import AwsError, InUseError
from evergreen.release.journal import Journal, Leftover
from vla_core.errors import EvergreenError


class View(Protocol):
    """Where a step shows how far it is."""

    def say(self, text: str) -> None:
        """What it is at."""

    def amount(self, done: int, total: int, unit: str = "B") -> None:
        """How much of how much: bytes, or things of another unit."""


class Step(Protocol):
    """One step of a release."""

    title: str

    def would(self) -> Sequence[str]:
        """What it would do, a line each, for `--dry-run`."""

    def foresee(self) -> Sequence[str]:
        """Look at what can be looked at soon and without a change, for `--dry-run`, before `would`.

        What is known later gets a stand-in. Returns what was not looked at, a line each.

        Raises:
            EvergreenError: it could not be done.
        """

    def needless(self) -> str:
        """Why nothing is to be done; empty where something is. Called right before `run`."""

    def leaves(self) -> Leftover | None:
        """What stays behind once it ran, until the release is whole; where it is needless, what it would have made.

        None once the step has found that it is somebody else's.
        """

    def run(self, view: View) -> str:
        """Do it; returns what was done, in a few words.

        Raises:
            EvergreenError: it cannot be done.
        """

    @property
    def settles(self) -> bool:
        """Whether what the steps before made is in use now, so that nothing may be undone any more."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a step took."""

    title: str
    seconds: float
    text: str
    skipped: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"step": self.title, "seconds": round(self.seconds, 3), "result": self.text, "skipped": self.skipped}


@dataclass(frozen=True, slots=True)
class Ports:
    """What carrying out needs beside the steps.

    Attributes:
        journal: notes what was made.
        remove: removes one leftover; raises EvergreenError, InUseError where others use it.
        show: a step's view, from its title.
        done: called after each step.
        clock: monotonic, s.
        warn: a line for people.
    """

    journal: Journal
    remove: Callable[[Leftover], None]
    show: Callable[[str], AbstractContextManager[View]]
    done: Callable[[Timing], None]
    clock: Callable[[], float]
    warn: Callable[[str], None]


def carry_out(steps: Sequence[Step], ports: Ports) -> list[Timing]:
    """Do the steps; where one fails or is interrupted, undo those before it, unless a deployment uses them already.

    Raises:
        EvergreenError: as the step raised it.
    """
    timings = []
    used: list[Leftover] = []
    try:
        for step in steps:
            timing = _do(step, ports, used)
            timings.append(timing)
            ports.done(timing)
    except BaseException:
        undo(ports.journal, ports.remove, ports.warn)
        raise
    return timings


def undo(journal: Journal, remove: Callable[[Leftover], None], warn: Callable[[str], None]) -> list[Leftover]:
    """Remove what the journal names, the last first, but nothing that others use; returns what was removed."""
    removed, stuck = [], False
    for leftover in reversed(list(journal.leftovers)):
        try:
            remove(leftover)
        except InUseError as error:
            if stuck:  # perhaps by what could not be removed just now
                warn(f"{leftover.shown} stays behind: {error}; `evergreen release clean` tries again")
            else:
                journal.forget(leftover)
                warn(f"{leftover.shown} stays: {error}")
        except EvergreenError as error:
            stuck = True
            warn(f"{leftover.shown} stays behind: {error}; `evergreen release clean` tries again")
        else:
            journal.forget(leftover)
            removed.append(leftover)
            warn(f"removed again: {leftover.shown}")
    return removed


def _do(step: Step, ports: Ports, used: list[Leftover]) -> Timing:
    """Do one; `used` gets what the step made or found, for when a deployment uses it."""
    begun_s = ports.clock()
    with ports.show(step.title) as view:
        reason = step.needless()
        leftover = step.leaves()
        used += [leftover] if leftover else []
        if reason:
            return Timing(step.title, ports.clock() - begun_s, reason, skipped=True)
        if leftover:
            ports.journal.note(leftover)
        try:
            text = step.run(view)
        except AwsError as error:
            if leftover and error.is_no:  # there is nothing, or it is somebody else's
                ports.journal.forget(leftover)
            raise
        finally:
            if leftover and step.leaves() is None:
                ports.journal.forget(leftover)
            if step.settles:
                ports.journal.settle(used)
    return Timing(step.title, ports.clock() - begun_s, text)
