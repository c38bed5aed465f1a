"""Parameters and what follows from them; needs rclpy to import, starts no node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from policy_logic import SPEC

from vla_core.errors import ConfigError, ModelError
from vla_core.manifest import Manifest
from vla_core.metadata import describe

pytest.importorskip("rclpy")

from policy_support import write_model

from vla_policy.settings import Settings, objection


def client(metadata: dict[str, object]) -> SimpleNamespace:
    return SimpleNamespace(metadata=metadata, address="ws://cloud:8000")


def test_the_model_s_own_rhythm_holds_unless_told_otherwise():
    assert Settings().loop(SPEC).rules.open_loop_s == 1.0
    assert Settings(open_loop_s=0.3).loop(SPEC).rhythm.open_loop_s == 0.3
    with pytest.raises(ConfigError, match=r"open_loop_s is 3 s; a chunk of model tiny@1 covers 2 s"):
        Settings(open_loop_s=3.0).loop(SPEC)
    with pytest.raises(ConfigError, match="request_period_s"):
        Settings(request_period_s=1.5).loop(SPEC)


def test_a_server_that_describes_itself_is_believed():
    manifest = Manifest("pick", "3", "act", "onnx", SPEC.joint_names, cameras=SPEC.cameras)
    assert Settings().identify(client(describe(manifest))).label == "pick@3"
    with pytest.raises(ModelError, match="this robot has wrist"):
        Settings(cameras=("wrist",)).identify(client(describe(manifest)))


def test_one_that_does_not_needs_a_manifest_of_ours(tmp_path: Path):
    with pytest.raises(ModelError, match="ws://cloud:8000 does not say what its model wants"):
        Settings().identify(client({}))
    folder = write_model(tmp_path / "pi0")
    spec = Settings(wire_keys="front=observation/image").identify(client({}), folder)
    assert spec.label == "tiny@1"
    assert spec.keys.images == {"front": "observation/image"}


def test_which_parameters_may_change():
    assert objection("model", "other", "") == ""
    assert objection("use_sim_time", True, "") == ""
    assert "fixed while the node runs; model, prompt, request_id, server, swap are not" in objection("blend_s", 0.3, "")
    assert objection("active_model", "m@1", "m@1") == ""
    assert "read-only" in objection("active_model", "m@2", "m@1")


def test_a_link_for_every_address():
    assert Settings(server="ws://cloud:8000").link(print) is not None
    with pytest.raises(ConfigError, match="is no address"):
        Settings(server="cloud").link(print)
    with pytest.raises(ConfigError, match="parameter 'model' is empty"):
        Settings().link(print)
    with pytest.raises(ConfigError, match="--api-key-file"):
        replace(Settings(server="ws://cloud:8000"), api_key_file="/nowhere/key").link(print)
