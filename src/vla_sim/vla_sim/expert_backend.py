"""The scripted expert as a backend of the policy server.

It looks at no pictures: for each request it reads the truth from the simulator's control socket, plans or follows its
plan, and stamps the answer with the frame that was current when it looked. It listens: the prompt names the cube by its
colour, and may name another one at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

os.environ["MUJOCO_GL"] = "disable"  # before mujoco: a planner draws nothing, and OpenGL takes a second to load

from vla_core import manifest as manifests
from vla_core.errors import ConfigError
from vla_core.manifest import Manifest
from vla_core.metadata import describe
from vla_sim.control import SimClient, SimError
from vla_sim.expert import Expert
from vla_sim.targets import target_of
from vla_sim.truth import Truth

CONTROL_VARIABLE: Final = "EVERGREEN_SIM_CONTROL"
"""Environment variable with the path of the simulator's control socket."""


class ExpertBackend:
    """A folder with a manifest whose backend is `expert`; the simulator is found through EVERGREEN_SIM_CONTROL."""

    def __init__(self, folder: Path | None, *, threads: int = 1) -> None:  # noqa: ARG002  the port has it
        """Read the manifest; the simulator may still be starting.

        Raises:
            ConfigError: nobody said where the simulator is, or there is no folder.
            ManifestError: the folder holds no model.
        """
        if folder is None:
            raise ConfigError("the expert needs the folder of its manifest, which says at what rate it answers")
        self._manifest = manifests.load(folder)
        control = os.environ.get(CONTROL_VARIABLE)
        if not control:
            raise ConfigError(
                f"the expert works in simulation only: set {CONTROL_VARIABLE} to the simulator's --control path"
            )
        self._control = Path(control)
        self._expert = Expert(target=target_of(self._manifest.prompt))

    def metadata(self) -> dict[str, Any]:
        """What clients are told when they connect."""
        return describe(self._manifest)

    def open_session(self) -> ExpertSession:
        """A session that plans anew; sessions share the planner's kinematics, and take turns."""
        return ExpertSession(self._manifest, self._control, self._expert)


class ExpertSession:
    """One client's conversation with the expert."""

    def __init__(self, manifest: Manifest, control: Path, expert: Expert) -> None:
        self._manifest = manifest
        self._control = control
        self._expert = expert
        self._client: SimClient | None = None

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The next targets: `actions` `(horizon, 6)` float32 rad, `stamp_ns` of the frame current when it looked.

        Raises:
            SimError: the simulator is not there.
            ConfigError: the prompt names no cube, or several.
        """
        self._expert.target = target_of(str(observation.get("prompt") or self._manifest.prompt))
        answer = self._look()
        truth = Truth.from_json(answer)
        now_ns = int(answer["stamp_ns"])
        # Dated like a policy that sees: by the newest picture, which is older than the truth. Rows are dated likewise.
        stamp_ns = int(answer.get("frame_stamp_ns") or now_ns)
        seen_s = truth.time_s - (now_ns - stamp_ns) * 1e-9
        actions = self._expert.chunk(truth, truth.joints, seen_s, self._manifest.chunk_size, self._manifest.rate_hz)
        return {"actions": actions.astype(np.float32), "stamp_ns": stamp_ns}

    def _look(self) -> Mapping[str, Any]:
        if self._client is None:
            self._client = SimClient(self._control)
        try:
            return self._client.truth()
        except SimError:
            self._client.close()
            self._client = None
            raise
