"""`name@version`: how a stored model is called."""

from __future__ import annotations

from vla_core.errors import StoreError
from vla_core.manifest import NAME


def split_label(label: str) -> tuple[str, str]:
    """Name and version.

    Raises:
        StoreError: it is no label; the message shows how one is written.
    """
    name, at, version = label.partition("@") if isinstance(label, str) else ("", "", "")
    if not at or not NAME.fullmatch(name) or not NAME.fullmatch(version):
        raise StoreError(f"{label!r} is no name@version, for example evergreen-black@1.0.0")
    return name, version


def check_label(label: str) -> str:
    """The label itself, if it is one; StoreError as `split_label`."""
    split_label(label)
    return label
