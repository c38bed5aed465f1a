"""What is asked for in one demonstration: a cube, one that is not there, or first one and then another.

A `Script` is drawn from the scene's seed. A `Prompter` follows the scene and says at every moment what is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from vla_core.errors import ConfigError
from vla_sim.casting import draw_names
from vla_sim.expert import Expert, Stage
from vla_sim.layout import NAMED
from vla_sim.truth import Truth
from vla_training.phrases import known

TWIN_SHARE: Final = 0.10
"""Of demonstrations: the asked cube is there twice."""
ABSENT_SHARE: Final = 0.10
BEFORE_GRASP_SHARE: Final = 0.15
CARRYING_SHARE: Final = 0.15
LEAVE_SHARE: Final = 0.10
"""Of those in which the prompt changes: the second one asks for a cube that is not there."""
REST_S: Final = (2.0, 4.0)
"""How long the arm is seen at rest where nothing is there to be fetched."""
HOLD_S: Final = 1.0
"""How long it is seen at rest with the work done."""
EARLIEST_CHANGE_S, LATEST_CHANGE_S = 0.2, 2.4
"""A grasp closes after 2.2 to 3 s; a change that has not come by then comes as the jaws begin to close."""
CARRIED_ABOVE_M: Final = 0.03
LONGEST_CARRY_S: Final = 1.6
"""From there to over the spot; a change that has not come before comes as the cube is let down."""
SINGLE_S: Final = 16.0
CHANGED_S: Final = 26.0


class Kind(StrEnum):
    """How a demonstration goes."""

    STEADY = "steady"
    ABSENT = "absent"
    BEFORE_GRASP = "changed before grasp"
    CARRYING = "changed while carrying"


@dataclass(frozen=True, slots=True)
class Script:
    """One demonstration.

    Attributes:
        kind: how it goes.
        targets: the colours that are asked for: one, or two where the prompt changes.
        prompts: the sentences that ask for them.
        names: the cubes on the table; None for the scene of the models that know one cube.
        change_s: when the prompt changes, from the start or, while carrying, from `CARRIED_ABOVE_M`.
        rest_s: how long the arm is seen at rest at the end.
        limit_s: the longest that it may take.
    """

    kind: Kind
    targets: tuple[str, ...]
    prompts: tuple[str, ...]
    names: tuple[str, ...] | None = None
    change_s: float = 0.0
    rest_s: float = HOLD_S
    limit_s: float = SINGLE_S

    def __post_init__(self) -> None:
        changes = self.kind in (Kind.BEFORE_GRASP, Kind.CARRYING)
        if len(self.targets) != 1 + changes or len(self.prompts) != len(self.targets):
            raise ConfigError(f"a demonstration that is {self.kind} asks {1 + changes} times, not for {self.targets}")

    @property
    def present(self) -> bool:
        """Whether the cube that is asked for last is on the table."""
        return self.names is None or self.targets[-1] in self.names

    @property
    def excused(self) -> tuple[str, ...]:
        """Colours that may have been carried away because they were asked for before."""
        return self.targets[:-1] if self.kind is Kind.CARRYING else ()


def draw(seed: int, targets: Sequence[str]) -> Script:
    """The script of a scene; the last colour asked for goes round `targets`, so that all have equal shares."""
    random = np.random.default_rng([seed, 3])
    last = targets[seed % len(targets)]
    kind = Kind(random.choice(list(Kind), p=_shares()))
    leaves = random.random() < LEAVE_SHARE
    twin = random.random() < TWIN_SHARE
    if kind is Kind.STEADY:
        return Script(kind, (last,), (_phrase(random, last),), draw_names(random, [last], twin=twin))
    if kind is Kind.ABSENT:
        names = draw_names(random, [], [last])
        return Script(kind, (last,), (_phrase(random, last),), names, rest_s=float(random.uniform(*REST_S)))
    first = str(random.choice([colour for colour in NAMED if colour != last]))
    names = draw_names(random, [first], [last]) if leaves else draw_names(random, [last, first], twin=twin)
    span = (EARLIEST_CHANGE_S, LATEST_CHANGE_S) if kind is Kind.BEFORE_GRASP else (0.0, LONGEST_CARRY_S)
    return Script(
        kind,
        (first, last),
        (_phrase(random, first), _phrase(random, last)),
        names,
        float(random.uniform(*span)),
        float(random.uniform(*REST_S)) if leaves else HOLD_S,
        CHANGED_S,
    )


def _shares() -> list[float]:
    others = [ABSENT_SHARE, BEFORE_GRASP_SHARE, CARRYING_SHARE]
    return [1 - sum(others), *others]


def _phrase(random: np.random.Generator, target: str) -> str:
    return str(random.choice(known(target)))


class Prompter:
    """Follows one scene and changes what is asked for when the script says so."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._asked = 0
        self._carried_since_s: float | None = None

    @property
    def done(self) -> bool:
        """Whether everything has been asked for."""
        return self._asked + 1 == len(self._script.targets)

    @property
    def target(self) -> str:
        """The colour that is asked for now."""
        return self._script.targets[self._asked]

    @property
    def prompt(self) -> str:
        """The sentence that asks for it."""
        return self._script.prompts[self._asked]

    def look(self, truth: Truth, expert: Expert, time_s: float, period_s: float) -> None:
        """What is asked for from now on; `period_s` until the next look."""
        if not self.done and self._is_time(truth, expert, time_s, period_s):
            self._asked += 1

    def _is_time(self, truth: Truth, expert: Expert, time_s: float, period_s: float) -> bool:
        ahead = expert.stage(time_s + period_s)
        if self._script.kind is Kind.BEFORE_GRASP:
            return time_s >= self._script.change_s or ahead is Stage.CLOSE
        if self._carried_since_s is None and truth.cubes[self.target].height > CARRIED_ABOVE_M:
            self._carried_since_s = time_s
        if self._carried_since_s is None:
            return False
        return time_s - self._carried_since_s >= self._script.change_s or ahead is Stage.OPEN
