"""Runs any LeRobot checkpoint that its own release can load from a folder: ACT, diffusion, VQ-BeT, TDMPC, SmolVLA.

The one policy serves every session: what a session remembers (`history`) is kept here and given to the policy anew with
each request. Units, joint order and camera names outside are the robot's; the manifest says what the checkpoint's are.
A client whose policy looks back may send observations between its requests with the key `observe_only`: they are
remembered, and answered with no actions.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_core import checkpoint
from vla_core import manifest as manifests
from vla_core.checkpoint import CONFIG_FILE, PROCESSOR_FILES, WEIGHTS_FILE, Checkpoint
from vla_core.errors import EvergreenError, ManifestError, ModelError, WireError
from vla_core.manifest import Manifest
from vla_core.metadata import describe
from vla_core.observation import ENVIRONMENT_KEY, IMAGE_KEY, OBSERVE_ONLY_KEY, STAMP_KEY, STATE_KEY
from vla_core.pipeline import PIPELINE_ID
from vla_policy.serving.history import History
from vla_policy.serving.torch_checkpoint import load
from vla_policy.serving.torch_policy import Batch
from vla_policy.serving.torch_robot import RobotPolicy

WARM_UPS = 2
"""The first inference allocates and the second still finds cold caches."""
_LOADED_SUFFIXES = frozenset({".json", ".safetensors", ".txt"})
"""What LeRobot and transformers read from a folder by themselves."""


class TorchBackend:
    """One loaded checkpoint, shared by all sessions."""

    def __init__(self, folder: Path | None, *, threads: int) -> None:
        """Verify, load and warm the checkpoint in `folder`.

        Raises:
            ManifestError: the folder is no model, or a file in it is missing, cut short or changed.
            ModelError: the checkpoint does not load, or is not what the manifest says.
        """
        if folder is None:
            raise ModelError("backend 'torch' needs a model folder")
        torch.set_num_threads(threads)
        with contextlib.suppress(RuntimeError):  # only before the first parallel work of this process
            torch.set_num_interop_threads(1)
        torch.set_flush_denormal(True)
        self.manifest = _checked_manifest(folder)
        info = checkpoint.inspect(folder)
        _check_agreement(self.manifest, info)
        self.policy = RobotPolicy(load(info, pick_device()), self.manifest)
        self._warm(folder)

    def metadata(self) -> dict[str, Any]:
        """What clients are told."""
        return describe(self.manifest)

    def open_session(self) -> TorchSession:
        """A session without history."""
        return TorchSession(self)

    def _warm(self, folder: Path) -> None:
        """Prove what the manifest says of the answer, and have the first request find everything ready."""
        observation: dict[str, Any] = {
            IMAGE_KEY + name: np.zeros((size.height, size.width, 3), np.uint8)
            for name, size in self.manifest.cameras.items()
        }
        observation[STATE_KEY] = np.zeros(self.manifest.dof, np.float32)
        if encoder := self.manifest.prompt_encoder:
            observation[ENVIRONMENT_KEY] = np.zeros(encoder.dim, np.float32)
        try:
            for _ in range(WARM_UPS):
                self.open_session().infer(observation)
        except EvergreenError:
            raise
        except Exception as error:  # whatever a policy raises on its first observation is the model's fault
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise ModelError(f"{folder} loads but does not run: {type(error).__name__}: {reason}") from error


class TorchSession:
    """One client's conversation; its memory lives and dies with it."""

    def __init__(self, backend: TorchBackend) -> None:
        """Begin without memory."""
        self._backend = backend
        manifest = backend.manifest
        self._history: History[Batch] = History(manifest.n_obs_steps, manifest.observation_period_s)

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Remember one observation, and answer it unless it is `observe_only`.

        Returns:
            `actions` `(chunk_size, dof)` rad, `(0, dof)` for `observe_only`; `seen`: how many steps of the history
            were observed rather than repeated.

        Raises:
            WireError: the observation lacks an input, or it has another shape or type.
            ModelError: the policy answers something else than its manifest says.
        """
        self._history.add(_stamp_ns(observation), self._backend.policy.prepare(observation))
        remembered = self._history.recall()
        if observation.get(OBSERVE_ONLY_KEY):
            return {"actions": np.zeros((0, self._backend.manifest.dof), np.float32), "seen": remembered.seen}
        return {"actions": self._backend.policy.actions(remembered.steps), "seen": remembered.seen}


def pick_device() -> str:
    """A GPU where there is one, as on a server in the cloud."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _checked_manifest(folder: Path) -> Manifest:
    manifest = manifests.load(folder)
    if missing := [name for name in (CONFIG_FILE, WEIGHTS_FILE, *PROCESSOR_FILES) if name not in manifest.files]:
        raise ManifestError(
            f"{folder}: its manifest lists no {missing[0]}; `evergreen model export` makes a model of a checkpoint"
        )
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in _LOADED_SUFFIXES and name != manifests.FILE_NAME and name not in manifest.files:
            raise ManifestError(f"{path} is not in the manifest, so nobody vouches for it: remove it, or export again")
    if manifest.image_pipeline != PIPELINE_ID:
        raise ModelError(
            f"{folder} needs image pipeline {manifest.image_pipeline!r}; this Evergreen has {PIPELINE_ID!r}. "
            "Train the model with it, or run the Evergreen that the model was made with"
        )
    # All but what other backends load: hashing it would only lengthen the time to the first action.
    mine = {name: entry for name, entry in manifest.files.items() if not name.endswith(".onnx")}
    manifests.verify(folder, replace(manifest, files=mine))
    checkpoint.check_safe(folder)
    return manifest


