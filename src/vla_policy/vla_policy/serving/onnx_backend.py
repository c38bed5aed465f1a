"""Runs a self-contained ONNX graph with ONNX Runtime on the CPU.

The graph takes `observation.images.<camera>` `(1, h, w, 3)` uint8 RGB for each camera and `observation.state`
`(1, dof)` float32 rad, where a prompt drives it also `observation.environment_state` `(1, dim)` float32, and gives
`action` `(1, horizon, dof)` float32 rad: normalisation is inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from vla_core import manifest as manifests
from vla_core.checkpoint import WEIGHTS_FILE
from vla_core.errors import ManifestError, ModelError, WireError
from vla_core.manifest import Manifest
from vla_core.metadata import describe
from vla_core.observation import ENVIRONMENT_KEY, IMAGE_KEY, STATE_KEY
from vla_core.pipeline import PIPELINE_ID
from vla_policy.serving.onnx_graph import load_graph, reads_checkpoint

GRAPH_FILE = "policy.onnx"
OUTPUT = "action"
_ONNX_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}

Wanted = dict[str, tuple[tuple[int, ...], str]]
"""Input name to shape without the batch, and numpy type."""


class OnnxBackend:
    """One loaded graph, shared by all sessions: it keeps no history."""

    def __init__(self, folder: Path | None, *, threads: int) -> None:
        """Verify, load and warm the graph in `folder`.

        Raises:
            ManifestError: the folder is no model, or a file in it is missing, cut short or changed.
            ModelError: the graph does not load, or is not what the manifest says.
        """
        if folder is None:
            raise ModelError("backend 'onnx' needs a model folder")
        self._manifest = _checked_manifest(folder)
        self._wanted = _wanted(self._manifest)
        path = folder / GRAPH_FILE
        self._graph = load_graph(path, threads)
        _check_inputs(path, self._graph, self._wanted)
        self._warm(path)

    def metadata(self) -> dict[str, Any]:
        """What clients are told."""
        return describe(self._manifest)

    def open_session(self) -> OnnxBackend:
        """Itself: a graph without history serves everybody alike."""
        return self

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Run the graph on one observation.

        Raises:
            WireError: the observation lacks an input, or it has another shape or type.
        """
        feed = {name: _input(observation, name, *form) for name, form in self._wanted.items()}
        return {"actions": self._run(feed)}

    def _run(self, feed: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """`(horizon, dof)`, rad."""
        return np.asarray(self._graph.run([OUTPUT], feed)[0][0], dtype=np.float32)

    def _warm(self, path: Path) -> None:
        """The first run allocates and is several times slower than the rest; it also proves the output's shape."""
        feed = {name: np.zeros((1, *shape), dtype) for name, (shape, dtype) in self._wanted.items()}
        try:
            actions = self._run(feed)
        except Exception as error:  # ONNX Runtime's errors share no base
            raise ModelError(f"{path} does not run: {error}") from error
        expected = (self._manifest.chunk_size, self._manifest.dof)
        if actions.shape != expected:
            raise ModelError(f"{path} answers {actions.shape}, where its manifest says {expected}: export it again")


def _checked_manifest(folder: Path) -> Manifest:
    manifest = manifests.load(folder)
    if GRAPH_FILE not in manifest.files:
        raise ManifestError(f"{folder}: its manifest lists no {GRAPH_FILE}; export the model to ONNX first")
    if manifest.image_pipeline != PIPELINE_ID:
        raise ModelError(
            f"{folder} needs image pipeline {manifest.image_pipeline!r}; this Evergreen has {PIPELINE_ID!r}. "
            "Train the model with it, or run the Evergreen that the model was made with"
        )
    if manifest.n_obs_steps != 1:
        raise ModelError(f"{folder} looks at {manifest.n_obs_steps} past observations; backend 'onnx' keeps none")
    # Only what is loaded here: a checkpoint of other backends beside it would double the time to the first action.
    _verify(folder, manifest, GRAPH_FILE)
    if reads_checkpoint(folder / GRAPH_FILE):
        _verify(folder, manifest, WEIGHTS_FILE)
    return manifest


def _verify(folder: Path, manifest: Manifest, name: str) -> None:
    if name not in manifest.files:
        raise ManifestError(f"{folder}: its manifest lists no {name}, which {GRAPH_FILE} reads: export it again")
    manifests.verify(folder, replace(manifest, files={name: manifest.files[name]}))


def _wanted(manifest: Manifest) -> Wanted:
    wanted: Wanted = {
        IMAGE_KEY + name: ((size.height, size.width, 3), "uint8") for name, size in manifest.cameras.items()
    }
    wanted[STATE_KEY] = ((manifest.dof,), "float32")
    if manifest.prompt_encoder is not None:
        wanted[ENVIRONMENT_KEY] = ((manifest.prompt_encoder.dim,), "float32")
    return wanted


def _check_inputs(path: Path, graph: onnxruntime.InferenceSession, wanted: Wanted) -> None:
    inputs = {entry.name: (entry.shape, _ONNX_TYPES.get(entry.type, entry.type)) for entry in graph.get_inputs()}
    if missing := [name for name in wanted if name not in inputs]:
        raise ModelError(
            f"{path} lacks the input {', '.join(missing)} that its manifest implies; it has {', '.join(inputs)}"
        )
    if unknown := [name for name in inputs if name not in wanted]:
        cure = "name the prompt_encoder" if ENVIRONMENT_KEY in unknown else "add the camera"
        raise ModelError(f"{path} wants {', '.join(unknown)}, which its manifest does not list; {cure} there")
    for name, (shape, dtype) in wanted.items():
        got_shape, got_type = inputs[name]
        fits = len(got_shape) == len(shape) + 1 and all(
            not isinstance(got, int) or got == side for got, side in zip(got_shape[1:], shape, strict=True)
        )
        if not fits or got_type != dtype:
            raise ModelError(
                f"{path}: input {name} is {got_type} {list(got_shape)}, where the manifest says {dtype} {[1, *shape]}"
            )
    outputs = [entry.name for entry in graph.get_outputs()]
    if OUTPUT not in outputs:
        raise ModelError(f"{path} has no output {OUTPUT!r}; it has {', '.join(outputs)}")


def _input(observation: Mapping[str, Any], name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    value = observation.get(name)
    if not isinstance(value, np.ndarray):
        raise WireError(f"observation lacks the array {name!r}; it has {', '.join(map(str, observation))}")
    if value.shape != shape or (dtype == "uint8" and value.dtype != np.uint8):
        raise WireError(f"observation {name!r} is {value.dtype} {value.shape}; this model wants {dtype} {shape}")
    return np.ascontiguousarray(value, dtype=dtype)[None]
