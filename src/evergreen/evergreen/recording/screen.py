"""What a recording shows: one line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from evergreen.recording.recorder import Progress, State

PLAIN_PERIOD_S = 10.0
"""Between two lines where there is no terminal: a log stays readable."""


def line(progress: Progress, rates_hz: Mapping[str, float], elapsed_s: float) -> str:
    """The state of the recording in one line."""
    what = f"episode {progress.number}" if progress.state is State.RECORDING else progress.state.value
    rates = "  ".join(f"{name} {rate:.0f}" for name, rate in rates_hz.items()) or "nothing heard yet"
    dropped = f"  {progress.dropped} DROPPED (slow disk)" if progress.dropped else ""
    return (
        f"{what}  {elapsed_s:.0f} s  {progress.size / 1e6:.1f} MB  {progress.kept} kept  "
        f"{progress.free / 1e9:.1f} GB free{dropped}  Hz: {rates}"
    )


class Screen:
    """A context manager that leaves the terminal as it was."""

    def __init__(self, console: Console, hints: Sequence[str]) -> None:
        self._console = console
        self._hint = "   ".join(hints)
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._next_line_s = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        if self._hint:
            self.say(self._hint)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, sentence: str) -> None:
        """A line that stays."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def show(self, progress: Progress, rates_hz: Mapping[str, float], elapsed_s: float) -> None:
        """The line that changes."""
        text = line(progress, rates_hz, elapsed_s)
        if self._live:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))
        elif elapsed_s >= self._next_line_s:
            self._next_line_s = elapsed_s + PLAIN_PERIOD_S
            self.say(text)
