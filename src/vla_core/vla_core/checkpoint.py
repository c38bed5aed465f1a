"""What a LeRobot checkpoint folder says of itself, and whether it can be loaded without trusting it.

Nothing is loaded here, and nothing of torch or LeRobot is needed: only JSON and the headers of safetensors are read.
A checkpoint is data. One that would make LeRobot run code (a pickle, a Python file, a processor named by its import
path) or fetch something from elsewhere is refused.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ModelError
from vla_core.manifest import CameraInput
from vla_core.observation import ENVIRONMENT_KEY, IMAGE_KEY, STATE_KEY
from vla_core.safetensors import MAX_HEADER_BYTES

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PREPROCESSOR_FILE = "policy_preprocessor.json"
POSTPROCESSOR_FILE = "policy_postprocessor.json"
PROCESSOR_FILES = (PREPROCESSOR_FILE, POSTPROCESSOR_FILE)

CODE_SUFFIXES = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".h5", ".py", ".pyc", ".so"}
)
"""Pickles, files that may hold some, and code."""
EMPTY_CAMERA = "empty_camera"
"""LeRobot's inputs of this name are filled by the policy itself."""

_REFERENCE = re.compile(r"(^|_)(name|path|base|model_id)$")
_NO_REFERENCE = frozenset({"scheduler_name", "pretrained_path"})
"""A learning-rate schedule, and where training began: neither is read to run the policy."""
_ONE_ACTION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's own account.

    Attributes:
        folder: where it is.
        config: `config.json` as it is.
        policy_type: LeRobot's name of the type.
        cameras: image feature to the size that it wants; those that the policy fills itself are left out.
        state_dim: numbers in `observation.state`, 0 where the policy does not look at it.
        action_dim: numbers in an action.
        other_inputs: inputs that are neither pictures nor the state.
        n_obs_steps: observations that it looks at, the newest among them.
        chunk_size: actions that one inference gives, as far as the configuration tells.
    """

    folder: Path
    config: Mapping[str, Any]
    policy_type: str
    cameras: Mapping[str, CameraInput]
    state_dim: int
    action_dim: int
    other_inputs: tuple[str, ...]
    n_obs_steps: int
    chunk_size: int

    @property
    def camera_names(self) -> dict[str, str]:
        """Image feature to the name of its camera, as far as LeRobot has one for it."""
        return {key: key.removeprefix(IMAGE_KEY).removeprefix("observation.") for key in self.cameras}

    @property
    def environment_dim(self) -> int:
        """Numbers in `observation.environment_state`, one of the other inputs; 0 where it does not look at it."""
        feature = self.config["input_features"].get(ENVIRONMENT_KEY)
        return int(feature["shape"][0]) if feature and feature["shape"] else 0


def inspect(folder: Path) -> Checkpoint:
    """Read `config.json`.

    Raises:
        ModelError: no checkpoint, or one whose configuration does not say what it sees and does.
    """
    if not folder.is_dir():
        raise ModelError(f"checkpoint {folder} does not exist; give a folder with {CONFIG_FILE} and {WEIGHTS_FILE}")
    config = read_json(folder / CONFIG_FILE)
    kind = config.get("type")
    if not isinstance(kind, str) or not kind:
        raise ModelError(f"{folder / CONFIG_FILE} has no 'type': it is no LeRobot policy's configuration")
    if config.get("use_peft"):
        raise ModelError(f"{folder} is an adapter (use_peft) of another checkpoint: merge it into that one first")
    inputs, outputs = _features(config, "input_features", folder), _features(config, "output_features", folder)
    if "action" not in outputs:
        raise ModelError(f"{folder / CONFIG_FILE}: output_features has no 'action', so the policy moves nothing")
    return Checkpoint(
        folder=folder,
        config=config,
        policy_type=kind,
        cameras={
            key: _camera(key, shape, folder)
            for key, (form, shape) in inputs.items()
            if form == "VISUAL" and EMPTY_CAMERA not in key
        },
        state_dim=inputs[STATE_KEY][1][0] if STATE_KEY in inputs else 0,
        action_dim=outputs["action"][1][0],
        other_inputs=tuple(key for key, (form, _) in inputs.items() if form != "VISUAL" and key != STATE_KEY),
        n_obs_steps=_number(config, "n_obs_steps") or 1,
        chunk_size=_chunk_size(kind, config),
    )


def check_safe(folder: Path) -> None:
    """Refuse a checkpoint that would run code, is incomplete, or was cut short.

    Raises:
        ModelError: which file is at fault and what to do.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in CODE_SUFFIXES:
            raise ModelError(
                f"{path} could run code when it is loaded; Evergreen loads only safetensors and JSON: "
                "save the policy with LeRobot's save_pretrained, and leave that file out"
            )
        if path.suffix == ".json" and "auto_map" in read_json(path):
            raise ModelError(f"{path} asks for code of its own ('auto_map'), which Evergreen never runs")
    check_complete(folder)


def check_complete(folder: Path) -> None:
    """Refuse a checkpoint that lacks something or was cut short.

    Raises:
        ModelError: which file is at fault and what to do.
    """
    for path in sorted(folder.rglob("*.safetensors")):
        check_whole(path)
    if not (folder / WEIGHTS_FILE).is_file():
        raise ModelError(f"{folder} has no {WEIGHTS_FILE}: save the policy with LeRobot's save_pretrained")
    for name in PROCESSOR_FILES:
        for step in processor_steps(folder, name):
            state = step.get("state_file")
            if state is not None and Path(str(state)).name != state:
                raise ModelError(f"{folder / name}: state_file {state!r} must lie beside it")
            if state is not None and not (folder / state).is_file():
                raise ModelError(f"{folder / name} needs {state}, which is missing: copy the whole checkpoint")


