"""Diagnostics and stamps."""

from vla_ros import diagnostics
from vla_ros.stamps import to_msg, to_ns


def test_numbers_become_short_text() -> None:
    message = diagnostics.status("a", diagnostics.OK, "fine", {"x": 1.0, "y": 2.12345, "n": 100.0, "z": None, "k": 7})
    assert diagnostics.values(message) == {"x": "1", "y": "2.123", "n": "100", "z": "", "k": "7"}


def test_stamps_round_trip() -> None:
    stamp_ns = 1_700_000_000_123_456_789
    assert to_ns(to_msg(stamp_ns)) == stamp_ns
