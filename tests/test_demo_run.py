"""`evergreen demo`, whole: real processes, real serial bytes, real physics."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import psutil
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.sim]

CAMERAS = {"overhead", "front", "front_left", "front_right", "left", "right", "rear", "wrist"}
Start = Callable[[Sequence[object]], "Running"]  # noqa: F821


def test_the_expert_puts_the_black_cube_on_the_spot(evergreen: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    demo = evergreen(["demo", "--episodes", 2, "--seed", 7, "--policy", "expert", "--out", out])
    heavy: set[str] = set()

    def torch_free() -> bool:
        demo.look()
        for process in list(demo.family.values()):
            try:
                heavy.update(" ".join(process.cmdline()) for entry in process.memory_maps() if "libtorch" in entry.path)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return "episode 1/2" in demo.text()

    demo.wait_for(torch_free, 120)
    assert not heavy, "running needs no torch"
    assert demo.finish(120) == 0, demo.text()
    assert demo.survivors() == []
    found = json.loads((out / "demo.json").read_text())
    assert found["policy"].startswith("expert@")
    assert (found["episodes"], found["successes"]) == (2, 2), demo.text()
    assert set(found["cameras"]) == CAMERAS
    assert all(camera["fps"] > 1 for camera in found["cameras"].values())
    assert found["latency_ms"]["n"] > 10
    assert found["stages_ms"]["write"]["n"] == found["latency_ms"]["n"]
    assert found["realtime_factor"] > 0
    sheet = cv2.imread(str(out / "cameras.png"))
    assert sheet.shape == (480, 1280, 3)
    assert cv2.imread(str(out / "latency.png")) is not None
    film = cv2.VideoCapture(str(out / "demo.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) > 50
    assert "placed 2 of 2" in demo.text()


def test_the_next_prompt_is_said_while_the_arm_carries(evergreen: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--prompt", "the white cube", "--then", "the black cube", "--then", "the red cube", "--no-video"]
    demo = evergreen(["demo", "--episodes", 2, "--policy", "expert", "--time-limit", 40, *words, "--out", out])
    assert demo.finish(240) == 0, demo.text()
    episodes = json.loads((out / "demo.json").read_text())["episode_list"]
    assert [episode["success"] for episode in episodes] == [True, True], demo.text()
    for episode in episodes:
        assert [turn["target"] for turn in episode["prompts"]] == ["white", "black", "red"], "the plan begins anew"
    assert not (out / "demo.mp4").exists()
    assert not (out / "prompts.png").exists(), "nothing was filmed"


def test_what_was_said_is_a_strip_of_pictures(evergreen: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--prompt", "the white cube", "--then", "the black cube"]
    demo = evergreen(["demo", "--episodes", 1, "--policy", "expert", "--time-limit", 40, *words, "--out", out])
    assert demo.finish(150) == 0, demo.text()
    assert cv2.imread(str(out / "prompts.png")).shape == (2 * 240, 4 * 320, 3)


def test_ctrl_c_stops_every_process(evergreen: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    demo = evergreen(["demo", "--episodes", 3, "--policy", "expert", "--out", out])
    demo.wait_for(lambda: "the policy moves" in demo.text(), 90)
    assert len(demo.family) >= 5
    demo.process.send_signal(signal.SIGINT)
    assert demo.finish(30) == 130, demo.text()
    assert demo.survivors() == []
    assert "Traceback" not in demo.text()


def test_a_second_demo_in_the_same_folder_says_what_to_change(evergreen: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = evergreen(["demo", "--policy", "expert", "--out", out])
    first.wait_for(lambda: (out / ".lock").exists() and (out / ".lock").read_text(), 30)
    second = evergreen(["demo", "--policy", "expert", "--out", out])
    assert second.finish(30) == 2
    assert f"another demo (process {first.process.pid}) is writing to {out}" in second.text()
    assert first.process.poll() is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--policy", "missing"], "no model 'missing'"),
        (["--episodes", "many"], "invalid"),
        (["--size", "huge"], "write width x height"),
        (["--out", "/proc/evergreen"], "choose another folder with --out"),
    ],
)
def test_bad_arguments_are_one_clear_line(evergreen: Start, words: list, expected: str) -> None:
    demo = evergreen(["demo", *words])
    assert demo.finish(30) == 2
    assert expected in demo.text()
    assert "Traceback" not in demo.text()
