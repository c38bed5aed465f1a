"""The model is at an address of the user's."""

from __future__ import annotations

from collections.abc import Sequence

from evergreen.release.journal import Leftover
from evergreen.release.steps import View
from evergreen.release.work import Work
from gg_bridge.fetch.source import without_secrets
from vla_core.errors import ConfigError

STAND_IN = "0" * 64
"""For a hash that is known once the model is packed."""


class Address:
    """Writes down what the robots will have to find there."""

    title = "note the address"
    settles = False

    def __init__(self, work: Work, uri: str) -> None:
        """`uri` satisfies `demand_lasting`."""
        self._work = work
        work.uri = uri

    def would(self) -> Sequence[str]:
        """See `Step`."""
        return [f"robots fetch {self._work.uri}, which has to hold these very files; nothing is uploaded"]

    def foresee(self) -> Sequence[str]:
        """See `Step`."""
        self._work.sha256 = STAND_IN
        return [f"whether {self._work.uri} holds these very files"]

    def needless(self) -> str:
        """See `Step`."""
        return ""

    def leaves(self) -> Leftover | None:
        """See `Step`."""
        return None

    def run(self, view: View) -> str:
        """See `Step`."""
        work = self._work
        view.say(work.uri)
        what = "archive" if work.archive else "manifest.json"
        work.sha256 = work.archive_sha256 if work.archive else work.manifest_sha256
        return f"{work.uri}, SHA-256 of its {what} {work.sha256}"


def demand_lasting(uri: str) -> None:
    """Refuse an address that holds a secret: it goes into the recipe, logs and command lines, and ends within a week.

    Raises:
        ConfigError: it has a query (a presigned address, a token), a fragment or a password.
    """
    if (shown := without_secrets(uri)) != uri:
        raise ConfigError(
            f"--uri {shown} has more to it (a query, a fragment or a password), which everybody could read in the "
            "recipe and in logs, and a presigned address ends within a week: use s3://… with the device's role, or a "
            "lasting https address"
        )
