"""What the running model wants and answers, and whether this robot can give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError, EvergreenError, ModelError
from vla_core.image import PIPELINE_ID
from vla_core.joints import Units, from_rad, to_rad
from vla_core.manifest import CameraInput, Manifest
from vla_core.observation import IMAGE_KEY, PROMPT_KEY, STAMP_KEY, STATE_KEY, Observation

ACTIONS_KEY = "actions"


@dataclass(frozen=True, slots=True)
class WireKeys:
    """Under which keys a server wants its inputs: Evergreen's own, unless overridden for others.

    Attributes:
        state, prompt, actions: keys of these three.
        images: camera name to key, where it is not `observation.images.<camera>`.
    """

    state: str = STATE_KEY
    prompt: str = PROMPT_KEY
    actions: str = ACTIONS_KEY
    images: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_default(self) -> bool:
        """Whether these are Evergreen's own keys."""
        return self == WireKeys()


def parse_keys(text: str) -> WireKeys:
    """Parse `front=observation/image,state=observation/state`: camera names, `state`, `prompt` and `actions` to keys.

    Raises:
        ConfigError: not of this form.
    """
    given: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, key = (part.strip() for part in pair.partition("="))
        if not (name and equals and key) or name in given:
            raise ConfigError(f"parameter 'wire_keys': {pair!r} is not of the form name=key, once for each name")
        given[name] = key
    return WireKeys(
        state=given.pop("state", STATE_KEY),
        prompt=given.pop("prompt", PROMPT_KEY),
        actions=given.pop("actions", ACTIONS_KEY),
        images=given,
    )


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model wants and answers; the fields are those of `vla_core.manifest.Manifest`.

    Attributes:
        units: of the state that is sent and the actions that come back.
        n_obs_steps, observation_period_s: what the model looks back at; more than one only where its server remembers
            what it is shown (`observe_only`).
        listens: whether its prompt can make a difference; True where nobody knows.
    """

    name: str
    version: str
    joint_names: tuple[str, ...]
    cameras: Mapping[str, CameraInput]
    rate_hz: float
    chunk_size: int
    open_loop_s: float
    units: Units = Units.RAD
    image_pipeline: str = PIPELINE_ID
    prompt: str = ""
    keys: WireKeys = field(default_factory=WireKeys)
    n_obs_steps: int = 1
    observation_period_s: float = 0.1
    listens: bool = True

    def __post_init__(self) -> None:
        if self.units.needs_range:
            raise ModelError(
                f"model {self.label} speaks percent of a range that only its own arm knows; serve it in rad"
            )
        if self.image_pipeline != PIPELINE_ID:
            raise ModelError(
                f"model {self.label} needs image pipeline {self.image_pipeline!r}; this Evergreen has {PIPELINE_ID!r}. "
                "Train the model with it, or run the Evergreen that the model was made with"
            )

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    def interface(self) -> tuple[object, ...]:
        """What must not change while the arm moves."""
        return self.joint_names, dict(self.cameras), self.rate_hz, self.units

    def to_wire(self, observation: Observation) -> dict[str, object]:
        """The message that asks for a chunk."""
        if self.units is Units.RAD and self.keys.is_default:
            return observation.to_wire()
        state = from_rad(observation.state, self.units, ()).astype(np.float32)
        message: dict[str, object] = {
            self.keys.images.get(name, IMAGE_KEY + name): image for name, image in observation.images.items()
        }
        return message | {
            self.keys.state: state,
            self.keys.prompt: observation.prompt,
            STAMP_KEY: observation.stamp_ns,
        }

    def to_rad(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """The answer `(horizon, dof)` in rad.

        Raises:
            ModelError: it has another number of joints than the model promised.
        """
        if actions.shape[1] != len(self.joint_names):
            raise ModelError(
                f"model {self.label} answered {actions.shape[1]} joints for {len(self.joint_names)}: "
                f"{', '.join(self.joint_names)}"
            )
        return to_rad(actions, self.units, ())


def from_manifest(manifest: Manifest, keys: WireKeys) -> ModelSpec:
    """The spec of somebody else's server, which a manifest of ours describes.

    Raises:
        ModelError: its joints speak units that only Evergreen's own server converts.
    """
    if manifest.joint_units:
        raise ModelError(
            f"model {manifest.label} has joints of different units (joint_units); "
            "serve it with Evergreen's policy_server, which converts them"
        )
    return ModelSpec(
        name=manifest.name,
        version=manifest.version,
        joint_names=manifest.joint_names,
        cameras=manifest.cameras,
        rate_hz=manifest.rate_hz,
        chunk_size=manifest.chunk_size,
        open_loop_s=manifest.open_loop_s,
        units=manifest.units,
        image_pipeline=manifest.image_pipeline,
        prompt=manifest.prompt,
        keys=keys,
    )


REQUIRED = ("joint_names", "cameras", "rate_hz", "chunk_size")


def is_self_describing(metadata: Mapping[str, Any]) -> bool:
    """Whether a server's metadata say what its model wants, as every Evergreen server's do."""
    return all(key in metadata for key in REQUIRED)


def from_metadata(metadata: Mapping[str, Any], keys: WireKeys) -> ModelSpec:
    """The spec that a server announced.

    Raises:
        ModelError: its metadata contradict themselves.
    """
    try:
        rate_hz, chunk_size = float(metadata["rate_hz"]), int(metadata["chunk_size"])
        return ModelSpec(
            name=str(metadata.get("name", "unnamed")),
            version=str(metadata.get("version", "0")),
            joint_names=tuple(str(name) for name in metadata["joint_names"]),
            cameras={
                str(name): CameraInput(int(size["width"]), int(size["height"]))
                for name, size in metadata["cameras"].items()
            },
            rate_hz=rate_hz,
            chunk_size=chunk_size,
            open_loop_s=float(metadata.get("open_loop_s", chunk_size / rate_hz)),
            units=Units(metadata.get("units", "rad")),
            image_pipeline=str(metadata.get("image_pipeline", PIPELINE_ID)),
            prompt=str(metadata.get("prompt", "")),
            keys=keys,
            n_obs_steps=int(metadata.get("n_obs_steps", 1)),
            observation_period_s=float(metadata.get("observation_period_s", 1.0 / rate_hz)),
            listens=bool(metadata.get("listens", True)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ModelError(f"the server's metadata do not describe a model: {error!r}") from error
    except ModelError:
        raise
    except EvergreenError as error:
        raise ModelError(f"the server's metadata do not describe a model: {error}") from error


def check_robot(spec: ModelSpec, cameras: Sequence[str], joint_names: Sequence[str]) -> None:
    """Refuse a model that sees or moves what this robot does not have.

    Raises:
        ModelError: names what is missing and what to change.
    """
    if missing := [name for name in spec.cameras if name not in cameras]:
        raise ModelError(
            f"model {spec.label} wants camera(s) {', '.join(missing)}; this robot has {', '.join(cameras) or 'none'}. "
            "Choose another model, or rename the camera in the cameras' configuration and in /policy's 'cameras'"
        )
    if missing := [name for name in spec.joint_names if name not in joint_names]:
        raise ModelError(
            f"model {spec.label} moves joint(s) {', '.join(missing)}; this robot has {', '.join(joint_names)}. "
            "Choose another model, or correct joint_names in its manifest.json or in /policy's parameters"
        )
    if idle := [name for name in joint_names if name not in spec.joint_names]:
        raise ModelError(
            f"model {spec.label} does not move joint(s) {', '.join(idle)}; the arm's driver wants a target for each. "
            "Choose another model, or take them out of joint_names of /policy and of the driver"
        )
