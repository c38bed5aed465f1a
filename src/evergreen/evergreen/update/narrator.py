"""Tells the story in the terminal while it happens: a line for each moment, a table for each deployment."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from evergreen.demo.screen import Screen
from evergreen.update.results import Chapter, Step
from evergreen.update.timeline import BridgeSaid, Moment, Timeline

BAR_CELLS = 28
MEANINGS = {
    "deliver": "the nucleus brings it to the device",
    "notice": "the bridge waits for the last of its events",
    "fetch": "downloaded or copied, hashes checked, committed to the store",
    "ask": "the policy is asked for it",
    "verify": "hashes, signature, cameras, joints, memory",
    "start": "a second policy server loads the model",
    "warm_up": "it answers once, untimed",
    "judge": "its answers to real observations are judged",
    "switch": "the next observation goes to it",
    "probation": "it drives, and is watched",
    "report": "the outcome reaches the nucleus",
}


class Narrator:
    """Says each thing once."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._said: set[Moment] = set()
        self._progress = ""
        self._label = ""

    def begin(self, label: str) -> None:
        """A deployment of this model is made."""
        self._said.clear()
        self._label, self._progress = label, ""
        self._screen.say(f"deploying {label}")

    def show(self, timeline: Timeline, bridge: Sequence[BridgeSaid]) -> None:
        """Say what is new of the newest deployment."""
        start_s = timeline.at_s[Moment.DEPLOYED]
        before_s = start_s
        for moment, at_s in timeline.at_s.items():
            if moment not in self._said and moment is not Moment.DEPLOYED:
                self._said.add(moment)
                what = f"{timeline.outcome.replace('_', ' ')}" if moment is Moment.OVER else str(moment)
                self._screen.say(f"  {at_s - start_s:7.2f} s  +{at_s - before_s:6.2f} s  {what}")
            before_s = at_s
        progress = bridge[-1].values.get("progress", "") if bridge else ""
        if progress and progress != self._progress and Moment.FETCHED not in self._said:
            self._screen.say(f"             fetching: {progress}")
        self._progress = progress

    def step(self, step: Step) -> None:
        """A step of the story is over."""
        self._screen.say(f"{'✓' if step.ok else '✗'} {step.name}: {step.detail}")

    def end(self, update: Chapter) -> None:
        """A deployment is over: its table."""
        self._screen.say(title(update))
        self._screen.put(table(update))


def table(update: Chapter) -> Table:
    """One deployment, stage by stage."""
    timeline = update.timeline
    start_s = timeline.at_s[Moment.DEPLOYED]
    whole_s = max(timeline.at_s.values()) - start_s or 1.0
    found = Table(box=None, pad_edge=False)
    for name, justify in (("stage", "left"), ("begins", "right"), ("takes", "right"), ("", "left"), ("what", "left")):
        found.add_column(name, justify=justify, no_wrap=name != "what")  # type: ignore[arg-type]
    for part in timeline.stretches:
        begin, end = ((at_s - start_s) / whole_s * BAR_CELLS for at_s in (part.begin_s, part.end_s))
        bar = " " * int(begin) + "█" * max(1, round(end - begin))
        found.add_row(
            part.stage,
            f"{part.begin_s - start_s:.2f} s",
            f"{part.end_s - part.begin_s:.2f} s",
            bar,
            MEANINGS[part.stage],
        )
    return found


def title(update: Chapter) -> str:
    """Its outcome and its figures in one line."""
    timeline, arm = update.timeline, update.motion
    outcome = timeline.outcome.replace("_", " ") or "no outcome"
    words = [f"{timeline.model or 'the deployment'}: {outcome}"]
    if (first_s := timeline.to_first_action_s) is not None:
        words.append(f"first action {first_s:.2f} s after the configuration event")
    words.append(f"longest time without a setpoint {arm.largest_gap_ms:.0f} ms")
    if arm.servo_period_ms is not None:
        words.append(f"longest servo period {arm.servo_period_ms:.0f} ms")
    return ", ".join(words)
