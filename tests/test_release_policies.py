"""The IAM policies of docs/iam allow what is really called, and nothing else."""

from __future__ import annotations

import ast
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from commands import ROOT
from release_support import MODEL, Cloud

from gg_bridge.recipes import Facts, render
from gg_bridge.telling import SHADOW_TOPIC

RELEASE = ROOT / "src/evergreen/evergreen/release"
SERVICES = ("ecr", "greengrassv2", "iot", "iot-data", "s3", "sts")
PREFIXES = {"greengrassv2": "greengrass", "iot-data": "iot"}
S3 = {
    "HeadBucket": {"s3:ListBucket"},
    "HeadObject": {"s3:GetObject"},
    "upload_file": {"s3:PutObject", "s3:AbortMultipartUpload"},  # in parts where it is large
    "CreateMultipartUpload": {"s3:PutObject"},
    "UploadPart": {"s3:PutObject"},
    "CompleteMultipartUpload": {"s3:PutObject"},
}
DEVICE_POLICY = "docs/iam/device-iot-policy.json"
FREE = {"sts:GetCallerIdentity"}
"""Everybody may ask who he is."""
BEHIND_A_DEPLOYMENT = {
    f"iot:{action}"
    for action in ("CancelJob", "CreateJob", "DeleteThingShadow", "DescribeJob", "UpdateJob", "UpdateThingShadow")
}
"""Greengrass does this in the caller's name (AWS: minimal policy for deployments)."""
OF_THE_ENGINE = {
    f"ecr:{action}"
    for action in (
        "BatchCheckLayerAvailability",
        "BatchGetImage",
        "CompleteLayerUpload",
        "GetDownloadUrlForLayer",
        "InitiateLayerUpload",
        "PutImage",
        "UploadLayerPart",
    )
}
"""Podman and docker speak to the registry themselves: to push, and to pull the base."""
BY_TAGS = {"greengrass:TagResource"}
"""What is created with tags needs it too."""


def actions(name: str) -> set[str]:
    document = json.loads((ROOT / "docs/iam" / name).read_text())
    found: set[str] = set()
    for statement in document["Statement"]:
        assert statement["Effect"] == "Allow"
        listed = statement["Action"]
        found |= {listed} if isinstance(listed, str) else set(listed)
    assert not [action for action in found if "*" in action]
    return found


def needed(service: str, operation: str) -> set[str]:
    if service == "s3" and operation in S3:
        return S3[operation]
    return {f"{PREFIXES.get(service, service)}:{operation}"} - FREE


def written_down() -> set[str]:
    """What the code asks for: the names of operations in it."""
    session = botocore.session.Session()
    operations = {
        xform_name(name): (service, name)
        for service in SERVICES
        for name in session.get_service_model(service).operation_names
    } | {"upload_file": ("s3", "upload_file")}
    words = {
        node.value if isinstance(node, ast.Constant) else node.attr
        for path in RELEASE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Constant) and isinstance(node.value, str))
        or (isinstance(node, ast.Attribute) and node.attr == "upload_file")
    }
    return set().union(*(needed(*operations[word]) for word in words if word in operations))


def test_the_developers_policy_is_what_the_code_asks_for() -> None:
    assert actions("developer.json") == written_down() | BEHIND_A_DEPLOYMENT | OF_THE_ENGINE | BY_TAGS


def test_it_covers_every_call_that_is_made(cloud: Cloud, tmp_path: Path) -> None:
    """A release that is denied its deployment, one that is refused in a canary, a rollback, an artifact."""
    from test_release import DENIED, FAST  # noqa: PLC0415

    model = ROOT / "models/expert"
    words = ("deploy", model, "--devices-of", "arms", *FAST)
    cloud.greengrass.refuse["CreateDeployment"] = DENIED
    cloud.run(*words, "--repository", "new", "--create-repository", expect=1)
    cloud.greengrass.refuse.clear()
    cloud.run(*words)
    location = {"LocationConstraint": "eu-central-1"}
    cloud.client("s3").create_bucket(Bucket="models", CreateBucketConfiguration=location)
    cloud.greengrass.behave = cloud.decline
    cloud.run(*words, "--by", "artifact", "--bucket", "models", "--canary", "1,100%", expect=1)
    cloud.greengrass.behave = cloud.obey
    cloud.run("rollback", "--thing", "arm-1", *FAST)
    cloud.run("robot", "registry.example/robot:9", "--group", "arms", *FAST)
    made = set().union(*(needed(*operation) for operation in cloud.operations))
    assert made <= actions("developer.json")
    assert actions("developer.json") - made <= BEHIND_A_DEPLOYMENT | OF_THE_ENGINE | BY_TAGS | {
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
    }


