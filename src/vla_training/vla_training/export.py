"""From a LeRobot checkpoint to a model that Evergreen serves: an ONNX graph beside it and a manifest.

The graph is self-contained. It takes what the robot has (uint8 pictures, rad) and returns what the robot needs (rad):
normalisation is inside, so that running a model needs ONNX Runtime and nothing else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from lerobot.policies.act.modeling_act import ACTPolicy
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from vla_core import manifest as manifests
from vla_core.errors import EvergreenError, ModelError
from vla_core.joints import SO101_JOINTS
from vla_training.act import Stats, load_checkpoint, stats_of
from vla_training.onnx_policy import ACTION, IMAGES, ONNX_FILE, STATE, OnnxPolicy

OPSET = 17
NORMALISER_EPS = 1e-8
"""LeRobot's NormalizerProcessorStep divides by std + eps."""
PARITY_LIMIT_RAD = 1e-4
"""A fifteenth of a servo tick (0.0015 rad): no arm could show a smaller difference."""
_HALF_MIN_ELEMENTS = 256


class Deployed(nn.Module):
    """The policy as the robot sees it: normalisation, network and its inverse in one module."""

    def __init__(self, policy: ACTPolicy, stats: Stats, image_key: str) -> None:
        super().__init__()
        self.model = policy.model
        self.image_key = image_key
        image, state, action = stats[image_key], stats[STATE], stats[ACTION]
        self.register_buffer("image_mean", image["mean"].reshape(1, 3, 1, 1))
        self.register_buffer("image_std", image["std"].reshape(1, 3, 1, 1) + NORMALISER_EPS)
        self.register_buffer("state_mean", state["mean"])
        self.register_buffer("state_std", state["std"] + NORMALISER_EPS)
        self.register_buffer("action_mean", action["mean"])
        self.register_buffer("action_std", action["std"])

    def forward(self, image: Tensor, state: Tensor) -> Tensor:
        """`image` `(1, h, w, 3)` uint8 RGB, `state` `(1, dof)` float32 rad -> `(1, chunk, dof)` float32 rad."""
        picture = image.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        batch = {
            IMAGES: [(picture - self.image_mean) / self.image_std],
            STATE: (state - self.state_mean) / self.state_std,
        }
        normalised = self.model(batch)[0]
        return normalised * self.action_std + self.action_mean


def export_onnx(folder: Path) -> Path:
    """Write `policy.onnx` beside the checkpoint in `folder` and return its path.

    Weights that the checkpoint stores as float16 are float16 in the graph too, each followed by a Cast that ONNX
    Runtime folds when it loads: half the file, float32 arithmetic, the same numbers.

    Raises:
        ModelError: no ACT checkpoint with exactly one camera.
    """
    policy, processors = load_checkpoint(folder)
    keys = list(policy.config.image_features)
    if len(keys) != 1:
        raise ModelError(f"{folder} sees {len(keys)} cameras; this exporter knows policies with one")
    key = keys[0]
    _, height, width = policy.config.image_features[key].shape
    deployed = Deployed(policy, stats_of(processors, key), key).eval()
    example = (
        torch.zeros((1, height, width, 3), dtype=torch.uint8),
        torch.zeros((1, policy.config.robot_state_feature.shape[0])),
    )
    path = folder / ONNX_FILE
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        # The tracer warns about shape checks in attention, which are constant here.
        warnings.simplefilter("ignore")
        raw = Path(scratch) / ONNX_FILE
        with torch.no_grad():
            torch.onnx.export(
                deployed, example, str(raw), input_names=[key, STATE], output_names=[ACTION],
                opset_version=OPSET, dynamo=False, do_constant_folding=True,
            )  # fmt: skip
        graph = onnx.load(raw)
    store_half(graph)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    return path


