"""LeRobot checkpoints, looked at without LeRobot: what they say of themselves, and which are refused."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest

from vla_core import checkpoint
from vla_core.errors import ModelError
from vla_core.manifest import CameraInput

MODELS = Path(__file__).resolve().parents[3] / "models"


def write_weights(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


def write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint as LeRobot writes it, but for the numbers in its weights."""
    config = {
        "type": "diffusion",
        "n_obs_steps": 2,
        "horizon": 16,
        "n_action_steps": 8,
        "input_features": {
            "observation.images.top": {"type": "VISUAL", "shape": [3, 480, 640]},
            "observation.images.empty_camera_0": {"type": "VISUAL", "shape": [3, 480, 640]},
            "observation.state": {"type": "STATE", "shape": [6]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [6]}},
    }
    write_json(tmp_path / checkpoint.CONFIG_FILE, config)
    write_weights(tmp_path / checkpoint.WEIGHTS_FILE)
    write_weights(tmp_path / "statistics.safetensors")
    steps = {"name": "x", "steps": [{"registry_name": "normalizer_processor", "state_file": "statistics.safetensors"}]}
    for name in checkpoint.PROCESSOR_FILES:
        write_json(tmp_path / name, steps)
    return tmp_path


def change(path: Path, **changes: object) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def test_it_says_what_it_sees_and_does(folder: Path) -> None:
    found = checkpoint.inspect(folder)
    assert found.policy_type == "diffusion"
    assert found.cameras == {"observation.images.top": CameraInput(640, 480)}
    assert found.camera_names == {"observation.images.top": "top"}
    assert (found.state_dim, found.action_dim, found.n_obs_steps, found.chunk_size) == (6, 6, 2, 8)
    assert found.other_inputs == ()
    checkpoint.check_safe(folder)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"type": "act", "chunk_size": 20, "n_action_steps": 5}, 20),
        ({"type": "diffusion", "horizon": 8, "n_action_steps": 8, "n_obs_steps": 3}, 6),
        ({"type": "vqbet", "action_chunk_size": 5, "n_action_pred_token": 7}, 5),
        ({"type": "tdmpc", "horizon": 5, "n_action_steps": 1}, 5),
        ({"type": "tdmpc", "horizon": 5, "n_action_repeats": 2}, 10),
        ({"type": "tdmpc", "horizon": 5, "use_mpc": False}, 1),
        ({"type": "somebodys", "n_action_steps": 3}, 3),
        ({"type": "somebodys", "chunk_size": None}, 1),
    ],
)
def test_each_type_has_its_own_word_for_the_chunk(folder: Path, config: dict[str, object], size: int) -> None:
    old = json.loads((folder / checkpoint.CONFIG_FILE).read_text())
    kept = {key: old[key] for key in ("input_features", "output_features")}
    write_json(folder / checkpoint.CONFIG_FILE, kept | config)
    assert checkpoint.inspect(folder).chunk_size == size


def test_the_shipped_checkpoints_pass() -> None:
    shipped = [path.parent for path in MODELS.glob(f"*/{checkpoint.CONFIG_FILE}")]
    assert shipped
    for folder in shipped:
        checkpoint.check_safe(folder)
        assert checkpoint.inspect(folder).policy_type == "act"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "vlm/modeling.py", "stats.pkl", "MODEL.PTH"])
def test_what_could_run_code_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(ModelError, match=r"could run code when it is loaded; Evergreen loads only safetensors"):
        checkpoint.check_safe(folder)


def test_code_by_reference_is_refused(folder: Path) -> None:
    (folder / "vlm").mkdir()
    write_json(folder / "vlm" / "config.json", {"auto_map": {"AutoModel": "someone/else--modeling.Net"}})
    with pytest.raises(ModelError, match=r"vlm/config.json asks for code of its own \('auto_map'\)"):
        checkpoint.check_safe(folder)


def test_a_processor_named_by_an_import_path_is_refused(folder: Path) -> None:
    """LeRobot imports it and calls it with the checkpoint's own arguments: a shell command would do."""
    step = {"class": "subprocess.Popen", "config": {"args": ["touch", "/tmp/owned"]}}
    write_json(folder / checkpoint.PREPROCESSOR_FILE, {"name": "x", "steps": [step]})
    with pytest.raises(ModelError, match=r"step 'subprocess.Popen' is named by an import path"):
        checkpoint.check_safe(folder)


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_weights_cut_short_are_refused(folder: Path, keep: int) -> None:
    path = folder / checkpoint.WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model.safetensors .*fetch it again"):
        checkpoint.check_safe(folder)


