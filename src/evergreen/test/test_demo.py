"""The demo's books, choices and pictures; the whole demo is in tests/."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from evergreen.demo import models, pictures, resources
from evergreen.demo.asked import Request, Turn
from evergreen.demo.graph import Graph
from evergreen.demo.results import CameraCount, ChunkCounts, ChunkLatency, Episode, Results
from vla_core import manifest
from vla_core.errors import ConfigError
from vla_core.image import encode_jpeg
from vla_core.joints import SO101_JOINTS


def jpeg(shade: int) -> bytes:
    return encode_jpeg(np.full((120, 160, 3), shade, np.uint8))


def write_model(folder: Path, name: str, success: dict | None, prompt: str = "put the black cube on the spot") -> None:
    (folder / name).mkdir()
    manifest.write(
        folder / name,
        manifest.Manifest(
            name=name,
            version="1",
            policy_type="act",
            backend="onnx",
            joint_names=SO101_JOINTS,
            prompt=prompt,
            provenance={} if success is None else {"success": success},
        ),
    )


def test_auto_takes_the_expert_until_a_model_beats_one_half(tmp_path: Path) -> None:
    write_model(tmp_path, "expert", None)
    write_model(tmp_path, "weak", {"episodes": 100, "successes": 50})
    choice = models.choose(models.AUTO, tmp_path)
    assert choice.folder.name == "expert"
    assert "beats 50%" in choice.reason
    write_model(tmp_path, "good", {"episodes": 100, "successes": 51})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    write_model(tmp_path, "perfect", {"episodes": 100, "successes": 100}, "put the white cube on the spot")
    assert models.choose(models.AUTO, tmp_path).folder.name == "good"


def test_an_unknown_model_lists_the_known(tmp_path: Path) -> None:
    write_model(tmp_path, "expert", None)
    with pytest.raises(ConfigError, match="one of expert in"):
        models.choose("missing", tmp_path)


def test_latency_joins_the_two_nodes_reports_by_stamp() -> None:
    """The arm's report may come first: it was overwritten then, and `write` was lost."""
    graph = Graph(recording=True)
    graph.on_arm_latency({"stamp_ns": "7", "total_ms": "42.5", "write_ms": "3"})
    graph.on_policy_latency({"stamp_ns": "7", "infer_ms": "20", "decode_ms": "", "wait_ms": "12.5"})
    graph.on_policy_latency({"stamp_ns": "8", "infer_ms": "21"})
    (chunk,) = graph.latencies()
    assert chunk.total_ms == 42.5
    assert chunk.stages_ms == {"infer": 20, "wait": 12.5, "write": 10.0}
    assert sum(chunk.stages_ms.values()) == chunk.total_ms


def report(graph: Graph, now_s: float, frames: int, dropped: int = 0) -> None:
    values = {"fps": "12", "frames": str(frames), "dropped": str(dropped)}
    graph.on_diagnostic("cameras: front", values, now_s=now_s)
    graph.tick(now_s)


def test_camera_rates_are_means_over_what_was_recorded() -> None:
    graph = Graph()
    report(graph, 0.0, frames=100, dropped=5)
    graph.recording = True
    for second in range(1, 4):
        report(graph, float(second), frames=100 + 12 * second, dropped=5 + second)
    graph.on_diagnostic("arm_controller", {"fps": "1"}, now_s=9.0)
    assert graph.camera_counts() == {"front": CameraCount(12.0, 3)}


def test_a_camera_node_that_began_anew_counts_on() -> None:
    """Its counters begin at 0: the mean was negative."""
    graph = Graph(recording=True)
    report(graph, 0.0, frames=100, dropped=5)
    report(graph, 1.0, frames=112, dropped=5)
    report(graph, 3.0, frames=12, dropped=1)
    assert graph.camera_counts() == {"front": CameraCount(8.0, 1)}


def test_a_camera_that_falls_silent_does_not_keep_its_rate() -> None:
    graph = Graph(recording=True)
    report(graph, 0.0, frames=0)
    report(graph, 5.0, frames=60)
    graph.tick(15.0)
    assert graph.camera_counts()["front"].fps == pytest.approx(4.0)


