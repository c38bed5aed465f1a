import numpy as np
import pytest

from vla_core import taught
from vla_core.errors import ConfigError
from vla_core.taught import MAX_SPEED_RAD_S, REST_S, Taught, from_samples

NAMES = ("shoulder_pan", "gripper")


def ramp(seconds=2.0, rate_hz=50.0, rise=1.0, gripper=(0.6, 0.2)):
    share = np.linspace(0, 1, int(seconds * rate_hz) + 1)
    return Taught(NAMES, rate_hz, np.column_stack([share * rise, gripper[0] + share * (gripper[1] - gripper[0])]))


def test_a_file_comes_back(tmp_path):
    made = ramp()
    taught.save(made, tmp_path / "new folder" / "wave.json")
    back = taught.load(tmp_path / "new folder" / "wave.json")
    assert (back.joint_names, back.rate_hz) == (made.joint_names, made.rate_hz)
    np.testing.assert_allclose(back.positions, made.positions, atol=1e-5)
    assert back.duration_s == 2.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no taught trajectory"),
        ("[]", "of format evergreen-taught-1; make one"),
        ('{"format": "evergreen-taught-1", "joint_names": ["a"], "rate_hz": 50}', "is damaged: 'positions'"),
        (
            '{"format": "evergreen-taught-1", "joint_names": ["a"], "rate_hz": 50, "positions": [[0], [NaN]]}',
            "is damaged: .*finite",
        ),
        (
            '{"format": "evergreen-taught-1", "joint_names": ["a"], "rate_hz": 50, "positions": [[0, 1], [1, 1]]}',
            "needs two rows of 1 joints",
        ),
    ],
)
def test_what_is_no_lesson_is_refused(tmp_path, content, message):
    path = tmp_path / "wave.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        taught.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"wave.json cannot be read"):
        taught.load(tmp_path / "wave.json")


def test_what_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "wave.json"
    taught.save(ramp(), path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(taught.os, "fsync", full)
    with pytest.raises(ConfigError, match=r"wave.json cannot be written: No space left"):
        taught.save(ramp(rise=2.0), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_uneven_samples_become_even_and_waiting_is_cut():
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(0, 10, 700))
    moving = np.clip(times - 4, 0, 2)  # still for 4 s, moves for 2 s, still for 4 s
    made = from_samples(NAMES, times + 1e9, np.column_stack([moving, np.full_like(times, 0.3)]))
    assert made.duration_s == pytest.approx(2 + 2 * REST_S, abs=0.1)
    assert made.positions[0, 0] == 0.0
    assert made.positions[-1, 0] == pytest.approx(2.0)
    middle = made.at(np.array([made.duration_s / 2]))[0, 0]
    assert middle == pytest.approx(1.0, abs=0.05)


def test_an_arm_that_did_not_move_taught_nothing():
    with pytest.raises(ConfigError, match="the arm did not move"):
        from_samples(NAMES, [0, 1, 2], [[0.1, 0.2]] * 3)
    with pytest.raises(ConfigError, match="too few"):
        from_samples(NAMES, [0], [[0.1, 0.2]])


def test_played_faster_it_is_as_much_shorter_and_never_too_fast():
    assert ramp().played(2.0, 0.0).duration_s == pytest.approx(1.0, abs=0.03)
    assert ramp().played(0.5, 0.0).duration_s == pytest.approx(4.0, abs=0.03)
    hasty = ramp(seconds=0.2, rise=2.0)  # 10 rad/s
    assert hasty.played(1.0, 0.0).fastest_rad_s() <= MAX_SPEED_RAD_S * 1.01
    with pytest.raises(ConfigError, match="speed 0"):
        ramp().played(0, 0.0)


def test_the_squeeze_closes_the_closed_gripper_and_leaves_the_open_one():
    column = ramp().played(1.0, 0.15).positions[:, 1]
    assert column[0] == pytest.approx(0.6)
    assert column[-1] == pytest.approx(0.2 - 0.15)
    assert np.array_equal(ramp().played(1.0, 0.15).positions[:, 0], ramp().played(1.0, 0.0).positions[:, 0])
    holding = ramp(gripper=(0.3, 0.3)).played(1.0, 0.15).positions[:, 1]
    np.testing.assert_allclose(holding, 0.15)
