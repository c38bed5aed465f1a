"""A tiny checkpoint of each of LeRobot's types through the ROS graph: pictures, joints, a prompt in, trajectories out.

One policy runs all of them, one after the other, by swaps. The arm changes its pose several times a second, so that
every answer tells which poses the model looked at.
"""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("rclpy")

import test_policy_node
from policy_support import POLL_S
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from test_policy_node import PolicyProcess, Robot
from torch_support import LOAD_S, build, install_plugin
from trajectory_msgs.msg import JointTrajectory

from vla_core import manifest as manifests
from vla_core.image import decode_resize
from vla_core.joints import SO101_JOINTS
from vla_core.observation import OBSERVE_ONLY_KEY
from vla_core.swap import Outcome, SwapRequest, SwapStatus
from vla_policy.serving.torch_backend import TorchBackend
from vla_ros.stamps import to_msg, to_ns
from vla_ros.swap_client import SwapClient
from vla_training import tiny

pytestmark = [pytest.mark.train, pytest.mark.ros, pytest.mark.timeout(2400)]

NEEDS = {"diffusion": "diffusers", "smolvla": "transformers", "tiny_pi0": "transformers", "xvla": "transformers"}
NEEDS["multi_task_dit"] = "diffusers"
KINDS = ("act", "diffusion", "vqbet", "tdmpc", "smolvla", "tiny_pi0", "xvla", "multi_task_dit")
READING = ("smolvla", "tiny_pi0", "xvla", "multi_task_dit")
LOOKING_BACK = {"diffusion": 2, "vqbet": 3, "multi_task_dit": 2}
BLACK, WHITE = "put the black cube on the spot", "put the white cube on the spot"
FRONT = "observation.images.front"
RATE_HZ = 4.0
"""The shortest of their chunks has 5 actions: time enough for an answer on a busy machine."""
PERIOD_S = 0.5
"""Between the observations of those that look back: shorter than the time between chunks, so that they must be fed."""
POSE_S = 0.25
"""How long the arm keeps a pose."""
POSES, SWING_RAD = 16, 0.1
PERIOD_NS, POSE_NS = round(PERIOD_S * 1e9), round(POSE_S * 1e9)
CLOSE_RAD = 1e-5
CHUNKS = 3
ATTEMPTS = 4
"""A swap ends where it began when an answer is late, as on a machine with more to do: the policy is right to."""
PATIENT = {
    "max_image_age_s": 5.0,
    "max_state_age_s": 5.0,
    "max_chunk_age_s": 10.0,
    "follow_timeout_s": 20.0,
    "load_timeout_s": LOAD_S,
}
"""A loaded machine must not look like a fault."""

Poses = tuple[int, ...]
"""Numbers of poses, oldest first."""


def pose(number: int) -> dict[str, float]:
    """The arm in pose `number`; those of one round differ."""
    phase = 2 * math.pi * (number % POSES) / POSES
    return {
        name: centre + SWING_RAD * math.sin(phase + joint)
        for joint, (name, centre) in enumerate(zip(SO101_JOINTS, tiny.CENTRE, strict=True))
    }


class Dancer(Robot):
    """Robot whose arm goes through its poses by the clock, whatever the test computes meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def wait(self, what: str, true: Callable[[], object], policy: PolicyProcess | None = None) -> None:
        deadline, pause = time.monotonic() + LOAD_S, threading.Event()
        while not true():
            pause.wait(POLL_S)
            assert time.monotonic() < deadline, f"no {what}; status {self.values}\n{policy and policy.text}"
            assert policy is None or policy.process.poll() is None, policy.text

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        super().close()

    def _measure(self) -> None:
        now_ns = time.time_ns()
        self.positions = pose(now_ns // POSE_NS)
        message = JointState(name=list(self.positions), position=list(self.positions.values()))
        message.header.stamp = to_msg(now_ns)
        self._states.publish(message)


class Model:
    """One kind's checkpoint, and what it answers when it is asked without any graph."""

    def __init__(self, kind: str, folder: Path, jpeg: bytes) -> None:
        self.kind = kind
        self.folder = folder
        fields = {"rate_hz": RATE_HZ, "observation_period_s": PERIOD_S, "prompt": BLACK}
        build(kind, folder, pictures=() if kind in tiny.ONLY_PICTURE else (FRONT,), **fields)
        chunk_size = manifests.load(folder).chunk_size
        tiny.describe(folder, open_loop_s=chunk_size / RATE_HZ, **fields)  # the last point is the last action itself
        self._backend = TorchBackend(folder, threads=1)
        self._picture = decode_resize(jpeg, tiny.WIDTH, tiny.HEIGHT)
        self.answer = cache(self._answer)

    def _answer(self, poses: Poses, prompt: str) -> np.ndarray:
        """The last action after seeing these poses, one period apart."""
        session = self._backend.open_session()
        for step, number in enumerate(poses):
            observation = {
                FRONT: self._picture,
                "observation.state": np.array(list(pose(number).values()), np.float32),
                "prompt": prompt,
                "stamp_ns": step * PERIOD_NS,
                OBSERVE_ONLY_KEY: step < len(poses) - 1,
            }
            answer = session.infer(observation)
        return answer["actions"][-1]

    def seen(self, sent: JointTrajectory, prompt: str) -> Poses | None:
        """What the model must have looked at to answer this; None where nothing explains it."""
        target = np.array(sent.points[-1].positions)
        newest = to_ns(sent.header.stamp) // POSE_NS  # of the picture: the joints may be a little newer
        for now, back in itertools.product((newest, newest + 1), self._histories()):
            poses = tuple(now - steps for steps in back)
            if np.abs(self.answer(tuple(number % POSES for number in poses), prompt) - target).max() < CLOSE_RAD:
                return poses
        return None

    def _histories(self) -> list[Poses]:
        """How far back what it sees may lie, in poses: one period is two of them, and half a period may be amiss."""
        count = LOOKING_BACK.get(self.kind, 1)
        steps = sorted(
            itertools.product(range(4), repeat=count - 1), key=lambda each: sum(abs(2 - one) for one in each)
        )
        return [tuple(sum(each[index:]) for index in range(count)) for each in steps]


