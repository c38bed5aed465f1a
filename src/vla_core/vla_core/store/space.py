"""Whether a model fits, and what must go for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vla_core.errors import ConfigError, StoreFull

KEEP_FREE_BYTES = 64 << 20
"""Of the disk, for state, history and the logs of everybody else: a full disk stops more than this store."""


@dataclass(frozen=True, slots=True)
class Space:
    """How much of a disk the store may take.

    Attributes:
        keep_free_bytes: what it leaves free.
        limit_bytes: what all models and downloads together may take; 0: as much as the disk has.
    """

    keep_free_bytes: int = KEEP_FREE_BYTES
    limit_bytes: int = 0

    def __post_init__(self) -> None:
        if self.keep_free_bytes < 0 or self.limit_bytes < 0:
            raise ConfigError(
                f"keep_free_bytes {self.keep_free_bytes} and limit_bytes {self.limit_bytes} must be 0 or more"
            )

    def available(self, free_bytes: int, used_bytes: int, promised_bytes: int) -> int:
        """Bytes that may be written.

        Args:
            free_bytes: of the disk.
            used_bytes: by the store.
            promised_bytes: what other downloads under way will still write.
        """
        left = free_bytes - self.keep_free_bytes
        if self.limit_bytes:
            left = min(left, self.limit_bytes - used_bytes)
        return left - promised_bytes


def choose_evictions(wanted_bytes: int, available_bytes: int, evictable: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """The fewest of `evictable` (what and its bytes, the first to go first) after which `wanted_bytes` fit.

    Raises:
        StoreFull: they would not fit though all of it went; nothing may be evicted for nothing.
    """
    chosen: list[str] = []
    for what, size in evictable:
        if available_bytes >= wanted_bytes:
            break
        chosen.append(what)
        available_bytes += size
    if available_bytes < wanted_bytes:
        gone = f", even without {', '.join(chosen)}" if chosen else ", and nothing may be evicted"
        raise StoreFull(
            f"{human(wanted_bytes)} are needed but {human(max(0, available_bytes))} would be free{gone}; "
            "free space on the disk of the store or raise its limit"
        )
    return tuple(chosen)


def human(size_bytes: int) -> str:
    """For people: `52.7 MB`."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def order_by_use(labels: Sequence[str], recent: Sequence[str]) -> list[str]:
    """`labels`, the longest unused first; those that were never used before all others."""
    place: Mapping[str, int] = {label: index for index, label in enumerate(recent)}
    return sorted(labels, key=lambda label: (place.get(label, -1), label))