@pytest.mark.parametrize("nucleus", ["classic", "lite"])
def test_the_device_may_publish_what_its_recipe_lets_the_bridge_publish(nucleus: Any) -> None:
    recipe = render("image", nucleus, Facts("1.0.0", "host/image:1", model="pick@1"))
    access = recipe["ComponentConfiguration"]["DefaultConfiguration"]["accessControl"]
    (granted,) = access["aws.greengrass.ipc.mqttproxy"].values()
    topics = {topic.replace("{iot:thingName}", "THING") for topic in granted["resources"]}
    assert SHADOW_TOPIC.format(thing="THING", shadow="evergreen") in topics
    (reports,) = [one for one in device_policy("THING")["Statement"] if one["Sid"] == "ReportUpdates"]
    assert topics == {resource.rpartition(":topic/")[2] for resource in reports["Resource"]}


def device_policy(thing: str) -> dict[str, Any]:
    """As docs/release.md fills it in."""
    document: dict[str, Any] = json.loads((ROOT / DEVICE_POLICY).read_text().replace("THING", thing))
    return document


def may(thing: str, action: str, resource: str) -> bool:
    """What AWS IoT would say to a device with the thing's policy."""
    asked = f"arn:aws:iot:REGION:ACCOUNT:{resource}"
    listed = [one["Resource"] for one in device_policy(thing)["Statement"] if action in one["Action"]]
    return any(fnmatchcase(asked, pattern) for patterns in listed for pattern in patterns)


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("iot:Connect", "client/{}"),
        ("iot:Connect", "client/{}#2"),  # the classic nucleus's further connections
        ("iot:Publish", "topic/$aws/things/{}/greengrassv2/health/json"),
        ("iot:Publish", "topic/$aws/things/{}/jobs/x/update"),
        ("iot:Receive", "topic/$aws/things/{}/jobs/notify-next"),
        ("iot:Subscribe", "topicfilter/$aws/things/{}/jobs/notify-next"),
        ("iot:Publish", "topic/$aws/things/{}/shadow/name/AWSManagedGreengrassV2Deployment/update"),
        ("iot:Publish", "topic/$aws/things/{}/shadow/name/evergreen/update"),
        ("iot:Publish", "topic/evergreen/{}/update"),
    ],
)
def test_a_device_speaks_for_itself_only(action: str, resource: str) -> None:
    """arm-1 could say, in the shadow that a release believes, that arm-10 had taken its model."""
    assert may("arm-1", action, resource.format("arm-1"))
    for other in ("arm-10", "arm-1a", "arm-1/x", "arm-2", "arm"):
        assert not may("arm-1", action, resource.format(other)), other


def test_the_devices_policy_is_one_that_aws_iot_takes() -> None:
    """No thing policy variables: a core device's further connections have client IDs that are no thing's name."""
    text = (ROOT / DEVICE_POLICY).read_text()
    assert "${" not in text
    filled = text.replace("THING", "t" * 40).replace("REGION", "ap-southeast-2").replace("ACCOUNT", "1" * 12)
    assert len("".join(filled.split())) <= 2048  # AWS IoT counts without white space


def test_the_devices_role_only_reads() -> None:
    assert actions("device-role.json") == {
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "s3:GetBucketLocation",
        "s3:GetObject",
    }
    assert MODEL.startswith("dev.evergreen.")