def test_stills_are_of_one_moment() -> None:
    """Filmed cameras were overwritten until the end: the sheet mixed two moments."""
    graph = Graph()
    graph.on_frame("front", 1, b"early", film=True)
    graph.want_stills(["front", "wrist"])
    graph.on_frame("front", 2, b"now", film=True)
    graph.on_frame("front", 3, b"late", film=True)
    assert graph.stills() == {"front": b"now"}
    assert graph.wants("wrist")


def test_results_hold_the_keys_that_readers_rely_on(tmp_path: Path) -> None:
    results = Results(
        policy="expert@1",
        seed=7,
        episodes=[Episode(1, 7001, True, 6.5), Episode(2, 7002, False, 20.0, "the cube was never lifted", 0.1)],
        latencies=[ChunkLatency(1, 50.0, {"infer": 20.0}), ChunkLatency(2, 70.0, {"infer": 30.0})],
        cameras={},
        realtime_factor=0.99,
        realtime_factor_min=0.94,
        chunks=ChunkCounts(40, 1, 0.25, 2),
    )
    results.write(tmp_path / "demo.json")
    found = json.loads((tmp_path / "demo.json").read_text())
    assert (found["episodes"], found["successes"], found["valid"]) == (2, 1, False)
    assert found["latency_ms"] == {"p50": 60.0, "p95": 69.0, "p99": 69.8, "n": 2}
    assert found["stages_ms"]["infer"]["p50"] == 25.0
    assert found["stages_ms"]["write"]["n"] == 0
    assert found["chunks"] == {"chunks": 40, "gaps": 1, "holds": 2, "longest_gap_s": 0.25}


def test_pictures_are_pictures(tmp_path: Path) -> None:
    pictures.contact_sheet([("front", jpeg(200)), ("wrist", b"")], tmp_path / "sheet.png", columns=2)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (120, 320, 3)
    assert sheet[100, 80].tolist() == pytest.approx([200] * 3, abs=3)
    pictures.latency_plot([ChunkLatency(i, 50.0 + i, {"infer": 20.0}) for i in range(5)], tmp_path / "l.png", "t")
    pictures.latency_plot([], tmp_path / "empty.png", "t")
    assert cv2.imread(str(tmp_path / "l.png")) is not None


def test_the_strip_has_a_row_for_each_prompt_and_shows_its_time(tmp_path: Path) -> None:
    shots = [pictures.Shot("left", stamp * 100_000_000, jpeg(10 * stamp), "") for stamp in range(20)]
    told = [Turn(Request("the white one", "white"), 0.0, 0), Turn(Request("the red one", "red"), 0.9, 900_000_000)]
    pictures.prompt_strip(shots, told, 1_800_000_000, tmp_path / "strip.png")
    sheet = cv2.imread(str(tmp_path / "strip.png"))
    assert sheet.shape == (2 * 120, 4 * 160, 3)
    shades = sheet[100::120, 80::160, 0]
    assert np.abs(shades - np.array([[0, 20, 40, 70], [90, 120, 150, 180]])).max() <= 3


def test_the_video_plays_as_long_as_the_shots(tmp_path: Path) -> None:
    shots = [
        pictures.Shot(camera, 10**9 * second // 10, jpeg(10 * second), "caption")
        for second in range(20)
        for camera in ("front", "left")
    ]
    assert pictures.video(shots, tmp_path / "demo.mp4")
    film = cv2.VideoCapture(str(tmp_path / "demo.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_WIDTH) == 320
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) / film.get(cv2.CAP_PROP_FPS) == pytest.approx(1.9, abs=0.2)
    assert not pictures.video([], tmp_path / "none.mp4")


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        resources.exclusive(tmp_path),
        pytest.raises(ConfigError, match=r"process \d+.*--out"),
        resources.exclusive(tmp_path),
    ):
        pass
    with resources.exclusive(tmp_path):
        pass  # and the folder is free again afterwards


def test_domains_are_distinct() -> None:
    """They were claimed in the run folder: two demos with folders of their own drove each other's arm."""
    with resources.free_domain() as first, resources.free_domain() as second:
        assert first != second
