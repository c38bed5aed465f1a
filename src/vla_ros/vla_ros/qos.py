"""The QoS profiles of Evergreen's topics, each with its reason (REP-2003)."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _keep_last(depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)


CAMERA_PUB = _keep_last(5, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
"""Sensor drivers publish reliably, so that recorders and viewers of either kind can subscribe (REP-2003)."""

CAMERA_SUB = _keep_last(1, ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
"""A policy wants the newest frame only: a repaired old one would be worse than none."""

JOINT_STATES = _keep_last(10, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
"""Published reliably, so that robot_state_publisher and recorders (system default) match."""

JOINT_STATES_SUB = _keep_last(1, ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
"""Control wants the newest state only."""

TRAJECTORY = _keep_last(10, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
"""A lost chunk would be a gap in motion; ten outlast any hiccup of an executor."""

STATUS = _keep_last(1, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
"""Whoever comes late must learn the present state."""

POLICY_STATUS = _keep_last(10, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
"""As STATUS; the stages of a swap follow each other within milliseconds, and whoever asked must hear the outcome."""

PROMPT = _keep_last(1, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
"""Not latched: a prompt that outlives its speaker would surprise the next model."""

DIAGNOSTICS = _keep_last(10, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
"""What diagnostic_aggregator and rqt_robot_monitor expect."""

LATENCY = _keep_last(50, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
"""One small message a chunk; measurements must not lose samples."""

RECORDING_DEPTH = 30
"""A second of a camera: a recorder may be held up by a slow disk."""


def recording(offered: Sequence[QoSProfile]) -> QoSProfile:
    """What a recorder asks for, so that it hears all of a topic's publishers and misses as little as they allow."""
    reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in offered)
    lasting = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
    return _keep_last(
        RECORDING_DEPTH,
        ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        DurabilityPolicy.TRANSIENT_LOCAL if lasting else DurabilityPolicy.VOLATILE,
    )
