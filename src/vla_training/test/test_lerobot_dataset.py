"""LeRobot datasets: written here, read by LeRobot, and what a kill or a full disk leaves of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vla_training import lerobot_format as layout
from vla_training import lerobot_writer
from vla_training.lerobot_format import DatasetError, DiskFullError
from vla_training.lerobot_reader import describe, load
from vla_training.lerobot_writer import DatasetWriter

pytestmark = pytest.mark.train
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
CAMERAS = {"front": (16, 8), "wrist": (8, 8)}
WRITES_AN_EPISODE = 5
"""Data, tasks, episodes, statistics, info: each is put in its place by a rename."""


class Killed(BaseException):
    """The process ends here: nothing is tidied up."""


def open_writer(root: Path, **changes) -> DatasetWriter:
    return DatasetWriter(**{"root": root, "rate_hz": 10.0, "cameras": CAMERAS, "joint_names": JOINTS} | changes)


def arrays(seed: int, frames: int = 5) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "images": {
            name: rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
            for name, (width, height) in CAMERAS.items()
        },
        "states": rng.normal(size=(frames, 6)).astype(np.float32),
        "actions": rng.normal(size=(frames, 6)).astype(np.float32),
        "prompt": "put the black cube on the spot" if seed % 2 else "put the white cube on the spot",
    }


def lerobot(root: Path):
    os.environ["HF_HUB_OFFLINE"] = "1"
    from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: PLC0415 (seconds)

    return LeRobotDataset("local/test", root=root)


def assert_holds(root: Path, seeds: list[int], frames: int = 5) -> None:
    """LeRobot and our reader both find exactly these episodes, to the last pixel."""
    theirs = lerobot(root)
    assert len(theirs) == frames * len(seeds)
    assert theirs.num_episodes == len(seeds)
    episodes = list(load(root))
    assert [episode.extra for episode in episodes] == [{"seed": seed} for seed in seeds]
    for number, (seed, episode) in enumerate(zip(seeds, episodes, strict=True)):
        wanted = arrays(seed, frames)
        assert np.array_equal(episode.states, wanted["states"])
        assert np.array_equal(episode.actions, wanted["actions"])
        assert episode.prompt == wanted["prompt"]
        for name, pictures in wanted["images"].items():
            assert np.array_equal(episode.images[name], pictures)
        for frame in range(frames):
            item = theirs[number * frames + frame]
            assert item["task"] == wanted["prompt"]
            assert item["timestamp"].item() == pytest.approx(frame / 10)
            assert np.array_equal(item["action"].numpy(), wanted["actions"][frame])
            assert np.array_equal(item["observation.state"].numpy(), wanted["states"][frame])
            for name, pictures in wanted["images"].items():
                picture = item[f"observation.images.{name}"].numpy().transpose(1, 2, 0) * 255
                assert np.array_equal(np.rint(picture).astype(np.uint8), pictures[frame])


def test_what_is_written_lerobot_reads(tmp_path):
    with open_writer(tmp_path / "data") as writer:
        for seed in range(3):
            writer.add_episode(**arrays(seed), extra={"seed": seed})
        assert (writer.episodes, writer.frames) == (3, 15)
    assert_holds(tmp_path / "data", [0, 1, 2])
    about = describe(tmp_path / "data")
    assert (about.rate_hz, about.robot_type, about.joint_names) == (10.0, "so101", JOINTS)
    assert about.cameras == CAMERAS
    assert about.lengths == (5, 5, 5)


def test_a_prompt_may_change_and_further_columns_may_be_unknown(tmp_path):
    """LeRobot reads the prompt of each frame; the further column has no statistics, which NaN would spoil."""
    places = np.array([[0.5, np.nan]] * 5, np.float32)
    asked = ["black", "black", "white", "white", "black"]
    with open_writer(tmp_path, columns={"places": ("u", "v")}) as writer:
        writer.add_episode(**arrays(0) | {"prompt": asked}, columns={"places": places})
        writer.add_episode(**arrays(1), columns={"places": places})
        with pytest.raises(layout.DatasetError, match="2 prompts for 5 frames"):
            writer.add_episode(**arrays(0) | {"prompt": asked[:2]}, columns={"places": places})
        with pytest.raises(layout.DatasetError, match="further columns"):
            writer.add_episode(**arrays(0))
    theirs = lerobot(tmp_path)
    assert [theirs[frame]["task"] for frame in range(6)] == [*asked, arrays(1)["prompt"]]
    assert np.array_equal(theirs[0]["places"].numpy(), places[0], equal_nan=True)
    assert "places" not in theirs.meta.stats
    first, second = load(tmp_path, columns=("places", "elsewhere"))
    assert (first.prompt, first.prompts) == ("black", tuple(asked))
    assert second.prompts == (arrays(1)["prompt"],) * 5
    assert np.array_equal(first.columns["places"], places, equal_nan=True)
    assert describe(tmp_path).columns == ("places",)
    assert not next(load(tmp_path)).columns
    with pytest.raises(layout.DatasetError, match="other columns"):
        open_writer(tmp_path)


def test_the_statistics_are_lerobots(tmp_path):
    """They normalise a training run: compared with those that LeRobot computes from its own recording."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: PLC0415 (seconds)

    with open_writer(tmp_path / "ours") as writer:
        for seed in range(2):
            writer.add_episode(**arrays(seed))
    theirs = LeRobotDataset.create(
        "local/theirs",
        10,
        layout.features(CAMERAS, JOINTS),
        root=tmp_path / "theirs",
        robot_type="so101",
        use_videos=False,
    )
    for seed in range(2):
        wanted = arrays(seed)
        for frame in range(5):
            pictures = {f"observation.images.{name}": each[frame] for name, each in wanted["images"].items()}
            theirs.add_frame(
                pictures
                | {
                    "observation.state": wanted["states"][frame],
                    "action": wanted["actions"][frame],
                    "task": wanted["prompt"],
                }
            )
        theirs.save_episode()
    theirs.finalize()
    ours, reference = (json.loads((tmp_path / name / layout.STATS).read_text()) for name in ("ours", "theirs"))
    assert ours.keys() == reference.keys()
    for key, stats in reference.items():
        for name, value in stats.items():
            np.testing.assert_allclose(ours[key][name], value, rtol=1e-6, atol=1e-9, err_msg=f"{key}/{name}")
    for path in (layout.chunk_path(layout.DATA, 0, 0), layout.chunk_path(layout.EPISODES, 0, 0)):
        schemas = [pq.read_schema(tmp_path / name / path) for name in ("ours", "theirs")]
        assert {field.name: field.type for field in schemas[0]} == {field.name: field.type for field in schemas[1]}
    with open_writer(tmp_path / "theirs") as writer:  # and LeRobot's own dataset can be continued
        writer.add_episode(**arrays(2))
    assert len(lerobot(tmp_path / "theirs")) == 15
    assert [episode.prompt for episode in load(tmp_path / "theirs")] == [arrays(seed)["prompt"] for seed in range(3)]


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("step", range(WRITES_AN_EPISODE))
def test_killed_anywhere_within_an_episode(tmp_path, monkeypatch, step, renamed):
    """Before and after each file takes its place; nothing of the dead writer runs on."""
    root = tmp_path / "data"
    with open_writer(root) as writer:
        writer.add_episode(**arrays(0), extra={"seed": 0})
    count = 0

    @contextmanager
    def dying(path):
        nonlocal count
        count += 1
        if count <= step:
            with whole(path) as temporary:
                yield temporary
            return
        temporary = path.with_name(f".{path.name}{layout.WRITING}")
        yield temporary
        if renamed:
            temporary.replace(path)
        else:
            temporary.write_bytes(temporary.read_bytes()[:-7])
        raise Killed

    whole = layout.replacing
    writer = open_writer(root)
    with monkeypatch.context() as patch:
        patch.setattr(layout, "replacing", dying)
        with pytest.raises(Killed):
            writer.add_episode(**arrays(1), extra={"seed": 1})
    writer.close()
    last_step = step == WRITES_AN_EPISODE - 1 and renamed
    seeds = [0, 1] if last_step else [0]
    assert_holds(root, seeds)  # as it was left, before anybody repairs it
    with open_writer(root) as writer:
        assert writer.episodes == len(seeds)
        writer.add_episode(**arrays(2), extra={"seed": 2})
    assert_holds(root, [*seeds, 2])
    assert not list(root.rglob(f"*{layout.WRITING}*"))
    stats = json.loads((root / layout.STATS).read_text())
    assert stats["action"]["count"] == [5 * (len(seeds) + 1)]


