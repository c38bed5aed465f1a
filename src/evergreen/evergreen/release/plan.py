"""Which steps a release takes: chosen here, carried out elsewhere."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.model.packing import Wanted
from evergreen.release import documents, engine, history, registry, usage, versions, waves
from evergreen.release.aws.s3 import Bucket
from evergreen.release.documents import Change, Policies
from evergreen.release.errors import ReleaseError
from evergreen.release.options import policies_from
from evergreen.release.services import Found, Services, find_targets
from evergreen.release.steps import Step
from evergreen.release.steps.build import Build, Image
from evergreen.release.steps.deploy import Deploy
from evergreen.release.steps.download import Address
from evergreen.release.steps.look import Look
from evergreen.release.steps.pack import Pack
from evergreen.release.steps.push import Push
from evergreen.release.steps.register import Register
from evergreen.release.steps.take import Take
from evergreen.release.steps.upload import SUFFIX, Upload
from evergreen.release.steps.watch import Patience, Watch
from evergreen.release.targets import Target, disjoint, one_nucleus
from evergreen.release.work import Work
from gg_bridge import recipes
from vla_core import archives
from vla_core import manifest as manifests
from vla_core.errors import ConfigError

WAYS: Mapping[str, recipes.Way] = {"image": "image", "artifact": "artifact", "download": "script"}


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps, and what they work on."""

    work: Work
    steps: Sequence[Step]
    targets: tuple[Target, ...]


def model(arguments: argparse.Namespace, services: Services, scratch: Path) -> Plan:
    """Release a model; `scratch` is a folder for an archive. The arguments satisfy `usage.demand_model`.

    Raises:
        EvergreenError: it cannot work; nothing was made.
    """
    shares = waves.parse(arguments.canary) if arguments.canary else ()
    found = find_targets(services, arguments.thing, arguments.group, arguments.devices_of)
    _demand_going(services, found, recipes.MODEL)
    portions = _portions(found, shares)
    nucleus = one_nucleus(found.nuclei, arguments.nucleus)
    wanted = Wanted.parse(None, arguments.model_version, None, ())
    manifest = manifests.load(arguments.folder)
    work = Work(recipes.MODEL, f"{manifest.name}@{arguments.model_version or manifest.version}")
    work.present = services.greengrass.versions(work.component)
    work.version = versions.choose(arguments.component_version, work.present, work.component)
    way = WAYS[arguments.by]
    archive = scratch / f"model{SUFFIX}" if _travels_as_archive(arguments) else None
    work.image = arguments.base or _robots_image(services, found)
    settings = {key: value for key in ("prompt", "swap") if (value := getattr(arguments, key))}
    tags = {documents.TAG_MODEL: work.label}

    def change() -> Change:
        return Change(
            work.component,
            work.version,
            {"model": settings} if settings else {},
            tuple(recipes.configuration_update(way).get("reset", ())),
            tags,
            f"{work.label} as {work.component} {work.version}",
        )

    steps: list[Step] = [
        Pack(work, arguments.folder, wanted, arguments.key, archive),
        Look(work, services.greengrass, arguments.component_version),
        *_bring(arguments, services, work),
        Register(work, services.greengrass, way, _kind(nucleus)),
        *_to_devices(
            arguments,
            services,
            work,
            portions,
            _requests(services, change, policies_from(arguments)),
            stop_at_first=bool(shares),
        ),
    ]
    return Plan(work, steps, found.targets)


def robot(arguments: argparse.Namespace, services: Services) -> Plan:
    """Release the robot's own software. The arguments satisfy `usage.demand_robot`.

    Raises:
        EvergreenError: it cannot work; nothing was made.
    """
    found = find_targets(services, arguments.thing, arguments.group, arguments.devices_of, recipes.ROBOT)
    disjoint(found.targets)
    _demand_going(services, found, recipes.ROBOT)
    nucleus = one_nucleus(found.nuclei, arguments.nucleus)
    merge = usage.read_configuration(arguments.configuration) if arguments.configuration else {}
    work = Work(recipes.ROBOT)
    work.present = services.greengrass.versions(work.component)
    work.version = versions.choose(arguments.component_version, work.present, work.component)
    work.image = arguments.image
    image = _image(arguments, services, arguments.image)

    def change() -> Change:
        return Change(work.component, work.version, merge, name=f"{work.component} {work.version}")

    steps: list[Step] = [
        Look(work, services.greengrass, arguments.component_version),
        Take(work, image, "robot"),
        Push(work, image, create_repository=arguments.create_repository),
        Register(work, services.greengrass, "robot", _kind(nucleus)),
        *_to_devices(
            arguments, services, work, (found.targets,), _requests(services, change, policies_from(arguments))
        ),
    ]
    return Plan(work, steps, found.targets)


