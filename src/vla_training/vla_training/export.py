"""From a LeRobot ACT checkpoint to a model that Evergreen serves: an ONNX graph beside it, and a manifest.

    python -m vla_training.export FOLDER

The graph takes what the robot has (uint8 pictures under the robot's camera names, rad) and gives what it needs (rad):
normalisation, units and the offset of the first action are inside, so that running it needs ONNX Runtime and nothing
else. Its weights stay in the checkpoint's own file (see `vla_training.onnx_weights`). It is written only if it answers
what LeRobot answers.

Training and `evergreen model export` both come here. What a manifest says of units and camera names is taken from the
one in the folder; without one the checkpoint is taken for one of our own, which speaks rad and names cameras as we do.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from vla_core import checkpoint
from vla_core import manifest as manifests
from vla_core.checkpoint import WEIGHTS_FILE, Checkpoint
from vla_core.errors import EvergreenError, ModelError
from vla_core.joints import SO101_JOINTS
from vla_core.manifest import Manifest, PromptEncoding
from vla_core.observation import ENVIRONMENT_KEY, IMAGE_KEY, STATE_KEY
from vla_policy.serving.torch_checkpoint import load
from vla_policy.serving.torch_robot import RobotPolicy
from vla_training.deployed import Deployed
from vla_training.onnx_policy import ACTION, ONNX_FILE
from vla_training.onnx_weights import store_once

EXPORTABLE = ("act",)
"""Types that look at one observation and draw nothing by chance."""
OPSET = 17
PARITY_LIMIT_RAD = 1e-4
"""A fifteenth of a servo tick (0.0015 rad): no arm could show a smaller difference."""
PARITY_SAMPLES = 8
_OUT_OF_RANGE_RAD = 1.5
"""Joint values of parity's observations lie within this: further than an arm's usual work."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far ONNX Runtime is from LeRobot on the same observations."""

    max_abs_error_rad: float
    samples: int

    @property
    def ok(self) -> bool:
        """Whether the difference is too small to matter to an arm."""
        return self.max_abs_error_rad < PARITY_LIMIT_RAD


@dataclass(frozen=True, slots=True)
class ManifestSettings:
    """What a checkpoint does not know about itself."""

    name: str
    version: str
    prompt: str
    rate_hz: float
    open_loop_s: float
    licence: str = "Apache-2.0"
    prompt_encoder: PromptEncoding | None = None


def load_deployed(folder: Path) -> Deployed:
    """The checkpoint in `folder` as a torch module in evaluation mode, in the robot's terms.

    Raises:
        ModelError: no checkpoint that can be exported.
    """
    info = _inspect(folder)
    return Deployed(load(info, "cpu"), _manifest_of(info)).eval()


def export_onnx(folder: Path) -> Parity:
    """Write `policy.onnx` beside the checkpoint in `folder`; a manifest there stays as it is.

    Returns:
        The measured difference between the graph and LeRobot's policy with its own processors.

    Raises:
        ModelError: no checkpoint that can be exported, or the graph answers something else.
    """
    info = _inspect(folder)
    manifest = _manifest_of(info)
    loaded = load(info, "cpu")
    graph = trace(Deployed(loaded, manifest).eval(), manifest)
    store_once(graph, folder / WEIGHTS_FILE)
    data = graph.SerializeToString()
    parity = compare(RobotPolicy(loaded, manifest), _session(data, folder), manifest, info.environment_dim)
    if not parity.ok:
        raise ModelError(
            f"the graph is {parity.max_abs_error_rad:.1e} rad off LeRobot's answer, more than the "
            f"{PARITY_LIMIT_RAD:g} that no arm shows: give --no-onnx and report it"
        )
    _replace(folder / ONNX_FILE, data)
    return parity


