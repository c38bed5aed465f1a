"""From MCAP to LeRobotDataset, on recordings whose every number is known; test_live_recording.py has a real one."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from mcap_ros2.writer import Writer

from vla_core.errors import ConfigError
from vla_core.image import decode_resize, encode_jpeg
from vla_core.joints import SO101_JOINTS
from vla_training import mcap_recording
from vla_training.convert import Options, convert, find
from vla_training.lerobot_format import DatasetError, DiskFullError
from vla_training.lerobot_reader import describe, load
from vla_training.lerobot_writer import DatasetWriter
from vla_training.resample import resample, setpoints

pytestmark = pytest.mark.train

NS = 1_000_000_000
START_NS = 1_790_000_000 * NS
SPEED = np.array([0.1, 0.2, 0.3, -0.1, -0.2, 0.05])
HEADER = "builtin_interfaces/Time stamp\nstring frame_id\n"
LINE = "=" * 80
TIME = f"{LINE}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
TAIL = f"{LINE}\nMSG: std_msgs/Header\n{HEADER}{TIME}"
DEFINITIONS = {
    "sensor_msgs/msg/CompressedImage": f"std_msgs/Header header\nstring format\nuint8[] data\n{TAIL}",
    "sensor_msgs/msg/JointState": (
        f"std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n{TAIL}"
    ),
    "trajectory_msgs/msg/JointTrajectory": (
        "std_msgs/Header header\nstring[] joint_names\ntrajectory_msgs/JointTrajectoryPoint[] points\n"
        f"{TAIL}{LINE}\nMSG: trajectory_msgs/JointTrajectoryPoint\nfloat64[] positions\nfloat64[] velocities\n"
        "float64[] accelerations\nfloat64[] effort\nbuiltin_interfaces/Duration time_from_start\n"
        f"{LINE}\nMSG: builtin_interfaces/Duration\nint32 sec\nuint32 nanosec\n"
    ),
    "std_msgs/msg/String": "string data\n",
    "diagnostic_msgs/msg/DiagnosticStatus": (
        "byte level\nstring name\nstring message\nstring hardware_id\ndiagnostic_msgs/KeyValue[] values\n"
        f"{LINE}\nMSG: diagnostic_msgs/KeyValue\nstring key\nstring value\n"
    ),
}


def stamp(ns):
    return {"sec": int(ns // NS), "nanosec": int(ns % NS)}


def header(ns):
    return {"stamp": stamp(ns), "frame_id": ""}


def jpeg(number, camera):
    """A picture that tells which it is."""
    picture = np.full((48, 64, 3), 40 if camera == "front" else 160, np.uint8)
    cv2.putText(picture, str(number), (2, 34), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 0), 2)
    return encode_jpeg(picture)


@dataclass(frozen=True)
class Script:
    """An arm that moves evenly for `seconds`, between rests, and what is wrong with its recording."""

    seconds: float = 3.0
    cameras: tuple[str, ...] = ("front", "wrist")
    fps: float = 14.0
    silent: tuple[str, float, float] | None = None
    commanded: bool = True
    prompt: str = "wave"
    prefix: str = "/"
    rest_s: float = 0.0
    start_ns: int = START_NS

    def frame_ns(self, camera):
        offset = 0.011 if camera == "wrist" else 0.0
        times = np.arange(offset, self.seconds + 2 * self.rest_s + 0.2, 1 / self.fps)
        if self.silent and self.silent[0] == camera:
            times = times[(times < self.silent[1]) | (times > self.silent[2])]
        return [self.start_ns + round(time * NS) for time in times]

    def pose(self, ns):
        """Where the joints are, and are meant to be, at that time."""
        return np.clip((ns - self.start_ns) / NS - self.rest_s, 0, self.seconds) * SPEED

    def write(self, path: Path):
        with path.open("wb") as file:
            writer = Writer(file)
            schemas = {name: writer.register_msgdef(name, text) for name, text in DEFINITIONS.items()}

            def put(topic, kind, content, ns):
                name = next(name for name in schemas if name.endswith("/" + kind))
                writer.write_message(self.prefix + topic, schemas[name], content, log_time=ns, publish_time=ns)

            if self.prompt:
                put("prompt", "String", {"data": self.prompt}, self.start_ns)
            for camera in self.cameras:
                for number, ns in enumerate(self.frame_ns(camera)):
                    image = {"header": header(ns), "format": "jpeg", "data": jpeg(number, camera)}
                    put(f"camera/{camera}/image_raw/compressed", "CompressedImage", image, ns + 8_000_000)
            reverse = SO101_JOINTS[::-1]
            for time in np.arange(0, self.seconds + 2 * self.rest_s + 0.2, 0.02):
                ns = self.start_ns + round(time * NS)
                state = {"header": header(ns), "name": list(reverse), "position": self.pose(ns)[::-1].tolist()}
                put("joint_states", "JointState", state | {"velocity": [], "effort": []}, ns + 1_000_000)
            if self.commanded:
                self._command(put)
            writer.finish()
        return path

    def _command(self, put):
        """Chunks of a second, sent every half, each stamped 0.1 s before it arrives."""
        for begin in np.arange(0.0, self.seconds + 2 * self.rest_s, 0.5):
            ns = self.start_ns + round(begin * NS)
            points = [
                {
                    "positions": self.pose(ns + round(after * NS)).tolist(),
                    "velocities": [],
                    "accelerations": [],
                    "effort": [],
                    "time_from_start": stamp(round(after * NS)),
                }
                for after in np.arange(0, 1.01, 0.1)
            ]
            message = {"header": header(ns), "joint_names": list(SO101_JOINTS), "points": points}
            put("arm_controller/joint_trajectory", "JointTrajectory", message, ns + 100_000_000)


def converted(tmp_path, script=None, **options):
    said = []
    path = (script or Script()).write(tmp_path / "episode-0000.mcap")
    outcome = convert([path], tmp_path / "data", Options(**options), said.append)
    return outcome, said


def test_pictures_states_and_actions_are_those_of_the_tick(tmp_path):
    script = Script()
    outcome, said = converted(tmp_path, script, size=(32, 16))
    assert (outcome.converted, outcome.refused) == (1, ())
    assert said == [f"episode-0000.mcap: episode 0, {describe(tmp_path / 'data').lengths[0]} frames, 'wave'"]
    (episode,) = load(tmp_path / "data")
    assert list(episode.images) == ["front", "wrist"]
    assert 29 <= len(episode.states) <= 33
    first_ns = max(script.frame_ns(camera)[0] for camera in script.cameras)
    for number in range(len(episode.states)):
        tick_ns = first_ns + number * NS // 10
        np.testing.assert_allclose(episode.states[number], script.pose(tick_ns), atol=1e-4)
        if number >= 1:  # before the first command arrives the driver holds where it stands
            np.testing.assert_allclose(episode.actions[number], script.pose(tick_ns), atol=1e-4)
        for camera in script.cameras:
            stamps = np.array(script.frame_ns(camera))
            nearest = int(np.abs(stamps - tick_ns).argmin())
            assert np.array_equal(episode.images[camera][number], decode_resize(jpeg(nearest, camera), 32, 16))


def test_the_cameras_own_size_is_the_default(tmp_path):
    converted(tmp_path)
    about = describe(tmp_path / "data")
    assert about.cameras == {"front": (64, 48), "wrist": (64, 48)}
    assert about.joint_names == SO101_JOINTS
    assert about.prompts == ("wave",)


def test_long_rests_are_cut_unless_they_are_wanted(tmp_path):
    script = Script(rest_s=3.0)
    converted(tmp_path, script, cameras=("front",))
    (frames,) = describe(tmp_path / "data").lengths
    assert 40 <= frames <= 48  # 0.2 s + 3 s + 1 s
    outcome = convert([tmp_path / "episode-0000.mcap"], tmp_path / "all", Options(trim=False), lambda _: None)
    assert outcome.converted == 1
    assert describe(tmp_path / "all").lengths[0] >= 88


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        (Script(), {"cameras": ("front", "rear")}, r"no pictures of camera rear; it has front, wrist"),
        (Script(cameras=()), {}, r"no pictures of camera \(any\); it has none"),
        (
            Script(silent=("wrist", 1.0, 2.0)),
            {},
            r"camera wrist was silent or slow between 1.\d s and 1.\d s: \d of 3\d frames .*--max-skew",
        ),
        (Script(commanded=False), {}, r"nothing was commanded .*use --actions measured"),
        (Script(prompt=""), {}, "nobody said what the arm should do; say it with --prompt"),
        (Script(prefix="/left/"), {}, r"no joint states on /joint_states .*--namespace"),
        (Script(seconds=0.0, rest_s=1.0), {}, "the arm does not move"),
        (Script(), {"rate_hz": 12.5}, r"rate 12.5 Hz"),
    ],
)
def test_what_cannot_be_converted_is_said_in_one_line(tmp_path, script, options, message):
    outcome, said = converted(tmp_path, script, **options)
    assert outcome.converted == 0
    assert len(outcome.refused) == len(said) == 1
    assert "\n" not in said[0]
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(said[0])
    assert not (tmp_path / "data" / "meta").exists(), "no empty dataset is left"


def test_what_is_refused_does_not_keep_the_others_out(tmp_path):
    good = Script().write(tmp_path / "episode-0000.mcap")
    without = Script(cameras=("front",), start_ns=START_NS + 100 * NS).write(tmp_path / "episode-0001.mcap")
    last = Script(start_ns=START_NS + 200 * NS, prompt="other").write(tmp_path / "episode-0002.mcap")
    outcome = convert([good, without, last], tmp_path / "data", Options(), lambda _: None)
    assert outcome.converted == 2
    assert len(outcome.refused) == 1
    assert "episode-0001.mcap has no pictures of camera wrist" in outcome.refused[0]
    assert describe(tmp_path / "data").prompts == ("wave", "other")


def test_options_replace_what_the_recording_says(tmp_path):
    outcome, _ = converted(tmp_path, Script(commanded=False, prompt=""), prompt="hop", measured=True)
    assert outcome.converted == 1
    (episode,) = load(tmp_path / "data")
    assert episode.prompt == "hop"
    assert np.array_equal(episode.states, episode.actions)


def test_a_robot_in_a_namespace(tmp_path):
    outcome, _ = converted(tmp_path, Script(prefix="/left/"), namespace="left")
    assert outcome.converted == 1


def test_a_conversion_can_be_repeated(tmp_path):
    files = [
        Script(start_ns=START_NS + number * 100 * NS).write(tmp_path / f"episode-{number:04d}.mcap")
        for number in range(3)
    ]
    assert convert(files[:1], tmp_path / "data", Options(), lambda _: None).converted == 1
    outcome = convert(find([tmp_path]), tmp_path / "data", Options(), lambda _: None)
    assert (outcome.converted, outcome.present) == (2, 1)
    assert len(list(load(tmp_path / "data"))) == 3


def test_a_full_disk_ends_the_conversion_and_keeps_what_is_done(tmp_path, monkeypatch):
    files = [
        Script(start_ns=START_NS + number * 100 * NS).write(tmp_path / f"episode-{number:04d}.mcap")
        for number in range(3)
    ]
    add, count = DatasetWriter.add_episode, []

    def filling(self, *args, **kwargs):
        count.append(1)
        if len(count) == 2:
            raise DiskFullError(f"{self._root}: 1 episodes are saved and whole; the disk is full")
        add(self, *args, **kwargs)

    monkeypatch.setattr(DatasetWriter, "add_episode", filling)
    with pytest.raises(DiskFullError, match="1 episodes are saved"):
        convert(files, tmp_path / "data", Options(), lambda _: None)
    assert len(list(load(tmp_path / "data"))) == 1
    assert convert(files, tmp_path / "data", Options(), lambda _: None).converted == 2


def test_a_truncated_file_is_read_to_where_it_ends(tmp_path):
    path = Script().write(tmp_path / "episode-0000.mcap")
    path.write_bytes(path.read_bytes()[:-1000])
    recording = mcap_recording.read(path)
    assert not recording.whole
    assert len(recording.state_ns) > 100
    outcome = convert([path], tmp_path / "data", Options(), lambda _: None)
    assert outcome.converted == 0
    assert "was cut short" in outcome.refused[0]


def test_a_file_that_a_full_disk_ended_is_taken_when_asked_for(tmp_path):
    path = Script().write(tmp_path / "episode-0000.cut.mcap")
    refused = convert([path], tmp_path / "data", Options(), lambda _: None).refused
    assert "was cut short: its recorder was killed, or its disk full (--include-cut takes it)" in refused[0]
    assert convert([path], tmp_path / "data", Options(include_cut=True), lambda _: None).converted == 1


@pytest.mark.parametrize("content", [b"", b"holiday pictures", b"\x89MCAP0\r\n"])
def test_what_is_no_recording_is_named(tmp_path, content):
    path = tmp_path / "x.mcap"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"x.mcap (is no MCAP file|holds no joint states)"):
        mcap_recording.read(path)


def test_a_picture_that_is_none_is_named(tmp_path, monkeypatch):
    real = jpeg

    def broken(number, camera):
        return b"no picture" if (number in (12, 13) and camera == "wrist") else real(number, camera)

    monkeypatch.setitem(globals(), "jpeg", broken)
    outcome, _ = converted(tmp_path)
    assert "camera wrist, picture of" in outcome.refused[0]
    assert "not a JPEG picture" in outcome.refused[0]


def test_files_are_found_in_folders_and_missing_ones_named(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        find([tmp_path / "absent"])
    with pytest.raises(ConfigError, match="no MCAP files in"):
        find([tmp_path])


def test_the_newest_command_wins_when_it_arrives_and_the_last_is_held():
    """As the driver does it: a chunk takes over on arrival, and its last point is held."""
    command = mcap_recording.Command
    one = ((1.0,), (2.0,))
    commands = [
        command(int(0.1 * NS), 0 * NS + 1, ("a",), (0, NS), one),
        command(int(0.55 * NS), int(0.5 * NS), ("a",), (0, int(0.5 * NS)), ((5.0,), (6.0,))),
        command(int(0.7 * NS), int(0.6 * NS), ("b",), (0, NS), one),  # of another arm: refused
    ]
    ticks = np.array([0.0, 0.2, 0.5, 0.6, 0.75, 2.0]) * NS
    wanted = setpoints(commands, ("a",), ticks.astype(np.int64), np.full((6, 1), 0.7))
    np.testing.assert_allclose(wanted[:, 0], [0.7, 1.2, 1.5, 5.2, 5.5, 6.0], atol=1e-6)


def test_the_policys_own_prompt_counts_where_nobody_spoke(tmp_path):
    recording = mcap_recording.Recording(tmp_path, prompts=[(5, "spoken")], status_prompts=[(1, "own"), (3, "other")])
    assert [recording.prompt_at(time) for time in (0, 2, 4, 6)] == ["", "own", "other", "spoken"]


def test_skew_is_half_a_period_at_most(tmp_path):
    recording = mcap_recording.read(Script(fps=14.0).write(tmp_path / "a.mcap"))
    frames = resample(recording, ("front", "wrist"), 10.0)
    assert 0.02 < frames.skew_s <= 0.5 / 14 + 1e-3
    json.dumps(frames.skew_s)
