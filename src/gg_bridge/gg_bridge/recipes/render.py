"""Makes recipes: `render(way, nucleus, facts)`.

What holds for every script here, since Greengrass Lite 2.6 demands it and the classic nucleus does not mind: keys are
in AWS's capital letters; no braces but recipe variables, since Lite takes every `{` for one; values from the
configuration reach scripts only as environment variables in quotation marks; the container runs in the foreground, so
that its end is the component's end.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gg_bridge.recipes.facts import LITE, MODEL, ROBOT, Facts, NucleusKind, Way, demand
from vla_core.signing import KEYS_VARIABLE, REQUIRE_VARIABLE

FORMAT: Final = "2020-01-25"
INSTALL_TIMEOUT_S: Final = 6 * 3600
"""For a download of many GB over a slow line; what was fetched is kept if even that does not suffice."""
STORE: Final = "/var/lib/evergreen"
"""In containers: the model store. Both components mount the same named volume there, which takes over the owner that
the folder has in the image, so that nobody needs root."""
VOLUME: Final = "evergreen"
SETTINGS: Final = "/etc/evergreen"
"""In containers, and on the host unless configured: the robot's settings, and the public keys that it trusts."""
PAYLOAD: Final = "/opt/evergreen/payload"
SOCKET: Final = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"

_ROS: Final = {"domain_id": "0", "discovery": "LOCALHOST"}
"""Default configuration of both components: whoever is on the robot's network cannot talk to its arm."""
_ROS_ENVIRONMENT: Final = {
    "ROS_DOMAIN_ID": "{configuration:/ros/domain_id}",
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "{configuration:/ros/discovery}",
}
_SIGNATURES: Final = {"trusted_keys": "", "required": "0"}
"""Default configuration of both components: a robot has no keys until somebody brings some."""
_TRUST_ENVIRONMENT: Final = {
    KEYS_VARIABLE: "{configuration:/signatures/trusted_keys}",
    REQUIRE_VARIABLE: "{configuration:/signatures/required}",
}
"""For everything that takes a model: fetch, bridge and policy judge signatures, each by itself."""
_ENVIRONMENT: Final = _ROS_ENVIRONMENT | _TRUST_ENVIRONMENT
_OF_THE_SCRIPT: Final = {"EVERGREEN_SETTINGS": "{configuration:/settings}"}
"""For the words of `docker run`, not for the container."""
_SHUT_IN: Final = (
    "--init --network host --ipc host --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges"
)
"""Host network and IPC: ROS 2 finds and reaches the other container there. Everything else is taken away."""


def render(way: Way, nucleus: NucleusKind, facts: Facts) -> dict[str, Any]:
    """The recipe of one component version, as JSON-ready data with a fixed order of keys.

    Args:
        way: `robot` for the component that moves the arm; `image`, `artifact` or `script` for the component `model`,
            by how the model gets there (`gg_bridge.recipes.facts`, docs/containers.md).
        nucleus: whom it is for; the two do not take the same recipe where Docker images are fetched.
        facts: what differs from one version to the next.

    Returns:
        The recipe; `to_text` writes it as what `CreateComponentVersion` takes. It satisfies `check`.

    Raises:
        RecipeError: the facts do not suffice, or this way cannot carry such a model; names the way out.
    """
    demand(way, facts)
    is_robot = way == "robot"
    recipe: dict[str, Any] = {
        "RecipeFormatVersion": FORMAT,
        "ComponentName": ROBOT if is_robot else MODEL,
        "ComponentVersion": facts.version,
        "ComponentType": "aws.greengrass.generic",
        "ComponentDescription": _description(way, facts),
        "ComponentPublisher": "Evergreen",
        "ComponentConfiguration": {"DefaultConfiguration": _robot_defaults() if is_robot else _model_defaults()},
    }
    if dependencies := _dependencies(way, nucleus, facts):
        recipe["ComponentDependencies"] = dependencies
    lifecycle = _robot_lifecycle(facts) if is_robot else _model_lifecycle(way, facts)
    if nucleus != LITE:  # Lite has no shutdown; its `docker run` is ended by the signal that systemd sends
        lifecycle["shutdown"] = {"Script": f"docker stop --time 20 {_container(way)}", "Timeout": 30}
    recipe["Manifests"] = [
        {"Platform": _platform(nucleus), "Lifecycle": lifecycle, "Artifacts": _artifacts(way, facts)}
    ]  # no architecture: an image's reference may name one image for each
    return recipe