def measure_parity(folder: Path, samples: int = PARITY_SAMPLES) -> Parity:
    """As `export_onnx` does, for the graph that is in `folder` already.

    Raises:
        ModelError: there is none, or no checkpoint for it.
    """
    info = _inspect(folder)
    manifest = _manifest_of(info)
    session = _session(checkpoint_graph(folder), folder)
    return compare(RobotPolicy(load(info, "cpu"), manifest), session, manifest, info.environment_dim, samples)


def checkpoint_graph(folder: Path) -> bytes:
    """`policy.onnx` as it is.

    Raises:
        ModelError: there is none.
    """
    try:
        return (folder / ONNX_FILE).read_bytes()
    except OSError as error:
        raise ModelError(f"{folder / ONNX_FILE} cannot be read: {error.strerror}; export the model first") from error


def trace(deployed: Deployed, manifest: Manifest) -> onnx.ModelProto:
    """The graph with all its weights inside."""
    sizes = [manifest.cameras[name] for name in deployed.cameras]
    example = [torch.zeros((1, size.height, size.width, 3), dtype=torch.uint8) for size in sizes]
    example.append(torch.zeros((1, manifest.dof)))
    names = [*(IMAGE_KEY + name for name in deployed.cameras), STATE_KEY]
    if deployed.environment_dim:
        example.append(torch.zeros((1, deployed.environment_dim)))
        names.append(ENVIRONMENT_KEY)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns about shape checks in attention, which are constant here
        torch.onnx.export(
            deployed, tuple(example), buffer, input_names=names, output_names=[ACTION],
            opset_version=OPSET, dynamo=False, do_constant_folding=True,
        )  # fmt: skip
    graph = onnx.load_model_from_string(buffer.getvalue())
    onnx.checker.check_model(graph)
    return graph


