from __future__ import annotations

import numpy as np
import pytest
from policy_logic import SPEC, T0, at, frame, joints

from vla_core.errors import ImageError
from vla_core.joints import SO101_JOINTS
from vla_policy.inbox import Inbox, JointSample
from vla_policy.observe import AgeLimits, Snapshot, Stale, decode, observe

LIMITS = AgeLimits(image_s=0.5, state_s=0.25)


def look(frames=None, sample=None, now_s=0.0, spec=SPEC):
    frames = {"front": frame(-0.05)} if frames is None else frames
    return observe(spec, frames, joints(-0.01) if sample is None else sample, at(now_s), LIMITS)


def test_the_newest_of_everything():
    snapshot = look({"front": frame(-0.05), "rear": frame(-0.5)})
    assert isinstance(snapshot, Snapshot)
    assert set(snapshot.frames) == {"front"}
    assert snapshot.stamp_ns == T0 - 50_000_000
    assert snapshot.stamp_mono_ns == at(-0.05).mono_ns
    np.testing.assert_allclose(snapshot.state, np.arange(6) / 10)


def test_joints_are_mapped_by_name():
    backwards = JointSample(SO101_JOINTS[::-1], (0.5, 0.4, 0.3, 0.2, 0.1, 0.0), T0, at(0))
    np.testing.assert_allclose(look(sample=backwards).state, np.arange(6) / 10)


def test_the_stamp_is_the_oldest_picture_s():
    spec = SPEC.with_cameras("front", "rear")
    snapshot = look({"front": frame(-0.05), "rear": frame(-0.07)}, spec=spec)
    assert snapshot.stamp_ns == T0 - 70_000_000
    assert snapshot.since_mono_ns == at(-0.07 + 0.01).mono_ns


def test_a_model_without_cameras_takes_the_joint_state_s_stamp():
    snapshot = look({}, spec=SPEC.with_cameras())
    assert snapshot.stamp_ns == T0 - 10_000_000
    assert snapshot.oldest is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"frames": {}}, "camera front: no picture yet on topic camera/front/image_raw/compressed"),
        ({"frames": {"front": frame(-0.6)}}, "camera front: no picture newer than 0.5 s (parameter max_image_age_s)"),
        ({"frames": {"front": frame(+0.2)}}, "camera front: pictures are stamped in the future"),
        ({"sample": joints(-0.3)}, "no joint state for more than 0.25 s (parameter max_state_age_s)"),
        ({"sample": joints(+0.2)}, "joint states are stamped in the future"),
        ({"sample": JointSample(("a",), (0.0,), T0, at(0))}, "joint(s) shoulder_pan, shoulder_lift"),
        ({"sample": JointSample(SO101_JOINTS, (0.0,) * 5, T0, at(0))}, "6 joint names came with 5 values"),
        ({"sample": JointSample(SO101_JOINTS, (float("nan"),) * 6, T0, at(0))}, "not finite"),
    ],
)
def test_what_is_stale(given, words):
    outcome = look(**given)
    assert isinstance(outcome, Stale)
    assert words in outcome.reason
    assert outcome.arm_lost == ("joint state" in words or "finite" in words)


def test_no_joint_state_at_all():
    outcome = observe(SPEC, {"front": frame(0)}, None, at(0), LIMITS)
    assert outcome == Stale("no joint states yet on topic joint_states: does the arm driver run?", arm_lost=True)


def test_age_runs_on_the_monotonic_clock():
    """A clock that was set after a picture arrived does not change how old the picture is."""
    stepped = at(0.1).__class__(at(0.1).mono_ns, at(0.1).system_ns + 3600 * 10**9)
    assert isinstance(observe(SPEC, {"front": frame(0)}, joints(0), stepped, LIMITS), Snapshot)


def test_decoding():
    observation = decode(look(), SPEC, "go")
    assert observation.images["front"].shape == (32, 64, 3)
    assert observation.state.dtype == np.float32
    assert (observation.prompt, observation.stamp_ns) == ("go", T0 - 50_000_000)
    with pytest.raises(ImageError):
        decode(look({"front": frame(0, jpeg=b"no picture")}), SPEC, "go")


def test_the_inbox_hands_over_the_newest():
    inbox = Inbox()
    ticket, frames, sample = inbox.newest()
    assert (dict(frames), sample) == ({}, None)
    inbox.put_frame("front", frame(0))
    inbox.put_frame("front", frame(1))
    inbox.put_joints(joints(0))
    inbox.wait(ticket, 60)  # returns at once: something came
    _, frames, sample = inbox.newest()
    assert frames["front"].stamp_ns == T0 + 10**9
    assert sample is not None
    assert inbox.prompt("model's") == "model's"
    inbox.put_prompt("user's")
    assert inbox.prompt("model's") == "user's"
    inbox.put_prompt(None)
    assert inbox.prompt("model's") == "model's"
