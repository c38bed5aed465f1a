"""The ONNX graph: parity with LeRobot, what it holds and what it points to, the manifest, running without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

from vla_core import manifest as manifests
from vla_core.checkpoint import inspect
from vla_core.errors import ModelError
from vla_core.joints import JointLimits, Units
from vla_core.observation import ENVIRONMENT_KEY
from vla_policy.serving.torch_checkpoint import load
from vla_policy.serving.torch_robot import RobotPolicy
from vla_training import act, export, tiny
from vla_training.onnx_policy import ACTION, IMAGES, ONNX_FILE, STATE, OnnxPolicy

pytestmark = pytest.mark.train

MODELS = Path(__file__).resolve().parents[3] / "models"
SETTINGS = export.ManifestSettings("tiny", "1.0.0", "put the black cube on the spot", 10.0, 0.3)
LARGE = 10_000
WORDS = 16
"""Numbers in a prompt's vector."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine two threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small model of our own with random weights and lived-in batch normalisation."""
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
    assert export.export_onnx(path).ok
    return path


@pytest.fixture(scope="module")
def prompted(tmp_path_factory) -> Path:
    """A policy that also takes a prompt's vector, with float16 weights, as training stores them."""
    path = tmp_path_factory.mktemp("prompted")
    extra = {ENVIRONMENT_KEY: PolicyFeature(FeatureType.ENV, (WORDS,))}
    halved(tiny.build("act", path, more_inputs=extra))
    assert export.export_onnx(path).ok
    return path


def halved(folder: Path) -> Path:
    """Its matrices and kernels as float16, as `act.save_checkpoint` writes them."""
    path = folder / "model.safetensors"
    save_file({key: value.half() if value.ndim >= 2 else value for key, value in load_file(path).items()}, path)
    return folder


def shipped() -> list[Path]:
    return sorted(path.parent for path in MODELS.glob(f"*/{ONNX_FILE}"))


def inputs_of(folder: Path) -> dict[str, tuple[int, list[int]]]:
    """Name to element type and shape."""
    return {
        entry.name: (entry.type.tensor_type.elem_type, [dim.dim_value for dim in entry.type.tensor_type.shape.dim])
        for entry in onnx.load(folder / ONNX_FILE, load_external_data=False).graph.input
    }


def large_tensors(folder: Path) -> list[TensorProto]:
    graph = onnx.load(folder / ONNX_FILE, load_external_data=False).graph
    return [tensor for tensor in graph.initializer if np.prod(tensor.dims) > LARGE]


def test_the_graph_answers_what_lerobot_answers(folder):
    parity = export.measure_parity(folder, samples=4)
    assert parity.samples == 4
    assert 0 < parity.max_abs_error_rad < export.PARITY_LIMIT_RAD


@pytest.mark.parametrize("model", shipped(), ids=lambda path: path.name)
def test_parity_of_the_shipped_models(model):
    assert export.measure_parity(model, samples=4).max_abs_error_rad < export.PARITY_LIMIT_RAD


@pytest.mark.parametrize("model", shipped(), ids=lambda path: path.name)
def test_shipped_models_match_their_manifests(model):
    about = manifests.load(model)
    manifests.verify(model, about)
    graph = OnnxPolicy(model / ONNX_FILE)
    camera = about.cameras[graph.camera]
    assert (camera.width, camera.height) == (graph.width, graph.height)
    vector = [np.zeros(about.prompt_encoder.dim)] if about.prompt_encoder else []
    answer = graph(np.zeros((graph.height, graph.width, 3), np.uint8), np.zeros(about.dof), *vector)
    assert answer.shape == (about.chunk_size, about.dof)


def test_graph_has_the_agreed_inputs_and_outputs(folder):
    assert inputs_of(folder) == {
        "observation.images.front": (TensorProto.UINT8, [1, 32, 64, 3]),
        STATE: (TensorProto.FLOAT, [1, 6]),
    }
    graph = onnx.load(folder / ONNX_FILE, load_external_data=False).graph
    assert [entry.name for entry in graph.output] == [ACTION]


def test_large_weights_are_the_checkpoints_own_float16(folder):
    large = large_tensors(folder)
    assert large
    assert {tensor.data_type for tensor in large} == {TensorProto.FLOAT16}
    assert {tensor.data_location for tensor in large} == {TensorProto.EXTERNAL}


def test_float32_weights_are_pointed_to_as_well(tmp_path):
    """The exporter of foreign checkpoints used to hold all weights a second time."""
    folder = tiny.build("act", tmp_path / "act", pictures=("observation.images.front", "observation.images.wrist"))
    assert export.export_onnx(folder).ok
    large = large_tensors(folder)
    assert {(tensor.data_type, tensor.data_location) for tensor in large} == {(TensorProto.FLOAT, TensorProto.EXTERNAL)}
    assert (folder / ONNX_FILE).stat().st_size < 0.02 * (folder / "model.safetensors").stat().st_size


def test_units_and_camera_names_of_the_manifest_are_inside(tmp_path):
    """Degrees, percent from -100 to 100 and from 0 to 100 in the checkpoint; rad outside."""
    keys = ("observation.images.top", "observation.images.hand")
    folder = tiny.build("act", tmp_path / "act", pictures=keys)
    ranges = {"wrist_roll": JointLimits(-1.5, 2.5), "gripper": JointLimits(-0.2, 1.8)}
    made = tiny.describe(
        folder,
        cameras={"overhead": keys[0], "rear": keys[1]},
        units=Units.DEG,
        joint_units={"wrist_roll": Units.PERCENT, "gripper": Units.PERCENT_FROM_ZERO},
        joint_ranges=ranges,
        action_offset=2,
    )
    assert export.export_onnx(folder).ok
    assert set(inputs_of(folder)) == {"observation.images.overhead", "observation.images.rear", STATE}
    assert manifests.load(folder) == made, "the manifest stays as it is"


