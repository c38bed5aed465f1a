"""What a release decides, without AWS."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.cli import make_parser
from evergreen.commands import release
from evergreen.model.packing import Wanted as PackWanted
from evergreen.release import documents, history, journal, registry, usage, versions, waves
from evergreen.release.aws.iot import parse_shadow
from evergreen.release.aws.session import Aws
from evergreen.release.documents import Change, Policies
from evergreen.release.engine import is_loopback
from evergreen.release.errors import AwsError, InUseError, RefusedError, ReleaseError, WaitingError
from evergreen.release.journal import Leftover
from evergreen.release.options import duration
from evergreen.release.outcome import SETTLE_S, Facts, Kind, Report, Wanted, Wish, ago, judge
from evergreen.release.steps import Ports, Timing, carry_out
from evergreen.release.steps.deploy import Deploy
from evergreen.release.steps.download import demand_lasting
from evergreen.release.steps.pack import Pack
from evergreen.release.steps.watch import Clock, Patience, Watch, look
from evergreen.release.targets import Target, disjoint, one_nucleus
from evergreen.release.verbs import robot
from evergreen.release.work import Deployed, Work
from gg_bridge import recipes
from vla_core import signing
from vla_core.errors import ConfigError, ManifestError, SignatureError

MODEL, ROBOT = "dev.evergreen.Model", "dev.evergreen.Robot"
CHECKOUT = Path(__file__).parents[3]

# --- versions ---------------------------------------------------------------------------------------------------------


def test_the_next_version_is_after_the_highest_not_after_the_last() -> None:
    assert versions.next_after([]) == "1.0.0"
    assert versions.next_after(["1.2.10", "1.2.9", "0.9.0", "2.0.0-rc1"]) == "1.2.11"
    assert versions.newest(["1.2.9", "1.2.10", "x"]) == "1.2.10"
    assert versions.choose("", ["1.0.0"], MODEL) == "1.0.1"
    assert versions.choose("3.0.0", ["1.0.0"], MODEL) == "3.0.0"
    with pytest.raises(ReleaseError, match=r"1\.0\.0 is there already.*next free one is 1\.0\.1"):
        versions.choose("1.0.0", ["1.0.0"], MODEL)
    with pytest.raises(ConfigError, match=r"'v2' is not of the form"):
        versions.choose("v2", [], MODEL)


@given(st.lists(st.tuples(*[st.integers(0, 10**8)] * 3)))
def test_the_next_version_is_free(present: list[tuple[int, int, int]]) -> None:
    texts = [".".join(map(str, numbers)) for numbers in present]
    assert versions.next_after(texts) not in texts


def test_a_tag_tells_what_is_in_an_image() -> None:
    tag = versions.image_tag("pick", "1.0.0", "manifest", "base")
    assert tag.startswith("pick-1.0.0-")
    assert tag == versions.image_tag("pick", "1.0.0", "manifest", "base")
    assert tag != versions.image_tag("pick", "1.0.0", "manifest", "another base")
    assert len(versions.image_tag("n" * 64, "v" * 64, "x")) <= 128


# --- waves ------------------------------------------------------------------------------------------------------------


def test_waves_grow_to_the_shares() -> None:
    arms = [f"arm-{number}" for number in range(25)]
    portions = waves.split(arms, waves.parse("1,10%,100%"))
    assert [len(portion) for portion in portions] == [1, 2, 22]
    assert [arm for portion in portions for arm in portion] == arms
    assert waves.split(arms, ()) == (tuple(arms),)
    assert waves.split(["a"], waves.parse("1,50%,100%")) == (("a",),)
    for wrong in ("", "0", "x", "101%", "1,,2", "-1"):
        with pytest.raises(ConfigError, match="canary"):
            waves.parse(wrong)
    with pytest.raises(ConfigError, match="must not shrink"):
        waves.split(arms, waves.parse("50%,3"))


@given(st.integers(1, 200), st.lists(st.integers(1, 100), min_size=1, max_size=5).map(sorted))
def test_no_target_is_in_two_waves(total: int, shares: list[int]) -> None:
    portions = waves.split(range(total), waves.parse(",".join(f"{share}%" for share in shares)))
    flat = [target for portion in portions for target in portion]
    assert flat == list(range(len(flat)))
    assert all(portions)


def test_a_device_of_two_targets_is_noticed() -> None:
    one, two = Target("group", "a", "arn:a", ("arm-1", "arm-2")), Target("group", "b", "arn:b", ("arm-2",))
    with pytest.raises(ReleaseError, match="arm-2 is in group a and in group b"):
        disjoint([one, two])
    disjoint([one])


def test_one_recipe_is_for_one_nucleus() -> None:
    assert one_nucleus(["lite", "lite"], "") == "lite"
    assert one_nucleus([], "classic") == "classic"
    with pytest.raises(ReleaseError, match="group of its own"):
        one_nucleus(["lite", "classic"], "")
    with pytest.raises(ReleaseError, match="give --nucleus"):
        one_nucleus([], "")


# --- documents --------------------------------------------------------------------------------------------------------

PRESENT: dict[str, Any] = {
    "deploymentId": "d-1",
    "targetArn": "arn:arms",
    "components": {
        ROBOT: {"componentVersion": "1.2.0", "configurationUpdate": {"merge": '{"devices": "x"}'}},
        MODEL: {
            "componentVersion": "1.0.0",
            "configurationUpdate": {"merge": '{"model": {"uri": "s3://old"}, "extra": 1}', "reset": ["/model"]},
            "runWith": {"posixUser": "robot"},
        },
        "aws.greengrass.Nucleus": {"componentVersion": "2.14.0"},
    },
    "deploymentPolicies": {"failureHandlingPolicy": "DO_NOTHING"},
    "iotJobConfiguration": {"jobExecutionsRolloutConfig": {"maximumPerMinute": 5}},
    "tags": {"evergreen:model": "pick@1"},
}


def test_a_deployment_keeps_everything_but_the_component() -> None:
    change = Change(MODEL, "1.0.1", {"model": {"prompt": "go"}}, ("/model",), {"evergreen:model": "pick@2"}, "pick@2")
    before = json.dumps(PRESENT)
    made = documents.request("arn:arms", PRESENT, change, Policies())
    assert json.dumps(PRESENT) == before
    assert made["components"][ROBOT] == PRESENT["components"][ROBOT]
    assert made["components"]["aws.greengrass.Nucleus"] == {"componentVersion": "2.14.0"}
    assert made["iotJobConfiguration"] == PRESENT["iotJobConfiguration"]
    assert made["deploymentPolicies"] == {"failureHandlingPolicy": "DO_NOTHING"}
    entry = made["components"][MODEL]
    assert (entry["componentVersion"], entry["runWith"]) == ("1.0.1", {"posixUser": "robot"})
    assert json.loads(entry["configurationUpdate"]["merge"]) == {"extra": 1, "model": {"prompt": "go"}}
    assert entry["configurationUpdate"]["reset"] == ["/model"]
    assert made["tags"] == {"evergreen:model": "pick@2", "evergreen:component": MODEL}


def test_who_changes_another_component_keeps_the_models_label() -> None:
    change = Change(ROBOT, "1.3.0")
    assert documents.request("arn:arms", PRESENT, change, Policies())["tags"] == {
        "evergreen:model": "pick@1",
        "evergreen:component": ROBOT,
    }
    without = {**PRESENT, "components": {ROBOT: PRESENT["components"][ROBOT]}}
    assert "evergreen:model" not in documents.request("arn:arms", without, change, Policies())["tags"]
    assert "evergreen:model" not in documents.request("arn:arms", PRESENT, Change(MODEL, "2.0.0"), Policies())["tags"]


@pytest.mark.parametrize("state", ["CANCELED", "FAILED"])
def test_what_was_stopped_does_not_travel_with_another_component(state: str) -> None:
    """A canary was refused and cancelled; the next release of the robot's software took its model to everybody."""
    stopped = {**PRESENT, "deploymentStatus": state}
    with pytest.raises(ReleaseError, match=r"`evergreen release rollback --group arms` first"):
        documents.demand_going(stopped, ROBOT, "--group arms")
    documents.demand_going(stopped, MODEL, "--group arms")
    documents.demand_going({**PRESENT, "deploymentStatus": "ACTIVE"}, ROBOT, "--group arms")
    documents.demand_going(None, ROBOT, "--group arms")
    robots = {**stopped, "tags": {"evergreen:model": "pick@1", "evergreen:component": ROBOT}}
    documents.demand_going(robots, ROBOT, "--group arms")  # else a broken one could not be replaced
    with pytest.raises(ReleaseError, match=r"`evergreen release robot IMAGE --group arms` first"):
        documents.demand_going(robots, MODEL, "--group arms")


