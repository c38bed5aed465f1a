"""Write the recipe and register the component's next version."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evergreen.release import documents, versions
from evergreen.release.aws.greengrass import Greengrass
from evergreen.release.errors import AwsError, ReleaseError
from evergreen.release.journal import Leftover
from evergreen.release.steps import View
from evergreen.release.work import Work
from gg_bridge import recipes

POLL_S = 1.0
DEPLOYABLE_S = 300.0
"""Greengrass copies artifacts first; for 2 GB this takes it minutes at most."""


class Register:
    """Creates the component version, and waits until it can be deployed."""

    title = "create the component version"
    settles = False

    def __init__(
        self,
        work: Work,
        greengrass: Greengrass,
        way: recipes.Way,
        nucleus: recipes.NucleusKind,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._work, self._greengrass, self._way, self._nucleus, self._sleep = work, greengrass, way, nucleus, sleep

    def would(self) -> Sequence[str]:
        """See `Step`."""
        recipe = self.recipe()
        return [
            f"create {recipe['ComponentName']} {recipe['ComponentVersion']} from this recipe:",
            recipes.to_text(recipe),
        ]

    def recipe(self) -> dict[str, Any]:
        """Of the version, as far as it is known."""
        work = self._work
        facts = recipes.Facts(work.version, work.image, work.label, work.uri, work.sha256, work.size_bytes)
        return recipes.render(self._way, self._nucleus, facts)

    def foresee(self) -> Sequence[str]:
        """See `Step`."""
        return ["whether AWS permits the component version, and takes its recipe"]

    def needless(self) -> str:
        """The newest version has this very recipe."""
        work = self._work
        work.recipe = self.recipe()
        newest = versions.newest(work.present)
        found = self._greengrass.describe(work.component, newest) if newest else None
        if not found or (found.get("tags") or {}).get(documents.TAG_CONTENT) != content(work.recipe):
            return ""
        if _state(found) != "DEPLOYABLE":
            return ""
        work.version = newest
        return f"{work.component} {newest} is the same"

    def leaves(self) -> Leftover | None:
        """See `Step`."""
        return Leftover("component", self._work.component, self._work.version)

    def run(self, view: View) -> str:
        """See `Step`."""
        work = self._work
        recipes.check_text(recipes.to_text(work.recipe))
        tags = {documents.TAG_CONTENT: content(work.recipe)}
        if work.label:
            tags |= {documents.TAG_MODEL: work.label, documents.TAG_MANIFEST: work.manifest_sha256}
            tags[documents.TAG_SHA256] = work.wished_sha256
        try:
            self._greengrass.create_component(work.recipe, tags)
        except AwsError as error:
            if error.code == "ConflictException":
                raise AwsError(
                    f"{work.component} {work.version} came into being a moment ago, by somebody else: start again, "
                    "which takes the next version",
                    error.code,
                ) from error
            raise
        view.say(f"{work.component} {work.version}")
        self._wait()
        return f"{work.component} {work.version}"

    def _wait(self) -> None:
        work = self._work
        waited_s = 0.0
        while True:
            try:
                found = self._greengrass.describe(work.component, work.version) or {}
            except AwsError as error:
                raise ReleaseError(f"{work.component} {work.version} was created, but: {error}") from error
            state = _state(found)
            if state == "DEPLOYABLE":
                return
            if state in ("FAILED", "DEPRECATED") or waited_s >= DEPLOYABLE_S:
                status = found.get("status", {})
                errors = [f"{key}: {value}" for key, value in (status.get("errors") or {}).items()]
                reason = "; ".join([str(status.get("message", "")), *errors]).strip("; ") or "no reason given"
                raise ReleaseError(f"Greengrass says {state} of {work.component} {work.version}: {reason}")
            self._sleep(POLL_S)
            waited_s += POLL_S


def content(recipe: Mapping[str, Any]) -> str:
    """Hash of everything but the version."""
    kept = {key: value for key, value in recipe.items() if key != "ComponentVersion"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]


def _state(described: Mapping[str, Any]) -> str:
    return str((described.get("status") or {}).get("componentState", ""))