def store_half(model: onnx.ModelProto) -> int:
    """Store large float32 initialisers as float16 where that loses nothing; returns how many were changed."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _HALF_MIN_ELEMENTS:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        stored = f"{name}.half"
        tensor.CopyFrom(numpy_helper.from_array(half, stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])  # a graph's nodes must come after what they use
    return len(casts)


@dataclass(frozen=True, slots=True)
class Parity:
    """How far ONNX Runtime is from LeRobot on the same observations."""

    max_abs_error_rad: float
    samples: int

    @property
    def ok(self) -> bool:
        """Whether the difference is too small to matter to an arm."""
        return self.max_abs_error_rad < PARITY_LIMIT_RAD


def measure_parity(
    folder: Path,
    samples: int = 16,
    seed: int = 0,
    observations: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]] = (),
) -> Parity:
    """Compare `policy.onnx` with LeRobot's torch policy through its own saved processors.

    Args:
        folder: a model folder with both.
        samples: random observations where none are given.
        seed: of the random observations.
        observations: real ones: pictures `(h, w, 3)` uint8 and states `(dof,)` rad.
    """
    policy, (before, after) = load_checkpoint(folder)
    graph = OnnxPolicy(folder / ONNX_FILE)
    key = next(iter(policy.config.image_features))
    rng = np.random.default_rng(seed)
    pairs = list(observations) or [
        (
            rng.integers(0, 256, (graph.height, graph.width, 3), dtype=np.uint8),
            rng.uniform(-1.5, 1.5, policy.config.robot_state_feature.shape[0]).astype(np.float32),
        )
        for _ in range(samples)
    ]
    worst = 0.0
    for image, state in pairs:
        batch = {
            key: torch.from_numpy(image.copy()).permute(2, 0, 1).to(torch.float32) / 255.0,
            STATE: torch.from_numpy(np.asarray(state, dtype=np.float32)),
            "task": "",
        }
        with torch.inference_mode():
            reference = after(policy.predict_action_chunk(before(batch)))[0].numpy()
        worst = max(worst, float(np.abs(graph(image, state) - reference).max()))
    return Parity(worst, len(pairs))


@dataclass(frozen=True, slots=True)
class ManifestSettings:
    """What a checkpoint does not know about itself."""

    name: str
    version: str
    prompt: str
    rate_hz: float
    open_loop_s: float
    licence: str = "Apache-2.0"


def write_manifest(folder: Path, settings: ManifestSettings, provenance: Mapping[str, Any]) -> manifests.Manifest:
    """Describe and hash every file in `folder`; overwrites its manifest."""
    policy, _ = load_checkpoint(folder)
    cameras = {
        key.removeprefix(f"{IMAGES}."): manifests.CameraInput(width=feature.shape[2], height=feature.shape[1])
        for key, feature in policy.config.image_features.items()
    }
    made = manifests.Manifest(
        name=settings.name,
        version=settings.version,
        policy_type=policy.config.type,
        backend="onnx",
        joint_names=SO101_JOINTS,
        cameras=cameras,
        rate_hz=settings.rate_hz,
        chunk_size=policy.config.chunk_size,
        open_loop_s=settings.open_loop_s,
        observation_period_s=1.0 / settings.rate_hz,
        prompt=settings.prompt,
        licence=settings.licence,
        files=manifests.list_files(folder),
        provenance=dict(provenance),
    )
    manifests.write(folder, made)
    return made


def success_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `vla_training.evaluate`'s summary that belongs into a manifest.

    Raises:
        ModelError: it is no such summary.
    """
    try:
        seeds = [episode["seed"] for episode in evaluation["results"]]
        settings = evaluation["settings"]
        return {
            "successes": evaluation["successes"],
            "episodes": evaluation["episodes"],
            "interval_95": evaluation["interval_95"],
            "wrong_lifted": evaluation["wrong_lifted"],
            "seeds": [min(seeds), max(seeds)],
            "latency_s": settings["latency_s"],
            "replan_s": settings["replan_s"],
            "limit_s": settings["limit_s"],
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"no result of vla_training.evaluate: {type(error).__name__} {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vla_training.export", description="Export a LeRobot ACT checkpoint to ONNX with a manifest."
    )
    parser.add_argument("folder", type=Path, help="the checkpoint; policy.onnx and manifest.json are written into it")
    parser.add_argument("--name", required=True, help="the model's name")
    parser.add_argument("--version", required=True, help="the model's version, unique for this name")
    parser.add_argument("--prompt", default="", help="default language instruction")
    parser.add_argument("--rate-hz", type=float, default=10.0, help="rate of its actions (default %(default)s)")
    parser.add_argument("--open-loop-s", type=float, default=0.5, help="part of a chunk to be played (%(default)s s)")
    parser.add_argument("--provenance", type=Path, help="JSON file with data, seed, commit")
    parser.add_argument("--evaluation", type=Path, help="JSON file of vla_training.evaluate: the measured success")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, check parity, write the manifest; exit code 1 where parity fails."""
    options = _parser().parse_args(arguments)
    try:
        path = export_onnx(options.folder)
        parity = measure_parity(options.folder)
        provenance = json.loads(options.provenance.read_text(encoding="utf-8")) if options.provenance else {}
        if options.evaluation:
            provenance["success"] = success_of(json.loads(options.evaluation.read_text(encoding="utf-8")))
        provenance["parity_max_abs_error_rad"] = parity.max_abs_error_rad
        settings = ManifestSettings(options.name, options.version, options.prompt, options.rate_hz, options.open_loop_s)
        write_manifest(options.folder, settings, provenance)
    except (EvergreenError, OSError, ValueError) as error:
        print(f"export: {error}")
        return 2
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, off by {parity.max_abs_error_rad:.1e} rad at most")
    return 0 if parity.ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
