"""What of a command line can be judged without AWS: wrong usage is told before AWS is asked for anything."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evergreen.release import versions, waves
from evergreen.release.options import PREFIX, REPOSITORY
from evergreen.release.steps.download import demand_lasting
from gg_bridge.recipes import Facts
from vla_core import manifest as manifests
from vla_core import signing
from vla_core.errors import ConfigError

DOCKERFILE = Path("docker/Dockerfile.model")
CHECKOUT = Path(__file__).parents[4]
_OF_A_WAY: Mapping[str, Mapping[str, object]] = {
    "image": {
        "registry": "",
        "repository": REPOSITORY,
        "create_repository": False,
        "engine": "",
        "platform": "",
        "dockerfile": None,
    },
    "artifact": {"bucket": "", "prefix": PREFIX},
    "download": {"uri": ""},
}
"""Options that only one way looks at, with their defaults."""
_REPOSITORY = re.compile(r"(?=.{2,256}$)[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_REGISTRY = re.compile(r"(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+)(:\d{1,5})?|[a-z0-9-]+:\d{1,5}")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def demand_model(arguments: argparse.Namespace) -> None:
    """Judge `evergreen release deploy`.

    Raises:
        ConfigError: it cannot work.
        ManifestError: the folder is no model.
    """
    demand_targets(arguments)
    _demand_canary(arguments)
    _demand_way(arguments)
    _demand_names(arguments)
    if not arguments.folder.is_dir():
        raise ConfigError(f"model folder {arguments.folder} does not exist")
    manifests.load(arguments.folder)
    if (version := arguments.model_version) is not None and not manifests.NAME.fullmatch(version):
        raise ConfigError(f"--model-version {version!r}: letters, digits, '.', '_' and '-', at most 64")
    if arguments.key:
        signing.load_private(arguments.key)


def demand_robot(arguments: argparse.Namespace) -> None:
    """Judge `evergreen release robot`.

    Raises:
        ConfigError: it cannot work.
    """
    demand_targets(arguments)
    _demand_names(arguments)
    Facts(versions.FIRST, arguments.image)
    if arguments.configuration:
        read_configuration(arguments.configuration)


def demand_rollback(arguments: argparse.Namespace) -> None:
    """Judge `evergreen release rollback`.

    Raises:
        ConfigError: it cannot work.
    """
    demand_targets(arguments)
    if arguments.to and not all(map(manifests.NAME.fullmatch, _label_parts(arguments.to))):
        raise ConfigError(f"--to {arguments.to!r}: write NAME@VERSION, for example evergreen-black@1.0.0")


def demand_targets(arguments: argparse.Namespace) -> None:
    """See that there is one.

    Raises:
        ConfigError: there is none.
    """
    if not (arguments.thing or arguments.group or arguments.devices_of):
        raise ConfigError("name the robots: --thing, --group, or --devices-of a group")


def dockerfile(given: Path | None) -> Path:
    """The one given, else the model's here, else of the checkout that this program is from.

    Raises:
        ConfigError: there is none.
    """
    for path in (given,) if given else (DOCKERFILE, CHECKOUT / DOCKERFILE):
        if path.is_file():
            return path.resolve()
    raise ConfigError(f"no {given or DOCKERFILE} here; --dockerfile names it")


def read_configuration(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ConfigError: there is none.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--configuration {path}: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"--configuration {path}: must be a JSON object")
    return loaded


def _label_parts(label: str) -> tuple[str, str]:
    name, _, version = label.partition("@")
    return name, version


def _demand_canary(arguments: argparse.Namespace) -> None:
    if not arguments.canary:
        return
    waves.parse(arguments.canary)
    if not arguments.wait:
        raise ConfigError("--canary waits after each wave; --wait 0 cannot")
    groups = [*dict.fromkeys(arguments.group)]
    if len(groups) == 1 and not arguments.thing and not arguments.devices_of:
        raise ConfigError(
            "--canary chooses among targets, and one group is one target: --devices-of "
            f"{groups[0]} makes each of its devices one, or name several groups"
        )


def _demand_way(arguments: argparse.Namespace) -> None:
    if strange := [*_of_other_ways(arguments)]:
        raise ConfigError(f"{', '.join(strange)}; this release goes --by {arguments.by}")
    match arguments.by:
        case "image":
            dockerfile(arguments.dockerfile)
        case "artifact":
            if not arguments.bucket:
                raise ConfigError("--by artifact needs --bucket")
            _demand_form("bucket", arguments.bucket, _BUCKET, "3 to 63 lower-case letters, digits, '.' and '-'")
            Facts(versions.FIRST, "image", uri=f"s3://{arguments.bucket}/{arguments.prefix}name")
        case "download":
            if not arguments.uri:
                raise ConfigError("--by download needs --uri: where the robots find the model, for example https://…")
            demand_lasting(arguments.uri)
            Facts(versions.FIRST, "image", uri=arguments.uri)


def _of_other_ways(arguments: argparse.Namespace) -> Iterator[str]:
    """Options that were given and would not be looked at."""
    for way, defaults in _OF_A_WAY.items():
        for name, default in defaults.items():
            if way != arguments.by and getattr(arguments, name) != default:
                yield f"--{name.replace('_', '-')} is for --by {way}"


def _demand_names(arguments: argparse.Namespace) -> None:
    """Of images, and of the component's version."""
    if arguments.component_version:
        versions.demand_form(arguments.component_version)
    _demand_form("registry", arguments.registry, _REGISTRY, "write its host or host:port, without a scheme or a path")
    _demand_form(
        "repository", arguments.repository, _REPOSITORY, "2 to 256 lower-case letters, digits, '.', '_', '-', '/'"
    )
    _demand_form("platform", arguments.platform, _PLATFORM, "write OS/ARCH, for example linux/arm64")
    if getattr(arguments, "base", ""):
        Facts(versions.FIRST, arguments.base)


def _demand_form(option: str, value: str, form: re.Pattern[str], advice: str) -> None:
    if value and not form.fullmatch(value):
        raise ConfigError(f"--{option} {value!r}: {advice}")