def configuration_update(way: Way) -> dict[str, Any]:
    """The `configurationUpdate` of a deployment of this recipe.

    Greengrass keeps what earlier deployments put into a component's configuration, also across its versions: an address
    of last month would hide the model that the new version brings.
    """
    return {} if way == "robot" else {"reset": ["/model"]}


def to_text(recipe: Mapping[str, Any]) -> str:
    """The recipe as the text that is stored and uploaded."""
    return json.dumps(recipe, indent=1, ensure_ascii=False) + "\n"


def _description(way: Way, facts: Facts) -> str:
    return "Cameras, policy and arm" if way == "robot" else f"Model {facts.model or facts.version} by {way}"


def _platform(nucleus: NucleusKind) -> dict[str, str]:
    return {"os": "linux"} | ({"runtime": "aws_nucleus_lite"} if nucleus == LITE else {})


def _dependencies(way: Way, nucleus: NucleusKind, facts: Facts) -> dict[str, Any]:
    """Lite fetches images itself; the classic nucleus has a component for it."""
    wanted: dict[str, str] = {}
    if nucleus != LITE:
        wanted["aws.greengrass.DockerApplicationManager"] = "~2.0.0"
    is_private = ".dkr.ecr." in facts.image and nucleus != LITE
    if is_private or (way == "script" and facts.uri.startswith("s3://")):
        wanted["aws.greengrass.TokenExchangeService"] = "^2.0.0"
    return {name: {"VersionRequirement": version, "DependencyType": "HARD"} for name, version in wanted.items()}


def _artifacts(way: Way, facts: Facts) -> list[dict[str, Any]]:
    image = {"Uri": f"docker:{facts.image}"}
    if way != "artifact":
        return [image]
    return [image, {"Uri": facts.uri, "Unarchive": "NONE", "Permission": {"Read": "ALL", "Execute": "NONE"}}]


# --- the component `robot` -------------------------------------------------------------------------------------------


def _robot_defaults() -> dict[str, Any]:
    """Least privilege: it needs nothing of the nucleus, and gets no token, no socket and no access control."""
    return {
        "launch": "robot.launch.xml",
        "arguments": "port:=/dev/so101 calibration:=/etc/evergreen/arm.json cameras_file:=/etc/evergreen/cameras.yaml "
        "model:= autostart:=true",
        "devices": "--device /dev/so101 --device /dev/video0",
        "settings": SETTINGS,
        "ros": _ROS,
        "signatures": _SIGNATURES,
    }


def _robot_lifecycle(facts: Facts) -> dict[str, Any]:
    return {
        "run": {
            "Setenv": _ENVIRONMENT
            | _OF_THE_SCRIPT
            | {
                "EVERGREEN_LAUNCH": "{configuration:/launch}",
                "EVERGREEN_ARGUMENTS": "{configuration:/arguments}",
                "EVERGREEN_DEVICES": "{configuration:/devices}",
            },
            "Script": _run(
                "robot",
                facts.image,
                flags=(
                    "--group-add dialout --group-add video",
                    "$EVERGREEN_DEVICES",  # no quotation marks: several words
                ),
                command='launch evergreen_bringup "$EVERGREEN_LAUNCH" $EVERGREEN_ARGUMENTS',
            ),
        }
    }


# --- the component `model` -------------------------------------------------------------------------------------------


