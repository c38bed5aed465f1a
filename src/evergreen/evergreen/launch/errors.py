"""What can go wrong between a launch file and a running graph.

EvergreenError
└── ConfigError
    └── LaunchError    a launch file, an argument or a package that cannot be launched
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vla_core.errors import ConfigError


class LaunchError(ConfigError):
    """Something in a launch file, its arguments or the installed packages that the user can put right."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an element of a launch file stands."""

    file: Path
    line: int
    element: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: <{self.element}>"

    def error(self, message: str) -> LaunchError:
        """Make the error that says `message` about this element."""
        return LaunchError(f"{self}: {message}")
