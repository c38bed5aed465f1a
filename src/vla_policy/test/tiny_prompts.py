"""A tiny model that listens: a real prompt encoder of a few words, and a graph that turns by what it is told."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from vla_core import manifest as manifests
from vla_core.joints import SO101_JOINTS
from vla_core.manifest import Manifest, PromptEncoding
from vla_core.prompt_phrases import FILE_NAME, Phrases
from vla_policy.serving.prompt_encoder import ENCODER_FILE, INPUT, LONGEST_KEY, OUTPUT, VOCABULARY_KEY, PromptEncoder

WORDS = ("[UNK]", "[CLS]", "[SEP]", "pick", "the", "cube", "black", "white", "dark", "pale", "sing", "song", "a")
MEANINGS = {"black": 0, "dark": 0, "white": 1, "pale": 1, "sing": 2, "song": 2}
DIM = 3
PHRASES = (("pick the black cube", "black"), ("pick the white cube", "white"), ("sing a song", ""))
TURN_RAD = {"black": 0.0, "white": 0.2}
"""How far from home shoulder_pan is sent for each target."""
HEIGHT, WIDTH, HORIZON = 32, 64, 20


def write_prompted(folder: Path, *, home: np.ndarray | None = None, prompt: str = PHRASES[0][0]) -> Path:
    """A model folder; its policy sends the arm to `home` (all zero), shoulder_pan by the target's TURN_RAD off it."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_policy(folder / "policy.onnx", np.zeros(6, np.float32) if home is None else home.astype(np.float32))
    entry = write_encoder(folder)
    manifest = Manifest(
        name=folder.name,
        version="1",
        policy_type="act",
        backend="onnx",
        joint_names=SO101_JOINTS,
        cameras={"front": manifests.CameraInput(WIDTH, HEIGHT)},
        chunk_size=HORIZON,
        open_loop_s=0.5,
        prompt=prompt,
        prompt_encoder=entry,
    )
    manifests.write(folder, replace(manifest, files=manifests.list_files(folder)))
    return folder


def write_encoder(folder: Path, noise: float = 0.01) -> PromptEncoding:
    """The sum of what the words mean; `noise` on all makes another encoder of it."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    table = np.full((len(WORDS), DIM), noise, np.float32)
    for word, axis in MEANINGS.items():
        table[WORDS.index(word), axis] = 1
    nodes = [
        helper.make_node("Gather", ["table", INPUT], ["words"]),
        helper.make_node("ReduceSum", ["words", "axis"], ["sum"], keepdims=0),
        helper.make_node("ReduceL2", ["sum", "axis"], ["length"], keepdims=1),
        helper.make_node("Div", ["sum", "length"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "words",
        [helper.make_tensor_value_info(INPUT, TensorProto.INT64, [1, "n"])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, DIM])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1], np.int64), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {VOCABULARY_KEY: "\n".join(WORDS), LONGEST_KEY: "16"})
    path = folder / ENCODER_FILE
    onnx.save(model, path)
    encoder, sha256 = PromptEncoder(path), manifests.sha256_file(path)
    vectors = np.array([encoder.encode(text) for text, _ in PHRASES])
    phrases = Phrases(
        texts=tuple(text for text, _ in PHRASES),
        targets=tuple(target for _, target in PHRASES),
        vectors=vectors,
        centroids={target: vectors[row] for row, (_, target) in enumerate(PHRASES) if target},
        least_similarity=0.8,
        least_lead=0.1,
        encoder_sha256=sha256,
    )
    (folder / FILE_NAME).write_text(phrases.to_json(), encoding="utf-8")
    return PromptEncoding("words", sha256, DIM)


def change_manifest(folder: Path, **changes: object) -> None:
    """Write some fields of a manifest anew, hashes of files among them."""
    manifest = manifests.load(folder)
    fields = json.loads(manifest.to_json()) | {"files": {k: asdict(v) for k, v in manifests.list_files(folder).items()}}
    manifests.write_text(folder, json.dumps(fields | changes))


def _write_policy(path: Path, home: np.ndarray) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    image, state, told = "observation.images.front", "observation.state", "observation.environment_state"
    turn = np.zeros((DIM, 6), np.float32)
    turn[1, 0] = TURN_RAD["white"]
    constants = {
        "turn": turn,
        "home": home[None],
        "nothing": np.array(0.0, np.float32),
        "pixels": np.array([1, 2, 3], np.int64),
        "rows": np.array([1, 1, 6], np.int64),
        "chunk": np.array([1, HORIZON, 6], np.int64),
    }
    nodes = [
        helper.make_node("Cast", [image], ["picture"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["picture", "pixels"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["seen"]),
        helper.make_node("Mul", [state, "nothing"], ["felt"]),
        helper.make_node("MatMul", [told, "turn"], ["turned"]),
        helper.make_node("Add", ["turned", "home"], ["goal"]),
        helper.make_node("Add", ["goal", "felt"], ["with_state"]),
        helper.make_node("Add", ["with_state", "seen"], ["with_picture"]),
        helper.make_node("Reshape", ["with_picture", "rows"], ["row"]),
        helper.make_node("Expand", ["row", "chunk"], ["action"]),
    ]
    graph = helper.make_graph(
        nodes,
        "prompted",
        [
            helper.make_tensor_value_info(image, TensorProto.UINT8, [1, HEIGHT, WIDTH, 3]),
            helper.make_tensor_value_info(state, TensorProto.FLOAT, [1, 6]),
            helper.make_tensor_value_info(told, TensorProto.FLOAT, [1, DIM]),
        ],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, [1, HORIZON, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
