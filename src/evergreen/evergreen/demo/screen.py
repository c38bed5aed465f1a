"""The demo's terminal: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from evergreen.demo.results import MIN_REALTIME_FACTOR, Episode
from vla_core.latency import LINE_MS, Summary

PLAIN_PERIOD_S = 5.0
"""Between two lines where there is no terminal: a log stays readable."""
MIN_CAMERA_FPS = 10.0
REFRESH_HZ = 4
_HINTS = {False: "Ctrl-C stops everything", True: "type a prompt and Enter; Ctrl-C stops everything"}


@dataclass(frozen=True, slots=True)
class View:
    """One moment of the demo, for showing."""

    title: str
    doing: str
    policy: str
    prompt: str = ""
    episode: int = 0
    episodes: int = 0
    seconds: float = 0.0
    time_limit_s: float = 0.0
    finished: Sequence[Episode] = ()
    camera_fps: Mapping[str, float] = field(default_factory=dict)
    latency: Summary = field(default_factory=lambda: Summary(None, None, None, 0))
    chunk_age_ms: float | None = None
    realtime_factor: float | None = None
    holds: str = ""
    typing: bool = False


class Screen:
    """Shows views; a context manager that leaves the terminal as it was."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, refresh_per_second=REFRESH_HZ, transient=True)
        self._next_line_s = float("-inf")
        self._last_doing = ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def put(self, content: RenderableType) -> None:
        """A table, or whatever else stays."""
        self._console.print(content)

    def show(self, view: View, now_s: float) -> None:
        """Refresh the panel, or print a line when one is due."""
        if self._live:
            self._live.update(_panel(view))
        elif now_s >= self._next_line_s or view.doing != self._last_doing:
            self._next_line_s = now_s + PLAIN_PERIOD_S
            self._last_doing = view.doing
            self._console.print(_line(view), highlight=False, soft_wrap=True)


def score(episodes: Sequence[Episode]) -> str:
    """`3 of 4`."""
    return f"{sum(episode.success for episode in episodes)} of {len(episodes)}"


def _latency(summary: Summary) -> str:
    if summary.p50 is None or summary.p95 is None:
        return "no chunk yet"
    verdict = f"{'under' if summary.p95 < LINE_MS else 'OVER'} the {LINE_MS:.0f} ms line"
    return f"p50 {summary.p50:.0f} ms, p95 {summary.p95:.0f} ms, {verdict} ({summary.n} chunks)"


def _slowest(rates: Mapping[str, float]) -> str:
    if not rates:
        return "waiting"
    name = min(rates, key=lambda camera: rates[camera])
    return f"{len(rates)} at {rates[name]:.1f} fps or more (slowest: {name})"


def _line(view: View) -> str:
    parts = [view.doing]
    if view.episodes:
        parts.append(f"episode {view.episode}/{view.episodes}, {view.seconds:.0f} s, placed {score(view.finished)}")
    if view.latency.n:
        parts.append(f"latency {_latency(view.latency)}")
    if view.camera_fps:
        parts.append(f"cameras {_slowest(view.camera_fps)}")
    if view.realtime_factor is not None:
        parts.append(f"real-time factor {view.realtime_factor:.2f}")
    return " | ".join(parts)


def _panel(view: View) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("now", view.doing)
    grid.add_row("policy", f"{view.policy}  {view.prompt}".rstrip())
    if view.holds:
        grid.add_row("holds", Text(view.holds, style="yellow"))
    if view.episodes:
        progress = f"{view.seconds:.1f} of at most {view.time_limit_s:.0f} s"
        grid.add_row("episode", f"{view.episode} of {view.episodes}, {progress}")
        grid.add_row("placed", score(view.finished) + "  " + _marks(view.finished))
    grid.add_row("latency", Text(_latency(view.latency), style=_latency_style(view.latency)))
    age = "" if view.chunk_age_ms is None else f"{view.chunk_age_ms:.0f} ms"
    grid.add_row("chunk age", age)
    if view.realtime_factor is not None:
        slow = view.realtime_factor < MIN_REALTIME_FACTOR
        grid.add_row("real time", Text(f"{view.realtime_factor:.3f}", style="red" if slow else "green"))
    return Panel(Group(grid, Text(), _cameras(view.camera_fps)), title=view.title, subtitle=_HINTS[view.typing])


def _latency_style(summary: Summary) -> str:
    if summary.p95 is None:
        return ""
    return "green" if summary.p95 < LINE_MS else "red"


def _marks(episodes: Sequence[Episode]) -> str:
    return "".join("[green]●[/]" if episode.success else "[red]○[/]" for episode in episodes)


def _cameras(rates: Mapping[str, float]) -> Table:
    table = Table.grid(padding=(0, 3))
    cells = [
        Text(f"{name} {fps:4.1f} fps", style="green" if fps >= MIN_CAMERA_FPS else "yellow")
        for name, fps in sorted(rates.items())
    ]
    for start in range(0, len(cells), 4):
        table.add_row(*cells[start : start + 4])
    return table
