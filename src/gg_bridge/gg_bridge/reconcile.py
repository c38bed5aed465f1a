"""From the wish of a deployment to a model that drives: fetch, ask the policy for the swap, wait for its outcome, tell.

A state machine without threads, network or clock. Each method takes the time (monotonic, s) and returns what to do, in
that order. Answers may come late, twice, or for a wish that is no more.

```
         want ──────────────▶ fetching ──fetched──▶ swapping ──status──▶ idle
idle ◀── empty, refused before   │ ▲ retry in          │ no policy, or it forgot: ask again
                                 ▼ │ 2 s … 5 min       │
                               waiting                 ▼
```
What the policy refuses for the present only (`SwapStatus.passing`) waits as well, and is then asked for again.
A newer wish wins at any time. What is begun is remembered first and what has ended is told first, so that a kill in
between repeats a step, with the same request id, and loses none.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from gg_bridge.actions import (
    FAILED,
    NOTHING,
    RETRYING,
    Action,
    Allow,
    Ask,
    CancelFetch,
    Fetch,
    Refuse,
    Remember,
    Tell,
)
from gg_bridge.configuration import ModelConfiguration
from gg_bridge.memory import Memory
from vla_core.swap import Mode, Outcome, SwapRequest, SwapStatus

FIRST_RETRY_S, LAST_RETRY_S = 2.0, 300.0
"""A connection that broke is often back at once; a server that is down for an hour need not be asked every second."""
MAX_DOUBLINGS = 10
"""Beyond LAST_RETRY_S; a power of the number of tries itself is more than a float holds after some days."""
RETRY_JITTER = 0.3
"""Share of the delay that is random: a whole fleet waits for the same server."""
ASK_AGAIN_S = 2.0
"""No policy was there to be asked; it is started again within that time."""
UNSEEN_S = 15.0
"""The policy took the request, and its status never showed it: it ended in between. Verifying may be slow to begin."""
MAX_PUT_OFF = 10
"""The robot was not able to take the model for a quarter of an hour; with `restart` the arm held for each try."""
MAX_LOST = 3
"""A policy that ended so often while it worked on the same request was ended by it."""
SLOW_S = 900.0
"""Longer than any swap of a model that fits a robot. Said once; the outcome is still waited for."""
RUNNING = frozenset({"driving", "holding"})
"""The policy's states in which a model moves the arm, or would."""
RESTORING = ".prompt"
"""Marks requests that bring a deployed prompt back to a policy that was started anew."""


class Phase(StrEnum):
    """Where the wish is."""

    IDLE = "idle"
    FETCHING = "fetching"
    WAITING = "waiting"
    SWAPPING = "swapping"


