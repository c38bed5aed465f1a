"""What is said about replacing the running model: the request, its stages and its outcome.

Shared by the policy, which swaps, and by all who ask it to: plain values, so that none of them needs another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vla_core.errors import ConfigError

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}@[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""`name@version`, each as a manifest may have them."""
REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
"""No blanks: it is written into logs and file names."""
NEXT_TRY = ":"
"""Between the id of a request and the number of its try, from the second on: who knows an id does not swap again."""
MAX_PROMPT_CHARACTERS = 4096
"""Longer than any instruction; a mistaken file must not travel with every observation."""


class Mode(StrEnum):
    """How the new model takes over."""

    BLUE_GREEN = "blue_green"
    """The old one drives until the new one is judged; both are in memory for a while."""
    RESTART = "restart"
    """The old one ends first and the arm holds meanwhile: for a computer without room for two."""


class Stage(StrEnum):
    """Where a swap is."""

    NONE = ""
    VERIFY = "verify"
    """Hashes, signature, cameras, joints, units, free memory."""
    START = "start"
    """The new server loads the model."""
    WARM_UP = "warm_up"
    """It answers the latest observation, untimed."""
    JUDGE = "judge"
    """Its answers to the latest observation are judged."""
    SWITCH = "switch"
    """The next observation goes to it."""
    PROBATION = "probation"
    """Its first trajectory is on its way to the arm, and it is watched."""


class Outcome(StrEnum):
    """How a swap ended."""

    NONE = ""
    """It has not."""
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    """Nothing was switched: the old model goes on."""
    ROLLED_BACK = "rolled_back"
    """The new model drove and gave trouble: the old one drives again."""
    SUPERSEDED = "superseded"
    """A newer request came."""


@dataclass(frozen=True, slots=True)
class SwapRequest:
    """One request to run a model.

    Attributes:
        model: `name@version` in the policy's store; a folder where the policy has no store.
        request_id: names the request in every answer; a known one is answered again, and nothing is swapped.
        prompt: instruction; empty uses the model's own.
        mode: how.
    """

    model: str
    request_id: str
    prompt: str = ""
    mode: Mode = Mode.BLUE_GREEN

    def __post_init__(self) -> None:
        if not self.model or not self.model.isprintable() or self.model != self.model.strip():
            raise ConfigError(f"model {self.model!r}: give name@version, such as pick@3")
        if not LABEL.fullmatch(self.model) and "/" not in self.model:
            raise ConfigError(f"model {self.model!r} is neither name@version, such as pick@3, nor the path of a folder")
        if not REQUEST_ID.fullmatch(self.request_id):
            raise ConfigError(
                f"request_id {self.request_id!r} may hold letters, digits and ._:/-, at most 128, and is not empty"
            )
        if len(self.prompt) > MAX_PROMPT_CHARACTERS:
            raise ConfigError(f"prompt has {len(self.prompt)} characters; at most {MAX_PROMPT_CHARACTERS} are taken")

    @property
    def is_label(self) -> bool:
        """Whether `model` is `name@version`, not a folder."""
        return LABEL.fullmatch(self.model) is not None


def parse_mode(text: str) -> Mode:
    """The mode of this name; empty is the default.

    Raises:
        ConfigError: there is none.
    """
    try:
        return Mode(text or Mode.BLUE_GREEN)
    except ValueError as error:
        raise ConfigError(f"swap {text!r} must be one of {', '.join(Mode)}") from error


@dataclass(frozen=True, slots=True)
class SwapStatus:
    """What `policy/status` says about the swap that was asked for last, and about what runs.

    Attributes:
        request_id: of that swap; empty before the first.
        stage: of the swap under way.
        outcome: how it ended; empty while it is under way.
        reason: why it was refused, rolled back or superseded.
        active_model: `name@version` of what runs.
        state: the policy's lifecycle state, or `driving` or `holding`.
        prompt: the instruction in force.
        hold_reason: why the arm holds, or last held.
        passing: whether it was refused for what may be over later: short memory, no picture to judge it by.
        timeline: stage to seconds since the request; `end` is its outcome's.
    """

    request_id: str = ""
    stage: Stage = Stage.NONE
    outcome: Outcome = Outcome.NONE
    reason: str = ""
    active_model: str = ""
    state: str = ""
    prompt: str = ""
    hold_reason: str = ""
    passing: bool = False
    timeline: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether the request has its answer."""
        return self.outcome is not Outcome.NONE


def parse_status(values: Mapping[str, str]) -> SwapStatus:
    """From the key-value pairs of `policy/status`; keys that are missing count as empty.

    Raises:
        ValueError: a stage, an outcome or a timeline of another release.
    """
    timeline = json.loads(values.get("timeline") or "{}")
    return SwapStatus(
        request_id=values.get("request_id", ""),
        stage=Stage(values.get("stage", "")),
        outcome=Outcome(values.get("outcome", "")),
        reason=values.get("outcome_reason", ""),
        active_model=values.get("active_model", ""),
        state=values.get("state", ""),
        prompt=values.get("prompt", ""),
        hold_reason=values.get("reason", ""),
        passing=values.get("passing", "") == "true",
        timeline={str(stage): float(seconds) for stage, seconds in timeline.items()},
    )