def test_what_robots_are_asked_for_beside_the_model() -> None:
    change = Change(MODEL, "1.0.1", {"model": {"prompt": "go"}}, ("/model",))
    assert documents.wish_of(documents.request("arn", PRESENT, change, Policies()), "ab") == Wish(
        "go", "blue_green", "ab"
    )
    change = Change(MODEL, "1.0.1", {"model": {"swap": "restart"}}, ("/model",))
    assert documents.wish_of(documents.request("arn", PRESENT, change, Policies())) == Wish("", "restart", None)
    assert documents.wish_of(documents.request("arn", None, Change(MODEL, "1.0.1"), Policies())) == Wish()


def test_a_first_deployment_has_the_component_alone() -> None:
    made = documents.request("arn:x", None, Change(MODEL, "1.0.0", name="n"), Policies())
    assert made == {
        "targetArn": "arn:x",
        "deploymentName": "n",
        "components": {MODEL: {"componentVersion": "1.0.0"}},
        "tags": {"evergreen:component": MODEL},
    }


def test_policies_change_only_what_is_given() -> None:
    present = {"failureHandlingPolicy": "ROLLBACK", "componentUpdatePolicy": {"timeoutInSeconds": 30, "action": "X"}}
    assert Policies().over(present) == present
    assert Policies(update_timeout_s=90).over(present)["componentUpdatePolicy"] == {
        "timeoutInSeconds": 90,
        "action": "X",
    }
    assert Policies("DO_NOTHING", notify=False).over({}) == {
        "failureHandlingPolicy": "DO_NOTHING",
        "componentUpdatePolicy": {"timeoutInSeconds": 60, "action": "SKIP_NOTIFY_COMPONENTS"},
    }


