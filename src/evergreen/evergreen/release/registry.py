"""Registries of container images: Amazon ECR, or any other by its address."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from typing import Protocol

import urllib3

from evergreen.release.aws.session import ABSENT, Aws
from evergreen.release.engine import Engine, is_loopback
from evergreen.release.errors import AwsError, ReleaseError

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_TIMEOUT_S = 20.0
_OK, _ACCEPTED, _NOT_FOUND = 200, 202, 404


class Registry(Protocol):
    """Where images are pushed to."""

    address: str

    def prepare(self, repository: str, *, create: bool) -> None:
        """See that there is such a repository.

        Raises:
            ReleaseError: there is none, and none is to be made.
        """

    def digest(self, repository: str, tag: str) -> str:
        """Of the image with this tag; empty where there is none, or nobody may know."""

    def delete(self, repository: str, tag: str) -> None:
        """Remove an image.

        Raises:
            ReleaseError: it cannot be removed.
        """

    def signed_in(self, engine: Engine) -> contextlib.AbstractContextManager[Engine]:
        """The engine, able to push here."""


class Ecr:
    """Amazon's, in the account and region of the credentials."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self.address = f"{aws.account}.dkr.ecr.{aws.region}.{aws.dns_suffix}"

    def prepare(self, repository: str, *, create: bool) -> None:
        """See `Registry`."""
        try:
            self._aws.call("ecr", "describe_repositories", repositoryNames=[repository])
        except AwsError as error:
            if error.code not in ABSENT:
                raise
            if not create:
                raise ReleaseError(
                    f"no repository {repository!r} in {self.address}; --create-repository makes it, --repository "
                    "names another"
                ) from error
            self._aws.call("ecr", "create_repository", repositoryName=repository, imageTagMutability="IMMUTABLE")

    def digest(self, repository: str, tag: str) -> str:
        """See `Registry`."""
        try:
            found = self._aws.call("ecr", "describe_images", repositoryName=repository, imageIds=[{"imageTag": tag}])
        except AwsError as error:
            if error.code in ABSENT:
                return ""
            raise
        return next((str(image["imageDigest"]) for image in found["imageDetails"]), "")

    def delete(self, repository: str, tag: str) -> None:
        """See `Registry`."""
        self._aws.call("ecr", "batch_delete_image", repositoryName=repository, imageIds=[{"imageTag": tag}])

    @contextlib.contextmanager
    def signed_in(self, engine: Engine) -> Iterator[Engine]:
        """See `Registry`."""
        (token,) = self._aws.call("ecr", "get_authorization_token")["authorizationData"]
        user, _, password = base64.b64decode(token["authorizationToken"]).decode().partition(":")
        with engine.signed_in(self.address, user, password) as ready:
            yield ready


class OtherRegistry:
    """Any other; who has to sign in there does it beforehand with podman or docker."""

    def __init__(self, address: str) -> None:
        self.address = address
        scheme = "http" if is_loopback(address) else "https"
        self._url = f"{scheme}://{address}/v2"
        self._http = urllib3.PoolManager(timeout=_TIMEOUT_S, retries=2)

    def prepare(self, repository: str, *, create: bool) -> None:
        """Nothing: other registries make a repository by the first push."""

    def digest(self, repository: str, tag: str) -> str:
        """See `Registry`."""
        answer = self._ask("HEAD", repository, tag)
        return str(answer.headers.get("Docker-Content-Digest", "")) if answer.status == _OK else ""

    def delete(self, repository: str, tag: str) -> None:
        """See `Registry`."""
        if not (digest := self.digest(repository, tag)):
            return
        answer = self._ask("DELETE", repository, digest)
        if answer.status not in (_ACCEPTED, _NOT_FOUND):
            raise ReleaseError(
                f"{self.address} does not delete {repository}:{tag} (answer {answer.status}); it is harmless there"
            )

    @contextlib.contextmanager
    def signed_in(self, engine: Engine) -> Iterator[Engine]:
        """See `Registry`."""
        yield engine

    def _ask(self, method: str, repository: str, reference: str) -> urllib3.BaseHTTPResponse:
        url = f"{self._url}/{repository}/manifests/{reference}"
        try:
            return self._http.request(method, url, headers={"Accept": ", ".join(_MANIFESTS)})
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise ReleaseError(f"registry {self.address} cannot be reached: {reason}; is --registry right?") from error


def parts(image: str) -> tuple[str, str, str]:
    """Registry, repository and tag of an image's reference; instead of a tag `@sha256:…`.

    The registry is empty where none is named: an engine would take such a name for one of Docker Hub.
    """
    name, at, digest = image.partition("@")
    host, slash, path = name.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, path = "", name
    repository, colon, tag = path.rpartition(":")
    if not colon:
        repository, tag = path, "latest"
    return host, repository, f"@{digest}" if at else tag


def of_image(aws: Aws, image: str) -> Registry | None:
    """The registry that an image's reference names; None where it names none."""
    host, _, _ = parts(image)
    return choose(aws, host) if host else None


def choose(aws: Aws, address: str) -> Registry:
    """The registry at this address; Amazon's where it is empty or the account's own."""
    if not address:
        return Ecr(aws)
    if ".dkr.ecr." in address:
        own = Ecr(aws)
        if own.address == address:
            return own
    return OtherRegistry(address)
