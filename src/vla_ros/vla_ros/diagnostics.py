"""Short-hands for `diagnostic_msgs`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

OK: bytes = DiagnosticStatus.OK
WARN: bytes = DiagnosticStatus.WARN
ERROR: bytes = DiagnosticStatus.ERROR
STALE: bytes = DiagnosticStatus.STALE


def _text(value: object) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def status(
    name: str, level: bytes, message: str, values: Mapping[str, object], hardware_id: str = ""
) -> DiagnosticStatus:
    """One status; numbers become text with at most three decimals, None an empty value."""
    pairs = [KeyValue(key=key, value="" if value is None else _text(value)) for key, value in values.items()]
    return DiagnosticStatus(name=name, level=level, message=message, hardware_id=hardware_id, values=pairs)


def array(stamp: Time, statuses: Iterable[DiagnosticStatus]) -> DiagnosticArray:
    """What is published on `/diagnostics`."""
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = stamp
    return message


def values(message: DiagnosticStatus) -> dict[str, str]:
    """The status' key-value pairs as a dictionary."""
    return {pair.key: pair.value for pair in message.values}
