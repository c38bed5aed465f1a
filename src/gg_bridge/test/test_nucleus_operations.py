"""The stand-in's operations that the port does not need, and its refusals, through AWS's client as it is."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2
from nucleus_support import WAIT_S, running, wait_for

from gg_bridge.testing import StandInNucleus
from gg_bridge.testing.topics import matches

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(params=["classic", "lite"])
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInNucleus]:
    with running(request.param, monkeypatch, defaults={"model": {"uri": "a"}, "other": 1}) as it:
        yield it


@pytest.fixture
def client(stand_in: StandInNucleus) -> Iterator[GreengrassCoreIPCClientV2]:
    made = GreengrassCoreIPCClientV2(executor=ThreadPoolExecutor(1))
    yield made
    made.close().result(WAIT_S)


CLASSIC = pytest.mark.parametrize("stand_in", ["classic"], indirect=True)


# Local topics


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (model.PublishMessage(json_message=model.JsonMessage(message={"a": [1]})), {"a": [1]}),
        (model.PublishMessage(binary_message=model.BinaryMessage(message=b"\x00\xff")), b"\x00\xff"),
    ],
)
def test_local_messages_reach_those_who_subscribed(
    client: GreengrassCoreIPCClientV2, message: model.PublishMessage, expected: object
) -> None:
    got: list[tuple[str, Any]] = []

    def on_event(event: model.SubscriptionResponseMessage) -> None:
        inner = event.json_message or event.binary_message
        got.append((inner.context.topic, inner.message))

    client.subscribe_to_topic(topic="robot/+/state", on_stream_event=on_event)
    client.publish_to_topic(topic="robot/state", publish_message=message)
    client.publish_to_topic(topic="robot/1/state", publish_message=message)
    wait_for(lambda: got)
    assert got == [("robot/1/state", expected)]


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+/c", "a/b/c", True),
        ("a/+", "a", False),
        ("+", "a", True),
        ("#", "a/b", True),
        ("a/#", "a/b/c", True),
        ("a/#", "b/c", False),
    ],
)
def test_topic_filters(topic_filter: str, topic: str, *, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


# Configuration


def test_a_subscription_hears_only_of_what_is_below_its_key(client: GreengrassCoreIPCClientV2) -> None:
    events: list[list[str]] = []
    client.subscribe_to_configuration_update(
        key_path=["Model"], on_stream_event=lambda event: events.append(event.configuration_update_event.key_path)
    )
    client.update_configuration(key_path=[], value_to_merge={"other": 2}, timestamp=NOW)
    client.update_configuration(key_path=["model"], value_to_merge={"uri": "b"}, timestamp=NOW)
    wait_for(lambda: events)
    assert events == [["model", "uri"]]


def test_a_closed_subscription_hears_nothing(stand_in: StandInNucleus, client: GreengrassCoreIPCClientV2) -> None:
    _, stream = client.subscribe_to_configuration_update(key_path=[], on_stream_event=print)
    assert stand_in.subscriptions("SubscribeToConfigurationUpdate") == 1
    stream.close().result(WAIT_S)
    wait_for(lambda: stand_in.subscriptions("SubscribeToConfigurationUpdate") == 0)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda it: it.get_configuration(component_name="another", key_path=[]), model.ResourceNotFoundError),
        (
            lambda it: it.subscribe_to_configuration_update(key_path=["none"], on_stream_event=print),
            model.ResourceNotFoundError,
        ),
        (lambda it: it.update_configuration(key_path=[], value_to_merge={"x": 1}), model.InvalidArgumentsError),
        (lambda it: it.update_configuration(key_path=[], timestamp=NOW), model.InvalidArgumentsError),
        (
            lambda it: it.update_configuration(key_path=[], value_to_merge={"accessControl": {}}, timestamp=NOW),
            model.InvalidArgumentsError,
        ),
        (
            lambda it: it.update_configuration(key_path=["AccessControl"], value_to_merge={"x": 1}, timestamp=NOW),
            model.InvalidArgumentsError,
        ),
        (lambda it: it.update_state(state="HAPPY"), model.InvalidArgumentsError),
        (lambda it: it.publish_to_iot_core(topic_name="", qos="1", payload=b""), model.InvalidArgumentsError),
        (lambda it: it.publish_to_iot_core(topic_name="a", qos="7", payload=b""), model.InvalidArgumentsError),
        (
            lambda it: it.publish_to_topic(topic="a", publish_message=model.PublishMessage()),
            model.InvalidArgumentsError,
        ),
    ],
)
def test_a_wrong_request_is_refused(
    client: GreengrassCoreIPCClientV2, call: Callable[[GreengrassCoreIPCClientV2], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(client)
    assert client.get_configuration(key_path=["other"]).value == {"other": 1}


# Classic alone


@CLASSIC
def test_reports_that_nobody_asked_for_are_refused(stand_in: StandInNucleus, client: GreengrassCoreIPCClientV2) -> None:
    report = model.ConfigurationValidityReport(status="ACCEPTED", deployment_id="none")
    with pytest.raises(model.InvalidArgumentsError) as caught:
        client.send_configuration_validity_report(configuration_validity_report=report)
    assert "never made" in caught.value.message
    with pytest.raises(model.InvalidArgumentsError) as caught:
        client.defer_component_update(deployment_id="none", recheck_after_ms=0)
    assert "not subscribed" in caught.value.message
    client.subscribe_to_component_updates(on_stream_event=print)
    with pytest.raises(model.ServiceError) as late:
        client.defer_component_update(deployment_id="none", recheck_after_ms=0)
    assert "Time limit" in late.value.message


@CLASSIC
def test_shadows_are_read_and_have_versions(stand_in: StandInNucleus, client: GreengrassCoreIPCClientV2) -> None:
    with pytest.raises(model.ResourceNotFoundError):
        client.get_thing_shadow(thing_name="robot", shadow_name="evergreen")

    def update(document: object) -> Any:
        payload = json.dumps(document).encode()
        return client.update_thing_shadow(thing_name="robot", shadow_name="evergreen", payload=payload)

    assert json.loads(update({"state": {"desired": {"model": "b"}}}).payload)["version"] == 1
    update({"state": {"reported": {"model": "a"}}, "version": 1})
    with pytest.raises(model.ConflictError):
        update({"state": {"reported": {"model": "c"}}, "version": 1})
    document = json.loads(client.get_thing_shadow(thing_name="robot", shadow_name="evergreen").payload)
    assert document["state"] == {"desired": {"model": "b"}, "reported": {"model": "a"}}
    assert document["version"] == 2
    with pytest.raises(model.InvalidArgumentsError):
        client.update_thing_shadow(thing_name="robot", shadow_name="evergreen", payload=b"no JSON")
    with pytest.raises(model.InvalidArgumentsError):
        client.get_thing_shadow(thing_name="", shadow_name="evergreen")


@CLASSIC
def test_a_component_hears_when_its_update_is_over(stand_in: StandInNucleus, client: GreengrassCoreIPCClientV2) -> None:
    events: list[model.ComponentUpdatePolicyEvents] = []

    def on_event(event: model.ComponentUpdatePolicyEvents) -> None:
        events.append(event)
        if event.pre_update_event is not None:
            client.defer_component_update(deployment_id=event.pre_update_event.deployment_id, recheck_after_ms=0)

    client.subscribe_to_component_updates(on_stream_event=on_event)
    deployment = stand_in.deploy({"other": 2}).wait(WAIT_S)
    wait_for(lambda: len(events) == 2)
    assert events[1].post_update_event.deployment_id == deployment.id