def test_a_configuration_that_is_no_json_is_named() -> None:
    broken = {"components": {MODEL: {"componentVersion": "1.0.0", "configurationUpdate": {"merge": "{"}}}}
    with pytest.raises(ReleaseError, match=f"configuration of {MODEL} is no JSON"):
        documents.request("arn:x", broken, Change(MODEL, "1.0.1"), Policies())


# --- history ----------------------------------------------------------------------------------------------------------


def deployment(number: int, version: str, label: str, takes_back: str = "") -> dict[str, Any]:
    tags = {"evergreen:model": label} | ({"evergreen:rollback-of": takes_back} if takes_back else {})
    return {
        "deploymentId": f"d-{number}",
        "components": {MODEL: {"componentVersion": version}, ROBOT: {"componentVersion": f"9.0.{number}"}},
        "tags": tags,
    }


def test_the_former_model_is_the_last_other_one() -> None:
    one, two, again = deployment(1, "1.0.0", "a@1"), deployment(2, "1.0.1", "b@1"), deployment(3, "1.0.1", "b@1")
    assert history.former([again, two, one], MODEL) is one
    assert history.former([two, one], MODEL, "a@1") is one
    with pytest.raises(ReleaseError, match="c@1 was never deployed to this target; there were a@1"):
        history.former([two, one], MODEL, "c@1")
    with pytest.raises(ReleaseError, match=r"never had another .* than a@1"):
        history.former([one], MODEL)
    with pytest.raises(ReleaseError, match="nothing to roll back"):
        history.former([], MODEL)


def test_a_second_rollback_goes_further_back_instead_of_forth() -> None:
    """Rolling back b to a made b the former model, and the next rollback brought the bad one again."""
    zero, one, two = deployment(1, "1.0.0", "z@1"), deployment(2, "1.0.1", "a@1"), deployment(3, "1.0.2", "b@1")
    back = deployment(4, "1.0.1", "a@1", takes_back="d-3")
    assert history.former([back, two, one, zero], MODEL) is zero
    assert history.former([back, two, one, zero], MODEL, "b@1") is two


def test_a_model_that_was_taken_back_is_skipped_wherever_it_was_deployed() -> None:
    """Deployed twice, taken back once: the next rollback brought it again."""
    zero, one = deployment(1, "1.0.0", "z@1"), deployment(2, "1.0.1", "a@1")
    two, again = deployment(3, "1.0.2", "b@1"), deployment(4, "1.0.2", "b@1")
    back = deployment(5, "1.0.1", "a@1", takes_back="d-4")
    assert history.former([back, again, two, one, zero], MODEL) is zero
    anew, other = deployment(6, "1.0.2", "b@1"), deployment(7, "1.0.3", "c@1")
    assert history.former([other, anew, back, again, two, one, zero], MODEL) is anew  # somebody wanted it again


def test_a_rollback_changes_the_model_alone() -> None:
    former = {"components": {MODEL: {"componentVersion": "0.9.0", "configurationUpdate": {"reset": ["/model"]}}}}
    made = documents.restored("arn:arms", PRESENT, former | {"tags": {"evergreen:model": "old@1"}}, MODEL)
    assert made["components"][MODEL] == former["components"][MODEL]
    assert made["components"][ROBOT] == PRESENT["components"][ROBOT]
    assert made["tags"] == {
        "evergreen:rollback-of": "d-1",
        "evergreen:model": "old@1",
        "evergreen:component": MODEL,
    }
    assert made["deploymentName"] == "old@1 (rollback)"


# --- outcome ----------------------------------------------------------------------------------------------------------

WANTED = Wanted("pick@2", deployed_s=1000.0)


def facts(execution: str = "SUCCEEDED", report: Report | None = None, **more: Any) -> Facts:
    return Facts("arm-1", execution=execution, report=report, changed_s=1010.0, **more)


def told(outcome: str, model: str = "pick@2", at_s: float = 1005.0, **more: Any) -> Report:
    return Report(outcome, model, at_s=at_s, **more)


@pytest.mark.parametrize(
    ("given_facts", "kind", "reason"),
    [
        (facts("", None), Kind.PENDING, "waits for the device"),
        (facts("QUEUED", None), Kind.PENDING, "waits for the device"),
        (facts("IN_PROGRESS", None), Kind.UPDATING, "applying"),
        (facts("SUCCEEDED", None), Kind.UPDATING, "has not reported yet"),
        (facts("SUCCEEDED", told("succeeded")), Kind.SUCCEEDED, ""),
        (facts("COMPLETED", told("succeeded")), Kind.SUCCEEDED, ""),
        (facts("IN_PROGRESS", told("succeeded")), Kind.UPDATING, "applying"),
        (facts("SUCCEEDED", told("refused", reason="NaN")), Kind.REFUSED, "NaN"),
        (facts("IN_PROGRESS", told("refused", reason="NaN")), Kind.REFUSED, "NaN"),
        (facts("SUCCEEDED", told("rolled_back", reason="slow")), Kind.ROLLED_BACK, "slow"),
        (facts("SUCCEEDED", told("superseded")), Kind.SUPERSEDED, ""),
        (facts("SUCCEEDED", told("retrying", reason="503")), Kind.UPDATING, "tries again: 503"),
        (facts("SUCCEEDED", told("succeeded", model="pick@1")), Kind.UPDATING, "has not reported yet"),
        (facts("SUCCEEDED", told("refused", model="", version="2", reason="404")), Kind.REFUSED, "404"),
        (facts("SUCCEEDED", told("refused", model="", version="1", reason="404")), Kind.UPDATING, "not reported"),
        (facts("FAILED", None, reason="disk full"), Kind.FAILED, "disk full"),
        (facts("REJECTED", None), Kind.FAILED, "Greengrass says REJECTED"),
        (facts("FAILED", told("refused", reason="no camera wrist")), Kind.REFUSED, "no camera wrist"),
    ],
)
def test_what_became_of_it(given_facts: Facts, kind: Kind, reason: str) -> None:
    outcome = judge(given_facts, WANTED, now_s=1020.0)
    assert outcome.kind is kind
    assert reason in outcome.reason


