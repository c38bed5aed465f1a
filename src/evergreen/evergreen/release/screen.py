"""A release on the terminal: a bar for the step that runs, a line for each that is done, a table at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from evergreen.release.outcome import Kind, Outcome
from evergreen.release.steps import Timing, View
from vla_core.store.space import human

COLOURS = {Kind.SUCCEEDED: "green", Kind.PENDING: "yellow", Kind.UPDATING: "yellow"}


class _Bar:
    """A step's view."""

    def __init__(self, progress: Progress, task: TaskID, console: Console, title: str) -> None:
        self._progress, self._task, self._console, self._title = progress, task, console, title
        self._said = ""

    def say(self, text: str) -> None:
        """See `View`."""
        self._progress.update(self._task, detail=text)
        if text != self._said and not self._console.is_terminal:
            self._console.print(f"  {self._title}: {text}", markup=False, highlight=False, soft_wrap=True)
        self._said = text

    def amount(self, done: int, total: int, unit: str = "B") -> None:
        """See `View`."""
        shown = f"{human(done)} of {human(total)}" if unit == "B" else f"{done} of {total} {unit}"
        self._progress.update(self._task, completed=done, total=total, amount=shown)


class Screen:
    """Draws on standard error."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)

    @contextlib.contextmanager
    def show(self, title: str) -> Iterator[View]:
        """The view of one step."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        terminal = self._console.is_terminal
        with Progress(*columns, console=self._console, transient=True, disable=not terminal) as progress:
            task = progress.add_task(title, total=None, detail="", amount="")
            yield _Bar(progress, task, self._console, title)

    def done(self, timing: Timing) -> None:
        """A step is over."""
        mark = "-" if timing.skipped else "✓"
        line = f"{mark} {timing.title} ({timing.seconds:.1f} s): {timing.text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A line for people."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def table(self, timings: Sequence[Timing]) -> None:
        """How long each step took, and all together."""
        table = Table(show_footer=True)
        table.add_column("step", footer="total")
        table.add_column("seconds", footer=f"{sum(timing.seconds for timing in timings):.1f}", justify="right")
        table.add_column("result", overflow="fold")
        for timing in timings:
            result = Text("skipped: " * timing.skipped + timing.text)
            table.add_row(timing.title, f"{timing.seconds:.1f}", result)
        self._console.print(table)

    def devices(self, outcomes: Sequence[Outcome]) -> None:
        """How each device stands."""
        table = Table("device", "outcome", "runs")
        table.add_column("update took", justify="right")
        table.add_column("reason", overflow="fold")
        for one in outcomes:
            total = one.durations_s.get("total")
            took = f"{total:.1f} s" if total is not None else ""
            kind = Text(str(one.kind).replace("_", " "), style=COLOURS.get(one.kind, "red"))
            table.add_row(one.thing, kind, one.running, took, Text(one.reason))
        self._console.print(table)
