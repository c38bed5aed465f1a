"""`evergreen demo --update`, whole: a model is replaced while the arm moves, and a broken one is kept out."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import pytest
from commands import ROOT

from evergreen.demo.stage import policy_config

pytestmark = [pytest.mark.ros, pytest.mark.sim]

TOLD_S = 280.0
"""About 60 s on two idle cores; a busy machine takes several times that."""
SMALL = ("--size", "64x48", "--fps", 5, "--no-video")
"""Eight cameras that cost next to nothing."""
PATIENT = {
    "probation_s": 1.0,
    "open_loop_s": 1.0,
    "max_image_age_s": 5.0,
    "max_state_age_s": 2.0,
    "max_chunk_age_s": 5.0,
}
"""A machine that is busy with other tests must not make the policy refuse a sound model; a short probation saves
time. What becomes of each model is the same."""
STEPS = [
    "the first model works",
    "the second takes over",
    "it works",
    "the broken one is kept out",
    "the second goes on",
]
Start = Callable[[Sequence[object]], "Running"]  # noqa: F821


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """The story with the scripted expert in both parts, so that its end does not depend on what a model has learnt."""
    manifest = json.loads((ROOT / "models/expert/manifest.json").read_text())
    manifest |= {"name": "expert-white", "prompt": "pick the white cube and put it on the spot"}
    (white := tmp_path / "expert-white").mkdir()
    (white / "manifest.json").write_text(json.dumps(manifest))
    config = policy_config(tmp_path, **PATIENT)
    return [
        "demo",
        "--update",
        *SMALL,
        "--policy-config",
        config,
        "--from",
        "expert",
        "--to",
        white,
        "--out",
        tmp_path / "out",
    ]


def test_the_white_model_takes_over_and_the_broken_one_does_not(
    evergreen: Start, words: list[object], tmp_path: Path
) -> None:
    demo = evergreen([*words, "--json"])
    code = demo.finish(TOLD_S)
    assert demo.survivors() == []
    found = json.loads((tmp_path / "out/update.json").read_text())
    assert [step["name"] for step in found["steps"] if step["ok"]] == STEPS, demo.text()
    assert code == 0, demo.text()
    assert found["as_told"] is True
    white, broken = found["updates"]
    assert white["model"] == "expert-white@1.0.0"
    assert (white["outcome"], white["deployment"]) == ("succeeded", "SUCCEEDED")
    assert {"notice", "fetch", "verify", "start", "judge", "switch", "probation", "report"} <= white["stages_s"].keys()
    assert list(white["moments_s"].values()) == sorted(white["moments_s"].values())
    assert white["arm"]["speed_rad_s"] is not None
    assert broken["model"].endswith("-nan")
    assert broken["outcome"] == "refused"
    assert "not finite" in broken["reason"]
    assert broken["event_to_first_action_s"] is None
    assert found["component_restarts"] == 2  # Lite restarts its component after each deployment
    placed = [scene["target"] for scene in found["episodes"] if scene["success"]]
    assert placed.count("white") >= 2
    assert json.loads(demo.text()[demo.text().index("\n{") :]) == found
    assert cv2.imread(str(tmp_path / "out/update.png")) is not None


def test_ctrl_c_ends_the_component_too(evergreen: Start, words: list[object]) -> None:
    demo = evergreen(words)
    demo.wait_for(lambda: "deploying expert-white" in demo.text(), TOLD_S)
    demo.wait_for(lambda: any("gg_bridge" in " ".join(process.cmdline()) for process in demo.children()), TOLD_S)
    demo.process.send_signal(signal.SIGINT)
    assert demo.finish(60) == 130, demo.text()
    assert demo.survivors() == []
    assert "Traceback" not in demo.text()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--to", "missing"], "no model 'missing'"),
        (["--to", "expert"], "expert@1.0.0 cannot take over from itself"),
        (["--broken", "wheel"], "invalid choice"),
        (["--nucleus", "heavy"], "invalid choice"),
    ],
)
def test_bad_arguments_are_one_clear_line(
    evergreen: Start, words: list[object], more: list[str], expected: str
) -> None:
    demo = evergreen([*words, *more])
    assert demo.finish(60) == 2
    assert expected in demo.text()
    assert "Traceback" not in demo.text()
