from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from policy_logic import SPEC, T0

from vla_core.errors import ConfigError, ModelError
from vla_core.joints import SO101_JOINTS, Units
from vla_core.manifest import CameraInput, Manifest
from vla_core.metadata import describe
from vla_core.observation import Observation
from vla_policy.model import (
    ModelSpec,
    WireKeys,
    check_robot,
    from_manifest,
    from_metadata,
    is_self_describing,
    parse_keys,
)

MANIFEST = Manifest(
    name="pick",
    version="3",
    policy_type="act",
    backend="onnx",
    joint_names=SO101_JOINTS,
    cameras={"front": CameraInput(128, 64)},
    open_loop_s=1.0,
    prompt="go",
)
CAMERAS = ("front", "wrist")


def observation() -> Observation:
    return Observation(T0, {"front": np.zeros((64, 128, 3), np.uint8)}, np.full(6, np.pi, np.float32), "go")


def test_an_evergreen_server_describes_itself():
    metadata = describe(MANIFEST)
    assert is_self_describing(metadata)
    spec = from_metadata(metadata, WireKeys())
    # Of somebody else's server nobody knows whether it listens.
    assert replace(spec, listens=True) == from_manifest(MANIFEST, WireKeys())
    assert not spec.listens
    assert spec.label == "pick@3"
    seen = observation()
    np.testing.assert_equal(spec.to_wire(seen), seen.to_wire())


def test_another_s_does_not():
    assert not is_self_describing({})
    assert not is_self_describing({"reset_pose": [0.0]})


@pytest.mark.parametrize(
    "broken",
    [
        {"cameras": {"front": {"width": 128}}},
        {"cameras": {"front": {"width": 0, "height": 64}}},
        {"cameras": ["front"]},
        {"rate_hz": "fast"},
        {"rate_hz": 0, "open_loop_s": None},
        {"units": "furlong"},
        {"joint_names": 6},
    ],
)
def test_metadata_that_contradict_themselves(broken):
    with pytest.raises(ModelError, match="do not describe a model"):
        from_metadata(describe(MANIFEST) | broken, WireKeys())


def test_models_that_nobody_could_feed():
    with pytest.raises(ModelError, match="percent"):
        from_metadata(describe(MANIFEST) | {"units": "percent"}, WireKeys())
    with pytest.raises(ModelError, match="image pipeline 'other'"):
        from_metadata(describe(MANIFEST) | {"image_pipeline": "other"}, WireKeys())


def test_keys_and_units_of_a_server_that_is_not_ours():
    keys = parse_keys(" front=observation/image, state=observation/state,prompt=text ,actions=action")
    spec = from_manifest(replace(MANIFEST, units=Units.DEG), keys)
    message = spec.to_wire(observation())
    assert set(message) == {"observation/image", "observation/state", "text", "stamp_ns"}
    np.testing.assert_allclose(message["observation/state"], 180.0)
    assert message["observation/state"].dtype == np.float32
    assert spec.keys.actions == "action"
    np.testing.assert_allclose(spec.to_rad(np.full((2, 6), 90.0)), np.pi / 2)


@pytest.mark.parametrize("text", ["front", "front=", "=x", "front=a,front=b"])
def test_keys_of_another_form(text: str):
    with pytest.raises(ConfigError, match="wire_keys"):
        parse_keys(text)


def test_no_keys_are_the_default():
    assert parse_keys("").is_default


def test_answers_of_another_width():
    with pytest.raises(ModelError, match="answered 7 joints for 6"):
        SPEC.to_rad(np.zeros((20, 7)))


class TestRobot:
    def test_that_fits(self):
        check_robot(SPEC, CAMERAS, SO101_JOINTS)
        check_robot(SPEC, CAMERAS, SO101_JOINTS[::-1])

    @pytest.mark.parametrize(
        ("spec", "cameras", "joint_names", "words"),
        [
            (SPEC.with_cameras("side"), CAMERAS, SO101_JOINTS, r"wants camera\(s\) side; this robot has front, wrist"),
            (SPEC, (), SO101_JOINTS, "this robot has none"),
            (SPEC, CAMERAS, SO101_JOINTS[:5], r"moves joint\(s\) gripper; this robot has shoulder_pan"),
            (
                replace(SPEC, joint_names=SO101_JOINTS[:5]),
                CAMERAS,
                SO101_JOINTS,
                r"does not move joint\(s\) gripper",
            ),
        ],
    )
    def test_that_does_not(self, spec: ModelSpec, cameras, joint_names, words: str):
        with pytest.raises(ModelError, match=words):
            check_robot(spec, cameras, joint_names)


@pytest.mark.parametrize("units", [Units.PERCENT, Units.PERCENT_FROM_ZERO])
def test_percent_of_an_unknown_range_is_refused(units: Units):
    with pytest.raises(ModelError, match="speaks percent of a range"):
        replace(SPEC, units=units)


def test_units_by_joint_are_for_evergreens_own_server():
    manifest = replace(MANIFEST, units=Units.RAD, joint_units={MANIFEST.joint_names[0]: Units.DEG})
    with pytest.raises(ModelError, match="has joints of different units"):
        from_manifest(manifest, WireKeys())


def test_what_a_model_looks_back_at_comes_with_its_metadata():
    spec = from_metadata(describe(replace(MANIFEST, n_obs_steps=3, observation_period_s=0.05)), WireKeys())
    assert (spec.n_obs_steps, spec.observation_period_s) == (3, 0.05)
    assert from_manifest(replace(MANIFEST, n_obs_steps=3), WireKeys()).n_obs_steps == 1, "nobody else's remembers"
