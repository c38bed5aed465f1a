"""The deployment that a release asks for: what the target has, with one component replaced.

A Greengrass deployment replaces the one before it for the same target: a component that it does not name is removed
from the devices. So everything that the present deployment holds is taken over.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evergreen.release.errors import ReleaseError
from evergreen.release.outcome import Wish
from gg_bridge.configuration import BLUE_GREEN, SECTION
from gg_bridge.recipes import MODEL

TAG_MODEL = "evergreen:model"
"""`name@version` that a component version or a deployment brings."""
TAG_MANIFEST = "evergreen:manifest"
"""SHA-256 of the model's manifest.json."""
TAG_CONTENT = "evergreen:content"
"""Hash of a recipe but its version: the same again needs no new component version."""
TAG_SHA256 = "evergreen:sha256"
"""Of a component version: the SHA-256 by which robots report its model."""
TAG_COMPONENT = "evergreen:component"
"""Of a deployment: the component that it brought another version of; the others were taken over."""
TAG_ROLLBACK = "evergreen:rollback-of"
"""Id of the deployment that a rollback takes back."""

_STOPPED = frozenset({"CANCELED", "FAILED"})


@dataclass(frozen=True, slots=True)
class Policies:
    """How devices are to apply a deployment; None keeps what the target has, else Greengrass's default.

    Attributes:
        on_failure: `ROLLBACK` or `DO_NOTHING`.
        update_timeout_s: how long components may put an update off before it happens anyway.
        notify: whether components are asked before at all.
    """

    on_failure: str | None = None
    update_timeout_s: int | None = None
    notify: bool | None = None

    def over(self, present: Mapping[str, Any]) -> dict[str, Any]:
        """`deploymentPolicies`, with what is given over what there is."""
        merged = copy.deepcopy(dict(present))
        if self.on_failure is not None:
            merged["failureHandlingPolicy"] = self.on_failure
        update = dict(merged.get("componentUpdatePolicy", {}))
        if self.update_timeout_s is not None:
            update["timeoutInSeconds"] = self.update_timeout_s
        if self.notify is not None:
            update["action"] = "NOTIFY_COMPONENTS" if self.notify else "SKIP_NOTIFY_COMPONENTS"
        if update:  # AWS demands both or neither
            merged["componentUpdatePolicy"] = {"timeoutInSeconds": 60, "action": "NOTIFY_COMPONENTS"} | update
        return merged


@dataclass(frozen=True, slots=True)
class Change:
    """One component's new version in a deployment.

    Attributes:
        component, version: which.
        merge: configuration to put over the recipe's defaults and what earlier deployments left.
        reset: JSON pointers of what earlier deployments left and has to go first.
        tags: for the deployment.
        name: of the deployment.
    """

    component: str
    version: str
    merge: Mapping[str, Any] = field(default_factory=dict)
    reset: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


def request(target_arn: str, present: Mapping[str, Any] | None, change: Change, policies: Policies) -> dict[str, Any]:
    """The arguments of CreateDeployment.

    Args:
        target_arn: of the thing or thing group.
        present: what GetDeployment tells of the target's latest deployment; None where it has none.
        change: the component that becomes another.
        policies: how devices are to apply it.

    Whose model is taken over has the present label, so that robots are asked for it later on too.
    """
    present = present or {}
    components = copy.deepcopy(dict(present.get("components") or {}))
    components[change.component] = _component(components.get(change.component, {}), change)
    made: dict[str, Any] = {"targetArn": target_arn, "deploymentName": change.name, "components": components}
    if wanted := policies.over(present.get("deploymentPolicies") or {}):
        made["deploymentPolicies"] = wanted
    if job := present.get("iotJobConfiguration"):
        made["iotJobConfiguration"] = copy.deepcopy(job)
    label = model_of(present) if change.component != MODEL and MODEL in components else ""
    made["tags"] = {TAG_COMPONENT: change.component} | ({TAG_MODEL: label} if label else {}) | dict(change.tags)
    return made


