"""The services of one account and region, and the targets found there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from evergreen.release import documents
from evergreen.release.aws import SHADOW
from evergreen.release.aws.greengrass import CoreDevice, Greengrass
from evergreen.release.aws.iot import Iot
from evergreen.release.aws.session import Aws
from evergreen.release.documents import version_of
from evergreen.release.errors import ReleaseError
from evergreen.release.steps.watch import Clock
from evergreen.release.targets import CLASSIC, LITE, Target
from gg_bridge.recipes import MODEL

_Deployment = TypeVar("_Deployment", dict[str, Any], dict[str, Any] | None)


@dataclass(frozen=True, slots=True)
class Services:
    """What a release speaks to."""

    aws: Aws
    greengrass: Greengrass
    iot: Iot
    _known: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: str, region: str, shadow: str = SHADOW) -> Services:
        """Of this profile and region.

        Raises:
            AwsError: there is no such profile, no region, or no credentials.
        """
        aws = Aws(profile, region)
        _ = aws.account  # who nobody is should be said before anything else
        return cls(aws, Greengrass(aws), Iot(aws, shadow))

    @property
    def clock(self) -> Clock:
        """This computer's patience, AWS's time."""
        return Clock(time.monotonic, self.aws.now_s)

    def labelled(self, deployment: _Deployment) -> _Deployment:
        """With the label of its model, where it has none itself but the component's version has one.

        So does one that was made by hand, or by a release of the robot's own software before these took labels over.
        """
        version = version_of(deployment or {}, MODEL)
        if not deployment or not version or documents.model_of(deployment):
            return deployment
        label = self._tags(version).get(documents.TAG_MODEL)
        if label:
            deployment["tags"] = dict(deployment.get("tags") or {}) | {documents.TAG_MODEL: label}
        return deployment

    def sha256_of(self, deployment: Mapping[str, Any]) -> str:
        """The SHA-256 by which robots report its model; empty where it is unknown."""
        version = version_of(deployment, MODEL)
        return str(self._tags(version).get(documents.TAG_SHA256, "")) if version else ""

    def _tags(self, version: str) -> dict[str, Any]:
        """Of a version of the model's component, asked for once: the targets of a fleet mostly have the same."""
        if version not in self._known:
            self._known[version] = dict((self.greengrass.describe(MODEL, version) or {}).get("tags") or {})
        return self._known[version]


@dataclass(frozen=True, slots=True)
class Found:
    """Targets, and the nucleus of each of their devices."""

    targets: tuple[Target, ...]
    nuclei: tuple[str, ...]


def find_targets(
    services: Services, things: Sequence[str], groups: Sequence[str], devices_of: Sequence[str], component: str = MODEL
) -> Found:
    """Look the targets up, in the order given: things, groups, devices; who is named twice is there once.

    Raises:
        ReleaseError: one does not exist, or is no core device; or the group's own deployment has the component that its
            devices are to get each by itself.
    """
    targets: list[Target] = []
    devices: list[CoreDevice] = []

    def take_thing(name: str, device: CoreDevice) -> None:
        if any((target.kind, target.name) == ("thing", name) for target in targets):
            return
        targets.append(Target("thing", name, services.iot.thing_arn(name), (name,)))
        devices.append(device)

    for name in dict.fromkeys(things):
        take_thing(name, services.greengrass.device(name))
    for name in dict.fromkeys(groups):
        arn = services.iot.group_arn(name)
        members = services.greengrass.devices_of(arn)
        targets.append(Target("group", name, arn, tuple(device.thing for device in members)))
        devices += members
    for name in dict.fromkeys(devices_of):
        for device in _members(services, name, component):
            take_thing(device.thing, device)
    return Found(tuple(targets), tuple(LITE if device.lite else CLASSIC for device in devices))


def _members(services: Services, group: str, component: str) -> list[CoreDevice]:
    arn = services.iot.group_arn(group)
    if version := version_of(services.greengrass.latest(arn) or {}, component):
        raise ReleaseError(
            f"group {group} itself deploys {component} {version}; devices that got another version each by itself "
            f"could apply neither. Deploy to groups (--group), or take {component} out of the group's deployment first"
        )
    members = services.greengrass.devices_of(arn)
    if not members:
        raise ReleaseError(f"no core device in group {group}")
    return members
