"""The ONNX graph: parity with LeRobot, half storage, the manifest, and running without torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from vla_core import manifest as manifests
from vla_core.errors import ModelError
from vla_training import act, export
from vla_training.onnx_policy import ACTION, IMAGES, ONNX_FILE, STATE, OnnxPolicy

pytestmark = pytest.mark.train

MODELS = Path(__file__).resolve().parents[3] / "models"
SETTINGS = export.ManifestSettings("tiny", "1.0.0", "put the black cube on the spot", 10.0, 0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small model with random weights and lived-in batch normalisation."""
    shape = act.ActSettings(
        width=64, height=32, chunk_size=4, dim_model=32, n_heads=2, dim_feedforward=32, n_encoder_layers=1
    )
    torch.manual_seed(0)
    policy = act.build(shape)
    policy.train()
    with torch.no_grad():
        policy.model({IMAGES: [torch.randn(4, 3, 32, 64)], STATE: torch.randn(4, 6)})
    image = {"mean": torch.full((3, 1, 1), 0.4), "std": torch.full((3, 1, 1), 0.2)}
    joints = {"mean": torch.linspace(-0.5, 0.5, 6), "std": torch.linspace(0.1, 0.6, 6)}
    path = tmp_path_factory.mktemp("model")
    act.save_checkpoint(act.folded(policy), {shape.image_key: image, STATE: joints, ACTION: joints}, path)
    export.export_onnx(path)
    return path


def shipped() -> list[Path]:
    return sorted(path.parent for path in MODELS.glob(f"*/{ONNX_FILE}"))


def test_parity_with_lerobot(folder):
    parity = export.measure_parity(folder, samples=4)
    assert parity.ok, parity
    assert parity.samples == 4


@pytest.mark.parametrize("model", shipped(), ids=lambda path: path.name)
def test_parity_of_the_shipped_models(model):
    parity = export.measure_parity(model, samples=4)
    assert parity.max_abs_error_rad < export.PARITY_LIMIT_RAD


@pytest.mark.parametrize("model", shipped(), ids=lambda path: path.name)
def test_shipped_models_match_their_manifests(model):
    about = manifests.load(model)
    manifests.verify(model, about)
    graph = OnnxPolicy(model / ONNX_FILE)
    camera = about.cameras[graph.camera]
    assert (camera.width, camera.height) == (graph.width, graph.height)
    answer = graph(np.zeros((graph.height, graph.width, 3), np.uint8), np.zeros(about.dof))
    assert answer.shape == (about.chunk_size, about.dof)


def test_graph_has_the_agreed_inputs_and_outputs(folder):
    graph = onnx.load(folder / ONNX_FILE).graph
    inputs = {entry.name: entry.type.tensor_type for entry in graph.input}
    assert set(inputs) == {"observation.images.front", STATE}
    assert inputs["observation.images.front"].elem_type == TensorProto.UINT8
    assert [dim.dim_value for dim in inputs["observation.images.front"].shape.dim] == [1, 32, 64, 3]
    assert [entry.name for entry in graph.output] == [ACTION]


def test_large_weights_are_stored_as_float16(folder):
    large = [tensor for tensor in onnx.load(folder / ONNX_FILE).graph.initializer if np.prod(tensor.dims) > 10_000]
    assert large
    assert {tensor.data_type for tensor in large} == {TensorProto.FLOAT16}


def test_lossy_tensors_keep_their_precision():
    exact, lossy = np.full(1000, 0.5, np.float32), np.full(1000, 0.1, np.float32)
    tensors = [numpy_helper.from_array(exact, "exact"), numpy_helper.from_array(lossy, "lossy")]
    node = helper.make_node("Add", ["exact", "lossy"], ["sum"])
    result = helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1000])
    model = helper.make_model(helper.make_graph([node], "g", [], [result], tensors))
    assert export.store_half(model) == 1
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {"exact.half": TensorProto.FLOAT16, "lossy": TensorProto.FLOAT}
    onnx.checker.check_model(model)


def test_running_needs_neither_torch_nor_lerobot(folder):
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from vla_training.onnx_policy import OnnxPolicy\n"
        f"policy = OnnxPolicy(Path({str(folder / ONNX_FILE)!r}))\n"
        "policy(np.zeros((32, 64, 3), np.uint8), np.zeros(6))\n"
        "sys.exit(int('torch' in sys.modules or 'lerobot' in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=120).returncode == 0


def test_manifest_describes_the_checkpoint(folder):
    export.write_manifest(folder, SETTINGS, {"seed": 0})
    about = manifests.load(folder)
    manifests.verify(folder, about)
    assert about.policy_type == "act"
    assert about.backend == "onnx"
    assert about.cameras == {"front": manifests.CameraInput(64, 32)}
    assert about.chunk_size == 4
    assert ONNX_FILE in about.files


def test_missing_checkpoint_is_named(tmp_path, capsys):
    assert export.main([str(tmp_path), "--name", "x", "--version", "1"]) == 2
    assert str(tmp_path) in capsys.readouterr().out


def test_graph_of_another_kind_is_refused(tmp_path):
    value = helper.make_tensor_value_info("a", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "g", [value], [result])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "x.onnx")
    with pytest.raises(ModelError, match="takes a"):
        OnnxPolicy(tmp_path / "x.onnx")


def test_success_is_taken_from_an_evaluation():
    evaluation = {
        "successes": 3,
        "episodes": 4,
        "interval_95": [0.3, 0.95],
        "wrong_lifted": 0,
        "settings": {"latency_s": 0.1, "replan_s": 0.5, "limit_s": 20.0},
        "results": [{"seed": seed} for seed in (7, 5, 6, 8)],
    }
    found = export.success_of(evaluation)
    assert (found["successes"], found["episodes"], found["seeds"]) == (3, 4, [5, 8])
    with pytest.raises(ModelError, match="evaluate"):
        export.success_of({"successes": 3})