def test_a_report_of_last_week_counts_only_where_nothing_newer_comes() -> None:
    """The same model again: a robot that knows it says nothing. But its old word must not end the waiting at once."""
    old = facts("SUCCEEDED", told("refused", at_s=10.0, reason="NaN"))
    assert judge(old, WANTED, now_s=1010.0 + SETTLE_S - 1).kind is Kind.UPDATING
    assert judge(old, WANTED, now_s=1010.0 + SETTLE_S).kind is Kind.REFUSED


def test_an_old_report_on_another_wish_does_not_count() -> None:
    """The same model with another prompt: loading takes a robot longer than the two minutes."""
    wanted = Wanted("pick@2", 1000.0, wish=Wish("go", "blue_green", "ab"))
    later_s = 1010.0 + SETTLE_S

    def kind(wish: Wish, at_s: float = 10.0) -> Kind:
        return judge(facts("SUCCEEDED", told("succeeded", at_s=at_s, wish=wish)), wanted, later_s).kind

    assert kind(Wish("go", "blue_green", "ab")) is Kind.SUCCEEDED
    for other in (Wish("stop", "blue_green", "ab"), Wish("go", "restart", "ab"), Wish("go", "blue_green", "cd")):
        assert kind(other) is Kind.UPDATING
        assert kind(other, at_s=1005.0) is Kind.UPDATING  # of the wish before, told late
    assert kind(Wish()) is Kind.UPDATING
    assert kind(Wish(), at_s=1005.0) is Kind.SUCCEEDED
    wanted = Wanted("pick@2", 1000.0, wish=Wish("x" * 300))
    assert kind(Wish("x" * 256)) is Kind.SUCCEEDED  # reports tell so much of it


def test_a_report_of_the_same_second_is_new() -> None:
    """Shadows have whole seconds: a robot that reported 0.2 s after its deployment was waited for two minutes more."""
    report = told("succeeded", at_s=1000.0)
    assert judge(facts("SUCCEEDED", report), Wanted("pick@2", deployed_s=1000.7), now_s=1001.0).kind is Kind.SUCCEEDED


def test_an_absent_device_is_told_with_when_it_was_last_heard_of() -> None:
    outcome = judge(facts("QUEUED", None, seen_s=1000.0 - 7200.0), WANTED, now_s=1000.0 + 3600.0)
    assert outcome.kind is Kind.PENDING
    assert outcome.reason == "offline: it has not begun the deployment for 1 h; last heard of 3 h ago"


def test_a_newer_deployment_ends_the_waiting() -> None:
    assert judge(facts("QUEUED"), Wanted("pick@2", 1000.0, latest=False), 1020.0).kind is Kind.SUPERSEDED


def test_a_component_that_does_not_report_is_greengrass_word() -> None:
    assert judge(facts("SUCCEEDED"), Wanted("", 1000.0), 1020.0).kind is Kind.SUCCEEDED


def test_words_for_durations() -> None:
    assert [ago(5), ago(60), ago(3600), ago(3600 * 3 + 1200), ago(86400 * 3)] == [
        "5 s",
        "1 min",
        "1 h",
        "3 h 20 min",
        "3 days",
    ]
    assert [duration("90s"), duration("30m"), duration("2h"), duration("0")] == [90.0, 1800.0, 7200.0, 0.0]


# --- shadows ----------------------------------------------------------------------------------------------------------


def shadow(update: object, stamps: object = None) -> bytes:
    return json.dumps(
        {"state": {"reported": {"update": update}}, "metadata": {"reported": {"update": stamps}}}
    ).encode()


def test_a_shadow_keeps_durations_of_earlier_reports_which_are_left_out() -> None:
    stamps = {"outcome": {"timestamp": 20}, "durations_s": {"total": {"timestamp": 20}, "switch": {"timestamp": 10}}}
    wished = {"uri": "file:/m", "prompt": "go", "swap": 3, "sha256": "ab"}
    durations = {"total": 2.0, "switch": 1.0}
    update = {"outcome": "refused", "model": "a@1", "durations_s": durations, "reason": "a\nb", "wished": wished}
    report = parse_shadow(shadow(update, stamps))
    assert report is not None
    assert (report.at_s, report.durations_s, report.reason) == (20.0, {"total": 2.0}, "a b")
    assert report.wish == Wish("go", None, "ab")


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{}", b"\xff", shadow(None), shadow([]), shadow({"outcome": 3}), shadow({"model": "a"})]
)
def test_a_shadow_may_hold_anything(payload: bytes) -> None:
    assert parse_shadow(payload) is None


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text(), st.lists(st.none()))))
def test_whatever_a_device_writes_is_read(update: dict[str, Any]) -> None:
    parse_shadow(shadow({**update, "outcome": "refused"}, update))


