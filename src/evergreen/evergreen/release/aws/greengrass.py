"""Components, deployments and core devices of AWS IoT Greengrass."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evergreen.release.aws.session import ABSENT, Aws
from evergreen.release.errors import AwsError, ReleaseError

SERVICE = "greengrassv2"
LITE_RUNTIME = "aws_nucleus_lite"


@dataclass(frozen=True, slots=True)
class CoreDevice:
    """A computer with a nucleus; `seen_s` is when it last told of itself, seconds since 1970."""

    thing: str
    lite: bool
    seen_s: float


class Greengrass:
    """What a release asks of Greengrass."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    # Components

    def arn(self, component: str, version: str = "") -> str:
        """Of a component, or of one of its versions."""
        return self._aws.arn("greengrass", f"components:{component}" + (f":versions:{version}" if version else ""))

    def versions(self, component: str) -> list[str]:
        """All versions of a component, the newest first; empty where there is none."""
        try:
            listed = self._aws.pages(
                SERVICE, "list_component_versions", "componentVersions", arn=self.arn(component), maxResults=100
            )
            return [str(entry["componentVersion"]) for entry in listed]
        except AwsError as error:
            if error.code in ABSENT:
                return []
            raise

    def describe(self, component: str, version: str) -> dict[str, Any] | None:
        """A component version's state and tags; None where there is none."""
        try:
            return self._aws.call(SERVICE, "describe_component", arn=self.arn(component, version))
        except AwsError as error:
            if error.code in ABSENT:
                return None
            raise

    def image_of(self, component: str, version: str) -> str:
        """The first container image that a component version's recipe names; empty where it names none."""
        uris = self.artifacts_of(component, version)
        return next((uri.removeprefix("docker:") for uri in uris if uri.startswith("docker:")), "")

    def artifacts_of(self, component: str, version: str) -> list[str]:
        """What a component version's recipe names: `docker:…`, `s3://…`."""
        answer = self._aws.call(SERVICE, "get_component", arn=self.arn(component, version), recipeOutputFormat="JSON")
        recipe = json.loads(answer["recipe"])
        artifacts = [one for manifest in recipe.get("Manifests", ()) for one in manifest.get("Artifacts", ())]
        return [str(artifact.get("Uri", artifact.get("URI", ""))) for artifact in artifacts]

    def create_component(self, recipe: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Register a component version."""
        text = json.dumps(recipe, ensure_ascii=False).encode()
        self._aws.call(SERVICE, "create_component_version", inlineRecipe=text, tags=dict(tags))

    def delete_component(self, component: str, version: str) -> None:
        """Remove a component version."""
        self._aws.call(SERVICE, "delete_component", arn=self.arn(component, version))

    # Deployments

    def latest(self, target_arn: str) -> dict[str, Any] | None:
        """The target's latest deployment as a whole."""
        return next(self.deployments(target_arn, history="LATEST_ONLY"), None)

    def deployments(self, target_arn: str, history: str = "ALL") -> Iterator[dict[str, Any]]:
        """The target's deployments as a whole, the newest first."""
        listed = self._aws.pages(
            SERVICE, "list_deployments", "deployments", targetArn=target_arn, historyFilter=history, maxResults=100
        )
        newest_first = sorted(listed, key=lambda entry: entry["creationTimestamp"], reverse=True)
        for entry in newest_first:
            if entry.get("targetArn", target_arn) == target_arn:
                yield self.deployment(str(entry["deploymentId"]))

    def in_force(self) -> Iterator[dict[str, Any]]:
        """The latest deployment of every target of the account and region, as a whole."""
        listed = self._aws.pages(
            SERVICE, "list_deployments", "deployments", historyFilter="LATEST_ONLY", maxResults=100
        )
        for entry in listed:
            yield self.deployment(str(entry["deploymentId"]))

    def deployment(self, deployment_id: str) -> dict[str, Any]:
        """A deployment as a whole."""
        answer = self._aws.call(SERVICE, "get_deployment", deploymentId=deployment_id)
        answer.pop("ResponseMetadata", None)
        return answer

    def deploy(self, request: Mapping[str, Any]) -> str:
        """Create a deployment; returns its id."""
        return str(self._aws.call(SERVICE, "create_deployment", **request)["deploymentId"])

    def now_s(self) -> float:
        """The time by AWS's clock, seconds since 1970."""
        return self._aws.now_s()

    def cancel(self, deployment_id: str) -> None:
        """Keep devices that have not begun a deployment from doing so; where it is over there is nothing to cancel."""
        try:
            self._aws.call(SERVICE, "cancel_deployment", deploymentId=deployment_id)
        except AwsError as error:
            if error.code not in ("ConflictException", "ValidationException"):
                raise

    # Devices

    def device(self, thing: str) -> CoreDevice:
        """One core device.

        Raises:
            ReleaseError: it is none.
        """
        try:
            found = self._aws.call(SERVICE, "get_core_device", coreDeviceThingName=thing)
        except AwsError as error:
            if error.code in ABSENT:
                raise ReleaseError(
                    f"{thing} is no Greengrass core device in {self._aws.region}; `aws greengrassv2 list-core-devices` "
                    "shows which there are, docs/release.md how one becomes one"
                ) from error
            raise
        return _device(found)

    def devices_of(self, group_arn: str) -> list[CoreDevice]:
        """The core devices of a thing group, by name."""
        listed = self._aws.pages(SERVICE, "list_core_devices", "coreDevices", thingGroupArn=group_arn, maxResults=100)
        return sorted(map(_device, listed), key=lambda device: device.thing)

    def installed(self, thing: str, component: str) -> str:
        """The component's version on a device, however it came there; empty where there is none."""
        listed = self._aws.pages(
            SERVICE, "list_installed_components", "installedComponents", coreDeviceThingName=thing, maxResults=100
        )
        versions = (str(entry["componentVersion"]) for entry in listed if entry.get("componentName") == component)
        return next(versions, "")

    def execution(self, thing: str, deployment_id: str) -> dict[str, Any]:
        """How a deployment stands on a device; empty where the device has not heard of it."""
        listed = self._aws.pages(
            SERVICE, "list_effective_deployments", "effectiveDeployments", coreDeviceThingName=thing, maxResults=100
        )
        known = itertools.islice(listed, 1000)
        return next((entry for entry in known if entry.get("deploymentId") == deployment_id), {})


def _device(answer: Mapping[str, Any]) -> CoreDevice:
    seen = answer.get("lastStatusUpdateTimestamp")
    return CoreDevice(
        str(answer["coreDeviceThingName"]),
        answer.get("runtime") == LITE_RUNTIME,
        seen.timestamp() if seen is not None else 0.0,
    )
