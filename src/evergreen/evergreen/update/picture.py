"""The story in one PNG: the stages of each deployment, when the arm had a setpoint, how it moved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.update.results import NS_PER_S, Told
from evergreen.update.timeline import Moment, Timeline
from evergreen.update.witness import Witness
from vla_core.errors import ImageError
from vla_core.image import decode_jpeg
from vla_core.setpoints import Span, gaps

COLOURS = {
    "deliver": "#b0b0b0",
    "notice": "#8c8c8c",
    "fetch": "#64b5cd",
    "ask": "#b0b0b0",
    "verify": "#4c72b0",
    "start": "#ccb974",
    "warm_up": "#dd8452",
    "judge": "#8172b2",
    "switch": "#c44e52",
    "probation": "#55a868",
    "report": "#937860",
}
BEFORE_S = 2.0
"""Of the arm's motion before a deployment, to compare with."""
_HEADROOM = 1.25


def draw(told: Told, witness: Witness, stills: Mapping[str, bytes], path: Path) -> bool:
    """Write the PNG; False when there is nothing to show."""
    if not told.updates:
        return False
    import matplotlib as mpl  # noqa: PLC0415  slow to import, and only wanted here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    pictures = {name: picture for name, jpeg in stills.items() if (picture := _decoded(jpeg)) is not None}
    rows = len(told.updates)
    figure = plt.figure(figsize=(12, 3.4 * rows + (3.0 if pictures else 0.0)), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(3.0, 3.4 * rows)) if pictures else [None, figure.subfigures(1, 1)]
    if pictures:
        for axis, (name, picture) in zip(
            parts[0].subplots(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True
        ):
            axis.imshow(picture)
            axis.set_title(name, fontsize=9)
            axis.axis("off")
    axes = parts[1].subplots(2 * rows, 1, height_ratios=[2.2, 1.2] * rows, squeeze=False)[:, 0]
    for index, update in enumerate(told.updates):
        stages, arm = axes[2 * index], axes[2 * index + 1]
        _stages(stages, update.timeline, _title(update.timeline, update.motion.largest_gap_ms))
        _arm(arm, witness, update.timeline)
        arm.sharex(stages)
    axes[-1].set_xlabel("seconds since the deployment")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _title(timeline: Timeline, gap_ms: float) -> str:
    first_s = timeline.to_first_action_s
    first = "" if first_s is None else f", first action {first_s:.2f} s after the configuration event"
    return f"{timeline.model}: {timeline.outcome.replace('_', ' ')}{first}; at most {gap_ms:.0f} ms without a setpoint"


def _stages(axis: Any, timeline: Timeline, title: str) -> None:
    """A bar for each stage, one below the other."""
    start_s = timeline.at_s[Moment.DEPLOYED]
    stretches = timeline.stretches
    for row, part in enumerate(stretches):
        begin_s, length_s = part.begin_s - start_s, part.end_s - part.begin_s
        axis.barh(row, length_s, left=begin_s, color=COLOURS[part.stage], height=0.8)
        axis.text(begin_s + length_s, row, f" {length_s:.2f} s", va="center", fontsize=7)
    axis.set_yticks(range(len(stretches)), [part.stage for part in stretches], fontsize=7)
    axis.invert_yaxis()
    axis.set_title(title, fontsize=9, loc="left")
    if (first_s := timeline.at_s.get(Moment.FIRST_ACTION)) is not None:
        axis.axvline(first_s - start_s, color="#c44e52", linestyle="--", linewidth=1)
    axis.margins(x=0.08)


def _arm(axis: Any, witness: Witness, timeline: Timeline) -> None:
    """The fastest joint's speed; red where the arm had no setpoint."""
    start_s = timeline.at_s[Moment.DEPLOYED]
    begin_s, end_s = start_s - BEFORE_S, max(timeline.at_s.values())
    speeds = np.array(witness.speeds(begin_s, end_s)).reshape(-1, 2)
    axis.plot(speeds[:, 0] - start_s, speeds[:, 1], color="#4c72b0", linewidth=0.8)
    top = float(speeds[:, 1].max(initial=0.1)) * _HEADROOM
    for gap in gaps(witness.commanded, Span(round(begin_s * NS_PER_S), round(end_s * NS_PER_S))):
        axis.axvspan(gap.begin_ns / NS_PER_S - start_s, gap.end_ns / NS_PER_S - start_s, color="crimson", alpha=0.6)
    if (first_s := timeline.at_s.get(Moment.FIRST_ACTION)) is not None:
        axis.axvline(first_s - start_s, color="#c44e52", linestyle="--", linewidth=1)
    axis.set_ylim(0, top)
    axis.set_ylabel("rad/s", fontsize=8)
    axis.set_title("fastest joint; red where the arm had no setpoint", fontsize=8, loc="left")


def _decoded(jpeg: bytes) -> Any:
    try:
        return decode_jpeg(jpeg)
    except ImageError:
        return None