def _model_defaults() -> dict[str, Any]:
    """Least privilege: publish this robot's report, and the latest of them to its own named shadow."""
    report = {
        "policyDescription": "The outcome of each update",
        "operations": ["aws.greengrass#PublishToIoTCore"],
        "resources": ["evergreen/{iot:thingName}/update", "$aws/things/{iot:thingName}/shadow/name/evergreen/update"],
    }
    access = {"aws.greengrass.ipc.mqttproxy": {f"{MODEL}:mqtt:1": report}}
    return {
        "model": {"prompt": "", "swap": "blue_green"},
        "settings": SETTINGS,
        "ros": _ROS,
        "signatures": _SIGNATURES,
        "accessControl": access,
    }


def _model_lifecycle(way: Way, facts: Facts) -> dict[str, Any]:
    credentials = way == "script" and facts.uri.startswith("s3://")
    flags = [
        f'--volume "${SOCKET}:${SOCKET}"',
        f"--env SVCUID --env {SOCKET}",
        "--env AWS_IOT_THING_NAME --env AWS_REGION",
    ]
    if credentials:
        flags.append(_CREDENTIALS)
    lifecycle: dict[str, Any] = {}
    match way:
        case "artifact":
            flags += [_HEALTH, f'--volume "{{artifacts:path}}:{PAYLOAD}:ro"']
            flags.append(_payload(f"file:{PAYLOAD}/{facts.file_name}", facts))
        case "script":
            flags += [_HEALTH, _payload(facts.uri, facts)]
            lifecycle["install"] = {
                "Setenv": _TRUST_ENVIRONMENT | _OF_THE_SCRIPT,
                "Timeout": INSTALL_TIMEOUT_S,
                "Script": _fetch(facts, credentials=credentials),
            }
        case _:
            pass  # the image names its own payload, and looks after the bridge
    command = "launch evergreen_bringup gg_bridge.launch.xml nucleus:=required"
    script = _run("model", facts.image, flags=flags, command=command)
    run = {"Setenv": _ENVIRONMENT | _OF_THE_SCRIPT, "Script": script}
    return lifecycle | {"run": run}


_CREDENTIALS: Final = "--env AWS_CONTAINER_CREDENTIALS_FULL_URI --env AWS_CONTAINER_AUTHORIZATION_TOKEN"
"""Of the token exchange service, which listens on the loopback interface."""
_HEALTH: Final = "--health-cmd '/opt/evergreen/workspace/entrypoint health model' --health-start-period 180s"
"""In the robot's image, which would look for the arm; the rest of its health check stays."""


def _payload(uri: str, facts: Facts) -> str:
    words = [f"--env EVERGREEN_PAYLOAD={shlex.quote(uri)}", f"--env EVERGREEN_PAYLOAD_SHA256={facts.sha256}"]
    if facts.model_version:
        words.append(f"--env EVERGREEN_PAYLOAD_VERSION={facts.model_version}")
    return " ".join(words)


def _fetch(facts: Facts, *, credentials: bool) -> str:
    """Resumed and checked by `evergreen model fetch`; `run` then finds the model in the store."""
    version = f" --version {facts.model_version}" if facts.model_version else ""
    return _run(
        "fetch",
        facts.image,
        environment=_TRUST_ENVIRONMENT,
        flags=("--no-healthcheck", *([f"--env AWS_REGION {_CREDENTIALS}"] if credentials else [])),
        command=f"model fetch {shlex.quote(facts.uri)} --sha256 {facts.sha256}{version}",
    )


def _container(way: Way) -> str:
    return f"evergreen-{'robot' if way == 'robot' else 'model'}"


def _run(
    name: str, image: str, *, flags: Sequence[str], command: str, environment: Mapping[str, str] = _ENVIRONMENT
) -> str:
    """A foreground container, after what a killed `docker run` may have left behind."""
    container = f"evergreen-{name}"
    variables = " ".join(f"--env {variable}" for variable in environment)
    settings = f'--volume "$EVERGREEN_SETTINGS:{SETTINGS}:ro"'
    first = f"exec docker run --rm --name {container} --volume {VOLUME}:{STORE}"
    words = (first, _SHUT_IN, variables, settings, *flags, image, command)
    return f"docker rm --force {container} >/dev/null 2>&1 || true\n" + " \\\n  ".join(words) + "\n"