def test_sigkill_of_a_recording_process(tmp_path):
    root = tmp_path / "data"
    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; import test_lerobot_dataset as t\n"
        "writer = t.open_writer(Path(sys.argv[1]))\n"
        "for seed in range(writer.episodes, 10000):\n"
        "    writer.add_episode(**t.arrays(seed), extra={'seed': seed})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(root), str(Path(__file__).parent)])
    try:
        deadline = time.monotonic() + 300  # LeRobot is slow to import on a busy machine
        while not (root / layout.INFO).exists() or len(describe(root).lengths) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    saved = len(describe(root).lengths)
    assert_holds(root, list(range(saved)))
    with open_writer(root) as writer:
        writer.add_episode(**arrays(saved), extra={"seed": saved})
    assert_holds(root, list(range(saved + 1)))


def test_a_full_disk_keeps_what_is_saved(tmp_path, monkeypatch):
    root = tmp_path / "data"
    writer = open_writer(root)
    writer.add_episode(**arrays(0), extra={"seed": 0})
    monkeypatch.setattr(lerobot_writer.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(DiskFullError, match="1 episodes are saved and whole; the disk is full"):
        writer.add_episode(**arrays(1), extra={"seed": 1})
    monkeypatch.undo()
    assert_holds(root, [0])
    writer.add_episode(**arrays(1), extra={"seed": 1})  # room was made
    writer.close()
    assert_holds(root, [0, 1])


def add_until_it_fails(writer: DatasetWriter) -> None:
    for seed in range(1000):
        writer.add_episode(**arrays(seed), extra={"seed": seed})


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_a_file_system_that_runs_full(tmp_path, monkeypatch):
    """The real thing: the kernel refuses in the middle of a file."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run([shutil.which("mount"), "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(small)], check=True)
    monkeypatch.setattr(lerobot_writer, "_SPARE_BYTES", -(10**9))  # the look ahead would refuse sooner
    try:
        writer = open_writer(small / "data")
        with pytest.raises(DiskFullError, match="episodes are saved and whole"):
            add_until_it_fails(writer)
        writer.close()
        saved = describe(small / "data").lengths
        assert len(saved) > 1
        shutil.copytree(small / "data", tmp_path / "rescued")
    finally:
        subprocess.run([shutil.which("umount"), str(small)], check=True)
    assert_holds(tmp_path / "rescued", list(range(len(saved))))
    with open_writer(tmp_path / "rescued") as writer:
        writer.add_episode(**arrays(len(saved)), extra={"seed": len(saved)})
    assert_holds(tmp_path / "rescued", list(range(len(saved) + 1)))


def test_videos_can_be_written_and_read(tmp_path):
    size = {"front": (64, 64)}
    grey = np.broadcast_to(np.linspace(0, 250, 64, dtype=np.uint8)[None, None, :, None], (5, 64, 64, 3)).copy()
    numbers, scheduler = arrays(0), os.sched_getscheduler(0)
    with open_writer(tmp_path / "data", cameras=size, videos=True) as writer:
        for _ in range(2):
            writer.add_episode({"front": grey}, numbers["states"], numbers["actions"], "look")
    assert os.sched_getscheduler(0) == scheduler  # the encoder takes SCHED_FIFO where it may
    assert len(lerobot(tmp_path / "data")) == 10
    assert lerobot(tmp_path / "data")[7]["observation.images.front"].shape == (3, 64, 64)
    for episode in load(tmp_path / "data"):
        assert np.abs(episode.images["front"].astype(int) - grey).mean() < 3  # lossy


def test_large_datasets_use_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_writer, "_DATA_FILE_BYTES", 20_000)
    monkeypatch.setattr(lerobot_writer, "_EPISODES_FILE_ROWS", 3)
    with open_writer(tmp_path / "data") as writer:
        for seed in range(8):
            writer.add_episode(**arrays(seed), extra={"seed": seed})
    assert len(list((tmp_path / "data" / layout.EPISODES).glob("*/*"))) == 3
    assert len(list((tmp_path / "data" / layout.DATA).glob("*/*"))) > 1
    assert_holds(tmp_path / "data", list(range(8)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate_hz": 20.0}, "10 Hz of robot so101, not 20 Hz of so101; write to another folder"),
        ({"cameras": {"front": (16, 8)}}, "observation.images.wrist is .* there and absent here"),
        ({"joint_names": JOINTS[:5]}, "other columns: action is"),
        ({"rate_hz": 12.5}, "rate 12.5 Hz"),
    ],
)
def test_another_dataset_is_not_continued(tmp_path, changes, message):
    open_writer(tmp_path / "data").close()
    with pytest.raises(DatasetError, match=message):
        open_writer(tmp_path / "data", **changes)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(DatasetError, match=r"not empty \(it holds holiday.jpg\)"):
        open_writer(tmp_path)


def test_two_writers_at_once_are_refused(tmp_path):
    with open_writer(tmp_path / "data"), pytest.raises(DatasetError, match="being written by another process"):
        open_writer(tmp_path / "data")


@pytest.mark.parametrize("change", ["camera", "size", "length", "finite", "empty"])
def test_an_episode_that_does_not_fit_is_refused(tmp_path, change):
    episode = arrays(0)
    if change == "camera":
        del episode["images"]["wrist"]
    elif change == "size":
        episode["images"]["wrist"] = episode["images"]["wrist"][:, :4]
    elif change == "length":
        episode["actions"] = episode["actions"][:3]
    elif change == "finite":
        episode["states"][2, 1] = np.nan
    else:
        episode = arrays(0, frames=0)
    with open_writer(tmp_path / "data") as writer:
        with pytest.raises(DatasetError):
            writer.add_episode(**episode)
        writer.add_episode(**arrays(1), extra={"seed": 1})
    assert_holds(tmp_path / "data", [1])


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_writer, "_DATA_FILE_BYTES", 1)  # a file an episode
    with open_writer(tmp_path / "data") as writer:
        for seed in range(3):
            writer.add_episode(**arrays(seed), extra={"seed": seed})
    return tmp_path / "data"


def test_reading_a_camera_that_is_not_there(dataset):
    with pytest.raises(DatasetError, match=r"no camera rear; its cameras are front, wrist"):
        load(dataset, ["front", "rear"])


def test_reading_around_a_truncated_episode(dataset):
    """Somebody's copy stopped half-way: the others are read, and the file is named."""
    path = layout.chunk_path(dataset / layout.DATA, 0, 1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"file-001.parquet is damaged"):
        list(load(dataset))
    told = []
    assert [episode.index for episode in load(dataset, on_damage=told.append)] == [0, 2]
    assert len(told) == 1
    with pytest.raises(DatasetError, match=r"file-001.parquet is damaged"):
        open_writer(dataset)  # it would bury the damage
    assert path.exists()


def test_reading_an_episode_with_too_few_frames(dataset):
    path = layout.chunk_path(dataset / layout.DATA, 0, 1)
    pq.write_table(pq.read_table(path).slice(0, 3), path)
    with pytest.raises(DatasetError, match="episode 1 is truncated: 3 of 5 frames"):
        list(load(dataset))
    with pytest.raises(DatasetError, match=r"file-001.parquet is truncated: 3 of 5 frames"):
        open_writer(dataset)


def test_reading_what_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match=r"is no LeRobotDataset: meta/info.json is missing"):
        load(tmp_path)
    (tmp_path / "meta").mkdir()
    (tmp_path / layout.INFO).write_text('{"codebase_version": "v2.1", "features": {}}')
    with pytest.raises(DatasetError, match=r"version v2.1; this reads v3"):
        load(tmp_path)
    (tmp_path / layout.INFO).write_text('{"codebase')
    with pytest.raises(DatasetError, match="cannot be read"):
        load(tmp_path)