def compare(
    reference: RobotPolicy,
    graph: onnxruntime.InferenceSession,
    manifest: Manifest,
    environment_dim: int = 0,
    samples: int = PARITY_SAMPLES,
) -> Parity:
    """How far a graph is from LeRobot's policy on random observations."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(samples):
        seen: dict[str, NDArray[Any]] = {
            IMAGE_KEY + name: rng.integers(0, 256, (size.height, size.width, 3), dtype=np.uint8)
            for name, size in manifest.cameras.items()
        }
        seen[STATE_KEY] = rng.uniform(-_OUT_OF_RANGE_RAD, _OUT_OF_RANGE_RAD, manifest.dof).astype(np.float32)
        if environment_dim:
            seen[ENVIRONMENT_KEY] = rng.uniform(-1, 1, environment_dim).astype(np.float32)
        answer = graph.run([ACTION], {key: value[None] for key, value in seen.items()})[0][0]
        error = np.abs(answer - reference.actions((reference.prepare(seen),)))
        worst = max(worst, float(error.max()) if np.isfinite(error).all() else float("inf"))
    return Parity(worst, samples)


def write_manifest(folder: Path, settings: ManifestSettings, provenance: Mapping[str, Any]) -> Manifest:
    """Describe and hash every file in `folder`, a checkpoint of our own with its graph; overwrites its manifest.

    Raises:
        ModelError: no checkpoint of our own.
    """
    files = manifests.list_files(folder)
    made = _our_own(_inspect(folder), settings, files=files, provenance=dict(provenance))
    manifests.write(folder, made)
    return made


def _inspect(folder: Path) -> Checkpoint:
    """What the checkpoint says of itself, if it is one that can become a graph."""
    info = checkpoint.inspect(folder)
    if info.policy_type not in EXPORTABLE:
        raise ModelError(
            f"{folder} holds a {info.policy_type} policy; only {', '.join(EXPORTABLE)} can become an ONNX graph, "
            "the others are served by the torch backend: give --no-onnx"
        )
    others = set(info.other_inputs) - {ENVIRONMENT_KEY}
    if others or not info.state_dim:
        raise ModelError(f"{folder} looks at {', '.join(sorted(others)) or 'no joints'}: give --no-onnx")
    checkpoint.check_safe(folder)
    return info


def _manifest_of(info: Checkpoint) -> Manifest:
    if (info.folder / manifests.FILE_NAME).is_file():
        return manifests.load(info.folder)
    return _our_own(info, ManifestSettings("checkpoint", "0", "", 10.0, 0.1))


def _our_own(info: Checkpoint, settings: ManifestSettings, **more: Any) -> Manifest:
    """A manifest for a checkpoint that was trained here."""
    if info.action_dim != len(SO101_JOINTS) or info.state_dim != len(SO101_JOINTS):
        raise ModelError(
            f"{info.folder} moves {info.action_dim} joints and sees {info.state_dim}, where the SO-101 has "
            f"{len(SO101_JOINTS)}: `evergreen model export` asks what they are"
        )
    return Manifest(
        name=settings.name,
        version=settings.version,
        policy_type=info.policy_type,
        backend="onnx",
        joint_names=SO101_JOINTS,
        cameras={name: info.cameras[key] for key, name in info.camera_names.items()},
        camera_keys={name: key for key, name in info.camera_names.items() if key != IMAGE_KEY + name},
        rate_hz=settings.rate_hz,
        chunk_size=info.chunk_size,
        open_loop_s=settings.open_loop_s,
        observation_period_s=1.0 / settings.rate_hz,
        prompt=settings.prompt,
        licence=settings.licence,
        prompt_encoder=settings.prompt_encoder,
        **more,
    )


def _session(graph: bytes, folder: Path) -> onnxruntime.InferenceSession:
    """A graph that is not yet, or need not be, in the folder whose weights it points to."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _replace(path: Path, data: bytes) -> None:
    """The old file or the new one, never half of it."""
    part = path.with_suffix(".part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


SUCCESS_KEYS = ("successes", "episodes", "interval_95", "wrong_object", "median_s", "shift", "seeds", "graph")


def success_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a summary of `evergreen eval` that belongs into a manifest.

    Raises:
        ModelError: it is no such summary.
    """
    try:
        return {key: evaluation[key] for key in SUCCESS_KEYS}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"no result of `evergreen eval`: {type(error).__name__} {error}") from error


EXIT_REFUSED = 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vla_training.export", description="Add an ONNX graph to a LeRobot ACT checkpoint."
    )
    parser.add_argument("folder", type=Path, help="the checkpoint; policy.onnx is written into it")
    group = parser.add_argument_group("with --name and --version a checkpoint of our own gets a manifest too")
    group.add_argument("--name", help="the model's name")
    group.add_argument("--version", help="the model's version, unique for this name")
    group.add_argument("--prompt", default="", help="default language instruction")
    group.add_argument("--rate-hz", type=float, default=10.0, help="rate of its actions (default %(default)s)")
    group.add_argument("--open-loop-s", type=float, default=0.5, help="part of a chunk to be played (%(default)s s)")
    group.add_argument("--provenance", type=Path, help="JSON file with data, seed, commit")
    group.add_argument("--evaluation", type=Path, help="JSON file of `evergreen eval`: the measured success")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Export; one line of JSON says how far graph and LeRobot are apart. Exit code 2 where that cannot be."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)  # a chunk at a time: more threads would wait for each other
    try:
        parity = export_onnx(options.folder)
        if options.name or options.version:
            _describe(options, parity)
    except (EvergreenError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    print(json.dumps({"max_abs_error_rad": parity.max_abs_error_rad, "samples": parity.samples}))
    return 0


def _describe(options: argparse.Namespace, parity: Parity) -> None:
    provenance = checkpoint.read_json(options.provenance) if options.provenance else {}
    if options.evaluation:
        provenance["success"] = success_of(checkpoint.read_json(options.evaluation))
    provenance["parity_max_abs_error_rad"] = parity.max_abs_error_rad
    settings = ManifestSettings(
        options.name or "", options.version or "", options.prompt, options.rate_hz, options.open_loop_s
    )
    write_manifest(options.folder, settings, provenance)


if __name__ == "__main__":
    raise SystemExit(main())