def test_weights_that_are_no_safetensors_are_refused(folder: Path) -> None:
    (folder / checkpoint.WEIGHTS_FILE).write_bytes(struct.pack("<Q", 4) + b"what")
    with pytest.raises(ModelError, match="its header is malformed"):
        checkpoint.check_safe(folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (checkpoint.WEIGHTS_FILE, "has no model.safetensors"),
        (checkpoint.PREPROCESSOR_FILE, "has no policy_preprocessor.json, which holds the normalisation"),
        (checkpoint.POSTPROCESSOR_FILE, "has no policy_postprocessor.json"),
        ("statistics.safetensors", "needs statistics.safetensors, which is missing"),
    ],
)
def test_a_missing_file_is_named(folder: Path, name: str, expected: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=expected):
        checkpoint.check_safe(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"type": None}, "has no 'type'"),
        ({"use_peft": True}, "is an adapter"),
        ({"output_features": {}}, "has no 'action'"),
        ({"input_features": {"observation.state": {"type": "STATE"}}}, "input_features does not say the type"),
        ({"input_features": {"observation.depth": {"type": "VISUAL", "shape": [1, 8, 8]}}}, "is no colour picture"),
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused(
    folder: Path, changes: dict[str, object], expected: str
) -> None:
    change(folder / checkpoint.CONFIG_FILE, **changes)
    with pytest.raises(ModelError, match=expected):
        checkpoint.inspect(folder)


@pytest.mark.parametrize(
    ("text", "expected"), [("{", "it may be cut short"), ("[]", "must hold a JSON object, not list")]
)
def test_malformed_json_is_named(folder: Path, text: str, expected: str) -> None:
    (folder / checkpoint.CONFIG_FILE).write_text(text)
    with pytest.raises(ModelError, match=f"config.json .*{expected}"):
        checkpoint.inspect(folder)


def test_a_folder_that_is_none_or_holds_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        checkpoint.inspect(tmp_path / "none")
    with pytest.raises(ModelError, match=r"is no LeRobot checkpoint: it has no config.json"):
        checkpoint.inspect(tmp_path)


def test_models_named_by_the_configuration_are_found_in_the_folder_or_refused(folder: Path) -> None:
    origin = folder / checkpoint.CONFIG_FILE
    config = {"vlm_model_name": "someone/SmolVLM", "scheduler_name": "cosine", "device": "cpu", "tokenizer_name": None}
    with pytest.raises(ModelError, match=r"vlm_model_name 'someone/SmolVLM' is not in the checkpoint, .*no weights"):
        checkpoint.localised(folder, origin, config)
    (folder / "SmolVLM").mkdir()
    assert checkpoint.localised(folder, origin, config) == {"vlm_model_name": str(folder / "SmolVLM")}


@pytest.mark.parametrize("value", ["..", "/etc", "../elsewhere", "."])
def test_a_model_outside_the_folder_is_refused(folder: Path, value: str) -> None:
    (folder.parent / "elsewhere").mkdir(exist_ok=True)
    with pytest.raises(ModelError, match="is not in the checkpoint"):
        checkpoint.find_inside(folder, folder / checkpoint.CONFIG_FILE, "vlm_model_name", value)


def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "vlm").symlink_to("/etc")
    with pytest.raises(ModelError, match="is not in the checkpoint"):
        checkpoint.find_inside(folder, folder / checkpoint.CONFIG_FILE, "vlm_model_name", "vlm")


def test_statistics_outside_the_folder_are_refused(folder: Path) -> None:
    step = {"registry_name": "normalizer_processor", "state_file": "../other/statistics.safetensors"}
    write_json(folder / checkpoint.PREPROCESSOR_FILE, {"name": "x", "steps": [step]})
    with pytest.raises(ModelError, match="must lie beside it"):
        checkpoint.check_safe(folder)


def test_the_normalisation_tells_how_large_joint_values_were() -> None:
    extent = checkpoint.joint_extent(MODELS / "evergreen-black")
    assert 1.0 < extent < 2 * math.pi, "radians: less than a full turn"