# --- steps ------------------------------------------------------------------------------------------------------------


class FakeStep:
    """Leaves one thing; may fail; may settle."""

    def __init__(
        self, name: str, error: BaseException | None = None, *, settles: bool = False, needless: str = ""
    ) -> None:
        self.title, self.settles, self._error, self._needless = name, settles, error, needless

    def foresee(self) -> tuple[str, ...]:
        return ()

    def would(self) -> tuple[str, ...]:
        return ()

    def needless(self) -> str:
        return self._needless

    def leaves(self) -> Leftover:
        return Leftover("object", "bucket", self.title)

    def run(self, view: object) -> str:
        if self._error:
            raise self._error
        return "done"


class View:
    def say(self, text: str) -> None: ...

    def amount(self, done: int, total: int, unit: str = "B") -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def bench(tmp_path: Path) -> tuple[Ports, list[str], list[str]]:
    removed: list[str] = []
    said: list[str] = []

    def remove(leftover: Leftover) -> None:
        if leftover.what == "stuck":
            raise ReleaseError("no network")
        if leftover.what == "used":
            raise InUseError("pick 1.0.0 names it")
        removed.append(leftover.what)

    notes = journal.begin(tmp_path, "123", "eu", "pick@1")
    ports = Ports(notes, remove, lambda _: View(), lambda _: None, lambda: 0.0, said.append)
    return ports, removed, said


def test_steps_are_undone_the_last_first(bench: Any, tmp_path: Path) -> None:
    ports, removed, _ = bench
    skipped = FakeStep("c", needless="there already")
    with pytest.raises(KeyboardInterrupt):
        carry_out([FakeStep("a"), skipped, FakeStep("b"), FakeStep("d", KeyboardInterrupt())], ports)
    assert removed == ["d", "b", "a"]
    ports.journal.close()
    assert list(tmp_path.iterdir()) == []


def test_what_aws_did_not_make_is_not_removed(bench: Any) -> None:
    """Two laptops took one component version at the same time; the second deleted the first one's."""
    ports, removed, _ = bench
    with pytest.raises(AwsError):
        carry_out([FakeStep("a"), FakeStep("b", AwsError("there already", "ConflictException"))], ports)
    assert removed == ["a"]


def test_what_aws_may_have_made_is_removed(bench: Any) -> None:
    ports, removed, _ = bench
    with pytest.raises(AwsError):
        carry_out([FakeStep("a", AwsError("a fault", "InternalServerException", fleeting=True))], ports)
    assert removed == ["a"]


def test_what_others_use_is_not_removed(bench: Any) -> None:
    ports, removed, said = bench
    with pytest.raises(ReleaseError, match="boom"):
        carry_out([FakeStep("a"), FakeStep("used"), FakeStep("b", ReleaseError("boom"))], ports)
    assert removed == ["b", "a"]
    assert said[1].endswith("used stays: pick 1.0.0 names it")
    assert ports.journal.leftovers == []


def test_what_may_be_used_by_what_is_stuck_is_tried_again(bench: Any) -> None:
    ports, _, said = bench
    with pytest.raises(ReleaseError, match="boom"):
        carry_out([FakeStep("used"), FakeStep("stuck"), FakeStep("b", ReleaseError("boom"))], ports)
    assert [leftover.what for leftover in ports.journal.leftovers] == ["used", "stuck"]
    assert "used stays behind" in said[-1]


def test_a_deployment_strikes_what_it_uses_from_the_notes_of_others(bench: Any, tmp_path: Path) -> None:
    """A release was killed after its push, and the next one found that image: `clean` deleted it from under robots."""
    ports, _, _ = bench
    for label, region in (("killed", "eu"), ("elsewhere", "us")):
        notes = journal.begin(tmp_path, "123", region, label)
        for what in ("image", "component", "other"):
            notes.note(Leftover("object", "bucket", what))
        notes.close()
    steps = [FakeStep("image", needless="is there"), FakeStep("component"), FakeStep("deploy", settles=True)]
    carry_out(steps, ports)
    with journal.unfinished(tmp_path) as ended:
        left = {notes.label: [leftover.what for leftover in notes.leftovers] for notes in ended}
    assert left == {"killed": ["other"], "elsewhere": ["image", "component", "other"]}


# --- deploying and waiting --------------------------------------------------------------------------------------------

ARMS, HALL = Target("group", "arms", "arn:arms", ("arm-1",)), Target("group", "hall", "arn:hall", ("arm-2",))
BUSY = AwsError("greengrassv2 get-deployment: AWS cannot be reached", fleeting=True)


