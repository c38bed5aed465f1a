"""Where the two nuclei differ: validation, announced updates, shadows, restarts, rollback."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from nucleus_support import WAIT_S, running, wait_for

from gg_bridge import awsiot_nucleus
from gg_bridge.nucleus import Nucleus, NucleusError, connect
from gg_bridge.testing import Faults, StandInNucleus, Timing
from gg_bridge.testing.character import CharacterName

DEFAULTS = {"model": {"uri": "a", "version": "1"}}
PATIENT = Timing(restart_delay_s=0.2)
QUICK = replace(PATIENT, validation_s=0.3, update_response_s=0.3, running_s=0.5)

Start = Callable[..., tuple[StandInNucleus, Nucleus]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(character: CharacterName, **settings: Any) -> tuple[StandInNucleus, Nucleus]:
            settings = {"defaults": DEFAULTS, "timing": PATIENT, **settings}
            stand_in = stack.enter_context(running(character, monkeypatch, **settings))
            nucleus = connect(WAIT_S)
            stack.callback(nucleus.close)
            return stand_in, nucleus

        yield start


# What Lite lacks


@pytest.mark.parametrize(
    "call",
    [
        lambda nucleus: nucleus.on_validation(lambda _: ""),
        lambda nucleus: nucleus.on_component_update(lambda _deployment, _restarting: 0),
        lambda nucleus: nucleus.update_shadow("robot", "evergreen", {"state": {"reported": {"model": "a"}}}),
    ],
)
def test_lite_lacks_it_and_the_connection_lives_on(start: Start, call: Callable[[Nucleus], None]) -> None:
    _, nucleus = start("lite")
    with pytest.raises(NucleusError, match="Greengrass Lite") as caught:
        call(nucleus)
    assert caught.value.kind == "unsupported"
    assert nucleus.configuration("model", "uri") == "a"


def test_classic_without_the_shadow_manager_lacks_shadows(start: Start) -> None:
    stand_in, nucleus = start("classic")
    stand_in.faults = Faults(lacking=frozenset({"UpdateThingShadow"}))
    with pytest.raises(NucleusError, match="no UpdateThingShadow") as caught:
        nucleus.update_shadow("robot", "", {"state": {"reported": {}}})
    assert caught.value.kind == "unsupported"
    assert nucleus.configuration("model", "uri") == "a"


def test_an_error_of_lite_in_what_it_has_is_no_lack(start: Start) -> None:
    stand_in, nucleus = start("lite")
    stand_in.faults = Faults(fail=frozenset({"UpdateState"}))
    with pytest.raises(NucleusError, match="refused UpdateState") as caught:
        nucleus.report_state("RUNNING")
    assert caught.value.kind == "other"


# Classic: shadows


def test_shadows_merge(start: Start) -> None:
    stand_in, nucleus = start("classic")
    nucleus.update_shadow("robot", "evergreen", {"state": {"reported": {"model": "a", "stage": {"name": "verify"}}}})
    nucleus.update_shadow("robot", "evergreen", {"state": {"reported": {"model": "b", "stage": None}}})
    document = stand_in.shadows["robot", "evergreen"]
    assert document["state"] == {"reported": {"model": "b"}}
    assert document["version"] == 2


def test_a_malformed_shadow_is_refused(start: Start) -> None:
    _, nucleus = start("classic")
    with pytest.raises(NucleusError, match="desired or reported") as caught:
        nucleus.update_shadow("robot", "", {"model": "a"})
    assert caught.value.kind == "other"


# Classic: validation


def test_an_accepted_configuration_is_deployed(start: Start) -> None:
    stand_in, nucleus = start("classic")
    judged: list[Mapping[str, Any]] = []
    nucleus.on_validation(lambda configuration: judged.append(configuration) or "")  # type: ignore[func-returns-value]
    assert stand_in.deploy({"model": {"uri": "b"}}).wait(WAIT_S).status == "SUCCEEDED"
    assert judged == [{"model": {"uri": "b", "version": "1"}}], "the whole configuration as it would be"
    assert nucleus.configuration("model", "uri") == "b"


def test_a_rejected_configuration_fails_the_deployment_with_its_reason(start: Start) -> None:
    stand_in, nucleus = start("classic")
    events: list[tuple[str, ...]] = []
    nucleus.on_configuration(events.append)
    nucleus.on_validation(lambda _: "there is no model b")
    deployment = stand_in.deploy({"model": {"uri": "b"}}).wait(WAIT_S)
    assert deployment.status == "FAILED_NO_STATE_CHANGE"
    assert "there is no model b" in deployment.reason
    assert nucleus.configuration("model", "uri") == "a"
    assert events == []


def test_a_judge_that_fails_rejects(start: Start) -> None:
    stand_in, nucleus = start("classic")
    nucleus.on_validation(lambda configuration: str(configuration["no such key"]))
    deployment = stand_in.deploy({"model": {"uri": "b"}}).wait(WAIT_S)
    assert deployment.status == "FAILED_NO_STATE_CHANGE"
    assert "could not be judged" in deployment.reason


def test_a_judge_that_is_late_fails_the_deployment(start: Start) -> None:
    stand_in, nucleus = start("classic", timing=QUICK)
    go_on = threading.Event()
    nucleus.on_validation(lambda _: "" if go_on.wait(WAIT_S) else "late")
    deployment = stand_in.deploy({"model": {"uri": "b"}}).wait(WAIT_S)
    go_on.set()
    assert deployment.status == "FAILED_NO_STATE_CHANGE"
    assert "no validation report" in deployment.reason
    wait_for(lambda: nucleus.configuration("model", "uri") == "a")  # its late report hurts nobody


@pytest.mark.parametrize("order", [{"merge": {"model": {"uri": "a"}}}, {"merge": {"x": 1}, "version": "2.0.0"}])
def test_validation_is_asked_only_for_a_change_within_a_version(start: Start, order: dict[str, Any]) -> None:
    stand_in, nucleus = start("classic")
    nucleus.on_validation(lambda _: "never")
    assert stand_in.deploy(**order).wait(WAIT_S).status == "SUCCEEDED"


# Classic: announced updates


def test_a_deployment_waits_while_it_is_put_off(start: Start) -> None:
    stand_in, nucleus = start("classic")
    asked: list[tuple[str, bool]] = []
    answers = [40, 30, 0]

    def decide(deployment: str, restarting: bool) -> int:
        asked.append((deployment, restarting))
        return answers.pop(0)

    nucleus.on_component_update(decide)
    began = time.monotonic()
    deployment = stand_in.deploy({"model": {"uri": "b"}}).wait(WAIT_S)
    assert deployment.status == "SUCCEEDED"
    assert asked == [(deployment.id, False)] * 3
    assert time.monotonic() - began >= 0.07


@pytest.mark.parametrize("failing", [False, True])
def test_silence_and_failure_are_consent(start: Start, *, failing: bool) -> None:
    stand_in, nucleus = start("classic", timing=PATIENT if failing else QUICK)
    silent = Faults(mute=frozenset({"DeferComponentUpdate"}))

    def decide(_deployment: str, _restarting: bool) -> int:
        if failing:
            raise ValueError("broken callback")
        return 10_000

    nucleus.on_component_update(decide)
    stand_in.faults = Faults() if failing else silent
    assert stand_in.deploy({"model": {"uri": "b"}}).wait(WAIT_S).status == "SUCCEEDED"


def test_a_local_deployment_is_not_announced(start: Start) -> None:
    stand_in, nucleus = start("classic")
    asked: list[str] = []
    nucleus.on_component_update(lambda deployment, _: asked.append(deployment) or 0)  # type: ignore[func-returns-value]
    assert stand_in.deploy({"model": {"uri": "b"}}, local=True).wait(WAIT_S).status == "SUCCEEDED"
    assert asked == []


# Restarts and rollback


def test_lite_restarts_the_component_some_time_after_a_change_from_the_cloud(start: Start) -> None:
    happened: list[Any] = []
    connected: list[Nucleus] = []

    def restart() -> None:
        happened.append(f"restarted with {connected[0].configuration('model', 'uri')}")
        connected[0].report_state("RUNNING")

    stand_in, nucleus = start("lite", on_restart_component=restart)
    connected.append(nucleus)
    nucleus.on_configuration(happened.append)
    began = time.monotonic()
    assert stand_in.deploy({"model": {"uri": "b"}}).wait(WAIT_S).status == "SUCCEEDED"
    assert time.monotonic() - began >= PATIENT.restart_delay_s
    wait_for(lambda: len(happened) == 2)
    assert set(happened) == {("model", "uri"), "restarted with b"}


@pytest.mark.parametrize(
    ("character", "order"),
    [
        ("lite", {"local": True}),
        ("lite", {"merge": {"model": {"uri": "a"}}}),
        ("classic", {}),
        ("classic", {"local": True}),
    ],
)
def test_otherwise_a_change_of_configuration_restarts_nothing(
    start: Start, character: CharacterName, order: dict[str, Any]
) -> None:
    restarted: list[bool] = []
    stand_in, _ = start(character, on_restart_component=lambda: restarted.append(True))
    assert stand_in.deploy(**{"merge": {"model": {"uri": "b"}}, **order}).wait(WAIT_S).status == "SUCCEEDED"
    assert restarted == []


@pytest.mark.parametrize(
    ("character", "on_failure", "status", "uri"),
    [
        ("classic", "ROLLBACK", "FAILED_ROLLBACK_COMPLETE", "a"),
        ("classic", "DO_NOTHING", "FAILED_ROLLBACK_NOT_REQUESTED", "b"),
        ("lite", "ROLLBACK", "FAILED_ROLLBACK_NOT_REQUESTED", "b"),
    ],
)
def test_only_classic_rolls_a_broken_version_back(
    start: Start, character: CharacterName, on_failure: str, status: str, uri: str
) -> None:
    connected: list[Nucleus] = []

    def restart() -> None:
        connected[0].report_state("RUNNING" if stand_in.version == "1.0.0" else "ERRORED")

    stand_in, nucleus = start(character, timing=QUICK, on_restart_component=restart)
    connected.append(nucleus)
    order = {"version": "2.0.0", "merge": {"model": {"uri": "b"}}, "on_failure": on_failure}
    deployment = stand_in.deploy(**order).wait(WAIT_S)
    assert deployment.status == status
    assert deployment.reason
    assert nucleus.configuration("model", "uri") == uri
    assert stand_in.version == ("1.0.0" if uri == "a" else "2.0.0")


@pytest.mark.parametrize("character", ["classic", "lite"])
def test_keys_survive_a_new_version_whose_defaults_add_only_what_is_missing(
    start: Start, character: CharacterName
) -> None:
    stand_in, nucleus = start(character)
    stand_in.deploy({"model": {"uri": "b", "extra": 1}}).wait(WAIT_S)
    new = {"model": {"uri": "z", "prompt": "white"}}
    stand_in.deploy(version="2.0.0", defaults=new).wait(WAIT_S)
    assert nucleus.configuration("model") == {"uri": "b", "version": "1", "extra": 1, "prompt": "white"}
    stand_in.deploy(reset=["/model"]).wait(WAIT_S)
    assert nucleus.configuration("model") == new["model"]


# Updates with an old time


@pytest.mark.parametrize("character", ["classic", "lite"])
def test_an_older_update_changes_nothing(
    start: Start, character: CharacterName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lite does not even say so."""
    _, nucleus = start(character)
    nucleus.update_configuration(["model"], {"uri": "new"})
    past = dt.datetime.fromtimestamp(1000.5, dt.UTC)
    monkeypatch.setattr(awsiot_nucleus, "_now", lambda: past)
    if character == "classic":
        with pytest.raises(NucleusError, match="FailedUpdateConditionCheck"):
            nucleus.update_configuration(["model"], {"uri": "old"})
    else:
        nucleus.update_configuration(["model"], {"uri": "old"})
    assert nucleus.configuration("model", "uri") == "new"
