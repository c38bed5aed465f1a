"""Removes what a release left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from evergreen.release import engine, registry
from evergreen.release.aws.greengrass import Greengrass
from evergreen.release.aws.s3 import Bucket
from evergreen.release.aws.session import ABSENT, Aws
from evergreen.release.documents import version_of
from evergreen.release.errors import AwsError, InUseError, ReleaseError
from evergreen.release.journal import Leftover
from evergreen.release.steps.look import LOOKED_AT
from gg_bridge.recipes import MODEL, ROBOT


@dataclass(frozen=True, slots=True)
class Remover:
    """Knows how each kind of leftover goes. What is gone already counts as removed.

    Attributes:
        aws: the account that it is in.
        gone: component versions that were removed; AWS may list them for a while.
    """

    aws: Aws
    gone: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, leftover: Leftover) -> None:
        """Remove one.

        Raises:
            InUseError: a deployment or a component version of another release needs it.
            ReleaseError: it cannot be removed.
        """
        kinds: dict[str, Callable[[str, str], None]] = {
            "component": self._component,
            "image": self._image,
            "local_image": self._local_image,
            "object": self._object,
        }
        if leftover.kind not in kinds:
            raise ReleaseError(f"a leftover of the kind {leftover.kind!r} is of another release of Evergreen")
        try:
            kinds[leftover.kind](leftover.where, leftover.what)
        except AwsError as error:
            if error.code not in ABSENT:
                raise

    def _component(self, component: str, version: str) -> None:
        greengrass = Greengrass(self.aws)
        for deployment in greengrass.in_force():
            if version_of(deployment, component) == version:
                raise InUseError(f"deployment {deployment['deploymentId']} to {deployment['targetArn']} has it")
        greengrass.delete_component(component, version)
        self.gone.add((component, version))

    def _image(self, address: str, what: str) -> None:
        repository, _, tag = what.rpartition(":")
        where = registry.choose(self.aws, address)
        digest = where.digest(repository, tag)
        self._demand_unnamed(f"docker:{address}/{what}", f"docker:{address}/{repository}@{digest}")
        where.delete(repository, tag)

    def _local_image(self, program: str, image: str) -> None:
        engine.find(program).remove(image)

    def _object(self, bucket: str, key: str) -> None:
        self._demand_unnamed(f"s3://{bucket}/{key}")
        Bucket(self.aws, bucket).delete(key)

    def _demand_unnamed(self, *uris: str) -> None:
        """See that no component version that is deployed, or was made of late, names one of these.

        Raises:
            InUseError: one does.
        """
        greengrass = Greengrass(self.aws)
        deployed = list(greengrass.in_force())
        for component in (MODEL, ROBOT):
            versions = {version_of(deployment, component) for deployment in deployed} - {""}
            versions |= set(greengrass.versions(component)[:LOOKED_AT])
            for version in sorted(versions):
                if (component, version) not in self.gone and set(uris) & self._named(greengrass, component, version):
                    raise InUseError(f"{component} {version} names it")

    def _named(self, greengrass: Greengrass, component: str, version: str) -> set[str]:
        try:
            return set(greengrass.artifacts_of(component, version))
        except AwsError as error:
            if error.code in ABSENT:
                return set()
            raise
