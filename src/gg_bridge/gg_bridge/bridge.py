"""The bridge without ROS: one thread decides (`Reconciler`), others fetch, deliver and keep the connection.

Whatever happens is put into one queue and handled in its order, so that the deciding part needs no locks.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gg_bridge import configuration, memory, robot, validation
from gg_bridge.actions import Action, Allow, Ask, CancelFetch, Fetch, Refuse, Remember, Tell
from gg_bridge.deferral import Deferral, Motion
from gg_bridge.desired import QuietTime
from gg_bridge.fetch.source import without_secrets
from gg_bridge.fetching import Fetching, FetchModel
from gg_bridge.nucleus import Nucleus, NucleusError
from gg_bridge.payload import NO_PAYLOAD, Payload
from gg_bridge.reconcile import Phase, Reconciler
from gg_bridge.robot import Robot
from gg_bridge.session import Connection, Hooks, Session
from gg_bridge.telling import Telling, Ways
from gg_bridge.view import View
from vla_core.errors import ConfigError, StoreError
from vla_core.store import Store
from vla_core.swap import Outcome, SwapRequest, SwapStatus

FOLDER = "bridge"
"""In the store: what the bridge remembers and what it has to deliver."""
READ_AGAIN_S, DENIED_AGAIN_S = 5.0, 60.0
"""The nucleus did not answer a request for the configuration; somebody has to change the recipe."""
SHOW_PERIOD_S = 0.5
"""Between two views of a fetch under way."""
ANSWER_S = 4.0
"""For what the policy says that the robot has, where an earlier answer is at hand."""
FIRST_ANSWER_S = 10.0
"""Where there is none: a policy that was started with the bridge must first be discovered, by a busy computer."""
IDLE_S = 3600.0
"""Any long time: nothing is due."""

AskPolicy = Callable[[SwapRequest, Callable[[str, bool], None]], None]
"""Asks the policy; calls back only where that failed, with the reason and whether to ask again."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What the bridge needs of the world.

    Attributes:
        connect: None where there is no nucleus, and none to be.
        fetch, preview, ask: see their types.
        robot: asks the policy what this robot has, for so many seconds; None where it does not answer.
        show: a view of it all, after each change.
        log: a line for people; whether it is a warning.
        end: the process has to end, and to be started anew; with the reason.
        payload: the model that the component brings along.
    """

    store: Store
    connect: Callable[[], Nucleus] | None
    fetch: FetchModel
    preview: validation.Preview
    ask: AskPolicy
    robot: Callable[[float], Robot | None]
    show: Callable[[View], None]
    log: Callable[[str, bool], None]
    end: Callable[[str], None]
    payload: Payload = NO_PAYLOAD


@dataclass(frozen=True, slots=True)
class Manner:
    """How it behaves; `gg_bridge.settings` tells more."""

    ways: Ways
    quiet_time_s: float
    defer_limit_s: float


class Bridge:
    """Everything but ROS. `start`, feed it `heard` and `joints`, `stop`."""

    def __init__(self, ports: Ports, manner: Manner) -> None:
        """Read what an earlier process remembered.

        Raises:
            EvergreenError: the store cannot be used.
        """
        self._ports = ports
        self._folder = ports.store.root / FOLDER
        self._reconciler = Reconciler(memory.recall(self._folder, ports.log))
        self._quiet = QuietTime(manner.quiet_time_s)
        self._motion, self._deferral = Motion(), Deferral(manner.defer_limit_s)
        self._events: queue.SimpleQueue[Callable[[float], Sequence[Action]] | None] = queue.SimpleQueue()
        self._status = SwapStatus()
        self._fetching = Fetching(ports.fetch, ports.log)
        self._held = contextlib.ExitStack()
        self._session = None if ports.connect is None else Session(ports.connect, self._hooks())
        self._telling = Telling(ports.store, self._folder, manner.ways, self._call, ports.log)
        self._thread = threading.Thread(target=self._run, name="bridge", daemon=True)
        self.defect: Exception | None = None

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()
        self._telling.start()
        if self._session is not None:
            self._session.start()

    def stop(self) -> None:
        """End; whatever is under way is taken up by the next process."""
        if self._session is not None:
            self._session.stop()
        self._events.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        self._fetching.stop()
        self._telling.stop()

    # What happens; callable from any thread.

    def heard(self, status: SwapStatus) -> None:
        """The policy's status came."""

        def handle(now_s: float) -> Sequence[Action]:
            self._status = status
            self._motion.policy(driving=status.state == "driving")
            return self._reconciler.heard(status, now_s)

        self._events.put(handle)

    def joints(self, velocities_rad_s: Sequence[float]) -> None:
        """A joint state came."""
        self._motion.joints(velocities_rad_s, time.monotonic())

    def retry(self) -> tuple[bool, str]:
        """Try the present wish again, though it was refused; returns whether that is done, and a sentence about it."""
        mind, phase = self._reconciler.memory, self._reconciler.phase
        what = without_secrets(mind.wish.uri)
        if mind.wish.is_empty:
            return False, "the configuration asks for no model"
        if phase in {Phase.FETCHING, Phase.SWAPPING}:
            return False, f"{what} is under way already"
        if mind.outcome == Outcome.SUCCEEDED:
            return False, f"{what} succeeded already"
        self._events.put(self._reconciler.retry)
        return True, f"{what} is tried again"

    def view(self) -> View:
        """What there is to see now."""
        session, mind, phase = self._session, self._reconciler.memory, self._reconciler.phase
        return View(
            phase=str(phase),
            nucleus=str(Connection.NONE if session is None else session.connection),
            wish=without_secrets(mind.wish.uri),
            version=mind.wish.version,
            request_id=mind.request_id,
            model=mind.label,
            stage=str(self._status.stage) if phase is Phase.SWAPPING else "",
            outcome=mind.outcome,
            reason=self._reconciler.problem or mind.reason,
            progress=self._fetching.progress,
            active_model=self._status.active_model,
            last_report=self._telling.last,
            reports_waiting=self._telling.waiting,
        )

    # The nucleus's and the session's threads.

    def _hooks(self) -> Hooks:
        return Hooks(
            connected=self._on_connected,
            changed=lambda: self._events.put(self._on_changed),
            validate=self._validate,
            defer_ms=self._defer_ms,
            end=self._ports.end,
            log=self._ports.log,
        )

    def _call(self, work: Callable[[Nucleus], Any]) -> Any:
        if self._session is None:
            raise NucleusError("there is no nucleus", "gone")
        return self._session.call(work)

    def _on_connected(self) -> None:
        self._telling.wake()
        self._events.put(self._on_any_change)

    def _on_any_change(self, now_s: float) -> Sequence[Action]:
        self._quiet.at_once(now_s)
        return ()

    def _on_changed(self, now_s: float) -> Sequence[Action]:
        self._quiet.event(now_s)
        return ()

    def _validate(self, document: Mapping[str, Any]) -> str:
        mind = self._reconciler
        reason = validation.judge(
            self._ports.payload.complete(document),
            robot=self._robot,
            preview=self._ports.preview,
            present=lambda wish: wish.digest == mind.memory.digest,
            refusal=mind.refusal,
        )
        said = f"refused before anything was changed: {reason}" if reason else "accepted"
        self._ports.log(f"the configuration of a deployment is {said}", bool(reason))
        self._events.put(lambda _: self._on_validated(reason))  # the nucleus waits for the answer, not for the disk
        return reason

    def _on_validated(self, reason: str) -> Sequence[Action]:
        self._telling.record("validated", accepted=not reason, reason=reason)
        return ()

    def _robot(self) -> Robot | None:
        """What the policy says that the robot has, else what it said last."""
        known = robot.load(self._folder)
        said = self._ports.robot(FIRST_ANSWER_S if known is None else ANSWER_S)
        if said is None or said == known:
            return known
        try:
            robot.save(self._folder, said)
        except OSError as error:
            self._ports.log(f"what this robot has cannot be written: {error}", True)
        return said

    def _defer_ms(self, deployment: str, _nucleus_restarts: bool) -> int:
        now_s = time.monotonic()
        swapping = "a model is being swapped" if self._reconciler.phase is Phase.SWAPPING else ""
        verdict = self._deferral.decide(deployment, swapping or self._motion.reason(now_s), now_s)
        if verdict.reason:
            waits = f"waits {verdict.defer_s:.0f} s" if verdict.defer_s else "goes on"
            self._ports.log(f"deployment {deployment} {waits}: {verdict.reason}", False)
        return round(verdict.defer_s * 1000)

    # The thread that decides.

    def _run(self) -> None:
        try:
            if self._session is None:  # else the configuration tells whether that is still wished for
                self._do(self._reconciler.resume(time.monotonic()))
            while (event := self._next()) is not None:
                self._do(event(time.monotonic()))
                self._do(self._reconciler.tick(time.monotonic()))
                if self._quiet.take(time.monotonic()):
                    self._do(self._read())
                if self._reconciler.phase not in {Phase.SWAPPING, Phase.WAITING}:  # it may wait to be asked for again
                    self._held.close()
                self._ports.show(self.view())
        except Exception as error:  # noqa: BLE001  kept for the main thread, which ends the process with it
            self.defect = error
        finally:
            self._held.close()

    def _next(self) -> Callable[[float], Sequence[Action]] | None:
        dues = [due_s for due_s in (self._quiet.due_s, self._reconciler.due_s) if due_s is not None]
        patience_s = SHOW_PERIOD_S if self._reconciler.phase is Phase.FETCHING else IDLE_S
        try:
            return self._events.get(timeout=max(0.0, min([due_s - time.monotonic() for due_s in dues] + [patience_s])))
        except queue.Empty:
            return self._reconciler.tick

    def _read(self) -> Sequence[Action]:
        """Read the configuration and see whether it wishes for something new."""
        try:
            document = self._call(lambda nucleus: nucleus.configuration())
        except NucleusError as error:
            if error.kind == "gone":
                return ()  # read again once connected
            if error.kind != "not_found":
                self._ports.log(f"the configuration cannot be read: {error}", True)
                self._quiet.again(time.monotonic(), DENIED_AGAIN_S if error.kind == "denied" else READ_AGAIN_S)
                return ()
            document = {}
        for warning in (*configuration.unknown_keys(document), self._ports.payload.warning(document)):
            if warning:
                self._ports.log(warning, True)
        document = self._ports.payload.complete(document)
        try:
            wish = configuration.parse(document)
        except ConfigError as error:
            return self._reconciler.complain(configuration.digest_of(document), str(error))
        before = self._reconciler.memory.request_id
        actions = self._reconciler.want(wish, time.monotonic())
        if self._reconciler.memory.request_id != before and not wish.is_empty:
            self._ports.log(f"a deployment wishes for {without_secrets(wish.uri)} {wish.version}".rstrip(), False)
        return actions

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Remember():
                    self._remember(action.memory)
                case Fetch():
                    self._fetch(action)
                case CancelFetch():
                    self._fetching.cancel()
                case Ask():
                    self._ask(action.request)
                case Allow():
                    self._change_store(self._ports.store.allow, action.label)
                case Refuse():
                    if action.label != self._status.active_model:
                        self._change_store(self._ports.store.refuse, action.label, action.reason)
                case Tell():
                    self._telling.tell(action, self._status.active_model)

    def _remember(self, mind: memory.Memory) -> None:
        try:
            memory.save(self._folder, mind)
        except OSError as error:
            self._ports.log(f"what the bridge knows cannot be written, and is lost at its end: {error}", True)

    def _change_store(self, change: Callable[..., None], label: str, *more: str) -> None:
        try:
            change(label, *more)
        except StoreError as error:
            self._ports.log(f"the store does not know what became of {label}: {error}", True)

    def _fetch(self, action: Fetch) -> None:
        """Its end comes as an event."""
        request_id, put, mind = action.request_id, self._events.put, self._reconciler
        self._fetching.start(
            action.wish,
            fetched=lambda label: put(lambda now_s: self._on_fetched(request_id, label, now_s)),
            failed=lambda reason, retryable: put(
                lambda now_s: mind.fetch_failed(request_id, reason, now_s, retryable=retryable)
            ),
        )

    def _on_fetched(self, request_id: str, label: str, now_s: float) -> Sequence[Action]:
        """Keep the model from being evicted until the policy has it, or said no."""
        try:
            self._held.enter_context(self._ports.store.hold(label))
        except StoreError as error:  # it went already
            return self._reconciler.fetch_failed(request_id, str(error), now_s, retryable=True)
        return self._reconciler.fetched(request_id, label, now_s)

    def _ask(self, request: SwapRequest) -> None:
        """What becomes of it comes as the policy's status."""
        mind = self._reconciler

        def failed(reason: str, retryable: bool) -> None:
            self._events.put(lambda now_s: mind.ask_failed(request.request_id, reason, now_s, retryable=retryable))

        self._ports.log(f"asking the policy for {request.model} (request {request.request_id})", False)
        self._ports.ask(request, failed)
        # The status of before may tell of this very request, which an earlier process made.
        self._events.put(lambda now_s: mind.heard(self._status, now_s))