class FakeAws:
    """Greengrass and the shadows of two devices; each call may fail."""

    def __init__(self, **errors: BaseException) -> None:
        self.errors = errors
        self.reports = {"arm-1": told("succeeded"), "arm-2": told("succeeded")}
        self.cancelled: list[str] = []

    def _maybe(self, name: str) -> None:
        if error := self.errors.pop(name, None):
            raise error

    def deploy(self, request: dict[str, Any]) -> str:
        self._maybe("deploy")
        return f"d-{request['targetArn']}"

    def deployment(self, deployment_id: str) -> dict[str, Any]:
        self._maybe("deployment")
        return {"deploymentId": deployment_id, "creationTimestamp": datetime.fromtimestamp(1000.0, UTC)}

    def now_s(self) -> float:
        return 1001.0

    def cancel(self, deployment_id: str) -> None:
        self.cancelled.append(deployment_id)
        self._maybe("cancel")

    def execution(self, thing: str, deployment_id: str) -> dict[str, Any]:
        return {"coreDeviceExecutionStatus": "SUCCEEDED"}

    def report(self, thing: str) -> Report:
        return self.reports[thing]


def deploying(aws: Any, *targets: Target) -> tuple[Work, Deploy]:
    work = Work(MODEL, "pick@2")
    return work, Deploy(work, aws, targets, lambda target: {"targetArn": target.arn})


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BUSY, AwsError("500", "InternalServer", fleeting=True)])
def test_a_deployment_that_may_have_been_made_keeps_its_parts(bench: Any, error: BaseException) -> None:
    """AWS had it already when Ctrl-C came, and its component and image were deleted."""
    ports, removed, _ = bench
    work, step = deploying(FakeAws(deploy=error), ARMS)
    with pytest.raises(type(error)):
        carry_out([FakeStep("image"), step], ports)
    assert removed == []
    assert (work.asked, work.deployed) == ([ARMS], [])


def test_a_deployment_that_aws_refuses_leaves_nothing(bench: Any) -> None:
    ports, removed, _ = bench
    work, step = deploying(FakeAws(deploy=AwsError("no", "AccessDeniedException")), ARMS)
    with pytest.raises(AwsError):
        carry_out([FakeStep("image"), step], ports)
    assert removed == ["image"]
    assert work.asked == []


def test_a_deployment_is_known_from_its_answer_on() -> None:
    work, step = deploying(FakeAws(deployment=KeyboardInterrupt()), ARMS)
    with pytest.raises(KeyboardInterrupt):
        step.run(View())
    assert [one.deployment_id for one in work.deployed] == ["d-arn:arms"]
    work, step = deploying(FakeAws(deployment=BUSY), ARMS, HALL)
    assert step.run(View()) == "deployment d-arn:arms to group arms, d-arn:hall to group hall"
    assert [one.created_s for one in work.deployed] == [1001.0, 1000.0]


def watching(aws: Any, targets: tuple[Target, ...] = (ARMS, HALL), *, stop: bool = True) -> Watch:
    """Both were deployed to; `targets` are of this wave."""
    work, step = deploying(FakeAws(), ARMS, HALL)
    step.run(View())
    now_s = itertools.count(1020.0)
    clock = Clock(lambda: next(now_s), lambda: 1020.0, lambda _: None)
    return Watch(work, aws, aws, targets, Patience(10.0, 1.0, stop_at_first=stop), clock=clock)


def test_a_moment_without_network_does_not_end_the_waiting() -> None:
    assert watching(FakeAws(deployment=BUSY)).run(View()) == "2 of 2 devices succeeded"
    with pytest.raises(AwsError, match="no permission"):
        watching(FakeAws(deployment=AwsError("no permission", "AccessDenied"))).run(View())

    class Gone(FakeAws):
        def deployment(self, deployment_id: str) -> dict[str, Any]:
            raise BUSY

    with pytest.raises(AwsError, match="cannot be reached"):
        watching(Gone()).run(View())

    class Fading(FakeAws):
        """One look, then no network."""

        def report(self, thing: str) -> Report:
            self.deployment = Gone().deployment  # type: ignore[method-assign]
            return told("retrying")

    with pytest.raises(WaitingError, match="1 of 1 devices have not answered"):
        watching(Fading(), (ARMS,)).run(View())


def test_a_refusal_names_every_target_and_cancels_what_it_can() -> None:
    """Of the waves before, too. A cancel that failed hid the refusal, and the rest went on."""
    aws = FakeAws(cancel=AwsError("no permission to cancel", "AccessDenied"))
    aws.reports["arm-2"] = told("refused", reason="NaN")
    options = "--group arms --group hall"
    with pytest.raises(
        RefusedError, match=f"arm-2 refused: NaN.*rollback {options}`.*group arms could not be"
    ) as told_:
        watching(aws).run(View())
    assert "no permission to cancel" in str(told_.value)
    assert aws.cancelled == ["d-arn:arms", "d-arn:hall"]
    with pytest.raises(RefusedError, match=f"rollback {options}`"):
        watching(aws, (HALL,), stop=False).run(View())


def test_a_device_is_asked_for_the_prompt_that_was_deployed() -> None:
    class Prompted(FakeAws):
        def deployment(self, deployment_id: str) -> dict[str, Any]:
            update = {"reset": ["/model"], "merge": '{"model": {"prompt": "go"}}'}
            return super().deployment(deployment_id) | {"components": {MODEL: {"configurationUpdate": update}}}

    aws, made = Prompted(), Deployed(ARMS, "d-1", 1000.0, "pick@2", "ab")
    for prompt, sha256, kind in (("go", "ab", "succeeded"), ("stop", "ab", "updating"), ("go", "cd", "updating")):
        aws.reports["arm-1"] = told("succeeded", at_s=10.0, wish=Wish(prompt, "blue_green", sha256))
        (outcome,) = look(cast("Any", aws), cast("Any", aws), [made], 5000.0)
        assert outcome.kind == kind


