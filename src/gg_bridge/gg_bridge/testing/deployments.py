"""Deployments: a change of a component's configuration or version, carried out as the nucleus of each kind does it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

from gg_bridge.testing.character import Timing
from gg_bridge.testing.component import Component
from gg_bridge.testing.configuration import Change, ConfigurationConflict, ConfigurationTree
from gg_bridge.testing.operations import Operations, Verdict
from vla_core.errors import ConfigError

_LOG = logging.getLogger(__name__)

Status: TypeAlias = Literal[
    "IN_PROGRESS",
    "SUCCEEDED",
    "FAILED_NO_STATE_CHANGE",
    "FAILED_ROLLBACK_COMPLETE",
    "FAILED_ROLLBACK_NOT_REQUESTED",
    "FAILED_UNABLE_TO_ROLLBACK",
    "CANCELED",
]
FailurePolicy: TypeAlias = Literal["ROLLBACK", "DO_NOTHING"]


@dataclass(frozen=True, slots=True)
class Order:
    """What a deployment asks for.

    Attributes:
        merge: to be merged into the configuration, after `reset`.
        reset: JSON pointers to what goes back to its default.
        version: of the component; "" keeps the one that runs.
        defaults: the new version's default configuration; None keeps the old.
        local: made on the device (`greengrass-cli`), not in the cloud.
        on_failure: whether to undo it.
    """

    merge: Mapping[str, Any] = field(default_factory=dict)
    reset: Sequence[str] = ()
    version: str = ""
    defaults: Mapping[str, Any] | None = None
    local: bool = False
    on_failure: FailurePolicy = "ROLLBACK"

    def __post_init__(self) -> None:
        if not isinstance(self.merge, Mapping):
            raise ConfigError(f"merge is {self.merge!r}; it must be an object")
        if isinstance(self.reset, str) or not all(isinstance(pointer, str) for pointer in self.reset):
            raise ConfigError(f"reset is {self.reset!r}; it must be a list of JSON pointers")
        if self.defaults is not None and not isinstance(self.defaults, Mapping):
            raise ConfigError(f"defaults is {self.defaults!r}; it must be an object")
        if self.on_failure not in ("ROLLBACK", "DO_NOTHING"):
            raise ConfigError(f"on_failure is {self.on_failure!r}; it must be ROLLBACK or DO_NOTHING")


class Deployment:
    """One deployment and how it went; safe to read from any thread.

    Attributes:
        told_s: when the events of its changes were sent, monotonic; None before.
    """

    def __init__(self, order: Order) -> None:
        self.id = str(uuid.uuid4())
        self.order = order
        self.status: Status = "IN_PROGRESS"
        self.reason = ""
        self.told_s: float | None = None
        self._over = threading.Event()

    def wait(self, timeout_s: float) -> Self:
        """Until it is over.

        Raises:
            TimeoutError: it is not.
        """
        if not self._over.wait(timeout_s):
            raise TimeoutError(f"deployment {self.id} is not over after {timeout_s:g} s")
        return self

    def end(self, status: Status, reason: str = "") -> None:
        """For whoever carries it out."""
        self.reason = reason
        self.status = status
        self._over.set()


class _Failed(Exception):  # noqa: N818 (an end, not an accident)
    """The deployment ends here; `changed` says whether there is something to undo."""

    def __init__(self, reason: str, *, changed: bool) -> None:
        super().__init__(reason)
        self.changed = changed


class Deployer:
    """Carries deployments out, one after the other. All of it runs on the server's event loop."""

    def __init__(
        self, operations: Operations, component: Component | None, timing: Timing, defaults: Mapping[str, Any]
    ) -> None:
        self._operations = operations
        self._component = component
        self._timing = timing
        self._defaults: Mapping[str, Any] = defaults
        self._turn = asyncio.Lock()
        self._running = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self.version = "1.0.0"
        operations.on_state = self._on_state
        operations.configuration.add_defaults(defaults)

    async def carry_out(self, deployment: Deployment) -> None:
        """Do it, and say how it went."""
        async with self._turn:
            before = (self._operations.configuration.copy(), self.version, self._defaults)
            try:
                await self._perform(deployment)
            except _Failed as failure:
                if failure.changed:
                    await self._after_failure(deployment, str(failure), *before)
                else:
                    deployment.end("FAILED_NO_STATE_CHANGE", str(failure))
            except asyncio.CancelledError:
                deployment.end("CANCELED", "the stand-in nucleus was closed")
                raise
            except Exception as error:
                deployment.end("FAILED_UNABLE_TO_ROLLBACK", f"the stand-in failed: {error}")
                raise
            else:
                deployment.end("SUCCEEDED")

    async def _perform(self, deployment: Deployment) -> None:
        order = deployment.order
        timestamp_ms = int(time.time() * 1000)
        announces = not order.local and bool(self._operations.streaming["SubscribeToComponentUpdates"])
        if announces:
            await self._announce(deployment.id)
        new_version = bool(order.version) and order.version != self.version
        proposed, change = self._propose(order, timestamp_ms)
        if change.changed and not new_version:
            await self._validate(deployment.id, proposed.value())
        self._operations.configuration, change = self._propose(order, timestamp_ms)  # it may have changed meanwhile
        if order.defaults is not None:
            self._defaults = order.defaults
        self.version = order.version or self.version
        self._tell(change)
        deployment.told_s = time.monotonic()
        if announces:
            self._send_component_update({"postUpdateEvent": {"deploymentId": deployment.id}})
        restarts = self._operations.character.restarts_after_cloud_change and not order.local and bool(change.changed)
        if new_version or restarts:
            await self._restart(0.0 if new_version else self._timing.restart_delay_s)

    def _propose(self, order: Order, timestamp_ms: int) -> tuple[ConfigurationTree, Change]:
        """The configuration as it would be: reset first, then merged, then what only a new version's defaults have."""
        tree = self._operations.configuration.copy()
        defaults = self._defaults if order.defaults is None else order.defaults
        replace = self._operations.character.replaces_on_conflict
        try:
            change = tree.reset(order.reset, defaults)
            change += tree.merge(order.merge, timestamp_ms, replace=replace)
            change += tree.add_defaults(defaults)
        except ConfigurationConflict as error:
            raise _Failed(str(error), changed=False) from error
        return tree, change

    def _tell(self, change: Change) -> None:
        present = {path for path, _ in self._operations.configuration.leaves()}
        tells_removals = self._operations.character.tells_removals
        self._operations.tell_changes(path for path in change.changed if tells_removals or path in present)

    async def _announce(self, deployment: str) -> None:
        """Ask whether now is a good time, again after each deferral."""
        while self._operations.streaming["SubscribeToComponentUpdates"]:
            answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._operations.deferrals[deployment] = answer
            self._send_component_update({"preUpdateEvent": {"deploymentId": deployment, "isGgcRestarting": False}})
            try:
                defer_ms = await asyncio.wait_for(answer, self._timing.update_response_s)
            except TimeoutError:
                return
            finally:
                self._operations.deferrals.pop(deployment, None)
            if defer_ms <= 0:
                return
            await asyncio.sleep(defer_ms / 1000)

    def _send_component_update(self, event: Mapping[str, Any]) -> None:
        for stream in tuple(self._operations.streaming["SubscribeToComponentUpdates"]):
            stream.send_event("ComponentUpdatePolicyEvents", event)

    async def _validate(self, deployment: str, configuration: Mapping[str, Any]) -> None:
        streams = tuple(self._operations.streaming["SubscribeToValidateConfigurationUpdates"])
        if not streams:
            return
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._operations.verdicts[deployment] = answer
        event = {"configuration": configuration, "deploymentId": deployment}
        streams[0].send_event("ValidateConfigurationUpdateEvents", {"validateConfigurationUpdateEvent": event})
        try:
            verdict = await asyncio.wait_for(answer, self._timing.validation_s)
        except TimeoutError as error:
            waited = f"no validation report within {self._timing.validation_s:g} s"
            raise _Failed(f"Error while waiting for validation report: {waited}", changed=False) from error
        finally:
            self._operations.verdicts.pop(deployment, None)
        if not verdict.accepted:
            name = self._operations.component
            raise _Failed(
                "Components reported that their to-be-deployed configuration is invalid "
                f"{{ name = {name}, message = {verdict.message} }}",
                changed=False,
            )

    async def _restart(self, delay_s: float) -> None:
        if self._component is None:
            return
        await asyncio.sleep(delay_s)
        self._component.retries.forget()
        self._running.clear()
        await self._component.restart()
        running = asyncio.create_task(self._running.wait())
        broken = asyncio.create_task(self._component.broken.wait())
        try:
            await asyncio.wait((running, broken), timeout=self._timing.running_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            running.cancel()
            broken.cancel()
        if self._component.broken.is_set():
            raise _Failed("the component is broken: it failed too often", changed=True)
        if not self._running.is_set():
            raise _Failed(f"the component did not report RUNNING within {self._timing.running_s:g} s", changed=True)

    async def _after_failure(
        self,
        deployment: Deployment,
        reason: str,
        configuration: ConfigurationTree,
        version: str,
        defaults: Mapping[str, Any],
    ) -> None:
        if not self._operations.character.rolls_back or deployment.order.on_failure != "ROLLBACK":
            deployment.end("FAILED_ROLLBACK_NOT_REQUESTED", reason)
            return
        now, then = dict(self._operations.configuration.leaves()), dict(configuration.leaves())
        changed = tuple(path for path in {**now, **then} if now.get(path) != then.get(path))
        self._operations.configuration, self.version, self._defaults = configuration, version, defaults
        self._tell(Change(changed))
        try:
            await self._restart(0.0)
        except _Failed as failure:
            deployment.end("FAILED_UNABLE_TO_ROLLBACK", f"{reason}; and after the rollback {failure}")
        else:
            deployment.end("FAILED_ROLLBACK_COMPLETE", reason)

    def _on_state(self, state: str) -> None:
        if state == "RUNNING":
            self._running.set()
        elif self._component is not None and self._operations.character.restarts_on_errored:
            task = asyncio.create_task(self._recover(self._component))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _recover(self, component: Component) -> None:
        if component.retries.allow(asyncio.get_running_loop().time()):
            _LOG.info("the component reports ERRORED and is started again")
            await component.restart()
            return
        _LOG.warning("the component reports ERRORED, once too often: it is broken")
        await component.stop()
        component.broken.set()
