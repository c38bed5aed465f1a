"""One episode in which a policy is told what to do, and may be told something else on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_core.chunk import NS_PER_S
from vla_core.errors import ConfigError
from vla_sim.casting import names_for
from vla_sim.expert import Expert
from vla_sim.layout import NAMED
from vla_sim.world import HOME_RAD, OTHERS_MAY_MOVE_M, World
from vla_training.evaluate import EpisodeResult, Judge, LoopSettings, Placing, play_out

REST_WITHIN_RAD: Final = 0.15
"""Of HOME, in every joint: an arm that rests there hangs 0.02 off, one that reaches out is 0.5 off at once."""
SETTLE_S: Final = 3.0
"""Time in which an arm that has nothing to do must have come to rest."""
ABSENT_S: Final = 8.0
"""Time for which it must stay there; a policy that fetches something has lifted it by then."""
CARRYING_TIMES: Final = 1.5
"""The time limit of an episode in which two cubes are carried, over that of one."""
CHANGE_S: Final = (0.2, 1.8)
"""When a prompt changes before the grasp: jaws close after 2.2 s at the earliest."""
TOUCHED_M: Final = 0.002
"""A first cube that moved by this is about to be grasped: a change that has not come yet comes now."""
CARRIED_ABOVE_M: Final = 0.03


class Kind(StrEnum):
    """What a trial tries."""

    KNOWN = "known"
    UNSEEN = "unseen"
    OTHER_COLOUR = "other colour"
    ABSENT = "absent"
    BEFORE_GRASP = "changed before grasp"
    CARRYING = "changed while carrying"

    @property
    def changes(self) -> bool:
        """Whether the prompt changes on the way."""
        return self in (Kind.BEFORE_GRASP, Kind.CARRYING)


class PromptedPolicy(Protocol):
    """A policy that listens. Called like every policy; what it does depends on the last prompt."""

    def prompt(self, text: str) -> str:
        """Be told what to do from now on; why that is not understood, or an empty string."""
        ...

    def __call__(self, picture: NDArray[np.uint8], state: NDArray[np.float64]) -> NDArray[np.float64]:
        """Picture `(h, w, 3)` uint8 and state `(dof,)` rad to actions `(chunk, dof)` rad."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """What is asked in every episode of a row of the table: one prompt, or two where it changes.

    Attributes:
        kind: what is tried.
        prompts: the sentences.
        targets: the colours that they mean.
    """

    kind: Kind
    prompts: tuple[str, ...]
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        count = 1 + self.kind.changes
        if len(self.prompts) != count or len(self.targets) != count:
            raise ConfigError(f"a row '{self.kind}' has {count} prompts with a target each, not {self.prompts}")
        unknown = [target for target in self.targets if target not in NAMED]
        if unknown or len(set(self.targets)) < count:
            raise ConfigError(f"row '{self.kind}': targets {self.targets} must be {count} of {', '.join(NAMED)}")

    @property
    def label(self) -> str:
        """The prompts in one line."""
        return " → ".join(self.prompts)


@dataclass(frozen=True, slots=True)
class Trial:
    """One episode of a row."""

    row: Row
    seed: int

    def names(self, variety: str) -> tuple[str, ...]:
        """The cubes on the table: what is asked for, or in a row `absent` all but that, and others."""
        asked = list(reversed(self.row.targets))
        present, absent = ([], asked) if self.row.kind is Kind.ABSENT else (asked, [])
        return names_for(self.seed, variety, present, absent)

    def change_s(self) -> float:
        """When the prompt changes before the grasp."""
        return float(np.random.default_rng([self.seed, 6]).uniform(*CHANGE_S))


class Resting:
    """Judges whether the arm comes to rest at HOME, stays there and leaves all cubes alone."""

    def __init__(self, world: World) -> None:
        """Judge the scene that lies there."""
        self._world = world
        self._names = tuple(world.truth().cubes)
        self._since_ns: int | None = None
        self._left = self._touched = False

    def step(self) -> None:
        """Notice what the arm touches."""
        self._touched = self._touched or self._world.touches_other("")

    def look(self, now_ns: int) -> bool:
        """Whether the arm has left its rest, or touched something, for good."""
        away = float(np.abs(self._world.joint_positions() - HOME_RAD).max())
        if away > REST_WITHIN_RAD:
            self._since_ns = None
        elif self._since_ns is None:
            self._since_ns = now_ns
        self._left = self._since_ns is None and now_ns > SETTLE_S * NS_PER_S
        return self._left

    def result(self, seed: int, now_ns: int, largest_gap_rad: float) -> EpisodeResult:
        """`time_s` is when the arm came to rest; `distance_m` counts nothing."""
        moved = max(map(self._world.moved_m, self._names))
        wrong = any(map(self._world.was_lifted, self._names))
        rests = self._since_ns is not None and not self._left
        return EpisodeResult(
            seed=seed,
            success=rests and not wrong and moved <= OTHERS_MAY_MOVE_M,
            lifted=False,
            placed=False,
            wrong_lifted=wrong,
            wrong_touched=self._touched,
            distance_m=0.0,
            others_moved_m=moved,
            time_s=(self._since_ns or now_ns) / NS_PER_S,
            largest_gap_rad=largest_gap_rad,
            note="" if rests else "the arm did not stay at rest",
        )


class _Telling:
    """Tells the policy what to do, and judges by what it was told last."""

    def __init__(self, world: World, policy: PromptedPolicy, trial: Trial) -> None:
        self._world, self._policy, self._trial, self._row = world, policy, trial, trial.row
        self._told = -1
        self._refusal = ""
        self._judge: Judge = Resting(world) if self._row.kind is Kind.ABSENT else self._placing(0)
        self._tell()

    def step(self) -> None:
        self._judge.step()

    def look(self, now_ns: int) -> bool:
        if self._refusal:
            return True
        if self._told + 1 < len(self._row.prompts):
            if self._is_time(now_ns):
                self._judge = self._placing(self._told + 1)
                self._tell()
            else:
                self._judge.look(now_ns)
            return bool(self._refusal)
        return self._judge.look(now_ns)

    def result(self, seed: int, now_ns: int, largest_gap_rad: float) -> EpisodeResult:
        found = self._judge.result(seed, now_ns, largest_gap_rad)
        if self._refusal:
            return replace(found, success=False, note=self._refusal)
        if self._told + 1 < len(self._row.prompts):
            return replace(
                found, success=False, placed=False, note="the first cube was never lifted: the prompt could not change"
            )
        return found

    def _placing(self, index: int) -> Placing:
        carried = self._row.targets[:index] if self._row.kind is Kind.CARRYING else ()
        return Placing(self._world, self._row.targets[index], carried)

    def _tell(self) -> None:
        self._told += 1
        reason = self._policy.prompt(self._row.prompts[self._told])
        self._refusal = f"not understood: {reason}" if reason else ""

    def _is_time(self, now_ns: int) -> bool:
        first = self._row.targets[0]
        if self._row.kind is Kind.CARRYING:
            return self._world.truth().cubes[first].height > CARRIED_ABOVE_M
        return now_ns >= self._trial.change_s() * NS_PER_S or self._world.moved_m(first) > TOUCHED_M


def run_trial(
    world: World,
    policy: PromptedPolicy,
    trial: Trial,
    settings: LoopSettings,
    watch: Callable[[World], None] = lambda _: None,
) -> EpisodeResult:
    """Play one trial to success, to a refusal or to the time limit; `settings.target` and `cubes_of` do not count."""
    lay_trial(world, trial, settings)
    limits = limits_of(trial.row, settings)
    return play_out(world, policy, trial.seed, limits, _Telling(world, policy, trial), watch=watch)


def lay_trial(world: World, trial: Trial, settings: LoopSettings) -> None:
    """Begin an episode with a trial's scene."""
    names = trial.names(settings.variety)
    world.reset(trial.seed, variety=settings.variety, target=trial.row.targets[-1], names=names)


