"""Which model folders load, and what is said of those that do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from policy_support import HORIZON, STEP_RAD, observation, write_model

from vla_core import manifest as manifests
from vla_core.errors import ConfigError, ManifestError, ModelError, WireError
from vla_core.manifest import CameraInput
from vla_policy.serving import backends
from vla_policy.serving.backends import load_backend
from vla_policy.serving.onnx_backend import OnnxBackend


def test_a_sound_folder_answers(model: Path):
    backend = OnnxBackend(model, threads=1)
    actions = backend.open_session().infer(observation(state=0.5))["actions"]
    np.testing.assert_allclose(actions[:, 0], 0.5 + STEP_RAD * np.arange(HORIZON), atol=1e-6)
    assert actions.dtype == np.float32
    assert backend.metadata()["open_loop_s"] == 1.0


def test_read_only_views_of_a_message_are_taken(model: Path):
    given = observation()
    given["observation.images.front"].flags.writeable = False
    given["observation.state"].flags.writeable = False
    assert OnnxBackend(model, threads=1).infer(given)["actions"].shape == (HORIZON, 6)


def test_an_observation_without_a_picture(model: Path):
    given = observation()
    del given["observation.images.front"]
    with pytest.raises(WireError, match=r"lacks the array 'observation\.images\.front'; it has observation\.state"):
        OnnxBackend(model, threads=1).infer(given)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"graph_camera": "rear"}, r"lacks the input observation\.images\.front .*; it has observation\.images\.rear"),
        ({"cameras": {}}, r"wants observation\.images\.front, which its manifest does not list"),
        ({"cameras": {"front": CameraInput(32, 32)}}, r"the manifest says uint8 \[1, 32, 32, 3\]"),
        ({"chunk_size": 30}, r"answers \(20, 6\), where its manifest says \(30, 6\)"),
        ({"image_pipeline": "bgr-stretch"}, "needs image pipeline 'bgr-stretch'"),
        ({"n_obs_steps": 2}, "looks at 2 past observations"),
    ],
)
def test_a_graph_that_its_manifest_contradicts(tmp_path: Path, fields: dict[str, object], words: str):
    folder = write_model(tmp_path / "m", **fields)
    with pytest.raises(ModelError, match=words):
        OnnxBackend(folder, threads=1)


def test_a_file_cut_short_or_changed(tmp_path: Path):
    folder = write_model(tmp_path / "m")
    graph = folder / "policy.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-10])
    with pytest.raises(ManifestError, match=r"policy\.onnx has \d+ bytes where the manifest says"):
        OnnxBackend(folder, threads=1)
    graph.write_bytes(whole[:-1] + b"\x00")
    with pytest.raises(ManifestError, match="does not match its SHA-256"):
        OnnxBackend(folder, threads=1)
    graph.unlink()
    with pytest.raises(ManifestError, match="is missing"):
        OnnxBackend(folder, threads=1)


def test_a_file_that_is_no_graph(tmp_path: Path):
    folder = write_model(tmp_path / "m")
    (folder / "policy.onnx").write_bytes(b"no protobuf")
    manifests.write(folder, replace(manifests.load(folder), files=manifests.list_files(folder)))
    with pytest.raises(ModelError, match="is no ONNX graph that this machine can run"):
        OnnxBackend(folder, threads=1)


def test_a_manifest_without_a_graph(tmp_path: Path):
    folder = write_model(tmp_path / "m")
    manifests.write(folder, replace(manifests.load(folder), files={}))
    with pytest.raises(ManifestError, match=r"lists no policy\.onnx"):
        OnnxBackend(folder, threads=1)


class TestRegistry:
    def test_the_manifest_names_the_backend(self, model: Path):
        assert isinstance(load_backend(model, threads=1), OnnxBackend)

    def test_unknown_ones(self, tmp_path: Path):
        folder = write_model(tmp_path / "m")
        manifests.write(folder, replace(manifests.load(folder), backend="tensorrt"))
        with pytest.raises(ModelError, match="backend 'tensorrt' is not installed; this server has expert, onnx"):
            load_backend(folder)
        with pytest.raises(ConfigError, match="give a model folder"):
            load_backend(None)

    def test_another_package_s(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        folder = write_model(tmp_path / "m")

        class EntryPoint:
            @staticmethod
            def load():
                return lambda folder, *, threads: (folder, threads)

        class EntryPoints(dict):
            names = property(set)

        monkeypatch.setattr(backends, "entry_points", lambda group: EntryPoints({"mine": EntryPoint}))
        assert load_backend(folder, "mine", threads=3) == (folder, 3)

    def test_a_missing_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(backends, "BUILT_IN", {"torch": "evergreen_torch_that_is_not_there:Backend"})
        with pytest.raises(ModelError, match="needs the Python package 'evergreen_torch_that_is_not_there'"):
            load_backend(write_model(tmp_path / "m"), "torch")
