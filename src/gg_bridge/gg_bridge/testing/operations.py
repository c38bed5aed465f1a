"""What the stand-in does for each operation of Greengrass's inter-process calls."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gg_bridge.testing.character import Character
from gg_bridge.testing.configuration import ConfigurationConflict, ConfigurationTree, KeyPath, NoSuchKey
from gg_bridge.testing.connection import Handler, Json, Refusal, Stream
from gg_bridge.testing.faults import Faults
from gg_bridge.testing.shadows import ShadowError, Shadows
from gg_bridge.testing.topics import matches

STREAMING = (
    "SubscribeToConfigurationUpdate",
    "SubscribeToValidateConfigurationUpdates",
    "SubscribeToComponentUpdates",
    "SubscribeToTopic",
)
_SHADOW_TOPIC = re.compile(r"\$aws/things/(?P<thing>[^/]+)/shadow/name/(?P<name>[^/]+)/update")
_PROTECTED = "accesscontrol"
_STATES = ("RUNNING", "ERRORED")


@dataclass(frozen=True, slots=True)
class Published:
    """A message to AWS IoT Core; `at_s` is when it came, monotonic."""

    topic: str
    payload: bytes
    qos: int
    at_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a component thinks of a configuration."""

    accepted: bool
    message: str


@dataclass(slots=True)
class Operations:
    """The state that components see and change. All of it belongs to the server's event loop."""

    character: Character
    component: str
    configuration: ConfigurationTree = field(default_factory=ConfigurationTree)
    faults: Faults = field(default_factory=Faults)
    states: list[str] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    shadows: Shadows = field(default_factory=Shadows)
    verdicts: dict[str, asyncio.Future[Verdict]] = field(default_factory=dict)
    """Of the deployments that wait for one."""
    deferrals: dict[str, asyncio.Future[int]] = field(default_factory=dict)
    """Milliseconds, likewise."""
    streaming: dict[str, set[Stream]] = field(default_factory=lambda: {name: set() for name in STREAMING})
    on_state: Callable[[str], None] = lambda _state: None

    def handlers(self) -> Mapping[str, Handler]:
        """By the operation's name."""
        return {
            "GetConfiguration": self._get_configuration,
            "UpdateConfiguration": self._update_configuration,
            "SubscribeToConfigurationUpdate": self._subscribe_to_configuration,
            "SubscribeToValidateConfigurationUpdates": _subscribe,
            "SendConfigurationValidityReport": self._report_validity,
            "SubscribeToComponentUpdates": _subscribe,
            "DeferComponentUpdate": self._defer,
            "UpdateState": self._update_state,
            "PublishToIoTCore": self._publish_to_iot_core,
            "PublishToTopic": self._publish_to_topic,
            "SubscribeToTopic": self._subscribe_to_topic,
            "UpdateThingShadow": self._update_shadow,
            "GetThingShadow": self._get_shadow,
        }

    def tell_changes(self, changed: Iterable[KeyPath]) -> None:
        """One event for each changed leaf to those who watch it or a branch above it."""
        paths = list(changed)
        if self.faults.reverse_events:
            paths.reverse()
        for path in paths:
            event = {"configurationUpdateEvent": {"componentName": self.component, "keyPath": list(path)}}
            for stream in tuple(self.streaming["SubscribeToConfigurationUpdate"]):
                if _is_below(path, stream.request.get("keyPath") or []):
                    for _ in range(self.faults.repeat_events):
                        stream.send_event("ConfigurationUpdateEvents", event)

    # Configuration

    async def _get_configuration(self, request: Json, _stream: Stream) -> Json:
        path = _key_path(request)
        self._check_component(request)
        try:
            return {"componentName": self.component, "value": self.configuration.read(path)}
        except NoSuchKey as error:
            raise Refusal("ResourceNotFoundError", "Key not found") from error

    async def _update_configuration(self, request: Json, _stream: Stream) -> Json:
        path, value, timestamp = _key_path(request), request.get("valueToMerge"), request.get("timestamp")
        numbers = (int, float) if self.character.name == "classic" else (float,)
        if not isinstance(timestamp, numbers) or isinstance(timestamp, bool):
            raise Refusal("InvalidArgumentsError", f"the timestamp is {timestamp!r}; a number is required")
        if not isinstance(value, dict):
            raise Refusal("InvalidArgumentsError", f"valueToMerge is {value!r}; an object is required")
        if any(key.casefold() == _PROTECTED for key in (path[:1] or value)):
            raise Refusal("InvalidArgumentsError", "Config update is not allowed for following field [accessControl]")
        try:
            change = self.configuration.merge(value, int(timestamp * 1000), path)
        except ConfigurationConflict as error:
            kind = "InvalidArgumentsError" if self.character.name == "classic" else "ServiceError"
            raise Refusal(kind, str(error)) from error
        self.tell_changes(change.changed)
        if change.outdated and self.character.refuses_outdated:
            raise Refusal(
                "FailedUpdateConditionCheckError",
                "Proposed timestamp is older than the config's latest modified timestamp",
            )
        return {}

    async def _subscribe_to_configuration(self, request: Json, _stream: Stream) -> Json:
        self._check_component(request)
        try:
            self.configuration.read(_key_path(request))
        except NoSuchKey as error:
            raise Refusal("ResourceNotFoundError", "Key not found") from error
        return {}

    def _check_component(self, request: Json) -> None:
        if request.get("componentName") not in (None, self.component):
            raise Refusal("ResourceNotFoundError", "Key not found")

    # Deployments

    async def _report_validity(self, request: Json, _stream: Stream) -> Json:
        report = request.get("configurationValidityReport") or {}
        waiting = self.verdicts.pop(str(report.get("deploymentId")), None)
        if waiting is None or waiting.done():
            raise Refusal("InvalidArgumentsError", "Validation request either timed out or was never made")
        waiting.set_result(Verdict(report.get("status") == "ACCEPTED", str(report.get("message") or "")))
        return {}

    async def _defer(self, request: Json, _stream: Stream) -> Json:
        if not self.streaming["SubscribeToComponentUpdates"]:
            raise Refusal("InvalidArgumentsError", "Component is not subscribed to component update events")
        waiting = self.deferrals.pop(str(request.get("deploymentId")), None)
        if waiting is None or waiting.done():
            raise Refusal("ServiceError", "Time limit to respond to PreComponentUpdateEvent exceeded")
        waiting.set_result(int(request.get("recheckAfterMs") or 0))
        return {}

    async def _update_state(self, request: Json, _stream: Stream) -> Json:
        state = request.get("state")
        if state not in _STATES:
            raise Refusal("InvalidArgumentsError", f"state is {state!r}; it must be one of {', '.join(_STATES)}")
        self.states.append(state)
        self.on_state(state)
        return {}

    # Messages

    async def _publish_to_iot_core(self, request: Json, _stream: Stream) -> Json:
        topic, qos = request.get("topicName"), str(request.get("qos") or "0")
        if not isinstance(topic, str) or not topic or qos not in ("0", "1"):
            raise Refusal("InvalidArgumentsError", f"topicName is {topic!r} and qos {qos!r}")
        payload = _bytes(request.get("payload"))
        if shadow := _SHADOW_TOPIC.fullmatch(topic):
            self._update_shadow_by_message(shadow["thing"], shadow["name"], payload)
        else:
            self.published.append(Published(topic, payload, int(qos), time.monotonic()))
        return {}

    def _update_shadow_by_message(self, thing: str, name: str, payload: bytes) -> None:
        """As AWS IoT Core does: what is wrong is told on another topic, never to who published it."""
        with contextlib.suppress(ValueError, ShadowError):
            self.shadows.update(thing, name, json.loads(payload), int(time.time()))

    async def _publish_to_topic(self, request: Json, _stream: Stream) -> Json:
        topic, message = request.get("topic"), request.get("publishMessage") or {}
        kinds = [kind for kind in ("jsonMessage", "binaryMessage") if kind in message]
        if not isinstance(topic, str) or len(kinds) != 1:
            raise Refusal("InvalidArgumentsError", "a topic and either a jsonMessage or a binaryMessage are required")
        event = {kinds[0]: {"message": message[kinds[0]].get("message"), "context": {"topic": topic}}}
        for stream in tuple(self.streaming["SubscribeToTopic"]):
            if matches(stream.request["topic"], topic):
                stream.send_event("SubscriptionResponseMessage", event)
        return {}

    async def _subscribe_to_topic(self, request: Json, _stream: Stream) -> Json:
        if not isinstance(request.get("topic"), str):
            raise Refusal("InvalidArgumentsError", "a topic is required")
        return {"topicName": request["topic"]}

    # Shadows

    async def _update_shadow(self, request: Json, _stream: Stream) -> Json:
        try:
            update = json.loads(_bytes(request.get("payload")))
        except ValueError as error:
            raise Refusal("InvalidArgumentsError", f"the payload is no JSON: {error}") from error
        try:
            document = self.shadows.update(*_shadow(request), update, int(time.time()))
        except ShadowError as error:
            raise Refusal(error.kind, str(error)) from error
        return {"payload": base64.b64encode(json.dumps(document).encode()).decode()}

    async def _get_shadow(self, request: Json, _stream: Stream) -> Json:
        try:
            document = self.shadows.get(*_shadow(request))
        except ShadowError as error:
            raise Refusal(error.kind, str(error)) from error
        return {"payload": base64.b64encode(json.dumps(document).encode()).decode()}


async def _subscribe(_request: Json, _stream: Stream) -> Json:
    return {}


def _key_path(request: Json) -> KeyPath:
    path = request.get("keyPath") or []
    if not isinstance(path, list) or not all(isinstance(key, str) for key in path):
        raise Refusal("InvalidArgumentsError", f"keyPath is {path!r}; it must be a list of texts")
    return tuple(path)


def _is_below(path: KeyPath, watched: list[str]) -> bool:
    return [key.casefold() for key in path[: len(watched)]] == [key.casefold() for key in watched]


def _shadow(request: Json) -> tuple[str, str]:
    thing = request.get("thingName")
    if not isinstance(thing, str) or not thing:
        raise Refusal("InvalidArgumentsError", "a thingName is required")
    return thing, str(request.get("shadowName") or "")


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise Refusal("InvalidArgumentsError", f"the payload is no base64: {error}") from error
