"""What a recipe is made from, judged before one is made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from vla_core.errors import ConfigError

Way: TypeAlias = Literal["robot", "image", "artifact", "script"]
"""`robot` is the component that moves the arm; the others are ways of shipping a model with the component `model`."""
NucleusKind: TypeAlias = Literal["classic", "lite"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)
NUCLEI: Final[tuple[NucleusKind, ...]] = get_args(NucleusKind)
CLASSIC: Final = "classic"
LITE: Final = "lite"

ROBOT: Final = "dev.evergreen.Robot"
MODEL: Final = "dev.evergreen.Model"
"""Names of the two components."""

ARTIFACT_LIMIT_BYTES: Final = 2_000_000_000
"""AWS's quota "maximum total size of component artifacts", 2 GB for the sum of a component's artifacts, not adjustable
(AWS General Reference, "AWS IoT Greengrass V2 endpoints and quotas"). Read as decimal, the smaller of two meanings."""

_SEMVER = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}(-[0-9A-Za-z.-]{1,32})?(\+[0-9A-Za-z.-]{1,32})?")
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._/:-]{0,254}(@sha256:[0-9a-f]{64})?")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?@!&=%+,;-]{1,1000}")
_LABEL = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}@[A-Za-z0-9][A-Za-z0-9._-]{0,63})?")
_SHA256 = re.compile(r"([0-9a-f]{64})?")
_ARCHIVES: Final = (".tar", ".tar.gz", ".tgz", ".zip")


class RecipeError(ConfigError):
    """A recipe cannot be made of these facts, or is wrong; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What differs from one recipe to the next.

    Attributes:
        version: of the component, `major.minor.patch`; Greengrass takes each one once.
        image: reference of the container image, best with a digest: of base and model for `image`, else of the base.
        model: `name@version`, for people; empty for `robot`.
        uri: `artifact`: where the archive is uploaded to (`s3://bucket/key.tar.gz`); `script`: what
            `evergreen model fetch` reads; else empty.
        sha256: `artifact`: of the archive; `script`: of manifest.json or the archive; `image`: empty, since the
            image's digest covers it.
        size_bytes: of the archive, for `artifact`.
    """

    version: str
    image: str
    model: str = ""
    uri: str = ""
    sha256: str = ""
    size_bytes: int = 0

    def __post_init__(self) -> None:
        if not _SEMVER.fullmatch(self.version):
            raise RecipeError(f"component version {self.version!r} is not major.minor.patch, for example 1.4.0")
        if not _IMAGE.fullmatch(self.image) or self.image.endswith(":"):
            raise RecipeError(f"image {self.image!r} is no reference, for example registry.example.org/robot@sha256:…")
        if not _LABEL.fullmatch(self.model):
            raise RecipeError(f"model {self.model!r} is not name@version")
        if self.uri and not _URI.fullmatch(self.uri):
            raise RecipeError(
                f"address {self.uri!r} is no plain URI; quotation marks, spaces and braces must be encoded"
            )
        if not _SHA256.fullmatch(self.sha256):
            raise RecipeError(f"sha256 {self.sha256!r} must be 64 lower-case hex digits")

    @property
    def model_version(self) -> str:
        """The version in `model`; empty where there is none."""
        return self.model.partition("@")[2]

    @property
    def file_name(self) -> str:
        """The last part of `uri`."""
        return self.uri.rpartition("/")[2]


def demand(way: Way, facts: Facts) -> None:
    """Whether `facts` suffice for `way`.

    Raises:
        RecipeError: they do not, or the way cannot carry such a model; the message names the way out.
    """
    if way in ("image", "robot") and facts.uri:
        raise RecipeError(f"a recipe of the way {way!r} has no address, but got {facts.uri}")
    if way == "artifact":
        _demand_artifact(facts)
    if way == "script" and not (facts.uri and facts.sha256):
        raise RecipeError("the way 'script' needs uri and sha256: what it downloads must be known beforehand")


def _demand_artifact(facts: Facts) -> None:
    if not facts.uri.startswith("s3://") or not facts.uri.endswith(_ARCHIVES):
        raise RecipeError(
            f"the way 'artifact' needs uri s3://bucket/key{_ARCHIVES[1]}, not {facts.uri!r}: Greengrass takes "
            "artifacts from S3 only, and a folder as one archive (`evergreen model pack`)"
        )
    if not facts.sha256 or facts.size_bytes <= 0:
        raise RecipeError("the way 'artifact' needs sha256 and size_bytes of the archive")
    if facts.size_bytes > ARTIFACT_LIMIT_BYTES:
        raise RecipeError(
            f"artifact {facts.file_name} has {facts.size_bytes:,} bytes; Greengrass takes at most "
            f"{ARTIFACT_LIMIT_BYTES:,} for all artifacts of a component. Ship it as an image (way 'image'), or let the "
            "robot download it (way 'script')"
        )
