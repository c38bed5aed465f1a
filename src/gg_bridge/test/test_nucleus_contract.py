"""The port to a nucleus, over AWS's own client and real sockets, against both kinds of nucleus."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from nucleus_support import WAIT_S, adopt, running, wait_for

from gg_bridge.nucleus import Nucleus, NucleusError, connect
from gg_bridge.testing import StandInNucleus, Timing
from gg_bridge.testing.character import CharacterName

DEFAULTS = {"model": {"uri": "file:/models/a", "version": "1", "prompt": {"prompt": "black"}}, "empty": {}, "list": [1]}


@pytest.fixture(params=["classic", "lite"])
def character(request: pytest.FixtureRequest) -> CharacterName:
    name: CharacterName = request.param
    return name


@pytest.fixture
def stand_in(character: CharacterName, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInNucleus]:
    with running(character, monkeypatch, defaults=DEFAULTS, timing=Timing(restart_delay_s=0.05)) as it:
        yield it


@pytest.fixture
def nucleus(stand_in: StandInNucleus) -> Iterator[Nucleus]:
    connected = connect(WAIT_S)
    yield connected
    connected.close()


# Configuration


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), DEFAULTS),
        (("model",), DEFAULTS["model"]),
        (("model", "uri"), "file:/models/a"),
        (("MODEL", "Uri"), "file:/models/a"),
        (("model", "prompt"), {"prompt": "black"}),
        (("model", "prompt", "prompt"), "black"),
        (("empty",), {}),
        (("list",), [1]),
    ],
)
def test_configuration_reads_branches_and_leaves_as_what_they_are(
    nucleus: Nucleus, path: tuple[str, ...], value: Any
) -> None:
    assert nucleus.configuration(*path) == value


@pytest.mark.parametrize("path", [("none",), ("model", "none"), ("model", "uri", "below a leaf")])
def test_a_key_that_is_not_there_is_not_found(nucleus: Nucleus, path: tuple[str, ...]) -> None:
    with pytest.raises(NucleusError, match="GetConfiguration") as caught:
        nucleus.configuration(*path)
    assert caught.value.kind == "not_found"


def test_an_update_is_merged_and_makes_an_event(nucleus: Nucleus) -> None:
    events: list[tuple[str, ...]] = []
    nucleus.on_configuration(events.append)
    nucleus.update_configuration(["model"], {"version": "2", "new": {"deep": True}})
    wait_for(lambda: len(events) == 2)
    assert events == [("model", "version"), ("model", "new", "deep")]
    assert nucleus.configuration("model") == {**DEFAULTS["model"], "version": "2", "new": {"deep": True}}


def test_an_update_without_change_makes_no_event(nucleus: Nucleus) -> None:
    events: list[tuple[str, ...]] = []
    nucleus.on_configuration(events.append)
    nucleus.update_configuration(["model"], {"version": "1"})
    nucleus.update_configuration(["model"], {"version": "2"})
    wait_for(lambda: events)
    assert events == [("model", "version")]


def test_an_update_may_not_put_a_value_where_an_object_is(nucleus: Nucleus) -> None:
    with pytest.raises(NucleusError, match="UpdateConfiguration") as caught:
        nucleus.update_configuration([], {"model": "flat"})
    assert caught.value.kind == "other"
    assert nucleus.configuration("model") == DEFAULTS["model"]


def test_a_deployment_tells_each_changed_leaf_once_and_the_whole_is_there(
    stand_in: StandInNucleus, nucleus: Nucleus
) -> None:
    seen: list[tuple[tuple[str, ...], Any]] = []
    nucleus.on_configuration(lambda path: seen.append((path, nucleus.configuration("model"))))
    new = {"uri": "file:/models/b", "version": "2", "prompt": {"prompt": "white"}}
    assert stand_in.deploy({"model": new}).wait(WAIT_S).status == "SUCCEEDED"
    wait_for(lambda: len(seen) == 3)
    assert [path for path, _ in seen] == [("model", "uri"), ("model", "version"), ("model", "prompt", "prompt")]
    assert all(value == new for _, value in seen)


def test_events_come_in_order_one_at_a_time_in_a_thread_of_their_own(nucleus: Nucleus) -> None:
    order: list[int] = []
    threads: set[int] = set()
    inside = threading.Semaphore(1)

    def changed(path: tuple[str, ...]) -> None:
        assert inside.acquire(blocking=False), "two callbacks at once"
        threads.add(threading.get_ident())
        threading.Event().wait(0.001)
        order.append(int(path[-1]))
        inside.release()

    nucleus.on_configuration(changed)
    for number in range(100):
        nucleus.update_configuration(["numbers"], {str(number): number})
    wait_for(lambda: len(order) == 100)
    assert order == list(range(100))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_callback_that_takes_long_holds_nothing_else_up(nucleus: Nucleus) -> None:
    entered, leave = threading.Event(), threading.Event()
    nucleus.on_configuration(lambda _: (entered.set(), leave.wait(WAIT_S)))  # type: ignore[arg-type, return-value]
    nucleus.update_configuration([], {"wake": 1})
    assert entered.wait(WAIT_S)
    assert nucleus.configuration("wake") == 1
    leave.set()


def test_a_callback_that_fails_is_logged_and_the_next_event_comes(
    nucleus: Nucleus, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[tuple[str, ...]] = []

    def changed(path: tuple[str, ...]) -> None:
        calls.append(path)
        raise ValueError("broken callback")

    nucleus.on_configuration(changed)
    nucleus.update_configuration([], {"one": 1})
    nucleus.update_configuration([], {"two": 2})
    wait_for(lambda: len(calls) == 2)
    wait_for(lambda: caplog.text.count("a callback of the nucleus failed") == 2)


# Telling


def test_states_are_reported(stand_in: StandInNucleus, nucleus: Nucleus) -> None:
    nucleus.report_state("RUNNING")
    nucleus.report_state("ERRORED")
    assert stand_in.state_reports == ("RUNNING", "ERRORED")


@pytest.mark.parametrize("payload", [b"", b"\x00\xff binary", '{"grün": 1}'.encode()])
def test_messages_are_published_with_quality_of_service_1(
    stand_in: StandInNucleus, nucleus: Nucleus, payload: bytes
) -> None:
    nucleus.publish("evergreen/robot/status", payload)
    (message,) = stand_in.published
    assert (message.topic, message.payload, message.qos) == ("evergreen/robot/status", payload, 1)


# The connection


def test_close_ends_callbacks_and_calls(stand_in: StandInNucleus, nucleus: Nucleus) -> None:
    gone: list[str] = []
    nucleus.on_gone(gone.append)
    nucleus.close()
    nucleus.close()
    wait_for(lambda: stand_in.clients == 0)
    with pytest.raises(NucleusError, match="closed") as caught:
        nucleus.configuration()
    assert caught.value.kind == "gone"
    assert gone == []


def test_close_from_inside_a_callback(stand_in: StandInNucleus, nucleus: Nucleus) -> None:
    nucleus.on_configuration(lambda _: nucleus.close())
    nucleus.update_configuration([], {"stop": 1})
    wait_for(lambda: stand_in.clients == 0)


def test_a_ping_is_answered(stand_in: StandInNucleus, nucleus: Nucleus) -> None:
    stand_in.ping()
    assert nucleus.configuration("list") == [1]
    wait_for(lambda: stand_in.pongs == 1)


@pytest.mark.parametrize("mid_message", [False, True])
def test_a_lost_connection_is_told_at_once_and_once(
    stand_in: StandInNucleus, nucleus: Nucleus, *, mid_message: bool
) -> None:
    gone: list[str] = []
    nucleus.on_gone(gone.append)
    nucleus.on_configuration(lambda _: None)
    stand_in.drop_connections(mid_message=mid_message)
    wait_for(lambda: gone)
    with pytest.raises(NucleusError, match="lost") as caught:
        nucleus.report_state("RUNNING")
    assert caught.value.kind == "gone"
    late: list[str] = []
    nucleus.on_gone(late.append)
    wait_for(lambda: late)
    assert gone == late
    connect(WAIT_S).close()  # the token is still good


def test_a_restart_voids_the_token(stand_in: StandInNucleus, nucleus: Nucleus, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    nucleus.on_gone(gone.append)
    stand_in.restart()
    wait_for(lambda: gone)
    with pytest.raises(NucleusError, match="did not take the token") as caught:
        connect(WAIT_S)
    assert caught.value.kind == "denied"
    adopt(stand_in, monkeypatch)
    fresh = connect(WAIT_S)
    assert fresh.configuration("list") == [1]
    fresh.close()


def test_without_environment_or_socket_the_nucleus_is_gone(
    stand_in: StandInNucleus, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.close()
    with pytest.raises(NucleusError, match="no such socket") as caught:
        connect(WAIT_S)
    assert caught.value.kind == "gone"
    monkeypatch.delenv("SVCUID")
    with pytest.raises(NucleusError, match="environment has no SVCUID") as caught:
        connect(WAIT_S)
    assert caught.value.kind == "gone"


def test_the_token_is_never_logged(
    stand_in: StandInNucleus, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    token = stand_in.environment()["SVCUID"]
    with caplog.at_level(logging.DEBUG):
        connected = connect(WAIT_S)
        connected.configuration()
        stand_in.restart()
        with pytest.raises(NucleusError) as caught:
            connect(WAIT_S)
        connected.close()
    out, err = capfd.readouterr()
    assert caplog.records
    assert token not in caplog.text + out + err + str(caught.value) + repr(caught.value.__cause__)
