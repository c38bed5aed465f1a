"""Joint mapping by name and unit conversion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_core.errors import ConfigError
from vla_core.joints import Conversion, JointLimits, Units, from_rad, reorder, to_rad

LIMITS = (JointLimits(-1.9, 1.9), JointLimits(-0.17, 1.75))


def test_columns_follow_their_names() -> None:
    assert reorder(["b", "a", "c"], [[2, 1, 3]], ["a", "b"]).tolist() == [[1, 2]]


def test_a_missing_joint_is_named() -> None:
    with pytest.raises(ConfigError, match=r"z not among a, b"):
        reorder(["a", "b"], [1, 2], ["z"])


def test_widths_must_agree() -> None:
    with pytest.raises(ConfigError, match="2 joint names came with 3 values"):
        reorder(["a", "b"], [1, 2, 3], ["a"])


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=2), st.sampled_from(list(Units)))
def test_units_round_trip(values: list, units: Units) -> None:
    assert np.allclose(to_rad(from_rad(values, units, LIMITS), units, LIMITS), values)


def test_percent_spans_the_limits() -> None:
    assert to_rad([-100, 100], Units.PERCENT, LIMITS).tolist() == [-1.9, 1.75]
    assert to_rad([180.0, 0.0], Units.DEG, LIMITS)[0] == pytest.approx(np.pi)


def test_limits_must_be_ordered() -> None:
    with pytest.raises(ConfigError, match="below"):
        JointLimits(1.0, 1.0)


def test_each_joint_may_speak_its_own_units() -> None:
    names, ranges = ("pan", "gripper"), {"gripper": JointLimits(-0.2, 1.8)}
    made = Conversion.by_name(names, Units.DEG, {"gripper": Units.PERCENT_FROM_ZERO}, ranges)
    assert made.to_rad([[90.0, 50.0], [0.0, 0.0]]) == pytest.approx(np.array([[np.pi / 2, 0.8], [0.0, -0.2]]))
    assert made.from_rad(made.to_rad([30.0, 100.0])) == pytest.approx([30.0, 100.0])


def test_percent_without_a_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="'gripper' speaks percent_from_zero of a range that is not given"):
        Conversion.by_name(("pan", "gripper"), Units.RAD, {"gripper": Units.PERCENT_FROM_ZERO}, {})
