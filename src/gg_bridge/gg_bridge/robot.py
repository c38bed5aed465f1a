"""What this robot has, as far as a model cares, and whether a model fits it.

The policy node knows it, by its parameters; what it said last is kept beside the bridge's memory, for deployments that
come while it does not run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vla_core.manifest import Manifest
from vla_core.pipeline import PIPELINE_ID
from vla_core.store.durable import replace_text

FILE_NAME = "robot.json"


@dataclass(frozen=True, slots=True)
class Robot:
    """Names of its cameras and joints, and the image pipelines that this Evergreen has."""

    cameras: tuple[str, ...]
    joint_names: tuple[str, ...]
    image_pipelines: tuple[str, ...] = (PIPELINE_ID,)

    def objection(self, manifest: Manifest) -> str:
        """Why it cannot run that model; empty where it can. The policy judges again, by what the model really does."""
        label = f"model {manifest.label}"
        if missing := [name for name in manifest.cameras if name not in self.cameras]:
            return f"{label} wants camera(s) {', '.join(missing)}; this robot has {', '.join(self.cameras) or 'none'}"
        if missing := [name for name in manifest.joint_names if name not in self.joint_names]:
            return f"{label} moves joint(s) {', '.join(missing)}; this robot has {', '.join(self.joint_names)}"
        if idle := [name for name in self.joint_names if name not in manifest.joint_names]:
            return f"{label} does not move joint(s) {', '.join(idle)}; this arm wants a target for each"
        if manifest.image_pipeline not in self.image_pipelines:
            return (
                f"{label} was made for image pipeline {manifest.image_pipeline!r}; this robot has "
                f"{', '.join(self.image_pipelines)}: update the robot's software first, or train with that pipeline"
            )
        return ""


def save(folder: Path, robot: Robot) -> None:
    """Keep it."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"cameras": list(robot.cameras), "joint_names": list(robot.joint_names)}
    replace_text(folder / FILE_NAME, json.dumps(document) + "\n")


def load(folder: Path) -> Robot | None:
    """What was kept; None where nothing was, or it cannot be read: the policy will tell."""
    try:
        document = json.loads((folder / FILE_NAME).read_bytes())
        return Robot(tuple(map(str, document["cameras"])), tuple(map(str, document["joint_names"])))
    except (OSError, ValueError, TypeError, KeyError):
        return None