def _check_agreement(manifest: Manifest, info: Checkpoint) -> None:
    """See whether the manifest describes this checkpoint.

    Raises:
        ModelError: what they disagree about.
    """
    fed = {manifest.camera_key(name): size for name, size in manifest.cameras.items()}
    if strange := set(info.other_inputs) - _fed_by_prompts(manifest, info):
        raise ModelError(f"{info.folder} looks at {', '.join(sorted(strange))}, which no robot here has")
    if missing := [key for key in info.cameras if key not in fed]:
        raise ModelError(f"{info.folder} sees {', '.join(missing)}; name its camera in the manifest (camera_keys)")
    for key, size in fed.items():
        if key not in info.cameras:
            raise ModelError(
                f"{info.folder} does not see {key}, which its manifest feeds; it sees {list(info.cameras)}"
            )
        if info.cameras[key] != size:
            wanted = info.cameras[key]
            raise ModelError(
                f"{info.folder}: {key} is {wanted.width}x{wanted.height} px in {CONFIG_FILE} and "
                f"{size.width}x{size.height} px in the manifest"
            )
    numbers = [
        ("joints in an action", info.action_dim, manifest.dof),
        ("numbers in the state", info.state_dim or manifest.dof, manifest.dof),
        ("past observations (n_obs_steps)", info.n_obs_steps, manifest.n_obs_steps),
    ]
    for what, own, said in numbers:
        if own != said:
            raise ModelError(f"{info.folder}: {own} {what} in {CONFIG_FILE}, {said} in the manifest: export it again")


def _fed_by_prompts(manifest: Manifest, info: Checkpoint) -> set[str]:
    """Inputs that the manifest's prompt encoder fills (see `vla_policy.serving.listening`)."""
    encoder = manifest.prompt_encoder
    return {ENVIRONMENT_KEY} if encoder is not None and encoder.dim == info.environment_dim else set()


def _stamp_ns(observation: Mapping[str, Any]) -> int:
    """When the observation was made; now, where a client of another kind does not say."""
    stamp = observation.get(STAMP_KEY)
    if stamp is None:
        return time.time_ns()
    if isinstance(stamp, bool) or not isinstance(stamp, int | np.integer):
        raise WireError(f"observation {STAMP_KEY!r} must be nanoseconds since 1970, not {type(stamp).__name__}")
    return int(stamp)
