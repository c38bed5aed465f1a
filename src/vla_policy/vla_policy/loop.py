"""The control loop: newest observation to the server, its answer joined to what is commanded, and again in time.

Runs in a thread of its own, beside ROS. It never acts on what is stale and never commands what it cannot join: it
holds, which means that it commands nothing more, so that the arm comes to rest where its last trajectory ends.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from vla_core.chunk import ActionChunk, Hold, Plan, brake, join
from vla_core.errors import EvergreenError, ImageError, ModelError
from vla_core.joints import reorder
from vla_core.observation import OBSERVE_ONLY_KEY
from vla_core.prompt_phrases import Match
from vla_policy.clock import NS_PER_S, Clock, Moment
from vla_policy.feeding import Feeder
from vla_policy.following import NOT_FOLLOWING, Following, Path
from vla_policy.inbox import Inbox
from vla_policy.loaded import Loaded
from vla_policy.model import ModelSpec
from vla_policy.observe import Snapshot, Stale, decode, observe
from vla_policy.probation import Failed, Passed
from vla_policy.schedule import FRESH_NS, FRESH_PATIENCE_NS, Backoff, Crashes, Turnaround
from vla_policy.serving.channel import Late
from vla_policy.serving.client import Answer, PolicyClient
from vla_policy.serving.errors import ServerTimeoutError
from vla_policy.stages import NS_PER_MS, ChunkTiming, Marks, account
from vla_policy.succession import Succession
from vla_policy.trial import Trial

STALE_RETRY_S = 0.1
"""While it holds, the loop looks again when something arrives, or this often: an age limit passes without any event."""
STALE_NEWS_NS = 500_000_000
"""The loop never acts on what is stale, but says so only then: a camera that is just starting is no news."""
FORGET_PLAN_NS = 2_000_000_000
"""An arm that has stood still for so long may have been moved by somebody else: the driver knows what it holds."""
DEAF_RETRY_NS = 1_000_000_000
"""A prompt that was not understood is asked about again so late: only another prompt helps, and it ends the wait."""
CLOCK_SET = "the system clock was set while a chunk was under way"
NO_ANSWER_YET = "the plan has ended and the server's answer is not here yet"
JOIN_TIMEOUT_S = 5.0
"""A loop that does not end is waiting in a step that has its own deadline; this is longer than all but a slow load."""


class Outlet(Protocol):
    """Where the loop's doings go; called in the loop's thread."""

    def command(self, plan: Plan, stamp_ns: int, joint_names: Sequence[str]) -> None:
        """Send `plan`, whose times are monotonic, to the arm; `stamp_ns` is plan.stamp_ns in system time."""
        ...

    def chunk_done(self, timing: ChunkTiming, gap_s: float) -> None:
        """A chunk was commanded; the arm had stood still for `gap_s` waiting for it."""
        ...

    def driving(self, spec: ModelSpec) -> None:
        """The loop drives: again, or with another model than before."""
        ...

    def holding(self, reason: str) -> None:
        """The loop holds; called once for each new reason."""
        ...

    def heard(self, match: Match | None) -> None:
        """What the prompt in force was taken for; None where the server does not say. Called once for each."""
        ...

    def despairs(self, model: str, reason: str) -> None:
        """The server of `model` failed several times of late; the loop goes on trying."""
        ...

    def crashed(self, error: Exception) -> None:
        """The loop ended through a defect."""
        ...


class ControlLoop:
    """One run from start to stop. `stop` may be called from any thread."""

    def __init__(self, loaded: Loaded, inbox: Inbox, outlet: Outlet, clock: Clock) -> None:
        """Take what it needs: `loaded` drives first."""
        self._loaded = loaded
        self._inbox = inbox
        self._outlet = outlet
        self._clock = clock
        self._stop = threading.Event()
        self._poked = threading.Event()
        self._hurry = threading.Event()  # set where a wait for the present server must end
        self._thread = threading.Thread(target=self._run, name="policy-loop", daemon=True)
        self._client: PolicyClient | None = None
        self._opened: PolicyClient | None = None  # a session for the next conversation, opened by somebody else
        self._succession = Succession()
        self._override: str | None = None
        self._backoff, self._crashes = Backoff(), Crashes()
        self._turnaround = self._former_turnaround = Turnaround()
        self._plan: Plan | None = None
        self._path = Path()
        self._following = Following(loaded.settings.follow_timeout_s)
        self._feeder = Feeder()
        self._due_ns = 0
        self._fresh_ns = 0
        self._haste = False
        self._asked_about = ""
        self._heard: tuple[Match | None, int | None] = None, None
        self._obeyed_ns: int | None = None
        self._reason: str | None = ""
        self._announce = False

    @property
    def loaded(self) -> Loaded:
        """The model that drives."""
        return self._loaded

    @property
    def is_on_trial(self) -> bool:
        """Whether a model is on trial, or about to be."""
        return self._succession.is_under_way or self._succession.offer.waits

    def start(self) -> None:
        """Begin to drive."""
        self._thread.start()

    def stop(self) -> None:
        """Bring the arm to rest, end the session and wait for the loop to end."""
        self._stop.set()
        self._hurry.set()
        self.poke()
        if (client := self._client) is not None:
            client.abort()
        self._thread.join(JOIN_TIMEOUT_S)

    def poke(self) -> None:
        """The prompt changed, or the loop must stop: do not wait for the next chunk to be due."""
        self._poked.set()
        self._inbox.nudge()

    def offer(self, trial: Trial) -> None:
        """Try `trial`'s model from the next observation for which there is time; it reports how that goes.

        Where it is the one that drives, it is only watched.
        """
        self._succession.offer.put(trial)
        self._hurry.set()
        self.poke()

    def decide(self, verdict: Passed | Failed) -> None:
        """End the trial under way like this, without waiting for more."""
        self._succession.decide(verdict)
        self.poke()

    def recall(self, verdict: Failed) -> None:
        """As `decide`, also where the trial is still on offer."""
        self._succession.recall(verdict)
        self.poke()

    def tell(self, prompt: str) -> None:
        """Give the model that drives another instruction; nothing may be on trial."""
        self._loaded = self._loaded.told(prompt)
        self.poke()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._take_offer()
                self._converse()
            now = self._clock.now()
            if (plan := brake(self._plan, now.mono_ns, self._loaded.settings.rules)) is not None:
                self._outlet.command(plan, now.to_system(plan.stamp_ns), self._spec.joint_names)
        except Exception as error:  # noqa: BLE001  a thread that dies must not do so unseen
            self._outlet.crashed(error)
        finally:
            self._succession.end()
            if self._opened is not None:
                self._opened.close()

    @property
    def _spec(self) -> ModelSpec:
        return self._loaded.spec

    def _converse(self) -> None:
        """One session with the server, until it fails, another is due, or the loop must stop."""
        client = self._open()
        if client is None:
            return
        try:
            self._due_ns = self._fresh_ns = self._clock.now().mono_ns
            self._feeder = Feeder(self._spec.n_obs_steps, self._spec.observation_period_s)
            while not self._stop.is_set() and not self._take_offer():
                self._cycle(client)
                if reason := self._succession.settle(self._clock.now().mono_ns):
                    raise ModelError(reason)
        except EvergreenError as error:
            self._fail(error)
        finally:
            self._client = None
            client.close()

    def _open(self) -> PolicyClient | None:
        """A session: the one that was opened for us, or a new one; None where there is none."""
        opened, self._opened = self._opened, None
        if opened is not None:
            self._client = opened
            return opened
        self._heed()
        client = None
        try:
            client = self._client = self._loaded.link.connect(self._hurry)
            self._adopt(self._loaded.identify(client))
        except EvergreenError as error:
            self._client = None
            if client is not None:
                client.close()
            self._fail(error)
            return None
        return client

    def _adopt(self, spec: ModelSpec) -> None:
        """A server may come back with another version, but only of a model with the same inputs and outputs."""
        if spec.interface() != self._spec.interface():
            raise ModelError(
                f"the server now runs {spec.label}, whose cameras, joints or rate differ from {self._spec.label}: "
                "configure /policy again"
            )
        if spec != self._spec:
            self._loaded = replace(self._loaded, spec=spec)

    def _take_offer(self) -> bool:
        """Go over to the model that was offered, if one was; whether the session must end for it."""
        trial = self._succession.offer.take()
        if trial is None:
            return False
        self._heed()
        self._succession.begin(trial, self._turnaround.seconds)
        if trial.old is None:
            return False
        self._override = self._inbox.end_override()
        self._former_turnaround, self._turnaround = self._turnaround, Turnaround()
        self._become(trial.new, trial.client)
        return True

    def _heed(self) -> None:
        """Let waits be cut short by what is to come, not by an offer that was taken already."""
        self._hurry.clear()
        if self._stop.is_set() or self._succession.offer.waits:
            self._hurry.set()

    def _give_back(self, reason: str) -> bool:
        """Whether there was a former model to go back to."""
        trial = self._succession.fail(reason)
        if trial is None or trial.old is None:
            return False
        self._inbox.restore_override(self._override)
        self._turnaround = self._former_turnaround
        if trial.spare is None:
            self._hold(reason)
        self._become(trial.old, trial.spare)
        return True

    def _become(self, loaded: Loaded, client: PolicyClient | None) -> None:
        """The next observation goes to `loaded`, as soon as may be; what is commanded goes on meanwhile."""
        names = self._spec.joint_names
        if self._plan is not None and names != loaded.spec.joint_names:
            positions = reorder(names, self._plan.positions, loaded.spec.joint_names)
            self._plan, self._path = replace(self._plan, positions=positions), Path()
            self._path.follow(None, self._plan)
        self._loaded, self._opened = loaded, client
        self._announce = self._haste = True
        self._backoff, self._crashes = Backoff(), Crashes()

    def _fail(self, error: EvergreenError) -> None:
        """Go back to the former model; where there is none, hold, and pause before the next attempt."""
        if self._stop.is_set() or self._give_back(str(error)) or self._succession.offer.waits:
            return
        if isinstance(error, ServerTimeoutError):
            self._loaded.link.reset()
        self._hold(str(error))
        if self._crashes.add(self._clock.now().mono_ns):
            self._outlet.despairs(self._loaded.model, str(error))
        self._hurry.wait(self._backoff.next_s())

    def _hold(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            self._outlet.holding(reason)

    def _cycle(self, client: PolicyClient) -> None:
        """One chunk, from waiting until it is due to its command."""
        found = self._await_snapshot(client)
        if found is None:
            return
        snapshot, began = found
        self._asked_about, prompt_ns = self._prompt(), self._inbox.prompt_ns()
        try:
            message = self._spec.to_wire(decode(snapshot, self._spec, self._asked_about))
        except ImageError as error:
            self._due_ns = began.mono_ns
            self._hold(str(error))
            return
        asked_ns = self._clock.now().mono_ns
        timeout_s = self._succession.timeout_s(asked_ns, self._plan, self._loaded.settings.request_timeout_s)
        answer = client.infer(message, timeout_s, self._spec.keys.actions, self._standstill())
        answered = self._clock.now()
        self._feeder.shown(snapshot.stamp_mono_ns)
        if not self._is_understood(answer.match, prompt_ns):
            self._due_ns = answered.mono_ns + DEAF_RETRY_NS
            return
        outcome = self._joined(snapshot, answer, began, answered)
        if isinstance(outcome, Hold):
            if self._succession.is_under_way and outcome.reason != CLOCK_SET:
                raise ModelError(outcome.reason)
            self._due_ns = answered.mono_ns
            self._hold(outcome.reason)
            return
        ahead_ns = max(0, outcome.stamp_ns - answered.mono_ns)  # a stamp slightly ahead of our clock: no negative times
        outcome = replace(outcome, stamp_ns=outcome.stamp_ns - ahead_ns)
        stamp_ns = (snapshot.stamp_ns if answer.stamp_ns is None else answer.stamp_ns) - ahead_ns
        self._outlet.command(outcome, stamp_ns, self._spec.joint_names)
        self._backoff.reset()
        self._following.published(stamp_ns, answered.mono_ns)
        marks = Marks(began.mono_ns, asked_ns, answered.mono_ns, self._clock.now().mono_ns)
        timing = account(snapshot, answer, marks, stamp_ns, outcome.stamp_ns)
        self._book(outcome, marks, self._obeying(prompt_ns, timing, marks))

    def _is_understood(self, match: Match | None, prompt_ns: int | None) -> bool:
        """Whether the prompt asks for something; where it does not, hold rather than guess."""
        if (match, prompt_ns) != self._heard:  # a prompt that is said again is told of again
            self._heard = match, prompt_ns
            self._outlet.heard(match)
        if match is None or not match.reason:
            return True
        self._hold(match.reason)
        return False

    def _obeying(self, prompt_ns: int | None, timing: ChunkTiming, marks: Marks) -> ChunkTiming:
        """The account of a chunk; of the first that follows a new prompt with how long that took."""
        if prompt_ns is None or prompt_ns == self._obeyed_ns:
            return timing
        self._obeyed_ns = prompt_ns
        return replace(timing, prompt_ms=(marks.commanded_ns - prompt_ns) / NS_PER_MS)

    def _book(self, plan: Plan, marks: Marks, timing: ChunkTiming) -> None:
        """`plan` is in force: when is the next due, and what is there to tell?"""
        gap_ns = 0 if self._plan is None else max(0, plan.start_ns - self._plan.end_ns)
        waited_ns = gap_ns if self._reason in (None, NO_ANSWER_YET) else 0
        self._turnaround.add((marks.commanded_ns - self._due_ns) / NS_PER_S)
        self._path.follow(self._plan, plan)
        self._plan = plan
        self._outlet.chunk_done(timing, gap_ns / NS_PER_S)
        refused = self._is_refused(plan.start_ns)
        if refused:
            if self._succession.has_former and self._reason != NOT_FOLLOWING:
                raise ModelError(NOT_FOLLOWING)  # it was followed until this model came
            self._hold(NOT_FOLLOWING)
        elif self._reason is not None or self._announce:
            self._reason, self._announce = None, False
            self._outlet.driving(self._spec)
        if reason := self._succession.commanded(marks.commanded_ns, waited_ns / NS_PER_S, followed=not refused):
            raise ModelError(reason)
        seconds, reserve_s = self._turnaround.seconds, self._succession.reserve_s
        self._due_ns = self._loaded.settings.rhythm.due_ns(marks.asked_ns, plan.end_ns, seconds, reserve_s)

    def _is_refused(self, now_ns: int) -> bool:
        return self._following.is_lost(self._inbox.taken_up(), now_ns)

    def _standstill(self) -> Late | None:
        """When to say that the arm holds: its plan may end seconds before the answer is here."""
        if self._plan is None or self._reason is not None:
            return None
        return Late(self._plan.end_ns / NS_PER_S, partial(self._hold, NO_ANSWER_YET))

    def _prompt(self) -> str:
        return self._inbox.prompt(self._loaded.prompt)

    def _await_snapshot(self, client: PolicyClient) -> tuple[Snapshot, Moment] | None:
        """Wait until a chunk is due and there is something fresh to ask about; None when the loop must stop."""
        while not self._stop.is_set():
            ticket, frames, joints = self._inbox.newest()
            now = self._clock.now()
            if self._is_called_away(now):
                return None
            if now.mono_ns < self._due_ns:
                self._wait_until_due(now)
                self._feed(client)
                continue
            found = observe(self._spec, frames, joints, now, self._loaded.settings.ages)
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
            if found.since_mono_ns >= self._due_ns - FRESH_NS or patience_ns <= 0 or self._haste:
                self._haste = False
                return found, now
            self._inbox.wait(ticket, patience_ns / NS_PER_S)
        return None

    def _is_called_away(self, now: Moment) -> bool:
        """Whether another model is offered and there is time for it, or the one on trial must be decided about."""
        succession = self._succession
        if succession.is_decided(now.mono_ns):
            return True
        return succession.offer.waits and succession.can_begin(now.mono_ns, self._plan, self._turnaround.seconds)

    def _wait_until_due(self, now: Moment) -> None:
        self._poked.clear()
        if self._prompt() != self._asked_about:
            self._due_ns = now.mono_ns
        elif not self._stop.is_set() and not self._is_called_away(now):
            self._poked.wait(max(0, self._feeder.wake_ns(self._due_ns) - now.mono_ns) / NS_PER_S)

    def _feed(self, client: PolicyClient) -> None:
        """Show the server what happens before the next chunk is due, if its model looks back."""
        _, frames, joints = self._inbox.newest()
        now = self._clock.now()
        if self._stop.is_set() or self._feeder.wake_ns(self._due_ns) > now.mono_ns or now.mono_ns >= self._due_ns:
            return
        found = observe(self._spec, frames, joints, now, self._loaded.settings.ages)
        if isinstance(found, Stale) or not self._feeder.is_news(found.stamp_mono_ns):
            self._feeder.put_off(now.mono_ns)
            return
        with contextlib.suppress(ImageError):  # a request with this picture will tell
            message = self._spec.to_wire(decode(found, self._spec, self._asked_about)) | {OBSERVE_ONLY_KEY: True}
            client.infer(message, self._loaded.settings.request_timeout_s, self._spec.keys.actions, self._standstill())
        self._feeder.shown(found.stamp_mono_ns)

    def _joined(self, snapshot: Snapshot, answer: Answer, began: Moment, now: Moment) -> Plan | Hold:
        if now.step_since(began):
            return Hold(CLOCK_SET)
        stamp_ns = snapshot.stamp_mono_ns if answer.stamp_ns is None else now.to_mono(answer.stamp_ns)
        limit_s = self._loaded.settings.max_chunk_age_s
        if now.mono_ns - stamp_ns > limit_s * NS_PER_S:
            return Hold(
                f"the answer came too late: what it saw is older than {limit_s:g} s (parameter max_chunk_age_s)"
            )
        chunk = ActionChunk(stamp_ns, self._spec.rate_hz, self._spec.to_rad(answer.actions))
        if self._plan is not None and self._is_void(self._plan, snapshot, now):
            self._plan = None
        if reason := self._succession.object_to(chunk.actions, snapshot.state):
            raise ModelError(reason)
        return join(chunk, now.mono_ns, self._plan, snapshot.state, self._loaded.settings.rules)

    def _is_void(self, plan: Plan, snapshot: Snapshot, now: Moment) -> bool:
        """Whether the arm does not hold what `plan` says: the next chunk must start from where it is measured."""
        return (
            now.mono_ns - plan.end_ns > FORGET_PLAN_NS
            or self._is_refused(now.mono_ns)
            or self._path.is_left(self._spec.joint_names, snapshot.state, snapshot.state_mono_ns)
        )
