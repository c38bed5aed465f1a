"""The torch backend refuses what it cannot vouch for, in one line; units, cameras and offsets are the manifest's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot")

from lerobot.configs import FeatureType, PolicyFeature
from safetensors.torch import load_file, save_file
from torch_support import build, scene

from vla_core import manifest as manifests
from vla_core.errors import EvergreenError, ManifestError, ModelError
from vla_core.joints import SO101_JOINTS
from vla_core.observation import ENVIRONMENT_KEY
from vla_policy.serving.backends import load_backend
from vla_policy.serving.torch_backend import TorchBackend
from vla_policy.serving.torch_robot import align
from vla_training import tiny

pytestmark = [pytest.mark.train, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TDMPC's is the smallest of them."""
    return build("tdmpc", tmp_path_factory.mktemp("pristine") / "tdmpc")


@pytest.fixture(scope="module")
def act(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("act", tmp_path_factory.mktemp("pristine") / "act")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))


def rewrite(folder: Path, **changes: Any) -> Path:
    """Change the manifest's fields, with the hashes of the files as they are now."""
    manifest = replace(manifests.load(folder), files=manifests.list_files(folder), **changes)
    manifests.write(folder, manifest)
    return folder


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def refusal(folder: Path) -> str:
    with pytest.raises(EvergreenError) as caught:
        TorchBackend(folder, threads=1)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def answer(folder: Path, **changes: Any) -> np.ndarray:
    return TorchBackend(folder, threads=1).open_session().infer({**scene(0), **changes})["actions"]


def test_the_manifest_names_the_backend(folder: Path) -> None:
    assert isinstance(load_backend(folder, threads=1), TorchBackend)


def test_no_folder_no_model() -> None:
    with pytest.raises(ModelError, match="needs a model folder"):
        TorchBackend(None, threads=1)


def test_a_checkpoint_without_its_files_in_the_manifest_is_refused(folder: Path) -> None:
    manifests.write(folder, replace(manifests.load(folder), files={}))
    assert "lists no config.json; `evergreen model export` makes a model" in refusal(folder)


def test_a_file_that_the_manifest_does_not_name_is_refused(folder: Path) -> None:
    """Transformers reads whatever lies in a folder under the right name."""
    (folder / "vlm").mkdir()
    (folder / "vlm" / "tokenizer_config.json").write_text("{}")
    assert "tokenizer_config.json is not in the manifest" in refusal(folder)


def test_a_changed_file_is_refused(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(horizon=4))
    assert "config.json has" in refusal(folder)


def test_weights_cut_short_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    rewrite(folder)
    assert "where its header says" in refusal(folder)


def test_unknown_keys_of_another_release_are_refused(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(shiny=True))
    rewrite(folder)
    text = refusal(folder)
    assert "unknown key(s) shiny: it was written by another release than LeRobot 0.6" in text


def test_an_unknown_type_is_refused(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(type="telepathy"))
    rewrite(folder)
    text = refusal(folder)
    assert "policy type 'telepathy' is unknown; LeRobot has act, " in text


def test_a_value_that_lerobot_refuses_is_told_in_its_words(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(n_gaussian_samples=0))
    rewrite(folder)
    text = refusal(folder)
    assert "LeRobot cannot load this tdmpc policy: " in text
    assert "gaussian samples" in text


def test_a_missing_tensor_is_refused_and_not_left_random(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights[next(key for key in weights if key.startswith("model._pi"))]
    save_file(weights, path)
    rewrite(folder)
    assert "model.safetensors" in refusal(folder) or "model._pi" in refusal(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(latent_dim=9))
    rewrite(folder)
    assert "LeRobot cannot load this tdmpc policy" in refusal(folder)


def test_a_policy_whose_loader_swallows_the_failure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LeRobot's pi0 prints a warning and goes on with random weights."""
    pytest.importorskip("transformers")
    folder = build("tiny_pi0", tmp_path / "pi0")
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = next(key for key in weights if key.endswith("action_out_proj.weight"))
    weights[name] = weights[name][:, :-1].contiguous()
    save_file(weights, path)
    rewrite(folder)
    assert "does not hold all of the policy" in refusal(folder)


def test_a_model_on_a_hub_is_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    folder = build("smolvla", tmp_path / "smolvla")
    edit(folder / "config.json", lambda config: config.update(vlm_model_name="HuggingFaceTB/SmolVLM2-500M"))
    rewrite(folder)
    text = refusal(folder)
    assert "vlm_model_name 'HuggingFaceTB/SmolVLM2-500M' is not in the checkpoint, and nothing is fetched" in text
    (folder / "vlm").rename(folder / "SmolVLM2-500M")
    rewrite(folder)
    assert "tokenizer_name 'vlm' is not in the checkpoint" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"joint_names": SO101_JOINTS[:5]}, "6 joints in an action in config.json, 5 in the manifest"),
        ({"n_obs_steps": 2}, r"1 past observations \(n_obs_steps\) in config.json, 2 in the manifest"),
        ({"cameras": {"front": manifests.CameraInput(32, 64)}}, "is 64x64 px in config.json and 32x64 px"),
        ({"cameras": {}, "camera_keys": {}}, "sees observation.image; name its camera in the manifest"),
        ({"chunk_size": 11}, r"answers \(10, 6\), where its manifest says \(11, 6\)"),
        ({"image_pipeline": "bgr-stretch-v0"}, "needs image pipeline 'bgr-stretch-v0'"),
    ],
)
def test_a_manifest_of_another_checkpoint_is_refused(folder: Path, changes: dict[str, Any], expected: str) -> None:
    rewrite(folder, **changes)
    with pytest.raises(EvergreenError, match=expected):
        TorchBackend(folder, threads=1)


