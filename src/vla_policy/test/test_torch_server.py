"""Tiny LeRobot checkpoints of each type, each served by a real policy server over its socket."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")

from policy_support import Server
from torch_support import PERIOD_NS, START_NS, Reference, Served, build, install_plugin, scene, wait_loaded, with_path

from vla_core.joints import JointLimits, Units
from vla_training import tiny

pytestmark = [pytest.mark.train, pytest.mark.timeout(1200)]

NEEDS = {
    **dict.fromkeys(("smolvla", "tiny_pi0", "tiny_pi05", "xvla"), "transformers"),
    **dict.fromkeys(("diffusion", "multi_task_dit"), "diffusers"),
}
LOOKING_BACK = {"diffusion": 2, "vqbet": 3, "multi_task_dit": 2}
READING = ("smolvla", "tiny_pi0", "tiny_pi05", "xvla", "multi_task_dit")
PLAYED = {
    "act": 20, "diffusion": 8, "vqbet": 5, "tdmpc": 2, "smolvla": 10, "tiny_pi0": 10, "tiny_pi05": 10, "xvla": 10,
    "multi_task_dit": 8, "single": 1,
}  # fmt: skip
"""Actions that LeRobot itself plays from one inference: TDMPC plans 5 and plays the first twice."""


@pytest.fixture(scope="module", params=list(PLAYED))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    kind = request.param
    pytest.importorskip(NEEDS.get(kind, "lerobot"))
    folder = build(kind, tmp_path_factory.mktemp("checkpoint") / kind)
    plugin = install_plugin(tmp_path_factory.mktemp("plugin"))
    run = Path(tempfile.mkdtemp(prefix="eg-"))
    server = Server(f"unix:{run}/s", "--model", str(folder), "--threads", "1", environment=with_path(plugin))
    try:
        yield Served(kind, folder, wait_loaded(server))
    finally:
        code = server.stop()
        shutil.rmtree(run)
    assert code == 0, server.text


def test_it_answers_what_lerobot_itself_would_play(served: Served) -> None:
    reference = Reference(served.folder)
    count = PLAYED[served.kind]
    episodes = ([0],) if served.kind == "single" else ([0], [0, 1, 2, 3])  # it counts calls since its last reset
    for steps in episodes:
        np.testing.assert_allclose(
            served.answer(*steps)[:count], reference.play(steps, count), atol=1e-4, err_msg=f"after {steps}"
        )


def test_every_answer_is_as_the_metadata_say(served: Served) -> None:
    peer = served.peer()
    chunk = tuple(peer.metadata["answer"]["actions"]["shape"])
    assert (peer.metadata["backend"], peer.metadata["policy_type"], peer.metadata["units"]) == (
        "torch",
        served.kind,
        "rad",
    )
    assert peer.metadata["n_obs_steps"] == LOOKING_BACK.get(served.kind, 1)
    answers = [peer.ask(scene(step)) for step in range(4)]
    peer.close()
    assert {answer["actions"].shape for answer in answers} == {chunk}
    assert all(answer["actions"].dtype == np.float32 and np.isfinite(answer["actions"]).all() for answer in answers)
    assert not np.array_equal(answers[0]["actions"], answers[3]["actions"]), "it does not look at what it is shown"


def test_the_same_observations_get_the_same_answer(served: Served) -> None:
    np.testing.assert_array_equal(served.answer(0, 1, 2), served.answer(0, 1, 2))


def test_the_past_matters_where_the_policy_looks_back_and_only_there(served: Served) -> None:
    alone, after = served.answer(3), served.answer(1, 2, 3)
    assert np.array_equal(alone, after) == (served.kind not in LOOKING_BACK)


def test_sessions_do_not_see_each_others_past(served: Served) -> None:
    first, second = served.peer(), served.peer()
    for step in range(3):
        mine = first.ask(scene(step))["actions"]
        second.ask(scene(10 + step))
    first.close()
    second.close()
    np.testing.assert_array_equal(mine, served.answer(0, 1, 2))


def test_observations_between_requests_are_remembered(served: Served) -> None:
    peer = served.peer()
    quiet = [peer.ask(scene(step), observe_only=True) for step in (0, 1)]
    asked = peer.ask(scene(2))
    peer.close()
    assert [answer["actions"].shape for answer in quiet] == [(0, tiny.DOF)] * 2
    assert asked["seen"] == min(3, LOOKING_BACK.get(served.kind, 1))
    np.testing.assert_array_equal(asked["actions"], served.answer(0, 1, 2))


def test_a_pause_or_a_clock_that_was_set_begins_anew(served: Served) -> None:
    peer = served.peer()
    steps = [peer.ask(scene(step))["seen"] for step in (0, 1)]
    late = peer.ask(scene(2, at_ns=START_NS + 20 * PERIOD_NS))["seen"]
    back = peer.ask(scene(3, at_ns=START_NS))["seen"]
    peer.close()
    wanted = LOOKING_BACK.get(served.kind, 1)
    assert (steps, late, back) == ([1, min(2, wanted)], 1, 1)


def test_the_prompt_reaches_policies_that_read_it(served: Served) -> None:
    black, white = (served.answer(0, prompt=f"put the {colour} cube on the spot") for colour in ("black", "white"))
    assert np.array_equal(black, white) == (served.kind not in READING)


def test_an_observation_of_another_shape_is_refused_by_name(served: Served) -> None:
    peer = served.peer()
    with pytest.raises(AssertionError, match=r"observation 'observation.state' is float32 \(5,\); this model wants"):
        peer.ask({**scene(0), "observation.state": np.zeros(5, np.float32)})
    peer.close()


def test_every_unit_of_a_checkpoint_is_rad_on_the_wire(tmp_path: Path) -> None:
    """Radians, degrees, -100 to 100 and 0 to 100 of a calibrated range, all in one checkpoint."""
    roll, grip = JointLimits(-1.5, 2.5), JointLimits(-0.2, 1.8)
    folder = build(
        "act",
        tmp_path / "act",
        units=Units.DEG,
        joint_units={
            "shoulder_pan": Units.RAD, "wrist_roll": Units.PERCENT, "gripper": Units.PERCENT_FROM_ZERO,
        },
        joint_ranges={"wrist_roll": roll, "gripper": grip},
    )  # fmt: skip

    def to_rad(values: np.ndarray) -> np.ndarray:
        """By the definitions in docs/lerobot_policies.md, not by our own conversion."""
        pan, degrees, percent, share = values[..., :1], values[..., 1:4], values[..., 4:5], values[..., 5:]
        rolled = roll.lower_rad + (percent + 100) / 200 * (roll.upper_rad - roll.lower_rad)
        gripped = grip.lower_rad + share / 100 * (grip.upper_rad - grip.lower_rad)
        return np.concatenate([pan, np.deg2rad(degrees), rolled, gripped], axis=-1)

    run = Path(tempfile.mkdtemp(prefix="eg-"))
    server = Server(f"unix:{run}/s", "--model", str(folder), "--threads", "1")
    try:
        peer = Served("act", folder, wait_loaded(server)).peer()
        state = to_rad(scene(0)["observation.state"].astype(np.float64)).astype(np.float32)
        found = peer.ask({**scene(0), "observation.state": state})["actions"]
        peer.close()
    finally:
        server.stop()
        shutil.rmtree(run)
    np.testing.assert_allclose(found, to_rad(Reference(folder).play([0], 20).astype(np.float64)), atol=1e-5)
