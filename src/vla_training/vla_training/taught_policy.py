"""A taught trajectory as a policy: it looks at nothing, and plays by the clock.

Measured by the harness that measures a learned policy, it says what looking is worth: it succeeds where the cube stands
where it stood, and fails elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_core import taught as files
from vla_core.errors import ConfigError
from vla_core.joints import SO101_JOINTS
from vla_core.taught import SQUEEZE_RAD, Taught


class TaughtPolicy:
    """Called like every policy of `vla_training.evaluate`, with a picture and a state that do not matter."""

    def __init__(self, taught: Taught, clock: Callable[[], float], *, rate_hz: float = 10.0, horizon: int = 20) -> None:
        """Play `taught`.

        Args:
            taught: as it was recorded.
            clock: seconds that rise with the episode; for `vla_sim.world.World`, `lambda: world.time_s`.
            rate_hz: of the actions.
            horizon: actions a call.

        Raises:
            ConfigError: it is of another arm.
        """
        if set(taught.joint_names) != set(SO101_JOINTS):
            raise ConfigError(f"taught joints {', '.join(taught.joint_names)}; wanted are {', '.join(SO101_JOINTS)}")
        order = [taught.joint_names.index(name) for name in SO101_JOINTS]
        self._played = taught.played(1.0, SQUEEZE_RAD)
        self._order = order
        self._clock = clock
        self._began_s: float | None = None
        self._offsets_s = np.arange(horizon) / rate_hz

    def __call__(self, picture: ArrayLike, state: ArrayLike) -> NDArray[np.float64]:  # noqa: ARG002  it looks at nothing
        """The actions from now on: `(horizon, dof)` rad."""
        if self._began_s is None:
            self.begin()
        return self.chunk(self._clock() - (self._began_s or 0.0))

    def begin(self) -> None:
        """An episode begins now; without this the first one begins with the first call."""
        self._began_s = self._clock()

    def chunk(self, time_s: float) -> NDArray[np.float64]:
        """The actions from `time_s` on, seconds since the episode began."""
        actions: NDArray[np.float64] = self._played.at(time_s + self._offsets_s)[:, self._order]
        return actions


def load(path: Path, clock: Callable[[], float], *, rate_hz: float = 10.0, horizon: int = 20) -> TaughtPolicy:
    """The policy of a file of `evergreen teach record`.

    Raises:
        ConfigError: the file is missing, damaged, or of another arm.
    """
    return TaughtPolicy(files.load(path), clock, rate_hz=rate_hz, horizon=horizon)