class Reconciler:
    """Keeps what runs equal to what is wished for."""

    def __init__(self, memory: Memory, jitter: Callable[[], float] = random.random) -> None:
        self._memory = memory
        self._jitter = jitter
        self._phase = Phase.IDLE
        self._due_s: float | None = None
        self._failures = 0
        self._told_retry = False
        self._started_s = 0.0
        self._asked_s = 0.0
        self._fetch_s: float | None = None
        self._seen = False
        self._asked_before = False
        self._slow = False
        self._restoring = False
        self._asks_next = False
        self._problem = ""
        self._before: Memory | None = None

    # What can be asked of it.

    @property
    def phase(self) -> Phase:
        """Where the wish is."""
        return self._phase

    @property
    def memory(self) -> Memory:
        """The wish, and what became of it."""
        return self._memory

    @property
    def due_s(self) -> float | None:
        """When to call `tick`; None: not before something happens."""
        return self._due_s

    @property
    def problem(self) -> str:
        """Why the wish does not get on at present; empty where it does."""
        return self._problem

    def refusal(self, wish: ModelConfiguration) -> str:
        """Why this wish would be refused at once; empty where it would be tried."""
        return self._memory.refused.get(wish.payload_digest, "")

    # What happens to it.

    def want(self, wish: ModelConfiguration, now_s: float) -> list[Action]:
        """The configuration was read; repeated or unchanged, it does nothing."""
        content = self._content()
        old = self._memory
        if wish.digest == old.digest:
            return content + self.resume(now_s)
        if wish.is_empty and self._phase is Phase.SWAPPING:
            return content  # what was asked for cannot be taken back; its outcome will be told
        actions = [*content, *self._leave()]
        self._begin(now_s)
        self._memory = replace(
            old,
            generation=old.generation + 1,
            digest=wish.digest,
            wish=wish,
            label="",
            outcome="",
            reason="",
            lost=0,
            put_off=0,
        )
        if wish.is_empty:
            return [*actions, *self._end(NOTHING, "")]
        if reason := self.refusal(wish):
            said = reason if reason.startswith("refused before") else f"refused before: {reason}"
            return [*actions, *self._tell_and_end(Outcome.REFUSED, said)]
        return [*actions, Remember(self._memory), *self._fetch()]

    def resume(self, now_s: float) -> list[Action]:
        """Take up what an earlier process was ended in the middle of."""
        if self._phase is not Phase.IDLE or not self._memory.is_under_way:
            return []
        self._begin(now_s)
        return self._fetch()

    def complain(self, digest: str, reason: str) -> list[Action]:
        """The configuration cannot be read; what is under way goes on. `digest` is of that configuration."""
        if digest == self._memory.complaint:
            return []
        self._memory = replace(self._memory, complaint=digest)
        told = Tell(f"{digest}-0", ModelConfiguration(), "", Outcome.REFUSED, reason)
        return [told, Remember(self._memory)]

    def retry(self, now_s: float) -> list[Action]:
        """Somebody mended what was wrong: try the present wish again, though it was refused."""
        memory = self._memory.without_refusal(self._memory.wish.payload_digest)
        if self._phase is Phase.WAITING:
            return self._fetch()
        if self._phase is not Phase.IDLE or self._memory.outcome not in FAILED | {Outcome.SUPERSEDED}:
            return []
        self._begin(now_s)
        self._memory = replace(
            memory, generation=memory.generation + 1, label="", outcome="", reason="", lost=0, put_off=0
        )
        return [Remember(self._memory), *self._fetch()]

    def fetched(self, request_id: str, label: str, now_s: float) -> list[Action]:
        """The model is in the store."""
        if request_id != self._memory.request_id or self._phase is not Phase.FETCHING:
            return []
        self._fetch_s = now_s - self._started_s
        self._asked_before = bool(self._memory.label)  # by an earlier process
        self._memory = replace(self._memory, label=label)
        return [Remember(self._memory), Allow(label), *self._leave_before(), *self._ask(now_s)]

    def fetch_failed(self, request_id: str, reason: str, now_s: float, *, retryable: bool) -> list[Action]:
        """The model could not be fetched."""
        if request_id != self._memory.request_id or self._phase is not Phase.FETCHING:
            return []
        if not retryable:
            return self._refuse(Outcome.REFUSED, reason)
        self._failures += 1
        return self._wait(self._failures, reason, now_s)

    def ask_failed(self, request_id: str, reason: str, now_s: float, *, retryable: bool) -> list[Action]:
        """The policy is not there to be asked, or would not hear of it."""
        if request_id != self._asked_id or self._phase is not Phase.SWAPPING or self._seen:
            return []
        if not retryable:
            return self._end_restoring(now_s) if self._restoring else self._refuse(Outcome.REFUSED, reason)
        self._problem, self._due_s = reason, now_s + ASK_AGAIN_S
        return []

    def heard(self, says: SwapStatus, now_s: float) -> list[Action]:
        """The policy's status: every message of it, and once more after `Ask`."""
        if self._before is not None and says.request_id == self._before.asked_id and says.is_over:
            return self._end_before(says)
        if self._phase is Phase.IDLE:
            return self._fell_back(says) or self._restore_prompt(says, now_s)
        if self._phase is Phase.SWAPPING and says.request_id == self._asked_id:
            return self._follow(says, now_s)
        if self._phase is not Phase.SWAPPING or not self._seen:
            return self._of_before(says)
        if self._restoring:
            return self._end_restoring(now_s)
        return self._overtaken(says) if says.request_id else self._lost(now_s)

    def tick(self, now_s: float) -> list[Action]:
        """Time has passed."""
        if self._due_s is None or now_s < self._due_s:
            return []
        if self._phase is Phase.WAITING:
            return self._ask(now_s) if self._asks_next else self._fetch()
        if self._phase is Phase.SWAPPING and not self._seen:
            return self._ask(now_s)
        self._due_s = None
        if self._phase is not Phase.SWAPPING or self._slow or self._restoring:
            return []
        self._slow = True
        self._problem = f"the policy has given no outcome for {SLOW_S:.0f} s; see policy/status"
        return self._tell_retry(self._problem)

    @property
    def _asked_id(self) -> str:
        """Under which the policy was asked last."""
        return self._memory.request_id + RESTORING if self._restoring else self._memory.asked_id

    # How a wish begins.

    def _content(self) -> list[Action]:
        """The configuration can be read again, so that the next one that cannot is told of."""
        if not self._memory.complaint:
            return []
        self._memory = replace(self._memory, complaint="")
        return [Remember(self._memory)]

    def _begin(self, now_s: float) -> None:
        self._phase, self._due_s, self._problem = Phase.IDLE, None, ""
        self._failures, self._started_s, self._fetch_s = 0, now_s, None
        self._told_retry = self._seen = self._asked_before = self._slow = self._restoring = False
        self._asks_next = False

    def _fetch(self) -> list[Action]:
        self._phase, self._due_s, self._problem, self._asks_next = Phase.FETCHING, None, "", False
        return [Fetch(self._memory.request_id, self._memory.wish)]

    def _leave(self) -> list[Action]:
        """Turn away from the wish under way: a newer one has come."""
        if not self._memory.is_under_way:
            return []
        if self._phase is Phase.SWAPPING and self._seen:
            self._before = self._memory  # it may yet end before the policy is asked again
            return []
        cancel: list[Action] = [CancelFetch()] if self._phase is Phase.FETCHING else []
        return [*cancel, self._tell(Outcome.SUPERSEDED, "a newer deployment came")]

    # How it goes on.

    def _ask(self, now_s: float) -> list[Action]:
        self._phase, self._seen, self._asked_s = Phase.SWAPPING, False, now_s
        self._due_s, self._problem = now_s + UNSEEN_S, ""
        memory = self._memory
        label, prompt = memory.label, memory.wish.prompt
        if self._restoring:
            label, prompt = memory.good_label, memory.good_prompt
        return [Ask(SwapRequest(label, self._asked_id, prompt, Mode(memory.wish.swap)))]

    def _wait(self, tries: int, reason: str, now_s: float) -> list[Action]:
        """Try again, ever later."""
        delay_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(tries - 1, MAX_DOUBLINGS))
        self._phase, self._problem = Phase.WAITING, reason
        self._due_s = now_s + delay_s * (1.0 - RETRY_JITTER * self._jitter())
        return self._tell_retry(reason)

    def _put_off(self, says: SwapStatus, now_s: float, durations_s: dict[str, float]) -> list[Action]:
        """The policy refused the model for what is not its fault; at the end that is told, and not held against it."""
        tries = self._memory.put_off + 1
        if tries >= MAX_PUT_OFF:
            return self._tell_and_end(says.outcome, f"{says.reason} (tried {tries} times)", durations_s)
        self._memory, self._asks_next = replace(self._memory, put_off=tries), True
        return [Remember(self._memory), *self._wait(tries, says.reason, now_s)]

    def _follow(self, says: SwapStatus, now_s: float) -> list[Action]:
        if not self._seen:
            self._seen, self._due_s = True, now_s + SLOW_S
            self._asked_before = False  # from here on `_lost` counts
        if not says.is_over:
            return []
        durations_s = dict(says.timeline) | {"total": now_s - self._started_s}
        if self._fetch_s is not None:
            durations_s["fetch"] = self._fetch_s
        if self._restoring:
            return self._end_restoring(now_s)
        if says.passing:
            return self._put_off(says, now_s, durations_s)
        if says.outcome in FAILED:
            return self._refuse(says.outcome, says.reason, durations_s)
        return self._tell_and_end(says.outcome, says.reason, durations_s)  # it may have succeeded with a proviso

    def _overtaken(self, says: SwapStatus) -> list[Action]:
        reason = f"somebody else asked the policy for a model meanwhile (request {says.request_id})"
        return self._tell_and_end(Outcome.SUPERSEDED, reason)

    def _lost(self, now_s: float) -> list[Action]:
        """The policy was started anew and knows nothing of what we asked for."""
        self._memory = replace(self._memory, lost=self._memory.lost + 1)
        if self._memory.lost >= MAX_LOST:
            return self._refuse(Outcome.REFUSED, f"the policy ended {MAX_LOST} times while it was starting this model")
        self._seen, self._due_s = False, now_s + ASK_AGAIN_S
        self._problem = "the policy ended while it worked on the swap; it is asked again"
        return [Remember(self._memory)]

    def _of_before(self, says: SwapStatus) -> list[Action]:
        """A status of before we asked.

        Where an earlier process asked already and the policy knows nothing of it, both ended while it worked on the
        swap, most likely with the whole computer.
        """
        if not (self._phase is Phase.SWAPPING and self._asked_before and says.state and not says.request_id):
            return []
        self._asked_before = False
        self._memory = replace(self._memory, lost=self._memory.lost + 1)
        if self._memory.lost >= MAX_LOST:
            return self._refuse(
                Outcome.REFUSED, f"the computer ended {MAX_LOST} times while it was starting this model"
            )
        return [Remember(self._memory)]

    def _fell_back(self, says: SwapStatus) -> list[Action]:
        """The model gave trouble later, and the policy went back to the last good one without being asked to."""
        memory = self._memory
        runs_another = says.state in RUNNING and says.active_model not in {"", memory.label}
        ours = says.request_id == memory.asked_id and memory.outcome == Outcome.SUCCEEDED == says.outcome
        if not (ours and runs_another):
            return []
        trouble = says.hold_reason or "see the policy's log"
        return self._refuse(Outcome.ROLLED_BACK, f"the policy went back to {says.active_model} later: {trouble}")

    def _restore_prompt(self, says: SwapStatus, now_s: float) -> list[Action]:
        """A policy that was started anew boots the right model, but does not know the prompt deployed with it."""
        memory = self._memory
        is_new = not says.request_id and says.state in RUNNING | {"inactive"}
        if not (is_new and memory.good_prompt and memory.digest and says.active_model == memory.good_label):
            return []
        if says.prompt == memory.good_prompt:
            return []
        self._begin(now_s)
        self._restoring = True
        return self._ask(now_s)

    def _end_restoring(self, now_s: float) -> list[Action]:
        """However it ended: the model is right, and the policy's own status tells the prompt."""
        self._begin(now_s)
        return []

    # How it ends.

    def _end(self, outcome: str, reason: str) -> list[Action]:
        memory = replace(self._memory, outcome=outcome, reason=reason)
        if outcome == Outcome.SUCCEEDED:
            memory = replace(memory, good_label=memory.label, good_prompt=memory.wish.prompt)
        self._memory = memory
        self._phase, self._due_s, self._problem = Phase.IDLE, None, ""
        return [Remember(memory)]

    def _tell_and_end(self, outcome: str, reason: str, durations_s: dict[str, float] | None = None) -> list[Action]:
        return [self._tell(outcome, reason, durations_s), *self._end(outcome, reason)]

    def _refuse(self, outcome: str, reason: str, durations_s: dict[str, float] | None = None) -> list[Action]:
        good_before = "" if self._memory.outcome else self._memory.good_label
        self._memory = self._memory.with_refusal(self._memory.wish.payload_digest, reason)
        actions = self._tell_and_end(outcome, reason, durations_s)
        label = self._memory.label
        if label and label != good_before:  # else only its prompt was new
            actions.append(Refuse(label, reason))
        return actions

    def _end_before(self, says: SwapStatus) -> list[Action]:
        """The wish before the present one ended while the present one is being fetched."""
        before, self._before = self._before, None
        if before is None:
            return []
        told = Tell(before.request_id, before.wish, before.label, says.outcome, says.reason, dict(says.timeline))
        if says.outcome == Outcome.SUCCEEDED:
            self._memory = replace(self._memory, good_label=before.label, good_prompt=before.wish.prompt)
        if says.outcome not in FAILED or says.passing:
            return [told, Remember(self._memory)]
        self._memory = self._memory.with_refusal(before.wish.payload_digest, says.reason)
        return [told, Remember(self._memory), Refuse(before.label, says.reason)]

    def _leave_before(self) -> list[Action]:
        before, self._before = self._before, None
        if before is None:
            return []
        return [Tell(before.request_id, before.wish, before.label, Outcome.SUPERSEDED, "a newer deployment came")]

    def _tell(self, outcome: str, reason: str, durations_s: dict[str, float] | None = None) -> Tell:
        memory = self._memory
        return Tell(memory.request_id, memory.wish, memory.label, outcome, reason, durations_s or {})

    def _tell_retry(self, reason: str) -> list[Action]:
        if self._told_retry:
            return []
        self._told_retry = True
        return [self._tell(RETRYING, reason)]
