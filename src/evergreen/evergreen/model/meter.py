"""Progress of long work on standard error: a bar on a terminal, now and then a line elsewhere, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from gg_bridge.fetch import Progress as Fetched
from gg_bridge.fetch.pace import Pace
from vla_core.store.space import human

FIRST_LINE_S, LONGEST_PAUSE_S = 1.0, 10.0
"""Between lines where nobody watches: short at first, so that a log soon shows that something happens."""


@dataclass
class _Rhythm:
    """When the next line is due."""

    pause_s: float = FIRST_LINE_S
    begun_s: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        if time.monotonic() - self.begun_s < self.pause_s:
            return False
        self.begun_s, self.pause_s = time.monotonic(), min(2 * self.pause_s, LONGEST_PAUSE_S)
        return True


class _Rate(ProgressColumn):
    """The rate that `Pace` knows: rich's own counts what was there before as transferred at once."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, _task: Task) -> Text:
        rate = self._pace.bytes_s
        return Text(f"{human(int(rate))}/s" if rate is not None else "", style="progress.data.speed")


@contextlib.contextmanager
def show_progress(*, as_json: bool) -> Iterator[Callable[[Fetched], None]]:
    """What to call with a fetch's progress.

    Rate and remaining time are about what has to be transferred: bytes that were here already would falsify them.
    """
    pace, rhythm, last = Pace(), _Rhythm(), Fetched("")
    console = Console(stderr=True, quiet=as_json)
    with _bar(console, pace) as (bar, task):

        def tell(state: Fetched) -> None:
            nonlocal last
            last = state
            pace.note(state.done_bytes - state.resumed_bytes, time.monotonic())
            if console.is_terminal and not as_json:
                bar.update(
                    task,
                    description=state.what,
                    total=state.total_bytes - state.resumed_bytes if state.total_bytes else None,
                    completed=state.done_bytes - state.resumed_bytes,
                )
            elif rhythm.is_due():
                _say(json.dumps(event_of(state, pace)) if as_json else line_of(state, pace))

        yield tell
    if last.total_bytes:
        here = f"; {human(last.resumed_bytes)} were here already" if last.resumed_bytes else ""
        console.print(f"{human(last.done_bytes - last.resumed_bytes)} transferred{here}", markup=False)


@contextlib.contextmanager
def show_work(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """What to call with what is being done, how many bytes of it are done, and of how many."""
    pace, rhythm, what_before = Pace(), _Rhythm(), ""
    console = Console(stderr=True, quiet=quiet)
    with _bar(console, pace) as (bar, task):

        def reached(what: str, done: int, total: int) -> None:
            nonlocal what_before, pace
            if console.is_terminal:
                if what != what_before:
                    bar.reset(task, total=total)
                bar.update(task, description=what, total=total, completed=done)
            elif not quiet and rhythm.is_due():
                _say(f"{what}: {human(done)} of {human(total)}")
            what_before = what
            pace.note(done, time.monotonic())

        yield reached


def line_of(state: Fetched, pace: Pace) -> str:
    """For people who read a log."""
    parts = [f"{human(state.done_bytes)} of {human(state.total_bytes)}"] if state.total_bytes else []
    if (rate := pace.bytes_s) is not None and state.total_bytes:
        parts.append(f"{human(int(rate))}/s")
        left_s = pace.left_s(state.total_bytes - state.done_bytes)
        parts += [f"{left_s:.0f} s left"] if left_s is not None else ["standing still"]
    return f"{state.what}: {', '.join(parts)}" if parts else state.what


def event_of(state: Fetched, pace: Pace) -> dict[str, Any]:
    """For programs; rate in bytes a second and remaining time in s are null while nobody can know them."""
    left_s = pace.left_s(state.total_bytes - state.done_bytes) if state.total_bytes else None
    return {
        "event": "progress",
        "what": state.what,
        "done_bytes": state.done_bytes,
        "total_bytes": state.total_bytes,
        "resumed_bytes": state.resumed_bytes,
        "bytes_s": None if pace.bytes_s is None else round(pace.bytes_s),
        "left_s": None if left_s is None else round(left_s, 1),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _bar(console: Console, pace: Pace) -> Iterator[tuple[Progress, TaskID]]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        _Rate(pace),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar, bar.add_task("looking", total=None)
