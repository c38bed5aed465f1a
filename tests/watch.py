"""What somebody at the robot sees of a running graph: its topics, and where the arm really is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from commands import pause
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile

from vla_ros import diagnostics, qos
from vla_sim.control import SimClient

WAIT_S = 90.0
SPIN_S = 0.05
STILL_RAD = 0.05
MOVED_RAD = 0.05
REST_RAD = 0.005
"""Below this from one look to the next the arm has come to rest."""
LOOK_S = 0.25
WATCHED_S = 1.0
EVERY_STATUS = QoSProfile(depth=100, reliability=qos.STATUS.reliability, durability=qos.STATUS.durability)
"""A busy machine must not hide a state that was short."""


class Watcher:
    """Listens to one graph; `until` spins."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node("watcher", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self.statuses: dict[str, DiagnosticStatus] = {}
        self.policy: dict[str, str] = {}
        self.bridge: dict[str, str] = {}
        self._history: list[dict[str, str]] = []
        self.at_once: Callable[[dict[str, str]], None] = lambda _: None
        """Called with each status of the policy as it comes: a stage may be over within milliseconds."""
        self._node.create_subscription(DiagnosticStatus, "policy/status", self._on_policy, EVERY_STATUS)
        self._node.create_subscription(DiagnosticStatus, "gg_bridge/status", self._on_bridge, EVERY_STATUS)
        self._node.create_subscription(DiagnosticArray, "diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)

    def _on_policy(self, message: DiagnosticStatus) -> None:
        self.policy = diagnostics.values(message)
        self._history.append(self.policy)
        self.at_once(self.policy)

    def _on_bridge(self, message: DiagnosticStatus) -> None:
        self.bridge = {**diagnostics.values(message), "sentence": message.message}

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.statuses.update({status.name: status for status in message.status})

    def listen(self, kind: type, topic: str, heard: Callable[[Any], None], profile: QoSProfile) -> None:
        """Hear another topic as well."""
        self._node.create_subscription(kind, topic, heard, profile)

    def diagnosis(self, name: str) -> tuple[bytes, str]:
        """Level and message of one status; empty where nobody sent it."""
        status = self.statuses.get(name)
        return (b"", "") if status is None else (status.level, status.message)

    def forget(self) -> None:
        """What was heard of a graph that has ended counts no more."""
        self.policy, self.statuses = {}, {}
        self._history.clear()

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._executor.spin_once(timeout_sec=SPIN_S)
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}; the policy says {self.policy}"

    def until_driving(self) -> None:
        self.until(lambda: self.policy.get("state") == "driving", "the policy drives")
        self._history.clear()

    def until_holding(self, reason: str) -> None:
        """Wait until the policy has held for this reason since it last drove; it may drive again by now."""

        def held() -> bool:
            return any(said["state"] == "holding" and reason in said["reason"] for said in self._history)

        self.until(held, f"the policy holds because of {reason!r}")

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


class Arm:
    """The simulated arm itself, as no node sees it."""

    def __init__(self, client: SimClient) -> None:
        self.client = client

    @property
    def joints(self) -> np.ndarray:
        """Present angles, rad."""
        return np.array(self.client.truth()["joints"])

    def _after(self, seconds: float) -> np.ndarray:
        """Angles `seconds` of simulated time later."""
        truth = self.client.truth()
        end_s = truth["time_s"] + seconds
        while truth["time_s"] < end_s:
            truth = self.client.truth()
            pause()
        return np.array(truth["joints"])

    def moves(self, timeout_s: float = WAIT_S) -> bool:
        """Whether some joint leaves its place within the time."""
        start, deadline = self.joints, time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if np.abs(self._after(LOOK_S) - start).max() > MOVED_RAD:
                return True
        return False

    def comes_to_rest(self, timeout_s: float = 10.0) -> bool:
        """Whether it stands within the time."""
        before, deadline = self.joints, time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            now = self._after(LOOK_S)
            if np.abs(now - before).max() < REST_RAD:
                return True
            before = now
        return False

    def holds(self) -> bool:
        """Whether it comes to rest, stays there, and is under torque."""
        if not self.comes_to_rest():
            return False
        start = self.joints
        still = np.abs(self._after(WATCHED_S) - start).max() < STILL_RAD
        return bool(still) and all(self.client.status()["torque"].values())