def test_a_prompts_vector_is_a_third_input(prompted):
    assert inputs_of(prompted)[ENVIRONMENT_KEY] == (TensorProto.FLOAT, [1, WORDS])
    assert {tensor.data_type for tensor in large_tensors(prompted)} == {TensorProto.FLOAT16}
    assert {tensor.data_location for tensor in large_tensors(prompted)} == {TensorProto.EXTERNAL}
    graph = OnnxPolicy(prompted / ONNX_FILE)
    assert graph.environment_dim == WORDS
    picture, joints = np.full((graph.height, graph.width, 3), 90, np.uint8), np.zeros(6, np.float32)
    lerobot = RobotPolicy(load(inspect(prompted), "cpu"), tiny.describe(prompted))
    answers = []
    for word in np.eye(WORDS, dtype=np.float32)[:2]:
        seen: dict[str, Any] = {"observation.images.front": picture, STATE: joints, ENVIRONMENT_KEY: word}
        answers.append(graph(picture, joints, word))
        np.testing.assert_allclose(answers[-1], lerobot.actions((lerobot.prepare(seen),)), atol=1e-5)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3, "it does not look at the vector"


def test_a_vector_that_is_missing_or_not_wanted_is_told(prompted, folder):
    with pytest.raises(ModelError, match=f"takes {WORDS} numbers as {ENVIRONMENT_KEY}, not 0"):
        OnnxPolicy(prompted / ONNX_FILE)(np.zeros((64, 64, 3), np.uint8), np.zeros(6))
    with pytest.raises(ModelError, match="takes 0 numbers"):
        OnnxPolicy(folder / ONNX_FILE)(np.zeros((32, 64, 3), np.uint8), np.zeros(6), np.zeros(3))


def test_a_graph_that_answers_otherwise_is_not_written(folder, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    before = (copy / ONNX_FILE).read_bytes()
    monkeypatch.setattr(export.Deployed, "forward", off_by_a_little(export.Deployed.forward))
    with pytest.raises(ModelError, match=r"1\.0e-03 rad off LeRobot's answer"):
        export.export_onnx(copy)
    assert (copy / ONNX_FILE).read_bytes() == before
    assert sorted(path.name for path in copy.iterdir()) == sorted(path.name for path in folder.iterdir())


def off_by_a_little(forward):
    return lambda self, *inputs: forward(self, *inputs) + 0.001


def test_a_graph_without_the_weights_beside_it_says_so(folder, tmp_path):
    moved = Path(shutil.copyfile(folder / ONNX_FILE, tmp_path / ONNX_FILE))
    with pytest.raises(ModelError, match=r"reads its weights from model\.safetensors beside it, which is not there"):
        OnnxPolicy(moved)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"model\.safetensors has \d+ bytes where its header says"):
        OnnxPolicy(moved)


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


def test_manifest_describes_the_checkpoint(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    export.write_manifest(copy, SETTINGS, {"seed": 0})
    about = manifests.load(copy)
    manifests.verify(copy, about)
    assert about.policy_type == "act"
    assert about.backend == "onnx"
    assert about.cameras == {"front": manifests.CameraInput(64, 32)}
    assert about.chunk_size == 4
    assert {ONNX_FILE, "model.safetensors"} <= set(about.files)


def test_the_program_adds_graph_and_manifest(folder, tmp_path, capsys):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / ONNX_FILE).unlink()
    assert export.main([str(copy), "--name", "x", "--version", "1", "--open-loop-s", "0.3"]) == 0
    told = json.loads(capsys.readouterr().out)
    about = manifests.load(copy)
    assert (about.label, about.provenance["parity_max_abs_error_rad"]) == ("x@1", told["max_abs_error_rad"])


def test_what_is_no_checkpoint_is_named(tmp_path, capsys):
    assert export.main([str(tmp_path), "--name", "x", "--version", "1"]) == 2
    assert f"{tmp_path} is no LeRobot checkpoint" in capsys.readouterr().err


def test_a_type_that_cannot_be_a_graph_is_named(tmp_path, capsys):
    assert export.main([str(tiny.build("tdmpc", tmp_path / "tdmpc"))]) == 2
    assert "holds a tdmpc policy; only act can become an ONNX graph" in capsys.readouterr().err


def test_graph_of_another_kind_is_refused(tmp_path):
    value = helper.make_tensor_value_info("a", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "g", [value], [result])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "x.onnx")
    with pytest.raises(ModelError, match="takes a"):
        OnnxPolicy(tmp_path / "x.onnx")
    with pytest.raises(ModelError, match=r"y\.onnx cannot be read: No such file"):
        OnnxPolicy(tmp_path / "y.onnx")


def test_success_is_taken_from_an_evaluation():
    evaluation = {
        "model": "m", "successes": 3, "episodes": 4, "interval_95": [0.3, 0.95], "wrong_object": 0, "median_s": 4.0,
        "shift": "", "seeds": [5, 8], "graph": False, "results": [],
    }  # fmt: skip
    found = export.success_of(evaluation)
    assert (found["successes"], found["episodes"], found["seeds"]) == (3, 4, [5, 8])
    assert "results" not in found
    with pytest.raises(ModelError, match="evergreen eval"):
        export.success_of({"successes": 3})