class Stage:
    """The graph: one policy, and a client that asks it for models."""

    def __init__(self, robot: Dancer) -> None:
        self.robot = robot
        self.client = SwapClient(robot.node)
        self.policy: PolicyProcess | None = None
        self._numbers = itertools.count()

    def play(self, model: Model) -> list[JointTrajectory]:
        """Have a model take over; returns what the policy sent since it was asked to."""
        self.robot.trajectories.clear()
        if self.policy is None:
            given = {"autostart": "true", "probation_s": 0.0, "threads": 1, **PATIENT}
            self.policy = PolicyProcess(model.folder, **given)
            self.robot.wait_state("driving", self.policy)
        else:
            for _ in range(ATTEMPTS):
                self.robot.trajectories.clear()
                answer = self.swap(model)
                if answer.outcome is Outcome.SUCCEEDED:
                    break
            assert answer.outcome is Outcome.SUCCEEDED, f"{answer}\n{self.policy.text}"
        self.collect(CHUNKS)
        return list(self.robot.trajectories)

    def swap(self, model: Model) -> SwapStatus:
        request = SwapRequest(str(model.folder), f"swap-{next(self._numbers)}")
        taken = self.client.request(request)
        self.robot.wait("its receipt", taken.done, self.policy)
        assert taken.result().successful, taken.result().reason
        what = f"answer to {request.request_id}"
        self.robot.wait(what, lambda: self.client.answer(request.request_id), self.policy)
        return self.client.answer(request.request_id)

    def collect(self, more: int) -> None:
        count = len(self.robot.trajectories) + more
        self.robot.wait(f"{count} chunks", lambda: len(self.robot.trajectories) >= count, self.policy)

    def find(self, model: Model, prompt: str, length: int, tried: int = 0) -> Poses:
        """Wait until an answer shows that the model read `prompt` and saw `length` different poses."""
        while True:
            for sent in self.robot.trajectories[tried:]:
                tried += 1
                poses = model.seen(sent, prompt)
                if poses and len(set(poses)) == length:
                    return poses
            self.collect(1)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    plugin = install_plugin(tmp_path_factory.mktemp("plugin"))
    run = tempfile.mkdtemp(prefix="eg-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_policy_node, "WAIT_S", LOAD_S)
        patch.setattr(test_policy_node, "DOMAIN", "58")
        patch.setenv("PYTHONPATH", str(plugin))
        patch.setenv("EVERGREEN_RUN_DIR", run)
        stage = Stage(Dancer())
        yield stage
        code = stage.policy.stop() if stage.policy else 0
        stage.client.close()
        stage.robot.close()
    shutil.rmtree(run)
    assert code == 0, stage.policy.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_drives_the_arm_by_what_it_saw_and_was_told(kind: str, stage: Stage, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(kind, "lerobot"))
    model = Model(kind, tmp_path / kind, stage.robot.jpeg)
    count = LOOKING_BACK.get(kind, 1)
    past, still = (4 * step for step in range(count)), (4 * count - 4,) * count
    told_apart = np.abs(model.answer(tuple(past), BLACK) - model.answer(still, BLACK)).max() > 10 * CLOSE_RAD
    assert told_apart == (count > 1), "its answers must tell what it looked at"
    is_swap = stage.policy is not None  # before the first model the robot may not hear the policy yet
    sent = stage.play(model)
    seen = [poses for poses in (model.seen(each, BLACK) for each in sent) if poses]
    assert seen, "nothing that was commanded is what this model answers"
    assert not is_swap or len(set(seen[0])) == 1, f"a swap begins a new history; its first answer knows poses {seen[0]}"
    poses = stage.find(model, BLACK, count)
    assert all(1 <= later - earlier <= 3 for earlier, later in itertools.pairwise(poses)), poses
    now = (poses[-1] % POSES,) * count
    reads = np.abs(model.answer(now, BLACK) - model.answer(now, WHITE)).max() > 10 * CLOSE_RAD
    assert reads == (kind in READING)
    if reads:
        stage.robot.prompts.publish(String(data=WHITE))
        stage.find(model, WHITE, count, len(stage.robot.trajectories))
