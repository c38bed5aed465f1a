"""The story itself: works through its steps on a running graph, and judges each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from evergreen.demo.session import DemoError
from evergreen.demo.stage import FILMED
from evergreen.update.cast import Cast, Part
from evergreen.update.deployments import Device, Update
from evergreen.update.narrator import Narrator
from evergreen.update.results import Chapter, Step, motion
from evergreen.update.scenes import SCENES, Scenes
from evergreen.update.timeline import Moment
from evergreen.update.witness import Witness
from vla_core.swap import Outcome

STEPS = (
    "the first model works",
    "the second takes over",
    "it works",
    "the broken one is kept out",
    "the second goes on",
)
DEPLOYMENT_S = 120.0
"""A deployment, with fetching and probation, that takes longer has failed, however slow the machine."""
CONNECTED_S = 60.0
STOPPED_MS = 200.0
"""Shorter than a person's reaction: whoever looks on sees no stop."""
STILL = FILMED[1]
"""The camera from which a person sees best what the arm does."""
FAILED = frozenset({Outcome.REFUSED, Outcome.ROLLED_BACK})


@dataclass(slots=True, kw_only=True)
class Story(Scenes):
    """Tells the story; `steps` and `updates` grow while it does."""

    cast: Cast
    device: Device
    witness: Witness
    narrator: Narrator
    current: Callable[[], str]
    write_times: Callable[[], list[int]]
    steps: list[Step] = field(default_factory=list)
    updates: list[Chapter] = field(default_factory=list)
    stills: dict[str, bytes] = field(default_factory=dict)
    _update: Update | None = None
    _counted: Update | None = None
    _expected: Outcome = Outcome.NONE
    _wanted_still: str = ""
    _writes_ns: list[int] = field(default_factory=list)

    def tell(self) -> None:
        """Play it to its end, or to the step that goes wrong.

        Raises:
            DemoError: the graph broke down.
        """
        self._doing = "waiting for the bridge to reach the nucleus"
        if not self._wait(lambda: self.device.is_connected, CONNECTED_S):
            raise DemoError(f"the bridge did not reach the nucleus within {CONNECTED_S:.0f} s; see update.log")
        self.graph.filming = self.plan.film
        chapters = (self._first_works, self._takes_over, self._it_works, self._kept_out, self._goes_on)
        for name, chapter in zip(STEPS, chapters, strict=True):
            ok, detail = chapter()
            self.steps.append(Step(name, ok, detail))
            self.narrator.step(self.steps[-1])
            if not ok:
                self._take_stock()
                break
        self.graph.filming = False

    # The steps.

    def _first_works(self) -> tuple[bool, str]:
        part = self.cast.before
        self._lay_out(part)
        work = self._work(part, lambda work: work.lifted)
        return work.lifted, f"{part.label} {'carries' if work.lifted else 'did not lift'} the {part.target} cube"

    def _takes_over(self) -> tuple[bool, str]:
        self._take_still("at the deployment")
        update = self._deploy(self.cast.after, Outcome.SUCCEEDED)
        self._wait_for(self.cast.before, lambda: update.has(Moment.FIRST_ACTION) or update.is_decided)
        timeline = self._present.timeline
        if Moment.FIRST_ACTION not in timeline.at_s:
            return False, self._how_it_ended()
        self._take_still("at the switch")
        first_s = timeline.at_s[Moment.FIRST_ACTION]
        moved = motion(self.witness, timeline, ())
        gap_ms = moved.handover_gap_ms or 0.0
        speed = "" if moved.speed_rad_s is None else f", the arm moving with {moved.speed_rad_s:.2f} rad/s"
        took_s = first_s - timeline.at_s[Moment.TOLD]
        said = f"{self.cast.after.label} drives {took_s:.1f} s after the configuration event{speed}"
        return gap_ms <= STOPPED_MS, f"{said}; {gap_ms:.0f} ms without a setpoint at the handover"

    def _it_works(self) -> tuple[bool, str]:
        part, update = self.cast.after, self._present
        if self._is_spoilt(part):
            self._lay_out(part)
        work = self._work(
            part,
            lambda work: work.placed > 0 or update.timeline.outcome in FAILED,
            lifted=lambda: self._take_still("the second model at work"),
        )
        if update.timeline.outcome in FAILED:
            return False, self._how_it_ended()
        if not work.placed:
            return False, f"{part.label} did not place the {part.target} cube in {SCENES} scenes"
        self._finish()
        timeline = self._present.timeline
        ok = timeline.outcome is Outcome.SUCCEEDED and self.current() == part.label
        return ok, f"placed the {part.target} cube; {self._how_it_ended()}; the store boots {self.current()}"

    def _kept_out(self) -> tuple[bool, str]:
        part = self.cast.after
        self._lay_out(part)
        self._work(part, lambda work: work.lifted)
        self._deploy(self.cast.broken, Outcome.REFUSED)
        self._finish()
        runs, boots = self.witness.status.active_model, self.current()
        ok = self._present.timeline.outcome in FAILED and runs == boots == part.label
        return ok, f"{self._how_it_ended()}; {runs} drives, the store boots {boots}"

    def _goes_on(self) -> tuple[bool, str]:
        part = self.cast.after
        self._lay_out(part)
        work = self._work(part, lambda work: work.placed > 0)
        ok = work.placed > 0 and self.witness.status.active_model == part.label
        return ok, f"{part.label} {'placed' if work.placed else 'did not place'} the {part.target} cube once more"

    # Deployments.

    def _deploy(self, part: Part, expected: Outcome) -> Update:
        self.write_times()  # what came before does not count
        self._writes_ns, self._expected = [], expected
        self.narrator.begin(part.label)
        self._update = self.device.deploy(part.uri, part.choice.manifest.version)
        return self._update

    @property
    def _present(self) -> Update:
        if self._update is None:
            raise DemoError("there was no deployment yet")
        return self._update

    def _finish(self) -> None:
        """Let the second model work on until the deployment is over; then take stock of it."""
        update = self._present
        self._wait_for(self.cast.after, lambda: update.is_over)
        self._take_stock()

    def _wait_for(self, part: Part, condition: Callable[[], bool]) -> None:
        """Let a model work until a deployment has got so far, or takes too long."""
        deadline_s = time.monotonic() + DEPLOYMENT_S
        self._work(part, lambda _: condition() or time.monotonic() > deadline_s, scenes=sys.maxsize)

    def _take_stock(self) -> None:
        """Of the newest deployment, once."""
        update = self._update
        if update is None or self._counted is update:
            return
        self._counted = update
        self._writes_ns += self.write_times()
        timeline = update.timeline
        moved = motion(self.witness, timeline, self._writes_ns)
        self.updates.append(Chapter(timeline, update.status, moved, str(self._expected)))
        self.narrator.end(self.updates[-1])

    def _how_it_ended(self) -> str:
        timeline = self._present.timeline
        if timeline.outcome is Outcome.NONE:
            return f"deployment without an outcome after {DEPLOYMENT_S:.0f} s; see update.log"
        reason = f": {timeline.reason}" if timeline.reason else ""
        return f"{timeline.model or 'the model'} {timeline.outcome.replace('_', ' ')}{reason}"

    # Of scenes.

    def _may_rest(self) -> bool:
        """Not while a deployment is under way: that the arm need not stop is what the story is about."""
        return self._update is None or self._update.is_decided

    def _tick(self) -> None:
        self._writes_ns += self.write_times()
        self._keep_still()
        if self._update is not None:
            self.narrator.show(self._update.timeline, self.witness.bridge)

    def _take_still(self, name: str) -> None:
        self._wanted_still = name
        self.graph.want_stills((STILL,))

    def _keep_still(self) -> None:
        if self._wanted_still and not self.graph.wants(STILL):
            self.stills[self._wanted_still] = self.graph.stills()[STILL]
            self._wanted_still = ""
