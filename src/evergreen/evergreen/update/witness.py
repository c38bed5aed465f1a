"""What was seen of the graph during a story: trajectories, statuses, speeds. The node writes, the story reads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from evergreen.update.timeline import BridgeSaid, Said
from vla_core.setpoints import Commanded
from vla_core.swap import SwapStatus


@dataclass(slots=True)
class Witness:
    """Any thread may call any method; times are monotonic."""

    _commanded: list[Commanded] = field(default_factory=list)
    _policy: list[Said] = field(default_factory=list)
    _bridge: list[BridgeSaid] = field(default_factory=list)
    _speeds: list[tuple[float, float]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_trajectory(self, commanded: Commanded) -> None:
        """Take one trajectory."""
        with self._lock:
            self._commanded.append(commanded)

    def on_policy(self, said: Said) -> None:
        """Take one status of the policy."""
        with self._lock:
            self._policy.append(said)

    def on_bridge(self, said: BridgeSaid) -> None:
        """Take one status of the bridge."""
        with self._lock:
            self._bridge.append(said)

    def on_speed(self, at_s: float, rad_s: float) -> None:
        """Take the speed of the fastest joint."""
        with self._lock:
            self._speeds.append((at_s, rad_s))

    @property
    def commanded(self) -> Sequence[Commanded]:
        """Every trajectory so far, ns."""
        with self._lock:
            return tuple(self._commanded)

    @property
    def policy(self) -> Sequence[Said]:
        """What the policy said so far."""
        with self._lock:
            return tuple(self._policy)

    @property
    def bridge(self) -> Sequence[BridgeSaid]:
        """What the bridge said so far."""
        with self._lock:
            return tuple(self._bridge)

    @property
    def status(self) -> SwapStatus:
        """The policy's newest status."""
        with self._lock:
            return self._policy[-1].status if self._policy else SwapStatus()

    def speeds(self, begin_s: float, end_s: float) -> list[tuple[float, float]]:
        """Time, and speed of the fastest joint, rad/s, within a window."""
        with self._lock:
            return [(at_s, rad_s) for at_s, rad_s in self._speeds if begin_s <= at_s <= end_s]
