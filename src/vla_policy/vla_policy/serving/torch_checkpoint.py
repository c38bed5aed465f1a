"""Loads a LeRobot checkpoint as data: from its own folder alone, without a hub, without running code from it.

`vla_core.checkpoint` refuses what could run code before anything is loaded here. What is left to this module is that
LeRobot itself reaches for nothing outside, and that the policy it builds holds the checkpoint's weights: some of its
types answer a failed load with a policy of random weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import io
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before LeRobot and transformers are imported, which read these only once.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one prompt at a time: a thread pool costs more than it gives

import draccus
import lerobot.policies  # noqa: F401  registers every built-in type
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import get_policy_class, make_pre_post_processors
from safetensors import safe_open

from vla_core import checkpoint
from vla_core.checkpoint import CONFIG_FILE, POSTPROCESSOR_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE, Checkpoint
from vla_core.errors import EvergreenError, ModelError

PLUGIN_PREFIX = "lerobot_policy_"
"""LeRobot's own rule for packages that add policies."""
MAX_REASON = 300
SHOWN = 3
"""So many names make a message that still fits a line."""

_RUN_ON_LOAD: Mapping[str, Any] = {
    "pretrained_path": None,
    "pretrained_backbone_weights": None,  # ImageNet's, from the network; the checkpoint's own replace them anyway
    "load_vlm_weights": False,  # the same for a vision-language model
    "compile_model": False,  # takes minutes on the first request
    "gradient_checkpointing": False,
    "push_to_hub": False,
}
"""What a configuration may ask to be done while it is loaded, and what is done instead."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy in evaluation mode with its processors.

    Attributes:
        info: the checkpoint's own account.
        policy: LeRobot's.
        before, after: its processors: raw observation to batch, raw action to action.
        device: where it runs.
    """

    info: Checkpoint
    policy: Any
    before: Any
    after: Any
    device: str


def load(info: Checkpoint, device: str) -> Loaded:
    """Build the policy of a checkpoint that passed `check_safe`.

    Raises:
        ModelError: an unknown type, a configuration of another release, weights that do not fit, something missing.
    """
    with _errors_of(info), _quiet():
        config = _config(info, device)
        policy = get_policy_class(info.policy_type).from_pretrained(
            str(info.folder), config=config, local_files_only=True, strict=True
        )
        policy.to(device).eval()
        _check_weights(policy, info.folder / WEIGHTS_FILE)
        before, after = make_pre_post_processors(
            config,
            pretrained_path=str(info.folder),
            preprocessor_overrides=_overrides(info.folder, PREPROCESSOR_FILE, device),
            postprocessor_overrides=_overrides(info.folder, POSTPROCESSOR_FILE, "cpu"),
        )
    return Loaded(info, policy, before, after, device)


def _config(info: Checkpoint, device: str) -> Any:
    kind = _config_class(info)
    path = info.folder / CONFIG_FILE
    raw = {key: value for key, value in info.config.items() if key != "type"}
    known = {entry.name for entry in dataclasses.fields(kind)}
    if unknown := sorted(set(raw) - known):
        raise ModelError(
            f"{path} has the unknown key(s) {', '.join(unknown[:SHOWN])}: it was written by another release than "
            f"LeRobot {importlib.metadata.version('lerobot')}"
        )
    raw |= {key: value for key, value in _RUN_ON_LOAD.items() if key in known}
    raw |= checkpoint.localised(info.folder, path, raw)
    return draccus.decode(kind, raw | {"device": device})


def _config_class(info: Checkpoint) -> Any:
    """The registered class of a type; plugins are imported only when it is none of LeRobot's own."""
    if info.policy_type not in PreTrainedConfig.get_known_choices():
        _import_plugins()
    known = PreTrainedConfig.get_known_choices()
    if info.policy_type not in known:
        raise ModelError(
            f"{info.folder / CONFIG_FILE}: policy type {info.policy_type!r} is unknown; LeRobot has "
            f"{', '.join(sorted(known))}, and a plugin would be a package named {PLUGIN_PREFIX}…"
        )
    return known[info.policy_type]


