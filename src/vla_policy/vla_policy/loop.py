"""The control loop: newest observation to the server, its answer joined to what is commanded, and again in time.

Runs in a thread of its own, beside ROS. It never acts on what is stale and never commands what it cannot join: it
holds, which means that it commands nothing more, so that the arm comes to rest where its last trajectory ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from vla_core.chunk import ActionChunk, Hold, JoinRules, Plan, brake, join
from vla_core.errors import EvergreenError, ImageError, ModelError
from vla_policy.clock import NS_PER_S, Clock, Moment
from vla_policy.following import NOT_FOLLOWING, Following, Path
from vla_policy.inbox import Inbox
from vla_policy.model import ModelSpec
from vla_policy.observe import AgeLimits, Snapshot, Stale, decode, observe
from vla_policy.schedule import FRESH_NS, FRESH_PATIENCE_NS, Backoff, Rhythm, Turnaround
from vla_policy.serving.channel import Late
from vla_policy.serving.client import Answer, PolicyClient
from vla_policy.serving.errors import ServerTimeoutError
from vla_policy.serving.link import Link
from vla_policy.stages import ChunkTiming, Marks, account

STALE_RETRY_S = 0.1
"""While it holds, the loop looks again when something arrives, or this often: an age limit passes without any event."""
STALE_NEWS_NS = 500_000_000
"""The loop never acts on what is stale, but says so only then: a camera that is just starting is no news."""
FORGET_PLAN_NS = 2_000_000_000
"""An arm that has stood still for so long may have been moved by somebody else: the driver knows what it holds."""
NO_ANSWER_YET = "the plan has ended and the server's answer is not here yet"
JOIN_TIMEOUT_S = 5.0
"""A loop that does not end is waiting in a step that has its own deadline; this is longer than all but a slow load."""


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop drives.

    Attributes:
        rules: how chunks are joined.
        rhythm: how often they are asked for.
        ages: how old inputs may be.
        request_timeout_s: how long an answer may take.
        prompt: instead of the model's own.
        max_chunk_age_s: how old may be what a chunk answers, when it is to be commanded.
        follow_timeout_s: how soon the driver must report what it took up; 0 where it never does.
    """

    rules: JoinRules
    rhythm: Rhythm
    ages: AgeLimits
    request_timeout_s: float
    prompt: str
    max_chunk_age_s: float
    follow_timeout_s: float


class Outlet(Protocol):
    """Where the loop's doings go; called in the loop's thread."""

    def command(self, plan: Plan, stamp_ns: int) -> None:
        """Send `plan`, whose times are monotonic, to the arm; `stamp_ns` is plan.stamp_ns in system time."""
        ...

    def chunk_done(self, timing: ChunkTiming, gap_s: float) -> None:
        """A chunk was commanded; the arm had stood still for `gap_s` waiting for it."""
        ...

    def driving(self, spec: ModelSpec) -> None:
        """The loop drives again, with this model."""
        ...

    def holding(self, reason: str) -> None:
        """The loop holds; called once for each new reason."""
        ...

    def crashed(self, error: Exception) -> None:
        """The loop ended through a defect."""
        ...