def test_who_is_late_is_told_both_ways_on() -> None:
    aws = FakeAws()
    aws.reports["arm-2"] = told("retrying")
    options = "--group arms --group hall"
    with pytest.raises(WaitingError, match=f"status {options} --wait 2h`, or .*rollback {options}`"):
        watching(aws).run(View())


# --- usage ------------------------------------------------------------------------------------------------------------


def words(verb: str, *given_words: object) -> argparse.Namespace:
    """Parsed as the command line is."""
    return make_parser("release", release.COMMAND).parse_args([verb, *map(str, given_words)])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHECKOUT / "models/expert", tmp_path / "expert"))


@pytest.mark.parametrize(
    ("given_words", "told_"),
    [
        ((), "name the robots: --thing, --group, or --devices-of"),
        (("--group", "g", "--canary", "abc"), "canary 'abc'"),
        (("--devices-of", "g", "--canary", "1", "--wait", "0"), "--wait 0 cannot"),
        (("--group", "g", "--canary", "1,100%"), "name several groups"),
        (("--group", "g", "--by", "artifact"), "--by artifact needs --bucket"),
        (("--group", "g", "--by", "artifact", "--bucket", "Bad_Bucket"), "--bucket 'Bad_Bucket': 3 to 63"),
        (("--group", "g", "--by", "artifact", "--bucket", "abc", "--prefix", "a b/"), "no plain URI"),
        (("--group", "g", "--by", "download"), "--by download needs --uri"),
        (("--group", "g", "--by", "download", "--uri", "https://host/{x}"), "no plain URI"),
        (("--group", "g", "--uri", "s3://x", "--bucket", "y"), "--bucket is for --by artifact, --uri is for --by down"),
        (
            ("--group", "g", "--by", "artifact", "--bucket", "abc", "--registry", "r.example"),
            "--registry is for --by i",
        ),
        (("--group", "g", "--platform", "foo"), "--platform 'foo': write OS/ARCH"),
        (("--group", "g", "--repository", "UPPER"), "--repository 'UPPER': 2 to 256 lower-case"),
        (("--group", "g", "--registry", "http://x/y"), "--registry 'http://x/y': write its host or host:port"),
        (("--group", "g", "--base", "a b"), "image 'a b' is no reference"),
        (("--group", "g", "--dockerfile", "/nope"), "no /nope here; --dockerfile"),
        (("--group", "g", "--component-version", "v2"), "'v2' is not of the form 1.4.0"),
        (("--group", "g", "--model-version", "a b"), "--model-version 'a b'"),
        (("--group", "g", "--key", "/nope.pem"), "/nope.pem: No such file"),
        (("--group", "g", "--key", CHECKOUT / "README.md"), "README.md: is no unencrypted private key"),
    ],
)
def test_a_wrong_command_is_told_without_aws(model: Path, given_words: tuple[object, ...], told_: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told_)):
        usage.demand_model(words("deploy", model, *given_words))


def test_a_right_command_passes(model: Path) -> None:
    for given_words in (
        (
            "--group",
            "a",
            "--platform",
            "linux/arm64/v8",
            "--registry",
            "127.0.0.1:5000",
            "--repository",
            "me/evergreen",
        ),
        ("--thing", "a", "--registry", "localhost", "--base", "localhost/robot:1", "--canary", "1,100%"),
        ("--devices-of", "a", "--devices-of", "b", "--canary", "1,100%"),
        ("--group", "a", "--by", "artifact", "--bucket", "my-models", "--prefix", "fleet/"),
        ("--group", "a", "--by", "download", "--uri", "https://host/m.tar.gz"),
    ):
        usage.demand_model(words("deploy", model, *given_words))
    assert words("deploy", model, "--devices-of", "a", "--devices-of", "b").devices_of == ["a", "b"]


def test_wrong_commands_of_the_other_verbs_are_told_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model folder .*nope does not exist"):
        usage.demand_model(words("deploy", tmp_path / "nope", "--group", "g"))
    with pytest.raises(ManifestError, match="is no model"):
        usage.demand_model(words("deploy", tmp_path, "--group", "g"))
    for wrong in ("nonsense", "a@", "@1", "a@b@c", "a b@1"):
        with pytest.raises(ConfigError, match="write NAME@VERSION"):
            usage.demand_rollback(words("rollback", "--group", "g", "--to", wrong))
    usage.demand_rollback(words("rollback", "--group", "g", "--to", "evergreen-black@1.0.0"))
    with pytest.raises(ConfigError, match=r"--configuration .*nope"):
        usage.demand_robot(words("robot", "evergreen", "--group", "g", "--configuration", tmp_path / "nope"))
    with pytest.raises(ConfigError, match="is no reference"):
        usage.demand_robot(words("robot", "a b", "--group", "g"))
    for verb in ("status", "rollback"):
        with pytest.raises(ConfigError, match="name the robots"):
            usage.demand_targets(words(verb))


