"""The worker that replaces the running model: verify, start, warm up, judge, switch, watch, report.

A thread of its own: what takes minutes must keep neither the control loop nor the transitions of the node waiting.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from vla_core import manifest as manifests
from vla_core.errors import ConfigError, EvergreenError, ModelError
from vla_core.swap import Mode, Outcome, Stage, SwapRequest
from vla_policy import memory
from vla_policy.clock import Clock
from vla_policy.engine import Engine
from vla_policy.fallback import Fallback
from vla_policy.host import Host
from vla_policy.inbox import Inbox
from vla_policy.judging import Judge
from vla_policy.loaded import Loaded
from vla_policy.loader import Loader
from vla_policy.model import check_robot, from_manifest
from vla_policy.probation import Failed, Passed
from vla_policy.serving import verification
from vla_policy.serving.client import PolicyClient
from vla_policy.serving.errors import ServerUnavailableError
from vla_policy.serving.link import LOCAL
from vla_policy.settings import Settings
from vla_policy.shelf import Shelf
from vla_policy.swap import PassingError, Swap
from vla_policy.swap_queue import Attempt, Queue
from vla_policy.trial import Begun, Broken, Event, Trial

WAIT_S = 0.2
"""How often a wait for the loop looks whether the swap was cancelled."""
NEWER = "a newer request came"


class SupersededError(Exception):
    """A newer request came, or the process ends."""


class Swapper:
    """Owns the thread; `ask` and `close` may be called from any."""

    def __init__(self, host: Host, engine: Engine, loader: Loader, shelf: Shelf, *, inbox: Inbox, clock: Clock) -> None:
        """Take what it acts on."""
        self._host = host
        self._engine = engine
        self._loader = loader
        self._shelf = shelf
        self._inbox = inbox
        self._clock = clock
        self._queue = Queue()
        self.fallback = Fallback(host, engine, loader, shelf, later=self._queue.put, clock=clock)
        self._latest: Swap | None = None
        self._thread = threading.Thread(target=self._run, name="swapper", daemon=True)
        self._thread.start()

    def ask(self, request: SwapRequest) -> None:
        """Swap, ending a swap under way; a request that is known is answered again."""
        known, passed_over = self._queue.ask(request, self._now_ns())
        if known is not None:
            self._queue.put(partial(self._repeat, known))
        if passed_over is not None:
            self._end(passed_over, Outcome.SUPERSEDED, NEWER)

    def close(self) -> None:
        """End a swap under way, soon."""
        self._queue.close()

    def join(self) -> None:
        """Wait for the thread's end, after `close`."""
        self._thread.join()

    def _run(self) -> None:
        while (job := self._queue.take()) is not None:
            if isinstance(job, Attempt):
                self._swap(job)
            else:
                with self._reported():
                    job()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except EvergreenError as error:
            self._host.log(str(error))
        except Exception:  # noqa: BLE001  a thread that dies would answer nobody any more
            self._host.log(traceback.format_exc())

    # One swap.

    def _swap(self, attempt: Attempt) -> None:
        """Try it, and answer whatever happens: who gets no answer waits for ever."""
        try:
            self._attempt(attempt)
        except SupersededError:
            self._conclude(attempt, NEWER)
        except EvergreenError as error:
            self._conclude(attempt, str(error), passing=isinstance(error, PassingError))
        except Exception as error:  # noqa: BLE001  a thread that dies would answer nobody any more
            self._host.log(traceback.format_exc())
            self._conclude(attempt, f"defect in the policy: {error!r}; its log has more")
        with self._reported():
            self._settle_down()

    def _settle_down(self) -> None:
        """After a swap: hear no more than is needed, and watch what has not proved good."""
        loaded = self._engine.loaded
        if loaded is None or self._queue.is_closed:
            return
        self._host.see(loaded.spec)
        if (guard := self.fallback.guard(loaded)) is not None:
            self._engine.watch(guard)

    def _conclude(self, attempt: Attempt, reason: str, *, passing: bool = False) -> None:
        """The attempt ended early."""
        swap = attempt.swap
        if swap.outcome or self._queue.is_closed:
            self._host.log(reason)
            return
        if attempt.cancelled.is_set():
            self._end(swap, Outcome.SUPERSEDED, NEWER)
            return
        self._end(swap, Outcome.REFUSED, reason, passing=passing)
        self._host.runs(self._engine.loaded)

    def _attempt(self, attempt: Attempt) -> None:
        swap, request = attempt.swap, attempt.swap.request
        self._latest = swap
        self._host.told(swap)
        self._host.settle()
        settings = replace(self._host.settings(), model=request.model, prompt=request.prompt)
        old = self._engine.loaded
        if old is not None and old.model == request.model:
            self._inbox.end_override()
            self._engine.tell(request.prompt)
            self._engine.poke()
            self._host.runs(old.told(request.prompt))
            self._note(partial(self._shelf.asked_with, old.model, request.prompt))
            self._end(swap, Outcome.SUCCEEDED, "")
            return
        self._enter(attempt, Stage.VERIFY)
        self._verify(request, settings, old, attempt.cancelled)
        with contextlib.ExitStack() as stack:
            if request.mode is Mode.RESTART and old is not None:
                self._engine.pause(f"{old.model} gives way to {request.model}")
                stack.callback(self.fallback.resume)
                old.link.close()
            self._enter(attempt, Stage.START)
            new = self._loader.load(settings, attempt.cancelled)
            stack.callback(self._close_unless_loaded, new)
            try:
                expected_s = self._judge(attempt, new, settings)
                self._enter(attempt, Stage.SWITCH)
                self._switch(attempt, new, expected_s, settings)
            except ServerUnavailableError as error:
                raise ModelError(_with_end(new, str(error))) from error

    def _close_unless_loaded(self, new: Loaded) -> None:
        loaded = self._engine.loaded
        if loaded is None or loaded.link is not new.link:
            new.close()

    def _verify(self, request: SwapRequest, settings: Settings, old: Loaded | None, cancelled: threading.Event) -> None:
        if settings.server != LOCAL:
            raise ConfigError(f"the model runs at {settings.server}, and is changed there; server local swaps models")
        folder = self._shelf.find(request.model)
        manifest = manifests.load(folder)
        check_robot(from_manifest(manifest, settings.wire()), settings.cameras, settings.joint_names)
        freed = 0
        if request.mode is Mode.RESTART and old is not None:
            freed = memory.resident_bytes(old.link.pid)
        if reason := memory.objection(manifest, memory.read_available_bytes(), freed):
            raise PassingError(reason)
        verification.verify(self._shelf.words_to_verify(request.model), cancelled)

    def _judge(self, attempt: Attempt, new: Loaded, settings: Settings) -> float:
        """Warm the model up and judge it; returns how long its answers take, s; 0 where nothing was there to ask it."""
        old = self._engine.loaded
        self._host.see(new.spec, *(() if old is None else (old.spec,)))  # until the swap is over: it may go back
        judge = Judge(new, settings.gate(), self._inbox, self._clock, attempt.cancelled)
        client = new.link.connect(attempt.cancelled)
        attempt.abort = client.abort
        try:
            self._enter(attempt, Stage.WARM_UP)
            unseen = judge.wait_to_see(settings.observation_timeout_s)
            self._check(attempt)
            if unseen and not self._engine.drives:
                self._host.log(f"{new.model} is loaded but could not be judged: {unseen}")
                return 0.0
            if unseen:
                raise PassingError(f"{new.spec.label} cannot be judged: {unseen}")
            judge.warm_up(client, settings.load_timeout_s)
            new.link.promote()  # it is judged as it will drive
            self._enter(attempt, Stage.JUDGE)
            return judge.judge(client)
        finally:
            attempt.abort = lambda: None
            client.close()

    # The switch and after.

    def _switch(self, attempt: Attempt, new: Loaded, expected_s: float, settings: Settings) -> None:
        new.link.promote()
        old = self._engine.loaded
        if old is None:
            if not self._host.configure(new):
                raise ModelError(f"{new.spec.label} is judged, but the policy does not take it up: see its log")
            self._succeed(attempt.swap, new, "")
            return
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        trial = Trial(
            new,
            settings.probation(),
            settings.objector(new.spec),
            events.put,
            client=new.link.connect(attempt.cancelled),
            old=old,
            spare=self._spare(old, attempt),
            expected_s=expected_s,
        )
        if self._engine.resume(trial) or self._engine.try_on(trial):
            self._watch(attempt, trial, old, events)
        else:
            trial.discard()
            self._install(attempt.swap, old, new, "")

    def _spare(self, old: Loaded, attempt: Attempt) -> PolicyClient | None:
        """A session of the old model, for the case that the new one fails; None where its server does not run."""
        if attempt.swap.request.mode is Mode.RESTART or old.link.pid is None:
            return None
        with contextlib.suppress(EvergreenError):
            return old.link.connect(attempt.cancelled)
        return None

    def _watch(self, attempt: Attempt, trial: Trial, old: Loaded, events: queue.SimpleQueue[Event]) -> None:
        """See the trial through."""
        swap, new = attempt.swap, trial.new
        begun = False
        while True:
            event = self._next(attempt, events, begun)
            if isinstance(event, Begun):
                begun = True
                swap.enter(Stage.PROBATION, event.at_ns)
                self._host.runs(new)
                self._host.told(swap)
                self._now_drives(new)
                continue
            break
        if isinstance(event, Failed):
            self._went_back(attempt, new, old, event.reason, begun=begun)
        elif isinstance(event, Broken):
            self._broke(attempt, new, old)
        elif attempt.cancelled.is_set():
            old.close()
            raise SupersededError
        else:
            old.close()
            reason = self._note(partial(self._shelf.proved_good, new.model))
            self._end(swap, Outcome.SUCCEEDED, reason)

    def _next(self, attempt: Attempt, events: queue.SimpleQueue[Event], begun: bool) -> Event:
        told = False
        while True:
            with contextlib.suppress(queue.Empty):
                return events.get(timeout=WAIT_S)
            if attempt.cancelled.is_set() and not told:
                told = True
                if begun:  # it stays: it has been judged, and the next is on its way
                    self._engine.decide(Passed())
                else:
                    self._engine.recall(Failed(NEWER))

    def _went_back(self, attempt: Attempt, new: Loaded, old: Loaded, reason: str, *, begun: bool) -> None:
        reason = _with_end(new, reason)
        new.close()
        if attempt.cancelled.is_set():
            raise SupersededError
        self._host.runs(old)
        if begun:
            self._now_drives(old)
        self._end(attempt.swap, Outcome.ROLLED_BACK, reason)

    def _broke(self, attempt: Attempt, new: Loaded, old: Loaded) -> None:
        """The loop ended meanwhile: the policy was stopped, or cleaned up."""
        loaded = self._engine.loaded
        if loaded is None or self._queue.is_closed:
            old.close()
            raise SupersededError if attempt.cancelled.is_set() else ModelError("the policy was cleaned up meanwhile")
        if loaded.link is new.link:
            old.close()
            self._succeed(attempt.swap, new, "stopped before its probation was over")
        else:
            self._install(attempt.swap, old, new, "stopped before it drove")

    def _install(self, swap: Swap, old: Loaded, new: Loaded, reason: str) -> None:
        """Nothing drives: the next start will be with this model."""
        if not self._engine.replace(old, new):
            raise ModelError("the policy was started or cleaned up just before the switch; ask again")
        self._inbox.end_override()
        self._succeed(swap, new, reason)

    def _succeed(self, swap: Swap, new: Loaded, reason: str) -> None:
        trouble = self._now_drives(new)
        self._host.runs(new)
        self._end(swap, Outcome.SUCCEEDED, trouble or reason)

    # Small things.

    def _repeat(self, swap: Swap) -> None:
        """Answer a request that was made before; the parameters may have been set by it."""
        for told in filter(None, (swap, self._latest)):
            self._host.told(told)
        self._host.runs(self._engine.loaded)

    def _now_drives(self, loaded: Loaded) -> str:
        """Let the robot boot it, with its instruction; what the store says where it cannot note it."""
        instruction = self._note(partial(self._shelf.asked_with, loaded.model, loaded.settings.prompt))
        return self._note(partial(self._shelf.drives, loaded.model)) or instruction

    def _note(self, job: Callable[[], None]) -> str:
        """Tell the store; what it says where it cannot note it: the arm moves all the same."""
        try:
            job()
        except EvergreenError as error:
            self._host.log(str(error))
            return str(error)
        return ""

    def _check(self, attempt: Attempt) -> None:
        if attempt.cancelled.is_set():
            raise SupersededError

    def _enter(self, attempt: Attempt, stage: Stage) -> None:
        self._check(attempt)
        attempt.swap.enter(stage, self._now_ns())
        self._host.told(attempt.swap)

    def _end(self, swap: Swap, outcome: Outcome, reason: str, *, passing: bool = False) -> None:
        swap.end(outcome, reason, self._now_ns(), passing=passing)
        self._host.told(swap)
        request = swap.request
        facts = {"request_id": request.request_id, "label": request.model, "outcome": str(swap.outcome)}
        self._queue.put(partial(self._shelf.record, "swap", **facts, reason=reason, timeline=dict(swap.timeline)))

    def _now_ns(self) -> int:
        return self._clock.now().mono_ns


def _with_end(loaded: Loaded, reason: str) -> str:
    """`reason`, and how the model's server ended, where it did: a broken connection says little."""
    ended = loaded.link.ended()
    return f"{ended}: {reason}" if ended else reason
