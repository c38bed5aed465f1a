"""The parameters of `/policy`, and what follows from them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_core import manifest as manifests
from vla_core.chunk import JoinRules
from vla_core.errors import ConfigError, ModelError
from vla_core.joints import SO101_JOINTS
from vla_core.swap import Mode, SwapRequest, parse_mode
from vla_policy.gate import SO101_LOWER_RAD, SO101_UPPER_RAD, GateLimits, object_to_actions
from vla_policy.loaded import LoopSettings
from vla_policy.model import (
    ModelSpec,
    WireKeys,
    check_robot,
    from_manifest,
    from_metadata,
    is_self_describing,
    parse_keys,
)
from vla_policy.observe import AgeLimits
from vla_policy.probation import Probation, ProbationRules
from vla_policy.schedule import Rhythm
from vla_policy.serving.client import PolicyClient
from vla_policy.serving.link import LOCAL, Link, make_link
from vla_policy.serving.server import read_key
from vla_ros.params import param

CAMERAS = ("overhead", "front", "front_left", "front_right", "left", "right", "rear", "wrist")
REQUEST = ("model", "prompt", "swap", "request_id")
"""Set together with a new `request_id`, they ask for another model."""
CHANGEABLE = frozenset({"server", *REQUEST})
"""Parameters that may be set while the node runs; else they take effect when it is configured the next time."""
BLUE_GREEN = str(Mode.BLUE_GREEN)

ACTIVE_MODEL = "active_model"
"""The parameter that tells what runs; it is the node's to set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of the node."""

    model: str = param("", "the model to run: name@version in the store; where there is no store, its folder")
    store: str = param("", "folder of the model store; empty: that of the environment's EVERGREEN_STORE; else none")
    server: str = param(
        LOCAL, "`local` starts a policy server here; else unix:/path, ws://host:port or wss://host:port"
    )
    prompt: str = param("", "language instruction; empty uses the model's own. The topic `prompt` overrides both")
    swap: str = param(BLUE_GREEN, "how another model takes over", choices=tuple(Mode))
    request_id: str = param("", "a new one, set together with model, prompt and swap, asks for that model")
    autostart: bool = param(False, "configure and activate at start, and again while the server cannot be reached")
    cameras: tuple[str, ...] = param(CAMERAS, "cameras that this robot has")
    joint_names: tuple[str, ...] = param(SO101_JOINTS, "joints that this robot has")
    max_image_age_s: float = param(0.5, "hold when the newest picture is older", unit="s", minimum=0.01, maximum=10)
    max_state_age_s: float = param(
        0.25, "hold when the newest joint state is older", unit="s", minimum=0.01, maximum=10
    )
    open_loop_s: float = param(
        0.0, "most of the future that is commanded; 0 is the model's", unit="s", minimum=0, maximum=60
    )
    request_period_s: float = param(
        0.0, "time between requests; 0 asks as late as is safe", unit="s", minimum=0, maximum=60
    )
    blend_s: float = param(0.15, "how long one chunk fades into the next", unit="s", minimum=0.001, maximum=2)
    blend_velocity_rad_s: float = param(
        1.5,
        "what fading may add to a joint's speed; wider gaps fade for longer",
        unit="rad/s",
        minimum=0.01,
        maximum=20,
    )
    request_timeout_s: float = param(5.0, "how long an answer may take", unit="s", minimum=0.05, maximum=600)
    max_chunk_age_s: float = param(
        1.0, "hold when an answer's pictures are older by the time it is here", unit="s", minimum=0.05, maximum=60
    )
    follow_timeout_s: float = param(
        1.0,
        "hold when the driver took up none of the last three trajectories for so long; 0: this driver never reports",
        unit="s",
        minimum=0,
        maximum=60,
    )
    load_timeout_s: float = param(120.0, "how long a local server may take to load", unit="s", minimum=1, maximum=3600)
    threads: int = param(0, "compute threads of a local server; 0 is half of the cores", minimum=0, maximum=256)
    probation_s: float = param(
        10.0, "how long a new model is watched before the old one's server ends", unit="s", minimum=0, maximum=600
    )
    observation_timeout_s: float = param(
        10.0, "how long a new model waits for something to be judged by", unit="s", minimum=0, maximum=600
    )
    lower_rad: tuple[float, ...] = param(SO101_LOWER_RAD, "lower limit of each joint, for judging a model", unit="rad")
    upper_rad: tuple[float, ...] = param(SO101_UPPER_RAD, "upper limit of each joint, for judging a model", unit="rad")
    max_first_step_rad: float = param(
        1.0, "how far from the arm a new model's first action may be", unit="rad", minimum=0.01, maximum=10
    )
    max_action_rad_s: float = param(
        8.0, "how fast a new model's actions may move a joint", unit="rad/s", minimum=0.1, maximum=100
    )
    api_key_file: str = param("", "file with the key for a remote server; else the environment's EVERGREEN_API_KEY")
    wire_keys: str = param(
        "", "keys of a server that is not Evergreen's: front=observation/image,state=observation/state"
    )

    def __post_init__(self) -> None:
        self.gate()
        ProbationRules(self.probation_s)

    def wire(self) -> WireKeys:
        """Under which keys the server wants its inputs."""
        return parse_keys(self.wire_keys)

    def gate(self) -> GateLimits:
        """What a new model's answers must keep to."""
        limits = (self.lower_rad, self.upper_rad, self.max_first_step_rad, self.max_action_rad_s)
        return GateLimits(self.joint_names, *limits)

    def probation(self, *, patient: bool = False) -> Probation:
        """What a model must show before it counts as good."""
        return Probation(ProbationRules(self.probation_s), patient=patient)

    def objector(
        self, spec: ModelSpec, *, from_rest: bool = False
    ) -> Callable[[NDArray[np.float64], NDArray[np.float64]], str]:
        """What is wrong with an answer of this model, given the pose that it answers; empty where nothing is.

        A model that starts `from_rest` may begin anywhere: the arm goes there slowly, and every other model that knows
        its task would have to go there too.
        """
        limits = replace(self.gate(), pose_rad=math.inf) if from_rest else self.gate()
        return lambda actions, pose: object_to_actions(actions, spec, pose, limits)

    def link(self, log: Callable[[str], None], folder: Path | None = None, *, yields: bool = False) -> Link:
        """The way to the server of the model in `folder`; one of ours `yields` to others while it loads.

        Raises:
            ConfigError: the parameters do not fit together.
        """
        return make_link(
            self.server,
            folder,
            yields=yields,
            threads=self.threads,
            load_timeout_s=self.load_timeout_s,
            api_key=read_key(Path(self.api_key_file) if self.api_key_file else None, os.environ),
            log=log,
        )

    def identify(self, client: PolicyClient, folder: Path | None = None) -> ModelSpec:
        """What the server behind `client` runs, checked against this robot.

        Raises:
            ModelError: the robot lacks what the model wants, or nobody says what that is.
        """
        keys = self.wire()
        if is_self_describing(client.metadata):
            spec = from_metadata(client.metadata, keys)
        elif folder is not None:
            spec = from_manifest(manifests.load(folder), keys)
        else:
            raise ModelError(
                f"server {client.address} does not say what its model wants; set the parameter 'model' to a folder "
                "whose manifest.json describes its cameras, joints and rate"
            )
        check_robot(spec, self.cameras, self.joint_names)
        return spec

    def loop(self, spec: ModelSpec) -> LoopSettings:
        """How to drive with the model `spec`.

        Raises:
            ConfigError: open_loop_s or request_period_s do not fit the model.
        """
        open_loop_s = self.open_loop_s or spec.open_loop_s
        covers_s = spec.chunk_size / spec.rate_hz
        if open_loop_s > covers_s:
            raise ConfigError(
                f"parameter open_loop_s is {open_loop_s:g} s; a chunk of model {spec.label} covers {covers_s:g} s"
            )
        return LoopSettings(
            rules=JoinRules(open_loop_s, self.blend_s, self.blend_velocity_rad_s),
            rhythm=Rhythm(open_loop_s, self.request_period_s),
            ages=AgeLimits(self.max_image_age_s, self.max_state_age_s),
            request_timeout_s=self.request_timeout_s,
            prompt=self.prompt,
            max_chunk_age_s=self.max_chunk_age_s,
            follow_timeout_s=self.follow_timeout_s,
        )


def objection(name: str, value: object, active_model: str) -> str:
    """Why the parameter `name` may not become `value` while the node runs; empty where it may."""
    if name == ACTIVE_MODEL and value != active_model:
        return "active_model is read-only; set 'model' instead"
    if name in Settings.__slots__ and name not in CHANGEABLE:
        return f"{name} is fixed while the node runs; {', '.join(sorted(CHANGEABLE))} are not"
    return ""


def requested(values: Mapping[str, object]) -> SwapRequest:
    """The request that the parameters REQUEST make.

    Raises:
        ConfigError: they are no request.
    """
    model, prompt, swap, request_id = (str(values[name]) for name in REQUEST)
    return SwapRequest(model, request_id, prompt, parse_mode(swap))
