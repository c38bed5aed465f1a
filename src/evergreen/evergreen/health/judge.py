"""What was heard of a graph, and what that says about its health. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

ROBOT: Final = "robot"
MODEL: Final = "model"
DEAD_POLICY: Final = frozenset({"unconfigured", "finalized", "errorprocessing"})
"""States in which no model is loaded: the arm holds, and only somebody's action changes that."""
CUT_OFF: Final = frozenset({"connecting", "lost"})


@dataclass(slots=True)
class Heard:
    """What came, since listening began.

    A latched status proves only that its process exists; periodic messages prove that its executor still turns.

    Attributes:
        joints: joint states came.
        policy, bridge: values of their latched statuses; None where none came.
        beats: the nodes that said something on `/diagnostics`, as they do every second.
    """

    joints: bool = False
    policy: Mapping[str, str] | None = None
    bridge: Mapping[str, str] | None = None
    beats: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether all is well, and a sentence about it."""

    healthy: bool
    sentence: str


def missing(part: str, heard: Heard) -> tuple[str, ...]:
    """What was not heard yet and should be; nothing more is to be waited for once this is empty."""
    wanted = (
        {"joint states (the arm)": heard.joints, "the policy": heard.policy is not None and "policy" in heard.beats}
        if part == ROBOT
        else {"the bridge": heard.bridge is not None and "gg_bridge" in heard.beats}
    )
    return tuple(name for name, came in wanted.items() if not came)


def judge(part: str, heard: Heard, listened_s: float) -> Verdict:
    """The verdict after listening for `listened_s`."""
    if lacks := missing(part, heard):
        return Verdict(False, f"nothing heard of {' and '.join(lacks)} within {listened_s:.0f} s")
    return _judge_robot(heard.policy or {}) if part == ROBOT else _judge_model(heard.bridge or {})


def _judge_robot(policy: Mapping[str, str]) -> Verdict:
    state, model, reason = (policy.get(key, "") for key in ("state", "active_model", "reason"))
    what = f"policy {state}" + (f", {model}" if model else "")
    if state == "driving":
        return Verdict(True, what)  # the reason is that of its last hold
    return Verdict(state not in DEAD_POLICY, f"{what}: {reason}" if reason else what)


def _judge_model(bridge: Mapping[str, str]) -> Verdict:
    nucleus, outcome, model = (bridge.get(key, "") for key in ("nucleus", "outcome", "model"))
    what = f"nucleus {nucleus}" + (f"; {model} {outcome or 'under way'}" if model else "")
    return Verdict(nucleus not in CUT_OFF, what)
