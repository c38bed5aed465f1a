"""Asks a new model about the robot's latest observations and judges its answers, before it may drive."""

from __future__ import annotations

import threading
import time

import numpy as np

from vla_core.errors import ImageError, ModelError
from vla_policy import gate
from vla_policy.clock import NS_PER_S, Clock
from vla_policy.inbox import Inbox
from vla_policy.loaded import Loaded
from vla_policy.observe import Snapshot, Stale, decode, observe
from vla_policy.serving.client import Answer, PolicyClient
from vla_policy.serving.errors import ServerTimeoutError
from vla_policy.swap import PassingError

TRIES, LEAST_TRIES = 10, 3
"""Ten make a percentile; three will do for a model whose answers take seconds."""
TRIES_S = 3.0
"""While one model is tried, the other one has to share the processor."""
LOOK_S = 0.1
"""An age limit passes without any event."""


class Judge:
    """Judges one loaded model by a session of its own."""

    def __init__(
        self, loaded: Loaded, limits: gate.GateLimits, inbox: Inbox, clock: Clock, cancelled: threading.Event
    ) -> None:
        """Take the model and where observations come from; `cancelled` ends waiting."""
        self._loaded = loaded
        self._limits = limits
        self._inbox = inbox
        self._clock = clock
        self._cancelled = cancelled

    def wait_to_see(self, timeout_s: float) -> str:
        """Wait for an observation that the model could act on; why there is none in time, or nothing."""
        found = self._look(timeout_s)
        return found.reason if isinstance(found, Stale) else ""

    def warm_up(self, client: PolicyClient, timeout_s: float) -> None:
        """Let it answer once, however long that takes.

        Raises:
            EvergreenError: it does not.
        """
        self._ask(client, timeout_s)

    def judge(self, client: PolicyClient) -> float:
        """Let it answer a few times; returns the 95th percentile of its answers' durations, s.

        Raises:
            PassingError: nothing was there to ask it about.
            ModelError: what is wrong with its answers.
            WireError: it does not answer.
        """
        how, times_ms = self._loaded.settings, []
        begun_s = time.monotonic()
        for done in range(TRIES):
            if self._cancelled.is_set() or (done >= LEAST_TRIES and time.monotonic() - begun_s > TRIES_S):
                break
            times_ms.append(self._ask(client, how.request_timeout_s).round_trip_ms)
            self._cancelled.wait(times_ms[-1] / gate.MS_PER_S)  # half of the time is the other's
        if not times_ms:
            raise ModelError("judging was cancelled")
        if reason := gate.object_to_latency(times_ms, how.rules.open_loop_s, how.max_chunk_age_s):
            raise ModelError(f"{self._loaded.spec.label} was not switched to: {reason}")
        return float(np.percentile(times_ms, 95)) / gate.MS_PER_S

    def _ask(self, client: PolicyClient, timeout_s: float) -> Answer:
        spec = self._loaded.spec
        found = self._look(self._loaded.settings.ages.image_s)
        if isinstance(found, Stale):
            raise PassingError(f"{spec.label} cannot be judged: {found.reason}")
        try:
            message = spec.to_wire(decode(found, spec, self._loaded.prompt))
        except ImageError as error:
            raise PassingError(f"{spec.label} cannot be judged: {error}") from error
        try:
            answer = client.infer(message, timeout_s, spec.keys.actions)
        except ServerTimeoutError as error:
            raise ModelError(f"{spec.label} was not switched to: it gave no answer within {timeout_s:g} s") from error
        if answer.match is not None and answer.match.reason:
            raise ModelError(f"{spec.label} was not switched to: {answer.match.reason}")
        if reason := gate.object_to_actions(spec.to_rad(answer.actions), spec, found.state, self._limits):
            raise ModelError(f"{spec.label} was not switched to: {reason}")
        return answer

    def _look(self, timeout_s: float) -> Snapshot | Stale:
        deadline_ns = self._clock.now().mono_ns + round(timeout_s * NS_PER_S)
        while True:
            ticket, frames, joints = self._inbox.newest()
            now = self._clock.now()
            found = observe(self._loaded.spec, frames, joints, now, self._loaded.settings.ages)
            if isinstance(found, Snapshot) or now.mono_ns > deadline_ns or self._cancelled.is_set():
                return found
            self._inbox.wait(ticket, LOOK_S)