def check_whole(path: Path) -> None:
    """Compare a safetensors file's length with what its header says.

    Raises:
        ModelError: it is cut short, or no safetensors at all.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else MAX_HEADER_BYTES + 1
        text = stream.read(length) if length <= MAX_HEADER_BYTES else b""
    if length > MAX_HEADER_BYTES or len(text) < length:
        raise ModelError(f"{path} is no safetensors file, or is cut short at {size} bytes: fetch it again")
    try:
        entries = json.loads(text)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(f"{path} is no safetensors file: its header is malformed") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise ModelError(f"{path} has {size} bytes where its header says {expected}: fetch it again")


def joint_extent(folder: Path) -> float | None:
    """Largest value of an action in the training data, in its own units, as far as the normalisation tells."""
    for step in processor_steps(folder, POSTPROCESSOR_FILE):
        state = step.get("state_file")
        if isinstance(state, str) and (folder / state).is_file():
            found = _statistics(folder / state, "action.")
            if "min" in found and "max" in found:
                return float(max(np.abs(found["min"]).max(), np.abs(found["max"]).max()))
            if "mean" in found and "std" in found:
                return float((np.abs(found["mean"]) + 2 * found["std"]).max())  # 19 of 20 values lie within
    return None


def _statistics(path: Path, prefix: str) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a small safetensors file whose names begin with `prefix`, which is cut off."""
    check_whole(path)
    data = path.read_bytes()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    return {
        name.removeprefix(prefix): np.frombuffer(data[begin + first : begin + last], "<f4")
        for name, entry in json.loads(data[8:begin]).items()
        if name.startswith(prefix) and entry["dtype"] == "F32"
        for first, last in [entry["data_offsets"]]
        if last > first
    }


def processor_steps(folder: Path, name: str) -> list[Mapping[str, Any]]:
    """The steps of a processor, each named as LeRobot registers it.

    Raises:
        ModelError: no such file, malformed, or a step that is named by an import path, which could be any code.
    """
    path = folder / name
    if not path.is_file():
        raise ModelError(
            f"{folder} has no {name}, which holds the normalisation: a checkpoint of LeRobot before 0.4 is brought up "
            "to date by lerobot.processor.migrate_policy_normalization"
        )
    steps = read_json(path).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ModelError(f"{path} has no list of 'steps'")
    for step in steps:
        if not isinstance(step.get("registry_name"), str):
            raise ModelError(
                f"{path}: step {step.get('class')!r} is named by an import path, which could run anything; "
                "only steps with a registry_name are loaded"
            )
    return steps


def references(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys and values that name another model: a folder or something on a hub."""
    for key, value in config.items():
        if isinstance(value, str) and value and _REFERENCE.search(key) and key not in _NO_REFERENCE:
            yield key, value


def find_inside(folder: Path, origin: Path, key: str, value: str) -> Path:
    """The folder inside the checkpoint that is meant by `value`, by its whole name or its last part.

    Raises:
        ModelError: there is none; the hub is never asked.
    """
    base = folder.resolve()
    for name in (value, Path(value).name):
        found = (base / name).resolve()
        if found != base and found.is_relative_to(base) and found.is_dir():
            return found
    raise ModelError(
        f"{origin}: {key} {value!r} is not in the checkpoint, and nothing is fetched from a hub: put its configuration "
        f"and tokenizer (JSON and text, no weights) into {folder / Path(value).name}"
    )


def localised(folder: Path, origin: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Every reference in `config`, replaced by its folder inside the checkpoint.

    Raises:
        ModelError: one is not there.
    """
    return {key: str(find_inside(folder, origin, key, value)) for key, value in references(config)}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ModelError: it cannot be read or is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} is no LeRobot checkpoint: it has no {path.name}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON, it may be cut short: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} must hold a JSON object, not {type(found).__name__}")
    return found


def _features(config: Mapping[str, Any], key: str, folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Feature name to its type and shape."""
    try:
        return {
            str(name): (str(feature["type"]), tuple(int(side) for side in feature["shape"]))
            for name, feature in config[key].items()
            if feature["shape"]
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder / CONFIG_FILE}: {key} does not say the type and shape of each feature") from error


def _camera(key: str, shape: tuple[int, ...], folder: Path) -> CameraInput:
    if len(shape) != 3 or shape[0] != 3:
        raise ModelError(
            f"{folder / CONFIG_FILE}: {key} of shape {list(shape)} is no colour picture (3, height, width)"
        )
    return CameraInput(width=shape[2], height=shape[1])


def _chunk_size(kind: str, config: Mapping[str, Any]) -> int:
    """How many actions LeRobot's `predict_action_chunk` returns for a type."""
    horizon, steps = _number(config, "horizon"), _number(config, "n_action_steps")
    if kind in ("diffusion", "multi_task_dit"):  # it returns what it would play, from the newest observation on
        return max(_ONE_ACTION, min(steps, horizon - (_number(config, "n_obs_steps") or 1) + 1))
    if kind == "tdmpc":  # without planning it knows the next action only
        return horizon * max(1, _number(config, "n_action_repeats")) if config.get("use_mpc", True) else _ONE_ACTION
    named = ("chunk_size", "action_chunk_size", "action_horizon", "horizon", "n_action_steps")
    return next((size for size in (_number(config, key) for key in named) if size), _ONE_ACTION)


def _number(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