def _import_plugins() -> None:
    """Import what `lerobot_policy_…` packages are installed: code that somebody installed, never a checkpoint's."""
    names = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
    for name in sorted(name.replace("-", "_") for name in names if name):
        if name.startswith(PLUGIN_PREFIX):
            importlib.import_module(name)


def _overrides(folder: Path, name: str, device: str) -> dict[str, dict[str, Any]]:
    """Step to what replaces its configuration: the device, and references that lead out of the checkpoint."""
    found: dict[str, dict[str, Any]] = {}
    for step in checkpoint.processor_steps(folder, name):
        config = step.get("config") or {}
        changes: dict[str, Any] = dict(checkpoint.localised(folder, folder / name, config))
        if "device" in config:
            changes["device"] = device
        if config.get("trust_remote_code"):
            changes["trust_remote_code"] = False
        if changes:
            found[step["registry_name"]] = changes
    return found


def _check_weights(policy: Any, path: Path) -> None:
    """Compare the first row of each of the policy's tensors with the file's.

    Raises:
        ModelError: a tensor is not from the file.
    """
    tensors: dict[str, torch.Tensor] = policy.state_dict()
    with safe_open(path, framework="pt", device="cpu") as file:
        origin = _origins(policy, list(file.keys()))
        held = {name for name in tensors if name in origin}
        shared = {tensors[name].data_ptr() for name in held}
        lost = [name for name, tensor in tensors.items() if name not in held and tensor.data_ptr() not in shared]
        lost += [
            name for name in held if not _same_start(tensors[name], file.get_slice(origin[name]), file, origin[name])
        ]
    if lost:
        raise ModelError(
            f"{path} does not hold all of the policy: {len(lost)} of its {len(tensors)} tensors are missing or of "
            f"another shape, among them {', '.join(sorted(lost)[:SHOWN])}; does it belong to {CONFIG_FILE} beside it?"
        )


def _origins(policy: Any, keys: list[str]) -> dict[str, str]:
    """The policy's tensor name to the file's key: the pi0 family renames what openpi wrote."""
    renamed = {key: key for key in keys}
    if rename := getattr(policy, "_fix_pytorch_state_dict_keys", None):
        numbered = rename({key: torch.tensor(number) for number, key in enumerate(keys)}, policy.config)
        renamed = {name: keys[int(number)] for name, number in numbered.items()}
    return {f"model.{name}": key for name, key in renamed.items()} | renamed


def _same_start(tensor: torch.Tensor, stored: Any, file: Any, key: str) -> bool:
    if list(tensor.shape) != list(stored.get_shape()):
        return False
    if tensor.ndim == 0:
        return bool(torch.equal(tensor.cpu(), file.get_tensor(key).to(tensor.dtype)))
    return bool(torch.equal(tensor[:1].cpu().nan_to_num(), stored[:1].to(tensor.dtype).nan_to_num()))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """LeRobot prints its progress; what it warns of is checked here."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _errors_of(info: Checkpoint) -> Iterator[None]:
    """Whatever LeRobot raises about a checkpoint, as one line about that checkpoint."""
    try:
        yield
    except EvergreenError:
        raise
    except ImportError as error:
        raise ModelError(
            f"{info.folder}: a {info.policy_type} policy needs a package that is missing: {_first_line(error)}"
        ) from error
    except Exception as error:  # LeRobot's and transformers' errors share no base
        raise ModelError(
            f"{info.folder}: LeRobot cannot load this {info.policy_type} policy: "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    """What an error says, cut to a line; draccus hides the configuration's own words behind its own."""
    if type(error).__module__.startswith("draccus") and error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:MAX_REASON] if lines else "no reason given"
