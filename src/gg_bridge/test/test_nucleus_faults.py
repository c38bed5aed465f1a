"""A nucleus that misbehaves, and what the port makes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from nucleus_support import WAIT_S, running, wait_for

from gg_bridge.nucleus import Nucleus, NucleusError, connect
from gg_bridge.testing import Faults, StandInNucleus
from gg_bridge.testing.faults import faults_from
from vla_core.errors import ConfigError

SHORT_S = 1.0


@pytest.fixture(params=["classic", "lite"])
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInNucleus]:
    with running(request.param, monkeypatch, defaults={"model": {"uri": "a"}}) as it:
        yield it


@pytest.fixture
def nucleus(stand_in: StandInNucleus) -> Iterator[Nucleus]:
    connected = connect(WAIT_S)
    yield connected
    connected.close()


@pytest.fixture
def impatient(stand_in: StandInNucleus) -> Iterator[Nucleus]:
    connected = connect(SHORT_S)
    yield connected
    connected.close()


def kind_of(call: Callable[[], Any]) -> str:
    with pytest.raises(NucleusError) as caught:
        call()
    return caught.value.kind


def test_no_answer_is_a_timeout_and_the_next_call_works(stand_in: StandInNucleus, impatient: Nucleus) -> None:
    stand_in.faults = Faults(mute=frozenset({"GetConfiguration"}))
    assert kind_of(impatient.configuration) == "timeout"
    impatient.report_state("RUNNING")
    stand_in.faults = Faults()
    assert impatient.configuration("model", "uri") == "a"


def test_no_greeting_is_a_timeout(stand_in: StandInNucleus) -> None:
    stand_in.faults = Faults(mute=frozenset({"Connect"}))
    assert kind_of(lambda: connect(SHORT_S)) == "timeout"


def test_a_slow_answer_is_waited_for(stand_in: StandInNucleus, nucleus: Nucleus) -> None:
    stand_in.faults = Faults(delay_s=0.2)
    assert nucleus.configuration("model", "uri") == "a"


def test_an_answer_that_is_too_late_is_not_taken_for_the_next(stand_in: StandInNucleus, impatient: Nucleus) -> None:
    stand_in.faults = Faults(delay_s=1.5 * SHORT_S)
    assert kind_of(impatient.configuration) == "timeout"
    stand_in.faults = Faults()
    threading.Event().wait(1.5 * SHORT_S)
    assert impatient.configuration("model") == {"uri": "a"}


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("PublishToIoTCore", lambda nucleus: nucleus.publish("a/b", b"")),
        ("UpdateState", lambda nucleus: nucleus.report_state("RUNNING")),
        ("SubscribeToConfigurationUpdate", lambda nucleus: nucleus.on_configuration(print)),
    ],
)
def test_a_refusal_names_the_operation_to_allow(
    stand_in: StandInNucleus, nucleus: Nucleus, operation: str, call: Callable[[Nucleus], None]
) -> None:
    stand_in.faults = Faults(deny=frozenset({operation}))
    with pytest.raises(NucleusError, match=rf"accessControl: aws\.greengrass#{operation}") as caught:
        call(nucleus)
    assert caught.value.kind == "denied"


@pytest.mark.parametrize("fault", ["malform", "garble"])
def test_a_malformed_answer_is_an_error_and_the_connection_lives_on(
    stand_in: StandInNucleus, nucleus: Nucleus, fault: str
) -> None:
    stand_in.faults = Faults(**{fault: frozenset({"GetConfiguration"})})  # type: ignore[arg-type]
    assert kind_of(nucleus.configuration) == "other"
    stand_in.faults = Faults()
    assert nucleus.configuration("model", "uri") == "a"


@pytest.mark.parametrize("operation", ["GetConfiguration", "SubscribeToConfigurationUpdate"])
def test_a_connection_cut_in_the_middle_of_an_answer_is_gone(
    stand_in: StandInNucleus, nucleus: Nucleus, operation: str
) -> None:
    gone: list[str] = []
    nucleus.on_gone(gone.append)
    stand_in.faults = Faults(cut=frozenset({operation}))
    call = {
        "GetConfiguration": nucleus.configuration,
        "SubscribeToConfigurationUpdate": lambda: nucleus.on_configuration(print),
    }[operation]
    assert kind_of(call) == "gone"
    wait_for(lambda: gone)


def test_repeated_and_reversed_events_all_arrive(stand_in: StandInNucleus, nucleus: Nucleus) -> None:
    events: list[tuple[str, ...]] = []
    nucleus.on_configuration(events.append)
    stand_in.faults = Faults(repeat_events=2, reverse_events=True)
    stand_in.deploy({"model": {"uri": "b", "version": "2"}}, local=True).wait(WAIT_S)
    wait_for(lambda: len(events) == 4)
    assert events == [("model", "version")] * 2 + [("model", "uri")] * 2


def test_a_large_message_breaks_lite_alone(stand_in: StandInNucleus, nucleus: Nucleus) -> None:
    """Greengrass Lite has room for 10,000 bytes, and hangs up on more."""
    payload = bytes(20_000)
    if stand_in.character == "classic":
        nucleus.publish("a/b", payload)
        assert stand_in.published[0].payload == payload
    else:
        assert kind_of(lambda: nucleus.publish("a/b", payload)) == "gone"


def test_an_unserialisable_value_is_an_error(nucleus: Nucleus) -> None:
    assert kind_of(lambda: nucleus.update_configuration([], {"x": object()})) == "other"
    assert nucleus.configuration("model", "uri") == "a"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delai_s": 1}, "no fault 'delai_s'"),
        ({"mute": "Connect"}, "must be list"),
        ({"repeat_events": 0}, "1 or more"),
    ],
)
def test_faults_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        faults_from(settings)
