"""Swaps of the node `/policy` as a process: real servers, ONNX models and a store; only the robot is the test's."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("rclpy")

import test_policy_node as base
from policy_support import write_model
from test_policy_node import Robot, StartPolicy, healthy_robot, robot, start_policy  # noqa: F401  fixtures

from vla_core.store import Store
from vla_core.swap import Mode, Outcome, Stage, SwapRequest, SwapStatus
from vla_ros.stamps import to_ns
from vla_ros.swap_client import SwapClient

pytestmark = [pytest.mark.ros, pytest.mark.timeout(900)]

PROBATION_S = 1.0
SWAPS = 5
"""Fifty go through the whole graph in `tests/test_update_many.py`."""
OPEN_LOOP_S = 1.8
PATIENT = {"max_image_age_s": 5.0, "max_state_age_s": 5.0, "max_chunk_age_s": 10.0, "follow_timeout_s": 20.0}
"""A loaded machine must not look like a fault: the test's own robot may be late with its pictures."""
UNFILMED = "rear"
"""A camera that this robot has, and that sends no picture in these tests: who sees through it waits in `warm_up`."""
LOADING = 20
"""Products of matrices when a model is loaded: a second or more, in which its server can be killed."""
STAGES = ["verify", "start", "warm_up", "judge", "switch", "probation"]
_ids = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def own_domain() -> Iterator[None]:
    """Nothing meets the nodes of a test run beside this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "DOMAIN", "52")
        yield


class Swapping:
    """A store, a policy that runs from it, and a client that asks it for models."""

    def __init__(self, folder: Path, robot: Robot, start: StartPolicy) -> None:  # noqa: F811
        self.folder = folder
        self.robot = robot
        self.store = Store(folder / "store")
        self._start = start
        self.statuses: list[SwapStatus] = []
        self.client = SwapClient(robot.node, on_status=self.statuses.append)
        self.policy: base.PolicyProcess | None = None

    def add(self, version: str, **how: object) -> str:
        """A model in the store; returns its label."""
        fields = {"open_loop_s": OPEN_LOOP_S} | how
        return self.store.adopt(write_model(self.folder / version, version=version, **fields))

    def run(self, model: str = "", *, until: str = "driving", **parameters: object) -> None:
        """Start the policy, and wait for a state that lasts."""
        given = {"autostart": True, "store": self.store.root, "probation_s": PROBATION_S} | PATIENT | parameters
        self.robot.status = None
        self.policy = self._start(model, **{name: value for name, value in given.items() if value is not None})
        if until:
            self.robot.wait_state(until, self.policy)

    def ask(self, model: str, request_id: str = "", **how: object) -> str:
        """Ask; returns the request's id once it is taken."""
        request = SwapRequest(model, request_id or f"test-{next(_ids)}", **how)
        self.robot.wait("the policy", lambda: self.client.is_ready, self.policy)
        taken = self.client.request(request)
        self.robot.wait("its receipt", taken.done, self.policy)
        assert taken.result().successful, taken.result().reason
        return request.request_id

    def wait_answer(self, request_id: str) -> SwapStatus:
        self.robot.wait(f"answer to {request_id}", lambda: self.client.answer(request_id), self.policy)
        return self.client.answer(request_id)

    def swap(self, model: str, **how: object) -> SwapStatus:
        return self.wait_answer(self.ask(model, **how))

    def wait_stage(self, request_id: str, stage: Stage) -> None:
        """It has begun; it may be over by now."""

        def there() -> bool:
            return any(said.request_id == request_id and stage in said.timeline for said in self.statuses)

        self.robot.wait(f"stage {stage}", there, self.policy)

    def stages(self, request_id: str) -> list[str]:
        said = [str(status.stage) for status in self.statuses if status.request_id == request_id and status.stage]
        return [stage for stage, _ in itertools.groupby(said)]

    def commanded_gaps_s(self) -> list[float]:
        """How long the arm stood between two trajectories, each time that it did."""
        ends, gaps = None, []
        for message in self.robot.trajectories:
            stamp_ns = to_ns(message.header.stamp)
            start_ns = stamp_ns + round(base.seconds(message.points[0].time_from_start) * 1e9)
            if ends is not None and start_ns > ends:
                gaps.append((start_ns - ends) / 1e9)
            ends = stamp_ns + round(base.seconds(message.points[-1].time_from_start) * 1e9)
        return gaps

    def chunks(self) -> dict[str, str]:
        return base.diagnostics.values(self.robot.diagnostics["policy: chunks"])

    def wait_chunk(self) -> None:
        before = len(self.robot.trajectories)
        self.robot.wait("another chunk", lambda: len(self.robot.trajectories) > before, self.policy)

    def wait_one_server(self) -> psutil.Process:
        self.robot.wait("one server", lambda: len(self.policy.servers()) == 1, self.policy)
        return self.policy.servers()[0]

    def close(self) -> None:
        self.client.close()


