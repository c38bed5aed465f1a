from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy")

from arm_driver.settings import Settings
from vla_core.errors import ConfigError
from vla_core.joints import JointLimits
from vla_ros.params import table

REPOSITORY = Path(__file__).parents[3]
WIDE = (JointLimits(-3.0, 3.0),) * 6


def test_the_shipped_configuration_names_parameters_that_exist_and_repeats_the_defaults():
    document = yaml.safe_load((REPOSITORY / "launch/config/so101.yaml").read_text())
    given = document["/**/arm_controller"]["ros__parameters"]
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    assert given.keys() <= {field.name for field in fields(Settings)}
    assert Settings(**given) == Settings()


def test_the_documentation_lists_the_parameters():
    text = (REPOSITORY / "docs/arm_driver.md").read_text()
    assert table(Settings) in text, "put the output of vla_ros.params.table(Settings) at the end of the page"


def test_the_simulators_calibration_leaves_the_whole_urdf_range():
    settings = Settings(calibration=str(REPOSITORY / "launch/config/so101_sim_calibration.json"))
    limits = settings.limits(settings.load_calibration().limits())
    for limit, low, high in zip(limits, settings.lower_rad, settings.upper_rad, strict=True):
        assert limit.lower_rad == pytest.approx(low, abs=2e-3)
        assert limit.upper_rad == pytest.approx(high, abs=2e-3)


def test_limits_are_cut_to_the_calibrated_range():
    cut = Settings().limits((JointLimits(-0.5, 0.25), *WIDE[1:]))
    assert (cut[0].lower_rad, cut[0].upper_rad) == (-0.5, 0.25)
    assert cut[1].upper_rad == 1.74533
    with pytest.raises(ConfigError, match=r"shoulder_pan: .* do not overlap"):
        Settings().limits((JointLimits(2.5, 3.0), *WIDE[1:]))


def test_what_the_pure_parts_are_built_from():
    settings = Settings(port="/dev/null")
    rules = settings.control_rules(WIDE)
    assert rules.joints[0].velocity_rad_s == 4.0
    assert rules.stall[5].load == 0.0
    assert (rules.follow.error_rad, rules.follow.duration_s, rules.max_start_error_rad) == (0.35, 0.5, 0.5)
    assert settings.servo_setup().keep_goal_rad == settings.stall_error_rad
    assert settings.servo_setup().torque_share == {"gripper": 0.5}
    assert settings.servo_setup().reply_timeout_s == pytest.approx(0.02)
    assert replace(settings, gripper_joint="").servo_setup().torque_share == {}
    assert settings.trajectory_rules(WIDE).joint_names == settings.joint_names
    assert settings.health_rule().error_c == 65.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stall_load": (0.5,)}, "stall_load has 1 values for the 6 joints"),
        ({"gripper_joint": "hand"}, "gripper_joint is 'hand'; allowed are shoulder_pan"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ConfigError, match=message):
        Settings(**changes)


def test_bad_limits_are_refused():
    with pytest.raises(ConfigError, match="velocity_rad_s"):
        Settings(max_velocity_rad_s=(0.0,) * 6).control_rules(WIDE)
    with pytest.raises(ConfigError, match="parameter port is empty"):
        Settings().servo_setup()