def limits_of(row: Row, settings: LoopSettings) -> LoopSettings:
    """The settings with the time that a row's episodes get."""
    if row.kind is Kind.ABSENT:
        return replace(settings, limit_s=min(ABSENT_S, settings.limit_s))
    return replace(settings, limit_s=settings.limit_s * (CARRYING_TIMES if row.kind is Kind.CARRYING else 1.0))


def trials_of(rows: Sequence[Row], seeds: Sequence[int], apart: int) -> list[Trial]:
    """Every row with `seeds`, row by row, each with seeds larger by `apart` than those of the row before.

    Rows should not share scenes: where cubes lie decides most, and two phrases for one cube, once understood, are the
    same to a policy. In the same scenes they would be the same episodes, counted twice.
    """
    return [Trial(row, seed + number * apart) for number, row in enumerate(rows) for seed in seeds]


class ExpertPolicy:
    """The scripted expert as a policy: what can be reached at best, and a proof of the harness that measures others.

    It sees no picture; `meanings` says which colour a prompt means.
    """

    def __init__(self, world: World, meanings: Mapping[str, str], settings: LoopSettings, horizon: int = 20) -> None:
        """Act in `world`."""
        self._world, self._meanings, self._horizon = world, meanings, horizon
        self._rate_hz, self._skew_s = settings.rate_hz, settings.skew_s
        self._expert = Expert(world.model)

    def prompt(self, text: str) -> str:
        """Take the colour that `text` means as the target."""
        if text not in self._meanings:
            return f"nobody told the expert what {text!r} means"
        self._expert.target = self._meanings[text]
        return ""

    def __call__(self, picture: NDArray[np.uint8], state: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002
        """The actions from the picture's moment on: `(horizon, dof)` rad."""
        truth = self._world.truth()
        return self._expert.chunk(truth, state, truth.time_s - self._skew_s, self._horizon, self._rate_hz)
