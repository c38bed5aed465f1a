"""What the policy tells ROS: trajectories, its status, latencies and diagnostics. The control loop's outlet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.duration import Duration
from trajectory_msgs.msg import JointTrajectory

from vla_core.chunk import Plan
from vla_core.prompt_phrases import Match
from vla_policy import messages
from vla_policy.model import ModelSpec
from vla_policy.stages import ChunkTiming, Meter, flatten, verdict
from vla_policy.status import DRIVING, HOLDING, ChunkCounts, PolicyStatus
from vla_ros import diagnostics, qos

LAST_WORD_S = 0.5
"""How long a driver may take to receive the brake when the process ends."""
UNHEARD = {"prompt_target": "", "prompt_phrase": "", "prompt_similarity": ""}
"""Of a prompt that no answer has come to yet."""


def _ignore(model: str, reason: str) -> None:
    """Nobody knows a cure."""


class Outputs:
    """Publishers of one node, and the status that they tell. Any thread may call it."""

    def __init__(self, node: Any, show_active: Callable[[str], None]) -> None:
        """Make the publishers; `show_active` hears with each status what runs."""
        self._node = node
        self._show_active = show_active
        self._saying = threading.Lock()
        self.status, self._counts, self.meter = PolicyStatus(), ChunkCounts(), Meter()
        self.despairs: Callable[[str, str], None] = _ignore
        self.defect: Exception | None = None
        self._trajectories = node.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", qos.TRAJECTORY)
        self._statuses = node.create_publisher(DiagnosticStatus, "~/status", qos.POLICY_STATUS)
        self._latencies = node.create_publisher(DiagnosticStatus, "~/latency", qos.LATENCY)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)

    # The control loop's outlet, in its thread.

    def command(self, plan: Plan, stamp_ns: int, joint_names: Sequence[str]) -> None:
        """Publish a plan; its points' times count from the stamp in the header."""
        if self._node.context.ok():
            self._trajectories.publish(messages.from_plan(plan, stamp_ns, joint_names))

    def chunk_done(self, timing: ChunkTiming, gap_s: float) -> None:
        """Count a chunk and publish its stages."""
        self.meter.add(timing)
        self._counts = self._counts.with_chunk(gap_s)
        if self._node.context.ok():
            self._latencies.publish(self._report("latency", True, "", timing.values()))

    def driving(self, spec: ModelSpec) -> None:
        """Say that it drives."""
        self.say(state=DRIVING, active_model=spec.label)
        self._node.get_logger().info(f"driving {spec.label}")

    def holding(self, reason: str) -> None:
        """Say that it holds, and why."""
        self._counts = self._counts.with_hold()
        self.say(state=HOLDING, reason=reason)
        self._node.get_logger().warning(f"holding: {reason}")

    def heard(self, match: Match | None) -> None:
        """Say what the prompt was taken for."""
        if match is None:
            self.say(**UNHEARD)
            return
        if match.text != self.status.prompt:  # another one has come since it was asked about
            return
        near = f"{match.similarity:.2f}"
        self.say(prompt_target=match.target, prompt_phrase=match.phrase, prompt_similarity=near)
        if match.target:
            self._node.get_logger().info(f"prompt {match.text!r} asks for {match.target} ({near}: {match.phrase!r})")

    def crashed(self, error: Exception) -> None:
        """Keep the defect for the executor, which ends the process with it."""
        self.defect = error

    # Reports.

    def say(self, **changes: str) -> None:
        """Change the status and publish it."""
        with self._saying:
            self.status = status = replace(self.status, **changes)
            if self._node.context.ok():
                self._show_active(status.active_model)
                self._statuses.publish(self._report("", status.is_well, status.sentence, asdict(status)))

    def prompted(self, prompt: str, note: str) -> None:
        """Say that `prompt` is in force, of which no answer has told yet what it was taken for."""
        if note:
            self._node.get_logger().warning(note)
        self.say(prompt=prompt, prompt_note=note, **UNHEARD)

    def diagnose(self) -> None:
        """Publish what /diagnostics gets."""
        summaries, status = self.meter.summaries(), self.status
        latency = self._report("latency", *verdict(summaries), flatten(summaries))
        chunks = self._report("chunks", status.is_well, status.sentence, asdict(self._counts))
        self._diagnostics.publish(diagnostics.array(self._node.get_clock().now().to_msg(), [latency, chunks]))

    def flush(self) -> None:
        """Wait until the last command has been received, for a moment."""
        self._trajectories.wait_for_all_acked(Duration(seconds=LAST_WORD_S))

    def _report(self, part: str, well: bool, sentence: str, values: dict[str, object]) -> DiagnosticStatus:
        return messages.report(self._node.get_fully_qualified_name(), part, well, sentence, values)