def demand_going(present: Mapping[str, Any] | None, component: str, target: str) -> None:
    """See that the new deployment takes nothing over that was stopped.

    Args:
        present: the target's latest deployment; None where it has none.
        component: that becomes another.
        target: as an option of the command line.

    Raises:
        ReleaseError: the present deployment was stopped, and was about another component: devices that the stop spared
            would get it now.
    """
    state = str((present or {}).get("deploymentStatus", ""))
    changed = changed_by(present or {})
    if state not in _STOPPED or changed in ("", component):
        return
    what = "was cancelled" if state == "CANCELED" else "failed"
    cure = f"rollback {target}" if changed == MODEL else f"robot IMAGE {target}"
    raise ReleaseError(
        f"the last deployment to {target} {what}, and this one would bring its {changed} to the devices that it has "
        f"not reached: `evergreen release {cure}` first"
    )


def changed_by(deployment: Mapping[str, Any]) -> str:
    """The component that a deployment brought another version of; empty where it was not made by `evergreen release`.

    Deployments of the first releases do not say it; only those of models had a label.
    """
    tags = deployment.get("tags") or {}
    return str(tags.get(TAG_COMPONENT) or (MODEL if TAG_MODEL in tags else ""))


def restored(target_arn: str, present: Mapping[str, Any], former: Mapping[str, Any], component: str) -> dict[str, Any]:
    """As `request`, with the component as an earlier deployment had it, and everything else as it is now."""
    entry = copy.deepcopy(former["components"][component])
    made = request(target_arn, present, Change(component, entry["componentVersion"]), Policies())
    made["components"][component] = entry
    label = model_of(former)
    made["deploymentName"] = f"{label or entry['componentVersion']} (rollback)"
    made["tags"] |= {TAG_ROLLBACK: str(present["deploymentId"])} | ({TAG_MODEL: label} if label else {})
    return made


def model_of(deployment: Mapping[str, Any]) -> str:
    """`name@version` that a deployment brings; empty where it was not made by `evergreen release`."""
    return str((deployment.get("tags") or {}).get(TAG_MODEL, ""))


def version_of(deployment: Mapping[str, Any], component: str) -> str:
    """The component's version in a deployment; empty where it has none."""
    return str((deployment.get("components") or {}).get(component, {}).get("componentVersion", ""))


def wish_of(deployment: Mapping[str, Any], sha256: str = "") -> Wish:
    """What robots have to report that they were asked for, as far as the deployment tells it.

    Args:
        deployment: as a whole.
        sha256: of the model, as robots report it; empty where it is unknown.

    Only where it takes back what earlier deployments left (`reset`) does it tell prompt and swap.
    """
    update = ((deployment.get("components") or {}).get(MODEL) or {}).get("configurationUpdate") or {}
    if not {"", f"/{SECTION}"} & set(update.get("reset") or ()):
        return Wish(sha256=sha256 or None)
    section = _parsed(update.get("merge", ""), MODEL).get(SECTION)
    section = section if isinstance(section, Mapping) else {}
    return Wish(str(section.get("prompt", "")), str(section.get("swap", BLUE_GREEN)), sha256 or None)


def _component(before: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Whoever runs it and settings of other keys stay."""
    made: dict[str, Any] = {"componentVersion": change.version}
    if run_with := before.get("runWith"):
        made["runWith"] = run_with
    update = before.get("configurationUpdate") or {}
    merge = _without(_parsed(update.get("merge", ""), change.component), change.reset)
    for key, value in change.merge.items():
        merge[key] = {**merge[key], **value} if isinstance(value, Mapping) and key in merge else value
    configuration: dict[str, Any] = {}
    if reset := [*dict.fromkeys([*(update.get("reset") or ()), *change.reset])]:
        configuration["reset"] = reset
    if merge:
        configuration["merge"] = json.dumps(merge, ensure_ascii=False, sort_keys=True)
    if configuration:
        made["configurationUpdate"] = configuration
    return made


def _parsed(text: str, component: str) -> dict[str, Any]:
    try:
        loaded = json.loads(text) if text else {}
    except ValueError as error:
        raise ReleaseError(f"the present deployment's configuration of {component} is no JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise ReleaseError(f"the present deployment's configuration of {component} is no JSON object")
    return loaded


def _without(merge: dict[str, Any], pointers: tuple[str, ...]) -> dict[str, Any]:
    """Without what is reset anyway: `/model` as a whole. Deeper pointers leave the value, which then wins."""
    gone = {pointer.removeprefix("/") for pointer in pointers}
    return {} if "" in gone else {key: value for key, value in merge.items() if key not in gone}
