"""Which model a target had before: found in AWS, so that any laptop can roll back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evergreen.release import documents
from evergreen.release.errors import ReleaseError


def former(deployments: Iterable[Mapping[str, Any]], component: str, label: str = "") -> Mapping[str, Any]:
    """The newest deployment with another version of the component than the present one.

    A version that was taken back is skipped in all earlier deployments too: it may have been deployed several times.

    Args:
        deployments: of one target, the newest first, as GetDeployment tells them.
        component: whose version counts.
        label: `name@version` that it has to bring; empty takes any which was not rolled back from.

    Raises:
        ReleaseError: there is none.
    """
    known = iter(deployments)
    present = next(known, None)
    now = documents.version_of(present, component) if present else ""
    if not present or not now:
        raise ReleaseError(f"no deployment of {component} for this target; there is nothing to roll back")
    taken_back, withdrawn = {_takes_back(present)}, set()
    seen = []
    for deployment in known:
        taken_back.add(_takes_back(deployment))
        version = documents.version_of(deployment, component)
        if deployment.get("deploymentId") in taken_back:
            withdrawn.add(version)
        if version in ("", now):
            continue
        seen.append(documents.model_of(deployment) or version)
        if label and documents.model_of(deployment) != label:
            continue
        if label or version not in withdrawn:
            return deployment
    if label:
        there = f"there were {', '.join(dict.fromkeys(seen))}" if seen else "there was no other model"
        raise ReleaseError(f"{label} was never deployed to this target; {there}")
    raise ReleaseError(
        f"this target never had another {component} than {documents.model_of(present) or now} that was not taken back"
    )


def _takes_back(deployment: Mapping[str, Any]) -> str:
    return str((deployment.get("tags") or {}).get(documents.TAG_ROLLBACK, ""))