def rollback(arguments: argparse.Namespace, services: Services) -> Plan:
    """Deploy each target's former model. The arguments satisfy `usage.demand_rollback`.

    Raises:
        EvergreenError: a target has none; nothing was made.
    """
    found = find_targets(services, arguments.thing, arguments.group, arguments.devices_of)
    disjoint(found.targets)
    former = {}
    for target in found.targets:
        deployments = map(services.labelled, services.greengrass.deployments(target.arn))
        former[target.arn] = history.former(deployments, recipes.MODEL, arguments.to)
    labels = {documents.model_of(deployment) for deployment in former.values()}
    if len(labels) > 1:
        raise ReleaseError(f"the targets had different models before ({', '.join(sorted(labels))}); choose with --to")
    hashes = {services.sha256_of(deployment) for deployment in former.values()}
    work = Work(recipes.MODEL, labels.pop(), sha256=hashes.pop() if len(hashes) == 1 else "")

    def request(target: Target) -> dict[str, Any]:
        present = services.greengrass.latest(target.arn) or {}
        return documents.restored(target.arn, present, former[target.arn], recipes.MODEL)

    return Plan(work, _to_devices(arguments, services, work, (found.targets,), request), found.targets)


def _demand_going(services: Services, found: Found, component: str) -> None:
    """As `documents.demand_going` for every target, before anything is made."""
    for target in found.targets:
        documents.demand_going(services.greengrass.latest(target.arn), component, target.option)


def _portions(found: Found, shares: Sequence[waves.Share]) -> tuple[tuple[Target, ...], ...]:
    disjoint(found.targets)
    if shares and (empty := [target.shown for target in found.targets if not target.things]):
        raise ConfigError(
            f"--canary: no core device in {', '.join(empty)}, so that nobody there could say whether the model is "
            "any good; leave it out"
        )
    return waves.split(found.targets, shares)


def _bring(arguments: argparse.Namespace, services: Services, work: Work) -> list[Step]:
    """The model to where the robots can get it."""
    if arguments.by == "image":
        if not work.image:
            raise ConfigError(
                "no base image: the target has no component dev.evergreen.Robot whose image could be taken; deploy it "
                "first (`evergreen release robot`), or give --base"
            )
        image = _image(arguments, services, work.image)
        image.dockerfile = usage.dockerfile(arguments.dockerfile)
        return [Build(work, image, arguments.folder), Push(work, image, create_repository=arguments.create_repository)]
    if not work.image:
        raise ConfigError(
            f"--by {arguments.by} needs the image with the robot's software: deploy it first "
            "(`evergreen release robot`), or give --base"
        )
    if arguments.by == "artifact":
        return [Upload(work, Bucket(services.aws, arguments.bucket), arguments.prefix)]
    return [Address(work, arguments.uri)]


def _travels_as_archive(arguments: argparse.Namespace) -> bool:
    return arguments.by == "artifact" or (arguments.by == "download" and archives.is_archive(arguments.uri))


def _to_devices(
    arguments: argparse.Namespace,
    services: Services,
    work: Work,
    portions: Sequence[Sequence[Target]],
    request: Callable[[Target], dict[str, Any]],
    *,
    stop_at_first: bool = False,
) -> list[Step]:
    patience = Patience(arguments.wait, arguments.poll, stop_at_first)
    steps: list[Step] = []
    for number, portion in enumerate(portions, 1):
        wave = f" (wave {number} of {len(portions)})" if len(portions) > 1 else ""
        steps.append(Deploy(work, services.greengrass, portion, request, f"deploy{wave}"))
        if arguments.wait:
            title = f"wait for the devices{wave}"
            steps.append(
                Watch(work, services.greengrass, services.iot, portion, patience, clock=services.clock, title=title)
            )
    return steps


def _requests(
    services: Services, change: Callable[[], Change], policies: Policies
) -> Callable[[Target], dict[str, Any]]:
    """What to ask for, by what the target has at that moment."""

    def request(target: Target) -> dict[str, Any]:
        present = services.labelled(services.greengrass.latest(target.arn))
        return documents.request(target.arn, present, change(), policies)

    return request


def _robots_image(services: Services, found: Found) -> str:
    """The image of the robot's component in the first target's deployment, or on its first device; empty: none."""
    target = found.targets[0]
    version = documents.version_of(services.greengrass.latest(target.arn) or {}, recipes.ROBOT)
    if not version and target.things:
        version = services.greengrass.installed(target.things[0], recipes.ROBOT)
    return services.greengrass.image_of(recipes.ROBOT, version) if version else ""


def _image(arguments: argparse.Namespace, services: Services, base: str) -> Image:
    return Image(
        engine.find(arguments.engine),
        registry.choose(services.aws, arguments.registry),
        arguments.repository,
        usage.DOCKERFILE,
        base,
        arguments.platform,
        registry.of_image(services.aws, base),
    )


def _kind(nucleus: str) -> recipes.NucleusKind:
    return recipes.LITE if nucleus == recipes.LITE else recipes.CLASSIC
