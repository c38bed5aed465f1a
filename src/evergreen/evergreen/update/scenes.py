"""Scene after scene, also under an arm that may not be stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evergreen.demo.results import Episode
from evergreen.demo.session import LASTING_S, SETTLE_S, Session, why_not
from evergreen.update.cast import Part

SCENES = 4
"""So many scenes may a model take to place its cube: it may take over in the middle of another's motion."""
SPOILT_M = 0.01
"""The other cube was moved so far: this scene is no test of the new model any more."""


def _nothing() -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Work:
    """What became of the scenes since a model began with them.

    Attributes:
        lifted: whether the cube was lifted in any.
        placed: in how many it was placed.
        since_s: since when it lies on the spot in the present one.
        over: whether it has lain there long enough.
    """

    lifted: bool = False
    placed: int = 0
    since_s: float | None = None
    over: bool = False


@dataclass(slots=True, kw_only=True)
class Scenes(Session):
    """Lays out scenes and judges them. `episodes` has those that are over."""

    episodes: list[tuple[str, Episode]] = field(default_factory=list)
    _is_over: bool = False

    def _tick(self) -> None:
        """Called at every look at a scene."""

    def _may_rest(self) -> bool:
        """Whether the arm may be stopped between two scenes."""
        return True

    def _lay_out(self, part: Part) -> None:
        """A new scene; the arm begins at home, as the models have learnt to, or where it is, if it may not rest."""
        self._index += 1
        self._is_over = False
        seed = self.plan.seed_of(self._index)
        if rests := self._may_rest():
            self._go_home()
        self.simulation.reset(seed, keep_arm=True, target=part.target)
        self._doing = f"{part.label} moves the {part.target} cube to the spot"
        self.graph.caption = f"{part.label}   scene {self._index}   seed {seed}"
        self._wait(lambda: False, SETTLE_S)
        self._began_s = time.monotonic()
        self.graph.recording = True
        if rests:
            self._trigger("start")

    def _work(
        self, part: Part, enough: Callable[[Work], bool], scenes: int = SCENES, lifted: Callable[[], None] = _nothing
    ) -> Work:
        """Let the policy work on the present scene, and on further ones, until it is enough; it calls `lifted` once."""
        work = Work()
        if self._is_over:
            self._lay_out(part)
        for turn in range(scenes):
            outcome: dict[str, Any] = {}

            def done() -> bool:
                outcome.update(self._look(part, work, lifted))  # noqa: B023  called within this turn only
                return enough(work) or work.over

            self._wait(done, self.plan.time_limit_s)
            self._note(part, work, outcome)
            if enough(work) or turn == scenes - 1:
                break
            self._lay_out(part)
        return work

    def _look(self, part: Part, work: Work, lifted: Callable[[], None]) -> Mapping[str, Any]:
        """Judge the scene."""
        outcome = self.simulation.outcome(part.target)
        now_s = time.monotonic()
        if outcome["lifted"] and not work.lifted:
            work.lifted = True
            lifted()
        work.since_s = (work.since_s or now_s) if outcome["success"] else None
        if work.since_s is not None and now_s - work.since_s >= LASTING_S and not work.over:
            work.over = True
            work.placed += 1
        self._watch_time()
        self._tick()
        return outcome

    def _note(self, part: Part, work: Work, outcome: Mapping[str, Any]) -> None:
        """Write the scene down once it is over."""
        seconds = time.monotonic() - self._began_s
        if not work.over and seconds < self.plan.time_limit_s:
            return  # it goes on, with another aim
        seed, distance_m = self.plan.seed_of(self._index), float(outcome["distance_m"])
        episode = Episode(self._index, seed, work.over, seconds, why_not(outcome), distance_m)
        self.episodes.append((part.target, episode))
        work.since_s, work.over, self._is_over = None, False, True

    def _is_spoilt(self, part: Part) -> bool:
        outcome = self.simulation.outcome(part.target)
        return bool(outcome["wrong_lifted"]) or float(outcome["others_moved_m"]) > SPOILT_M