def test_the_help_names_every_part_of_the_robots_configuration() -> None:
    facts_ = recipes.Facts("1.0.0", "registry.example/robot:1")
    defaults = recipes.render("robot", recipes.LITE, facts_)["ComponentConfiguration"]["DefaultConfiguration"]
    parser = argparse.ArgumentParser()
    robot.VERB.configure(parser)
    (told_,) = (action.help or "" for action in parser._actions if action.dest == "configuration")
    assert set(defaults) <= set(re.findall(r"\w+", told_))


def test_a_dry_run_looks_at_the_files_as_packing_does(model: Path, tmp_path: Path) -> None:
    def packing(version: str | None = None, key: Path | None = None) -> Pack:
        return Pack(Work(MODEL), model, PackWanted.parse(None, version, None, ()), key, None)

    packing().foresee()
    (model / "NOTES.md").write_text("another file\n")
    packing().foresee()
    key = tmp_path / "key.pem"
    signing.generate(key)
    packing(key=key).run(View())
    packing().foresee()
    with pytest.raises(SignatureError, match="would lose its signature"):
        packing("2.0.0").foresee()
    packing("2.0.0", key).foresee()
    (model / "NOTES.md").write_text("other words\n")
    with pytest.raises(ManifestError, match=r"NOTES\.md has .* bytes instead of 13.*--model-version"):
        packing(key=key).foresee()
    (model / "NOTES.md").unlink()
    with pytest.raises(ManifestError, match=r"NOTES\.md is missing"):
        packing(key=key).foresee()
    packing("2.0.0", key).foresee()
    (model / "run.py").write_text("")
    with pytest.raises(ManifestError, match=r"run\.py"):
        packing("2.0.0", key).foresee()


def test_the_region_of_the_environment_and_an_endpoint_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(AwsError, match="no AWS region"):
        Aws()
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert Aws().region == "eu-central-1"
    assert Aws(region="eu-west-1").region == "eu-west-1"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "garbage")
    with pytest.raises(AwsError, match="Invalid endpoint: garbage; is AWS_ENDPOINT_URL right"):
        Aws().client("sts")


# --- addresses --------------------------------------------------------------------------------------------------------


def test_an_address_with_a_secret_is_refused() -> None:
    for lasting in ("https://host/m.tar.gz", "s3://bucket/m", "hf:me/m@main"):
        demand_lasting(lasting)
    for secret in ("https://host/m?X-Amz-Signature=secret", "https://me:secret@host/m", "https://host/m#secret"):
        with pytest.raises(ConfigError, match="--uri https://host/m has more to it") as told_:
            demand_lasting(secret)
        assert "secret@" not in str(told_.value)
        assert "=secret" not in str(told_.value)


def test_an_image_without_a_registry_is_nobodys() -> None:
    assert registry.parts("evergren") == ("", "evergren", "latest")
    assert registry.parts("me/evergren:1") == ("", "me/evergren", "1")
    assert registry.parts("localhost/evergreen") == ("localhost", "evergreen", "latest")
    assert registry.parts("host:5000/a/b") == ("host:5000", "a/b", "latest")
    assert registry.parts("registry.example/robot:7") == ("registry.example", "robot", "7")
    assert registry.parts("registry.example/robot:7@sha256:ab") == ("registry.example", "robot", "@sha256:ab")


def test_after_the_deployment_nothing_is_undone(bench: Any) -> None:
    ports, removed, _ = bench
    steps = [FakeStep("a"), FakeStep("deploy", settles=True), FakeStep("wait", ReleaseError("late"))]
    with pytest.raises(ReleaseError, match="late"):
        carry_out(steps, ports)
    assert removed == ["wait"]


def test_what_cannot_be_undone_is_told_and_kept_for_clean(bench: Any, tmp_path: Path) -> None:
    ports, removed, said = bench
    with pytest.raises(ReleaseError, match="boom"):
        carry_out([FakeStep("stuck"), FakeStep("b"), FakeStep("c", ReleaseError("boom"))], ports)
    assert removed == ["c", "b"]
    assert "stays behind: no network; `evergreen release clean` tries again" in said[-1]
    with journal.unfinished(tmp_path) as running:
        assert running == []  # it still runs
    ports.journal.close()
    with journal.unfinished(tmp_path) as ended:
        (left,) = ended
        assert (left.label, left.account, left.region) == ("pick@1", "123", "eu")
        assert left.leftovers == [Leftover("object", "bucket", "stuck")]
        left.settle()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_note_hinders_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text("")
    with journal.unfinished(tmp_path) as ended:
        assert ended == []


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    """`clean` said that there was nothing to clean up."""
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text("[]")
    running = journal.begin(tmp_path, "123", "eu", "pick@1")
    running.note(Leftover("object", "bucket", "x"))
    assert [path.name for path in journal.unreadable(tmp_path)] == ["a.json", "b.json"]
    running.path.write_text("{")  # being written
    assert running.path not in journal.unreadable(tmp_path)


def test_timings_are_for_programs_too() -> None:
    assert Timing("push", 1.23456, "x").to_dict() == {"step": "push", "seconds": 1.235, "result": "x", "skipped": False}


@pytest.mark.parametrize("address", ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"])
def test_tls_is_off_on_loopback_only(address: str) -> None:
    assert is_loopback(address)
    assert not is_loopback("registry.example:5000")
    assert not is_loopback("localhost.evil.example:5000")
    assert not is_loopback("10.0.0.1:5000")