def test_an_input_that_no_robot_has_is_refused(folder: Path) -> None:
    feature = {"observation.environment_state": {"type": "ENV", "shape": [2]}}
    edit(folder / "config.json", lambda config: config["input_features"].update(feature))
    rewrite(folder)
    assert "looks at observation.environment_state, which no robot here has" in refusal(folder)


def test_cameras_are_the_robots_whatever_the_checkpoint_calls_them(act: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(act, tmp_path / "model"))
    size = manifests.CameraInput(tiny.WIDTH, tiny.HEIGHT)
    keys = {"overhead": "observation.images.front", "rear": "observation.images.wrist"}
    rewrite(folder, cameras={"rear": size, "overhead": size}, camera_keys=keys)
    seen = scene(0)
    front, wrist = seen.pop("observation.images.front"), seen.pop("observation.images.wrist")
    renamed = {**seen, "observation.images.overhead": front, "observation.images.rear": wrist}
    found = TorchBackend(folder, threads=1).open_session().infer(renamed)["actions"]
    np.testing.assert_array_equal(found, answer(act))


def test_a_chunk_that_begins_later_is_held_back_to_the_observation(act: Path, tmp_path: Path) -> None:
    folder = rewrite(Path(shutil.copytree(act, tmp_path / "model")), action_offset=2)
    plain, late = answer(act), answer(folder)
    np.testing.assert_array_equal(late, np.concatenate([plain[:1], plain[:1], plain[:-2]]))


@pytest.mark.parametrize(("offset", "rows"), [(0, [1, 2, 3]), (1, [1, 1, 2, 3]), (-1, [2, 3])])
def test_row_zero_is_the_observations_own_time(offset: int, rows: list[int]) -> None:
    assert align(np.array([[1.0], [2.0], [3.0]], np.float32), offset)[:, 0].tolist() == rows


def test_the_default_prompt_is_the_models(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = build("smolvla", tmp_path / "smolvla", prompt="put the white cube on the spot")
    white, silent = answer(folder, prompt="put the white cube on the spot"), answer(folder, prompt="")
    np.testing.assert_array_equal(silent, white)
    assert not np.array_equal(silent, answer(folder, prompt="put the black cube on the spot"))


def test_a_checkpoint_in_a_folder_without_a_manifest_is_no_model(folder: Path) -> None:
    (folder / manifests.FILE_NAME).unlink()
    with pytest.raises(ManifestError, match=r"has no manifest\.json"):
        TorchBackend(folder, threads=1)


def test_a_prompts_vector_reaches_a_policy_whose_manifest_names_the_encoder(tmp_path: Path) -> None:
    extra = {ENVIRONMENT_KEY: PolicyFeature(FeatureType.ENV, (4,))}
    folder = tiny.build("act", tmp_path / "act", more_inputs=extra)
    tiny.describe(folder, prompt_encoder=manifests.PromptEncoding("words", "0" * 64, 4))
    backend = TorchBackend(folder, threads=1)
    one, other = (
        backend.open_session().infer({**scene(0), ENVIRONMENT_KEY: vector})["actions"]
        for vector in np.eye(4, dtype=np.float32)[:2]
    )
    assert np.abs(one - other).max() > 1e-4
    rewrite(folder, prompt_encoder=manifests.PromptEncoding("words", "0" * 64, 5))
    assert "looks at observation.environment_state, which no robot here has" in refusal(folder)