class ControlLoop:
    """One run from start to stop. `stop` may be called from any thread."""

    def __init__(
        self,
        *,
        spec: ModelSpec,
        link: Link,
        inbox: Inbox,
        outlet: Outlet,
        settings: LoopSettings,
        clock: Clock,
        identify: Callable[[PolicyClient], ModelSpec],
    ) -> None:
        """Take what it needs; `identify` gives the spec of whatever a new session talks to."""
        self._spec = spec
        self._link = link
        self._inbox = inbox
        self._outlet = outlet
        self._settings = settings
        self._clock = clock
        self._identify = identify
        self._stop = threading.Event()
        self._poked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy-loop", daemon=True)
        self._client: PolicyClient | None = None
        self._backoff = Backoff()
        self._turnaround = Turnaround()
        self._plan: Plan | None = None
        self._path = Path()
        self._following = Following(settings.follow_timeout_s)
        self._due_ns = 0
        self._fresh_ns = 0
        self._asked_about = ""
        self._reason: str | None = ""

    def start(self) -> None:
        """Begin to drive."""
        self._thread.start()

    def stop(self) -> None:
        """Bring the arm to rest, end the session and wait for the loop to end."""
        self._stop.set()
        self.poke()
        if (client := self._client) is not None:
            client.abort()
        self._thread.join(JOIN_TIMEOUT_S)

    def poke(self) -> None:
        """The prompt changed, or the loop must stop: do not wait for the next chunk to be due."""
        self._poked.set()
        self._inbox.nudge()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._converse()
            now = self._clock.now()
            if (plan := brake(self._plan, now.mono_ns, self._settings.rules)) is not None:
                self._outlet.command(plan, now.to_system(plan.stamp_ns))
        except Exception as error:  # noqa: BLE001  a thread that dies must not do so unseen
            self._outlet.crashed(error)

    def _converse(self) -> None:
        """One session with the server, until it fails or the loop must stop."""
        try:
            client = self._client = self._link.connect(self._stop)
        except EvergreenError as error:
            self._fail(error)
            return
        try:
            self._adopt(self._identify(client))
            self._due_ns = self._fresh_ns = self._clock.now().mono_ns
            while not self._stop.is_set():
                self._cycle(client)
        except EvergreenError as error:
            self._fail(error)
        finally:
            self._client = None
            client.close()

    def _adopt(self, spec: ModelSpec) -> None:
        """A server may come back with another version, but only of a model with the same inputs and outputs."""
        if spec.interface() != self._spec.interface():
            raise ModelError(
                f"the server now runs {spec.label}, whose cameras, joints or rate differ from {self._spec.label}: "
                "configure /policy again"
            )
        self._spec = spec

    def _fail(self, error: EvergreenError) -> None:
        """Hold, and pause before the next attempt."""
        if self._stop.is_set():
            return
        if isinstance(error, ServerTimeoutError):
            self._link.reset()
        self._hold(str(error))
        self._stop.wait(self._backoff.next_s())

    def _hold(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            self._outlet.holding(reason)

    def _cycle(self, client: PolicyClient) -> None:
        """One chunk, from waiting until it is due to its command."""
        found = self._await_snapshot()
        if found is None:
            return
        snapshot, began = found
        self._asked_about = self._prompt()
        try:
            message = self._spec.to_wire(decode(snapshot, self._spec, self._asked_about))
        except ImageError as error:
            self._due_ns = began.mono_ns
            self._hold(str(error))
            return
        asked_ns = self._clock.now().mono_ns
        keys, timeout_s = self._spec.keys, self._settings.request_timeout_s
        answer = client.infer(message, timeout_s, keys.actions, self._standstill())
        answered = self._clock.now()
        self._backoff.reset()
        outcome = self._joined(snapshot, answer, began, answered)
        if isinstance(outcome, Hold):
            self._due_ns = answered.mono_ns
            self._hold(outcome.reason)
            return
        ahead_ns = max(0, outcome.stamp_ns - answered.mono_ns)  # a stamp slightly ahead of our clock: no negative times
        outcome = replace(outcome, stamp_ns=outcome.stamp_ns - ahead_ns)
        stamp_ns = (snapshot.stamp_ns if answer.stamp_ns is None else answer.stamp_ns) - ahead_ns
        self._outlet.command(outcome, stamp_ns)
        self._following.published(stamp_ns, answered.mono_ns)
        marks = Marks(began.mono_ns, asked_ns, answered.mono_ns, self._clock.now().mono_ns)
        self._book(outcome, marks, account(snapshot, answer, marks, stamp_ns, outcome.stamp_ns))

    def _book(self, plan: Plan, marks: Marks, timing: ChunkTiming) -> None:
        """`plan` is in force: when is the next due, and what is there to tell?"""
        gap_ns = 0 if self._plan is None else max(0, plan.start_ns - self._plan.end_ns)
        self._turnaround.add((marks.commanded_ns - self._due_ns) / NS_PER_S)
        self._due_ns = self._settings.rhythm.due_ns(marks.asked_ns, plan.end_ns, self._turnaround.seconds)
        self._path.follow(self._plan, plan)
        self._plan = plan
        self._outlet.chunk_done(timing, gap_ns / NS_PER_S)
        if self._is_refused(plan.start_ns):
            self._hold(NOT_FOLLOWING)
        elif self._reason is not None:
            self._reason = None
            self._outlet.driving(self._spec)

    def _is_refused(self, now_ns: int) -> bool:
        return self._following.is_lost(self._inbox.taken_up(), now_ns)

    def _standstill(self) -> Late | None:
        """When to say that the arm holds: its plan may end seconds before the answer is here."""
        if self._plan is None or self._reason is not None:
            return None
        return Late(self._plan.end_ns / NS_PER_S, partial(self._hold, NO_ANSWER_YET))

    def _prompt(self) -> str:
        return self._inbox.prompt(self._settings.prompt or self._spec.prompt)

    def _await_snapshot(self) -> tuple[Snapshot, Moment] | None:
        """Wait until a chunk is due and there is something fresh to ask about; None when the loop must stop."""
        while not self._stop.is_set():
            ticket, frames, joints = self._inbox.newest()
            now = self._clock.now()
            if now.mono_ns < self._due_ns:
                self._wait_until_due(now)
                continue
            found = observe(self._spec, frames, joints, now, self._settings.ages)
            if isinstance(found, Stale):
                if now.mono_ns - self._fresh_ns > STALE_NEWS_NS:
                    self._hold(found.reason)
                if found.arm_lost:
                    self._plan = None
                self._due_ns = now.mono_ns
                self._inbox.wait(ticket, STALE_RETRY_S)
                continue
            self._fresh_ns = now.mono_ns
            patience_ns = self._due_ns + FRESH_PATIENCE_NS - now.mono_ns
            if found.since_mono_ns >= self._due_ns - FRESH_NS or patience_ns <= 0:
                return found, now
            self._inbox.wait(ticket, patience_ns / NS_PER_S)
        return None

    def _wait_until_due(self, now: Moment) -> None:
        self._poked.clear()
        if self._prompt() != self._asked_about:
            self._due_ns = now.mono_ns
        elif not self._stop.is_set():
            self._poked.wait((self._due_ns - now.mono_ns) / NS_PER_S)

    def _joined(self, snapshot: Snapshot, answer: Answer, began: Moment, now: Moment) -> Plan | Hold:
        if now.step_since(began):
            return Hold("the system clock was set while a chunk was under way")
        stamp_ns = snapshot.stamp_mono_ns if answer.stamp_ns is None else now.to_mono(answer.stamp_ns)
        limit_s = self._settings.max_chunk_age_s
        if now.mono_ns - stamp_ns > limit_s * NS_PER_S:
            return Hold(
                f"the answer came too late: what it saw is older than {limit_s:g} s (parameter max_chunk_age_s)"
            )
        chunk = ActionChunk(stamp_ns, self._spec.rate_hz, self._spec.to_rad(answer.actions))
        if self._plan is not None and self._is_void(self._plan, snapshot, now):
            self._plan = None
        return join(chunk, now.mono_ns, self._plan, snapshot.state, self._settings.rules)

    def _is_void(self, plan: Plan, snapshot: Snapshot, now: Moment) -> bool:
        """Whether the arm does not hold what `plan` says: the next chunk must start from where it is measured."""
        return (
            now.mono_ns - plan.end_ns > FORGET_PLAN_NS
            or self._is_refused(now.mono_ns)
            or self._path.is_left(self._spec.joint_names, snapshot.state, snapshot.state_mono_ns)
        )
