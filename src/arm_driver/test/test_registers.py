import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_driver.feetech import registers
from arm_driver.feetech.registers import Register, from_sign_magnitude, to_sign_magnitude


@given(st.integers(-2047, 2047))
def test_sign_magnitude_there_and_back(value):
    assert from_sign_magnitude(to_sign_magnitude(value, 11), 11) == value


def test_sign_magnitude_is_not_twos_complement():
    assert to_sign_magnitude(-1, 15) == 0x8001
    assert from_sign_magnitude(0x8000, 15) == 0
    with pytest.raises(ValueError, match="magnitude must be below 2048"):
        to_sign_magnitude(2048, 11)


def test_a_register_refuses_what_it_cannot_hold():
    assert registers.HOMING_OFFSET.decode(registers.HOMING_OFFSET.encode(-85)) == -85
    with pytest.raises(ValueError, match="'P gain' \\(21\\) cannot hold 300"):
        registers.P_GAIN.encode(300)
    with pytest.raises(ValueError, match="cannot hold -1"):
        registers.P_GAIN.encode(-1)


def lerobot_tables():
    """LeRobot's file alone: importing its package would import torch."""
    package = importlib.util.find_spec("lerobot")
    if package is None:
        pytest.skip("LeRobot is not installed")
    path = Path(package.submodule_search_locations[0]) / "motors/feetech/tables.py"
    return SourceFileLoader("lerobot_tables", str(path)).load_module()


def test_the_map_agrees_with_lerobots():
    """The addresses and sizes come from one memory table; LeRobot's copy is the one that others calibrate with."""
    tables = lerobot_tables()
    table, signs = tables.STS_SMS_SERIES_CONTROL_TABLE, tables.STS_SMS_SERIES_ENCODINGS_TABLE
    names = {
        "Model_Number": registers.MODEL_NUMBER,
        "Return_Delay_Time": registers.RETURN_DELAY,
        "Min_Position_Limit": registers.MIN_POSITION,
        "Max_Position_Limit": registers.MAX_POSITION,
        "Max_Torque_Limit": registers.MAX_TORQUE,
        "Phase": registers.PHASE,
        "P_Coefficient": registers.P_GAIN,
        "I_Coefficient": registers.I_GAIN,
        "D_Coefficient": registers.D_GAIN,
        "Protection_Current": registers.PROTECTION_CURRENT,
        "Homing_Offset": registers.HOMING_OFFSET,
        "Operating_Mode": registers.OPERATING_MODE,
        "Overload_Torque": registers.OVERLOAD_TORQUE,
        "Torque_Enable": registers.TORQUE_ENABLE,
        "Acceleration": registers.ACCELERATION,
        "Goal_Position": registers.GOAL_POSITION,
        "Torque_Limit": registers.TORQUE_LIMIT,
        "Lock": registers.LOCK,
        "Present_Position": registers.PRESENT_POSITION,
        "Present_Velocity": registers.PRESENT_VELOCITY,
        "Present_Load": registers.PRESENT_LOAD,
        "Present_Voltage": registers.PRESENT_VOLTAGE,
        "Present_Temperature": registers.PRESENT_TEMPERATURE,
        "Maximum_Acceleration": registers.MAX_ACCELERATION,
    }
    for name, register in names.items():
        assert (register.address, register.size) == table[name], name
        assert register.sign_bit == signs.get(name), name


def test_eprom_ends_where_torque_enable_begins():
    found = [value for value in vars(registers).values() if isinstance(value, Register)]
    assert len(found) > 20
    assert all(register.eprom == (register.address < registers.TORQUE_ENABLE.address) for register in found)