@pytest.fixture
def swapping(tmp_path: Path, robot: Robot, start_policy: StartPolicy) -> Iterator[Swapping]:  # noqa: F811
    swapping = Swapping(tmp_path, robot, start_policy)
    yield swapping
    swapping.close()


def test_twice_and_with_every_stage_told(swapping: Swapping):
    first, second = swapping.add("1"), swapping.add("2", prompt="put the white cube on the spot")
    swapping.run(str(swapping.folder / "1"))
    assert swapping.store.state().current == first
    swapping.robot.wait("the seed to prove good", lambda: swapping.store.state().last_good == first, swapping.policy)
    old = swapping.wait_one_server()

    answer = swapping.swap(second, request_id="one")
    assert answer.outcome is Outcome.SUCCEEDED, answer
    assert swapping.stages("one") == STAGES
    assert list(answer.timeline) == [*STAGES, "end"]
    assert list(answer.timeline.values()) == sorted(answer.timeline.values())
    assert (answer.active_model, answer.prompt) == (second, "put the white cube on the spot")
    assert answer.state == "driving"
    assert (swapping.store.state().current, swapping.store.state().last_good) == (second, second)
    assert swapping.wait_one_server().pid != old.pid
    assert (swapping.robot.get("model"), swapping.robot.get("active_model")) == (second, second)

    said = len(swapping.statuses)
    swapping.ask(first, request_id="one")  # known: nothing is swapped
    swapping.robot.wait("the answer again", lambda: len(swapping.statuses) > said, swapping.policy)
    assert swapping.statuses[-1].outcome is Outcome.SUCCEEDED
    swapping.robot.wait("the parameter", lambda: swapping.robot.get("model") == second, swapping.policy)

    answer = swapping.swap(second, request_id="two", prompt="put the black cube on the spot")
    assert answer.outcome is Outcome.SUCCEEDED
    assert list(answer.timeline) == ["end"]
    assert answer.prompt == "put the black cube on the spot"
    answer = swapping.swap(first, request_id="three", mode=Mode.RESTART, prompt="wave")
    assert answer.outcome is Outcome.SUCCEEDED
    assert swapping.store.state().current == first

    def outcomes() -> list[str]:
        return [line["outcome"] for line in swapping.store.history() if line["event"] == "swap"]

    swapping.robot.wait("the trail", lambda: len(outcomes()) == 3, swapping.policy)  # written after the answer
    assert outcomes() == ["succeeded"] * 3
    assert swapping.policy.stop() == 0, swapping.policy.text
    swapping.run(str(swapping.folder / "2"), prompt="the launch file's", autostart=False, until="unconfigured")
    assert swapping.robot.transition(base.Transition.TRANSITION_CONFIGURE)
    swapping.robot.wait_state("inactive", swapping.policy)
    assert (swapping.robot.values["active_model"], swapping.robot.values["prompt"]) == (first, "wave")


