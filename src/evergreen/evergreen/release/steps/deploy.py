"""Create the deployments of one wave."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from evergreen.release.aws.greengrass import Greengrass
from evergreen.release.errors import AwsError
from evergreen.release.journal import Leftover
from evergreen.release.steps import View
from evergreen.release.targets import Target
from evergreen.release.work import Deployed, Work


class Deploy:
    """One deployment a target. From the first on, what was made is in use."""

    def __init__(
        self,
        work: Work,
        greengrass: Greengrass,
        targets: Sequence[Target],
        request: Callable[[Target], dict[str, Any]],
        title: str = "deploy",
    ) -> None:
        """`request` makes the arguments of CreateDeployment from what the target has at that moment."""
        self._work, self._greengrass, self._targets, self._request = work, greengrass, targets, request
        self._begun = False
        self.title = title

    @property
    def settles(self) -> bool:
        """See `Step`."""
        return self._begun

    def would(self) -> Sequence[str]:
        """See `Step`."""
        lines = []
        for target in self._targets:
            lines.append(f"deploy to {target.shown} ({', '.join(target.things) or 'no core device'}):")
            lines.append(json.dumps(self._request(target), indent=1, ensure_ascii=False))
        return lines

    def foresee(self) -> Sequence[str]:
        """See `Step`."""
        return ["whether AWS permits the deployment"]

    def needless(self) -> str:
        """See `Step`."""
        return ""

    def leaves(self) -> Leftover | None:
        """See `Step`."""
        return None

    def run(self, view: View) -> str:
        """See `Step`."""
        for number, target in enumerate(self._targets):
            view.amount(number, len(self._targets), "targets")
            self._deploy(target)
        made_now = self._work.deployed[-len(self._targets) :]
        return "deployment " + ", ".join(f"{one.deployment_id} to {one.target.shown}" for one in made_now)

    def _deploy(self, target: Target) -> None:
        """From the moment that AWS is asked, the deployment may exist, unless AWS says no."""
        work, request, before = self._work, self._request(target), self._begun
        self._begun = True
        work.asked.append(target)
        try:
            made = self._greengrass.deploy(request)
        except AwsError as error:
            if error.is_no:
                self._begun = before
                work.asked.remove(target)
            raise
        one = Deployed(target, made, self._greengrass.now_s(), work.label, work.wished_sha256)
        work.deployed.append(one)
        with contextlib.suppress(AwsError):  # it was made, and the answer's own time is nearly right
            created_s = self._greengrass.deployment(made)["creationTimestamp"].timestamp()
            work.deployed[-1] = replace(one, created_s=created_s)