def corrupt(path: Path) -> None:
    """Change one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_what_is_not_fit_is_refused_and_the_old_model_goes_on(swapping: Swapping):
    good = swapping.add("good")
    faulty = {
        swapping.add("nan", offset=float("nan")): "numbers that are not finite",
        swapping.add("far", offset=1.0): "first action has shoulder_pan",
        swapping.add("beyond", offset=3.0): "beyond its limit",
        swapping.add("side", camera="side"): "wants camera(s) side; this robot has overhead, front",
        swapping.add("five", dof=5): "does not move joint(s) gripper",
        swapping.add("slow", work=150, open_loop_s=1.0): "it is too slow|it gave no answer within",
        swapping.add("contradicted", horizon=30): "where its manifest says",
        swapping.add("cut"): "bytes where the manifest says",
        swapping.add("altered"): "does not match its SHA-256",
        swapping.add("huge", prompt="big"): "MiB of memory",
        "tiny@absent": "is not in the store",
        str(swapping.folder / "good"): "is no name@version; this policy runs what is in its store",
    }
    cut = swapping.store.folder("tiny@cut") / "policy.onnx"
    cut.write_bytes(cut.read_bytes()[:100])
    corrupt(swapping.store.folder("tiny@altered") / "policy.onnx")
    manifest = swapping.store.folder("tiny@huge") / "manifest.json"
    manifest.write_text(re.sub(r'"size": \d+', '"size": 1000000000000', manifest.read_text()))
    swapping.run(str(swapping.folder / "good"))
    server = swapping.wait_one_server()
    for number, (model, reason) in enumerate(faulty.items()):
        answer = swapping.swap(model, request_id=f"faulty-{number}")
        assert answer.outcome is Outcome.REFUSED, (model, answer)
        assert any(words in answer.reason for words in reason.split("|")), (model, answer)
        assert answer.active_model == good
        assert "switch" not in answer.timeline
        swapping.robot.wait("the parameter", lambda: swapping.robot.get("model") == good, swapping.policy)
    swapping.wait_chunk()
    assert swapping.wait_one_server().pid == server.pid
    assert swapping.store.state().current == good
    driving = swapping.policy.text.partition("driving tiny@good")[2]  # before it the first picture may have been late
    assert driving
    assert "holding:" not in driving, driving
    assert swapping.policy.stop() == 0, swapping.policy.text


def test_a_request_that_makes_no_sense_is_not_taken(swapping: Swapping):
    swapping.add("1")
    swapping.run(str(swapping.folder / "1"))
    for values, reason in (
        ({"model": "tiny", "request_id": "a"}, "neither name@version, such as pick@3, nor the path of a folder"),
        ({"model": "tiny@1", "request_id": "a", "swap": "magic"}, "must be one of blue_green, restart"),
        ({"model": "tiny@1", "request_id": "two words"}, "may hold letters, digits"),
    ):
        answer = swapping.robot.set(**values)
        assert not answer.successful
        assert reason in answer.reason


@pytest.mark.parametrize("stage", [Stage.START, Stage.JUDGE])
def test_a_new_server_that_dies_costs_nothing(swapping: Swapping, stage: Stage):
    how = {"camera": UNFILMED, "loading": LOADING} if stage is Stage.START else {"work": 8}  # it lasts for seconds
    good, other = swapping.add("1"), swapping.add("2", **how)
    swapping.run(str(swapping.folder / "1"))
    old = swapping.wait_one_server()
    request_id = swapping.ask(other)
    swapping.wait_stage(request_id, stage)
    swapping.robot.wait("the new server", lambda: len(swapping.policy.servers()) == 2, swapping.policy)
    for server in swapping.policy.servers():
        if server.pid != old.pid:
            server.kill()
    answer = swapping.wait_answer(request_id)
    assert answer.outcome is Outcome.REFUSED, answer
    assert answer.active_model == good
    swapping.wait_chunk()
    assert swapping.wait_one_server().pid == old.pid
    assert swapping.commanded_gaps_s() == []


def test_a_new_server_that_dies_on_probation_gives_way_without_a_gap(swapping: Swapping):
    good, other = swapping.add("1"), swapping.add("2", camera="wrist")
    swapping.robot.film_too("wrist")
    swapping.run(str(swapping.folder / "1"), probation_s=600.0)
    old = swapping.wait_one_server()
    request_id = swapping.ask(other)
    swapping.wait_stage(request_id, Stage.PROBATION)
    (new,) = [server for server in swapping.policy.servers() if server.pid != old.pid]
    new.kill()
    answer = swapping.wait_answer(request_id)
    assert answer.outcome is Outcome.ROLLED_BACK, answer
    assert "server" in answer.reason
    swapping.robot.wait("the old model", lambda: swapping.robot.values["active_model"] == good, swapping.policy)
    swapping.wait_chunk()
    assert swapping.robot.values["state"] == "driving"
    assert swapping.commanded_gaps_s() == []
    assert swapping.wait_one_server().pid == old.pid
    swapping.robot.wait("the store", lambda: swapping.store.state().current == good, swapping.policy)
    assert swapping.robot.get("model") == good


def test_the_old_server_may_die_meanwhile(swapping: Swapping):
    swapping.add("1")
    other = swapping.add("2", work=2)
    swapping.run(str(swapping.folder / "1"))
    request_id = swapping.ask(other)
    swapping.wait_stage(request_id, Stage.START)
    swapping.policy.servers()[0].kill()
    assert swapping.wait_answer(request_id).outcome is Outcome.SUCCEEDED
    swapping.robot.wait_state("driving", swapping.policy)
    swapping.wait_one_server()


def test_the_newest_request_wins_and_the_older_is_told(swapping: Swapping):
    swapping.add("1")
    second, third = swapping.add("2"), swapping.add("3")
    swapping.run(str(swapping.folder / "1"), probation_s=600.0)
    requests = [SwapRequest(second, "older"), SwapRequest(third, "newer")]
    taken = [swapping.client.request(request) for request in requests]
    swapping.robot.wait("both to be taken", lambda: all(one.done() for one in taken), swapping.policy)
    assert swapping.wait_answer("older").outcome is Outcome.SUPERSEDED
    swapping.wait_stage("newer", Stage.PROBATION)
    assert swapping.robot.get("model") == third
    fourth = swapping.add("4")
    swapping.ask(fourth, "newest")
    assert swapping.wait_answer("newer").outcome is Outcome.SUPERSEDED, "on probation, too"
    swapping.wait_stage("newest", Stage.PROBATION)
    swapping.robot.wait("it", lambda: swapping.robot.values["active_model"] == fourth, swapping.policy)
    assert swapping.commanded_gaps_s() == []
    swapping.robot.wait("two servers", lambda: len(swapping.policy.servers()) == 2, swapping.policy)
    assert swapping.policy.stop() == 0, swapping.policy.text


def test_many_in_a_row_without_a_gap(swapping: Swapping):
    models = [swapping.add(version) for version in "12"]
    swapping.run(str(swapping.folder / "1"), probation_s=0.0)
    for number in range(SWAPS):
        answer = swapping.swap(models[(number + 1) % 2])
        assert answer.outcome is Outcome.SUCCEEDED, answer
    swapping.wait_one_server()
    assert swapping.commanded_gaps_s() == []
    driving = swapping.policy.text.partition("driving tiny@1")[2]  # before it the first picture may have been late
    assert driving
    assert "holding:" not in driving, driving
    swapping.robot.wait("the store", lambda: swapping.store.state().last_good == models[SWAPS % 2], swapping.policy)
    assert swapping.policy.stop() == 0, swapping.policy.text


@pytest.mark.parametrize("until", ["unconfigured", "inactive"])
def test_while_nothing_drives_it_stays_so(swapping: Swapping, until: str):
    swapping.add("1")
    other = swapping.add("2")
    swapping.run(
        str(swapping.folder / "1"),
        until="unconfigured",
        autostart=False,
        observation_timeout_s=0.5,
        max_image_age_s=0.5,
    )
    if until == "inactive":
        assert swapping.robot.transition(base.Transition.TRANSITION_CONFIGURE)
        swapping.robot.filming = False  # nor is there anything to judge by
    answer = swapping.swap(other)
    assert answer.outcome is Outcome.SUCCEEDED, answer
    assert (answer.active_model, swapping.robot.lifecycle()) == (other, "inactive")
    assert swapping.store.state().current == other
    assert swapping.robot.trajectories == []
    swapping.robot.filming = True
    assert swapping.robot.trigger("policy/start").success
    swapping.robot.wait_state("driving", swapping.policy)
    assert swapping.robot.values["active_model"] == other
    swapping.wait_one_server()
    swapping.robot.wait("it to prove good", lambda: swapping.store.state().last_good == other, swapping.policy)


def test_without_a_picture_to_judge_by_it_is_refused(swapping: Swapping):
    good, other = swapping.add("1"), swapping.add("2")
    swapping.run(str(swapping.folder / "1"), observation_timeout_s=0.5, max_image_age_s=0.5)
    swapping.robot.filming = False
    swapping.robot.wait_state("holding", swapping.policy)
    answer = swapping.swap(other)
    assert answer.outcome is Outcome.REFUSED
    assert "camera front: no picture newer than 0.5 s" in answer.reason
    assert answer.active_model == good


def test_a_respawned_policy_drives_the_store_s_model_or_the_last_good_one(swapping: Swapping):
    good, other = swapping.add("1"), swapping.add("2")
    seed = str(swapping.folder / "1")
    swapping.run(seed)
    swapping.robot.wait("the seed to prove good", lambda: swapping.store.state().last_good == good, swapping.policy)
    assert swapping.swap(other).outcome is Outcome.SUCCEEDED
    third, unseeing = swapping.add("3"), swapping.add("4", camera=UNFILMED)
    for stage in (Stage.VERIFY, Stage.START, Stage.PROBATION):
        swapping.policy.stop()
        swapping.run(seed, probation_s=600.0)
        assert swapping.robot.values["active_model"] == other
        request_id = swapping.ask(third if stage is Stage.PROBATION else unseeing)  # that one is never switched to
        swapping.wait_stage(request_id, stage)
        expected = third if stage is Stage.PROBATION else other
        swapping.robot.wait("the store", lambda e=expected: swapping.store.state().current == e, swapping.policy)
        swapping.policy.stop(signal.SIGKILL)
    swapping.robot.status = None
    corrupt(swapping.store.folder(third) / "policy.onnx")
    swapping.run(seed)  # third is current, unproved, and does not load
    assert swapping.robot.values["active_model"] == other
    # Not the status' reason: a hold for want of a first picture may have taken its place.
    assert [line["label"] for line in swapping.store.history() if line["event"] == "fell_back"] == [other]
    assert swapping.store.state().current == other
    assert [line["before"] for line in swapping.store.history() if line["event"] == "fell_back"] == [third]
    assert swapping.policy.stop() == 0, swapping.policy.text


def test_a_model_that_fails_unproved_gives_way_to_the_last_good_one(swapping: Swapping):
    good, other = swapping.add("1"), swapping.add("2")
    swapping.run(str(swapping.folder / "1"))
    swapping.robot.wait("the seed to prove good", lambda: swapping.store.state().last_good == good, swapping.policy)
    swapping.policy.stop()
    swapping.store.set_current(other)
    swapping.run(probation_s=600.0)
    assert swapping.robot.values["active_model"] == other
    corrupt(swapping.store.folder(other) / "policy.onnx")
    swapping.wait_one_server().kill()
    swapping.robot.wait("the last good", lambda: swapping.robot.values["active_model"] == good, swapping.policy)
    swapping.robot.wait_state("driving", swapping.policy)
    assert f"went back to {good}" in swapping.robot.values["reason"]
    assert swapping.robot.get("model") == good
    swapping.robot.wait("the store", lambda: swapping.store.state().current == good, swapping.policy)


def test_without_a_store_folders_are_swapped(swapping: Swapping):
    first, second = (write_model(swapping.folder / version, version=version) for version in "12")
    swapping.run(str(first), store=None)
    assert "this policy has none" in swapping.swap("tiny@2").reason
    answer = swapping.swap(str(second))
    assert (answer.outcome, answer.active_model) == (Outcome.SUCCEEDED, "tiny@2")
    assert swapping.robot.get("model") == str(second)
