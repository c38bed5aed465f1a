"""`evergreen release` against moto, a stand-in for Greengrass's cloud, and a container engine that takes notes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, Running
from greengrass_cloud import Device, Json, Refused
from release_support import BASE, MODEL, ROBOT, Cloud

FAST = ("--poll", "0.05s", "--wait", "60s")
DENIED = Refused("AccessDeniedException", "User: arn:aws:iam::123456789012:user/me is not authorized", 403)
REGISTRY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
DEADLINE_S = 120.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "models/expert", tmp_path / "expert"))


def entry(cloud: Cloud, group: str = "arms", component: str = MODEL) -> Json:
    """The component in the group's deployment."""
    found: Json = cloud.greengrass.latest(cloud.arn(group))["components"][component]
    return found


def nothing_was_made(cloud: Cloud) -> None:
    """No image, no component, no deployment, no note of one."""
    assert cloud.images() == []
    assert {name for name, _ in cloud.greengrass.components} == {ROBOT}
    assert len(cloud.greengrass.deployments) == 1
    assert cloud.notes == []
    assert (cloud.folder / "engine/images").read_text().split() == [BASE]


# --- the way through -------------------------------------------------------------------------------------------------


def test_one_command_brings_a_model_to_the_robots(cloud: Cloud, model: Path, tmp_path: Path) -> None:
    """Then the next version, to which nothing of the former sticks, and a rollback."""
    done = cloud.run("deploy", model, "--group", "arms", "--prompt", "go on", "--json", *FAST).json
    assert (done["model"], done["component_version"], done["error"]) == ("expert@1.0.0", "1.0.0", "")
    assert [(one["thing"], one["outcome"]) for one in done["devices"]] == [
        ("arm-1", "succeeded"),
        ("arm-2", "succeeded"),
    ]
    assert [step["step"] for step in done["steps"]] == [
        "pack and sign",
        "look for earlier releases",
        "build the image",
        "push the image",
        "create the component version",
        "deploy",
        "wait for the devices",
    ]
    assert all(step["seconds"] >= 0 and not step["skipped"] for step in done["steps"])
    latest = cloud.greengrass.latest(cloud.arn("arms"))
    assert set(latest["components"]) == {ROBOT, MODEL}
    assert latest["components"][ROBOT]["configurationUpdate"]["merge"] == '{"devices": "--device /dev/so101"}'
    update = {"reset": ["/model"], "merge": '{"model": {"prompt": "go on"}}'}
    assert latest["components"][MODEL] == {"componentVersion": "1.0.0", "configurationUpdate": update}
    assert latest["deploymentPolicies"] == {"failureHandlingPolicy": "DO_NOTHING"}
    assert done["image"] in json.dumps(cloud.greengrass.components[MODEL, "1.0.0"]["recipe"])
    assert "@sha256:" in done["image"]
    assert cloud.notes == []
    build = next(words for words in cloud.engine_calls if words[0] == "build")
    assert f"BASE={BASE}" in build  # the robot's own image
    assert str(model) == build[-1]

    words = ("deploy", model, "--group", "arms", "--model-version", "1.1.0", *FAST)
    table = cloud.run(*words, "--on-failure", "rollback", "--update-timeout", 90, "--create-repository")
    assert "create the component version" in table.err
    assert "total" in table.err
    assert entry(cloud) == {"componentVersion": "1.0.1", "configurationUpdate": {"reset": ["/model"]}}
    policies = cloud.greengrass.latest(cloud.arn("arms"))["deploymentPolicies"]
    assert policies["failureHandlingPolicy"] == "ROLLBACK"
    assert policies["componentUpdatePolicy"]["timeoutInSeconds"] == 90

    back = cloud.run("rollback", "--group", "arms", "--json", *FAST).json
    assert (back["model"], back["devices"][0]["outcome"]) == ("expert@1.0.0", "succeeded")
    assert entry(cloud) == {"componentVersion": "1.0.0", "configurationUpdate": update}
    assert entry(cloud, component=ROBOT)["componentVersion"] == "1.2.0"
    assert "nothing_left" not in cloud.run("status", "--group", "arms").err
    assert "never had another" in cloud.run("rollback", "--group", "arms", expect=1).err


def test_what_was_done_is_not_done_again(cloud: Cloud, model: Path) -> None:
    """The same model to another group needs only its deployment; a version of other files needs another name."""
    cloud.add_device("arm-9", "stage", lite=True)
    first = cloud.run("deploy", model, "--group", "arms", "--json", *FAST).json
    cloud.greengrass.calls.clear()
    again = cloud.run("deploy", model, "--group", "stage", "--base", BASE, "--json", *FAST).json
    skipped = [step["step"] for step in again["steps"] if step["skipped"]]
    assert skipped == ["build the image", "push the image", "create the component version"]
    results = [step["result"] for step in again["steps"]]
    assert (results[1], results[4]) == (f"{MODEL} 1.0.1 is free", f"{MODEL} 1.0.0 is the same")
    assert again["component_version"] == first["component_version"]
    assert "CreateComponentVersion" not in cloud.greengrass.calls
    assert set(cloud.greengrass.latest(cloud.arn("stage"))["components"]) == {MODEL}
    (model / "NOTES.md").write_text("another file\n")
    told = cloud.run("deploy", model, "--group", "arms", *FAST, expect=1).err
    assert "expert@1.0.0 was released with other files, as dev.evergreen.Model 1.0.0" in told
    assert "--model-version" in told
    cloud.run("deploy", model, "--group", "arms", "--model-version", "1.0.1", *FAST)


def test_the_password_is_on_no_command_line_and_in_no_file(cloud: Cloud, model: Path, tmp_path: Path) -> None:
    done = cloud.run("deploy", model, "--thing", "arm-1", *FAST)
    login = json.loads((cloud.folder / "engine/login.json").read_text())
    assert login["stdin"] == "123456789012-auth-token"
    assert "--password-stdin" in login["words"]
    assert "auth-token" not in json.dumps(cloud.engine_calls) + done.out + done.err
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "auth-token" in path.read_text(errors="replace")]
    assert left == [cloud.folder / "engine/login.json"]


def test_a_dry_run_tells_everything_and_does_nothing(cloud: Cloud, model: Path) -> None:
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    told = cloud.run("deploy", model, "--group", "arms", "--model-version", "2.0.0", "--dry-run").out
    for part in (
        "set version = '2.0.0'",
        f"--build-arg BASE={BASE}",
        "podman push 123456789012.dkr.ecr.eu-central-1.amazonaws.com/evergreen:expert-2.0.0-hash",
        '"ComponentVersion": "1.0.0"',
        '"ComponentDescription": "Model expert@2.0.0 by image"',
        '"--device /dev/so101',
        "wait up to 30 min for arm-1, arm-2",
    ):
        assert part.replace('"--', "--") in told
    cloud.run("deploy", model, "--group", "arms", "--by", "artifact", "--bucket", "my-models", "--dry-run")
    cloud.run("deploy", model, "--group", "arms", "--by", "download", "--uri", "https://host/m.tar.gz", "--dry-run")
    as_json = cloud.run("deploy", model, "--group", "arms", "--dry-run", "--json").json
    assert as_json[0]["step"] == "pack and sign"
    assert as_json[2]["unchecked"] == [f"whether it can be built upon {BASE}"]
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    assert not [words for words in cloud.engine_calls if words[0] in ("build", "push", "login")]
    nothing_was_made(cloud)


def test_a_dry_run_foretells_a_failure_and_names_what_it_did_not_look_at(cloud: Cloud, model: Path) -> None:
    words = ("deploy", model, "--group", "arms", "--dry-run")
    told = cloud.run(*words, "--registry", "127.0.0.1:5999").out
    assert "not checked: whether 127.0.0.1:5999 can be reached, and has or takes evergreen\n" in told
    assert "not checked: whether expert@1.0.0 was released before, with other files\n" in told
    assert told.count("not checked: whether AWS permits the deployment\n") == 1
    told = cloud.run(*words, "--base", "registry.example/nope:1").out
    assert "not checked: whether image registry.example/nope:1 can be fetched" in told
    assert "image nope:1 is not on this computer: build it" in cloud.run(*words, "--base", "nope:1", expect=1).err
    artifact = cloud.run(*words, "--by", "artifact", "--bucket", "my-models").out
    assert "upload the archive to s3://my-models/evergreen/expert/1.0.0-hash.tar.gz\n" in artifact
    assert "not checked: whether the bucket my-models is there and takes it\n" in artifact
    robot = ("robot", "--group", "arms", "--dry-run")
    assert "image nope is not on this computer: build it" in cloud.run(*robot, "nope", expect=1).err
    assert "can be fetched, which is not on this computer\n" in cloud.run(*robot, "registry.example/robot:8").out
    assert f"podman push {REGISTRY}/evergreen:robot-" in cloud.run(*robot, BASE).out
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["files"] = {"NOTES.md": {"size": 1, "sha256": "0" * 64}}
    (model / "manifest.json").write_text(json.dumps(manifest))
    assert "NOTES.md is missing" in cloud.run(*words, expect=1).err
    assert "README.md: is no unencrypted private key" in cloud.run(*words, "--key", ROOT / "README.md", expect=2).err
    nothing_was_made(cloud)


def test_as_an_artifact(cloud: Cloud, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("deploy", model, "--group", "arms", "--by", "artifact", "--bucket", "models", "--json", *FAST)
    assert "aws s3 mb s3://models" in cloud.run(*words, expect=1).err
    location = {"LocationConstraint": "eu-central-1"}
    cloud.client("s3").create_bucket(Bucket="models", CreateBucketConfiguration=location)
    done = cloud.run(*words).json
    recipe = json.dumps(cloud.greengrass.components[MODEL, "1.0.0"]["recipe"])
    assert done["uri"] in recipe
    assert BASE in recipe
    (entry_,) = cloud.client("s3").list_objects_v2(Bucket="models")["Contents"]
    assert done["uri"] == f"s3://models/{entry_['Key']}"
    assert not cloud.engine_calls
    from evergreen.release.steps import upload  # noqa: PLC0415

    monkeypatch.setattr(upload.Upload.__init__, "__defaults__", (100,))
    told = cloud.run(*words, "--model-version", "2.0.0", expect=1).err
    assert "Greengrass takes at most 100 B as an artifact. Deliver it --by image" in told
    assert len(cloud.client("s3").list_objects_v2(Bucket="models")["Contents"]) == 1


def test_as_a_download(cloud: Cloud, model: Path) -> None:
    words = ("deploy", model, "--group", "arms", "--by", "download", "--json", *FAST)
    assert "needs --uri" in cloud.run(*words, expect=2).err
    assert "--uri is for --by download" in cloud.run(*words[:4], "--uri", "s3://x/y", expect=2).err
    done = cloud.run(*words, "--uri", "https://models.example/expert").json
    recipe = json.dumps(cloud.greengrass.components[MODEL, "1.0.0"]["recipe"])
    assert "https://models.example/expert" in recipe
    from vla_core.manifest import sha256_file  # noqa: PLC0415

    assert sha256_file(model / "manifest.json") in recipe
    assert done["devices"][0]["outcome"] == "succeeded"
    cloud.run(*words, "--uri", "https://models.example/expert.tar.gz")
    told = cloud.run(*words, "--uri", "https://b.example/m?X-Amz-Signature=secret", expect=2)
    assert "--uri https://b.example/m has more to it" in told.err
    assert "secret" not in told.out + told.err


def test_the_robots_own_software(cloud: Cloud, tmp_path: Path) -> None:
    cloud.run("robot", "registry.example/robot:8", "--group", "arms", *FAST)
    assert entry(cloud, component=ROBOT)["componentVersion"] == "1.2.1"
    assert "docker:registry.example/robot@sha256:" in json.dumps(cloud.greengrass.components[ROBOT, "1.2.1"]["recipe"])
    for misspelt in ("evergren", "evergren:1", "me/evergren"):
        told = cloud.run("robot", misspelt, "--group", "arms", expect=1).err
        assert f"image {misspelt} is not on this computer: build it" in told
    assert (ROBOT, "1.2.2") not in cloud.greengrass.components
    images = cloud.folder / "engine/images"
    images.write_text(f"{images.read_text()}\nlocalhost/evergreen")
    settings = tmp_path / "settings.json"
    settings.write_text('{"arguments": "autostart:=true"}')
    done = cloud.run(
        "robot", "localhost/evergreen", "--group", "arms", "--configuration", settings, "--json", *FAST
    ).json
    assert "/evergreen@sha256:" in done["image"]
    assert [one["outcome"] for one in done["devices"]] == ["succeeded", "succeeded"]
    update = entry(cloud, component=ROBOT)["configurationUpdate"]
    assert json.loads(update["merge"]) == {"devices": "--device /dev/so101", "arguments": "autostart:=true"}


# --- canary ----------------------------------------------------------------------------------------------------------


def test_waves_go_on_while_devices_take_it_and_stop_at_the_first_refusal(cloud: Cloud, model: Path) -> None:
    for number in range(3, 6):
        cloud.add_device(f"arm-{number}", "arms", lite=True)
    words = ("deploy", model, "--devices-of", "arms", "--canary", "1,40%,100%", "--json", *FAST)
    done = cloud.run(*words).json
    assert [one["target"] for one in done["deployments"]] == [f"thing arm-{number}" for number in range(1, 6)]
    twice = cloud.run("status", "--devices-of", "arms", "--devices-of", "arms", "--thing", "arm-1", "--json").json
    assert [one["thing"] for one in twice["devices"]] == [f"arm-{number}" for number in range(1, 6)]
    waits = [step["result"] for step in done["steps"] if step["step"].startswith("wait")]
    assert waits == ["1 of 1 devices succeeded", "1 of 1 devices succeeded", "3 of 3 devices succeeded"]

    def second_declines(device: Device, deployment: Json) -> None:
        (cloud.decline if device.name == "arm-2" else cloud.obey)(device, deployment)

    cloud.greengrass.behave = second_declines
    failed = cloud.run(*words, "--model-version", "2.0.0", expect=1)
    assert "arm-2 refused: answers in 310 ms; 100 ms are allowed" in failed.err
    assert "evergreen release rollback --thing arm-1 --thing arm-2" in failed.err
    assert [one["thing"] for one in failed.json["devices"]] == ["arm-1", "arm-2"]
    assert "CancelDeployment" in cloud.greengrass.calls
    told = cloud.run("robot", "registry.example/robot:8", "--thing", "arm-2", *FAST, expect=1).err
    assert "the last deployment to --thing arm-2 was cancelled" in told
    assert "`evergreen release rollback --thing arm-2` first" in told
    assert (ROBOT, "1.2.1") not in cloud.greengrass.components
    cloud.greengrass.behave = cloud.obey
    cloud.run("rollback", "--thing", "arm-2", *FAST)
    cloud.run("robot", "registry.example/robot:8", "--thing", "arm-2", *FAST)
    assert "name several groups" in cloud.run("deploy", model, "--group", "arms", "--canary", "1,100%", expect=2).err
    cloud.client("iot").create_thing_group(thingGroupName="empty")
    empty_first = ("deploy", model, "--group", "empty", "--group", "arms", "--canary", "1,100%", *FAST)
    assert "no core device in group empty" in cloud.run(*empty_first, expect=2).err
    cloud.greengrass.behave = second_declines
    cloud.run("deploy", model, "--group", "arms", "--model-version", "3", *FAST, expect=1)
    assert "group arms itself deploys dev.evergreen.Model" in cloud.run(*words, expect=1).err


def test_a_canary_of_one_wave_cancels_too(cloud: Cloud, model: Path) -> None:
    cloud.greengrass.behave = cloud.decline
    cloud.run("deploy", model, "--devices-of", "arms", "--canary", "1", *FAST, expect=1)
    assert "CancelDeployment" in cloud.greengrass.calls


# --- what may go wrong -----------------------------------------------------------------------------------------------


def test_a_refused_model_fails_though_greengrass_lite_calls_it_a_success(cloud: Cloud, model: Path) -> None:
    cloud.greengrass.behave = cloud.decline
    failed = cloud.run("deploy", model, "--group", "arms", "--json", *FAST, expect=1)
    assert "answers in 310 ms" in failed.err
    assert {one["outcome"] for one in failed.json["devices"]} == {"refused"}
    assert failed.json["devices"][0]["running"] == "old@1"
    assert "not taken: arm-1 refused" in cloud.run("status", "--group", "arms", expect=1).err


def test_a_deployment_that_a_device_cannot_apply(cloud: Cloud, model: Path) -> None:
    def fail(device: Device, deployment: Json) -> None:
        device.becomes(deployment["deploymentId"], "FAILED", "FAILED_ROLLBACK_NOT_REQUESTED: no space left")

    cloud.greengrass.behave = fail
    assert "no space left" in cloud.run("deploy", model, "--thing", "arm-1", *FAST, expect=1).err


def test_a_device_that_is_offline_is_named_and_can_be_waited_for_later(cloud: Cloud, model: Path) -> None:
    def one_sleeps(device: Device, deployment: Json) -> None:
        if device.name != "arm-2":
            cloud.obey(device, deployment)

    cloud.greengrass.behave = one_sleeps
    cloud.greengrass.devices["arm-2"].seen_s = time.time() - 4 * 3600
    failed = cloud.run("deploy", model, "--group", "arms", *FAST, "--wait", "1s", expect=1)
    assert "1 of 2 devices have not answered within 1 s: arm-2: waits for the device" in failed.err
    assert "go on waiting with `evergreen release status --group arms --wait 2h`" in failed.err
    deployment = cloud.greengrass.latest(cloud.arn("arms"))
    deployment["creationTimestamp"] -= 3600  # an hour later
    status = cloud.run("status", "--group", "arms", "--json").json
    assert status["deployments"][0]["model"] == "expert@1.0.0"
    reason = status["devices"][1]["reason"]
    assert reason.startswith("offline: it has not begun the deployment for 1 h; last heard of 4 h ago")
    cloud.obey(cloud.greengrass.devices["arm-2"], deployment)
    cloud.run("status", "--group", "arms", *FAST)


def test_not_waiting_at_all(cloud: Cloud, model: Path) -> None:
    done = cloud.run("deploy", model, "--group", "arms", "--wait", "0", "--json").json
    assert done["devices"] == []
    assert len(done["deployments"]) == 1


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("ListCoreDevices", "no permission for greengrassv2 list-core-devices"),
        ("CreateComponentVersion", "no permission for greengrassv2 create-component-version"),
        ("CreateDeployment", "no permission for greengrassv2 create-deployment"),
    ],
)
def test_without_a_permission_nothing_stays_behind(cloud: Cloud, model: Path, operation: str, words: str) -> None:
    cloud.greengrass.refuse[operation] = DENIED
    told = cloud.run("deploy", model, "--group", "arms", *FAST, expect=1).err
    assert words in told
    assert "docs/iam/developer.json" in told
    made = cloud.run("deploy", model, "--group", "arms", "--json", *FAST, expect=1).out
    if operation != "ListCoreDevices":  # nothing was planned yet
        assert [json.loads(made)[key] for key in ("image", "component_version", "uri")] == ["", "", ""]
    nothing_was_made(cloud)


def test_what_a_denied_clean_up_leaves_is_told_and_cleaned_later(cloud: Cloud, model: Path) -> None:
    cloud.greengrass.refuse |= {"CreateDeployment": DENIED, "DeleteComponent": DENIED}
    told = cloud.run("deploy", model, "--group", "arms", *FAST, expect=1).err
    assert "component dev.evergreen.Model 1.0.0 stays behind: no permission" in told
    assert len(cloud.notes) == 1
    assert "component dev.evergreen.Model 1.0.0" in cloud.run("clean", "--dry-run").out
    (tag,) = cloud.images()  # the component names it
    noted = [f"image {REGISTRY}/evergreen:{tag}", "component dev.evergreen.Model 1.0.0"]
    assert cloud.run("clean", "--json", expect=1).json["left"] == noted
    cloud.greengrass.refuse.clear()
    assert cloud.run("clean", "--json").json["removed"] == noted[::-1]
    assert "nothing to clean up" in cloud.run("clean").out
    nothing_was_made(cloud)


def test_a_component_that_greengrass_does_not_take(cloud: Cloud, model: Path) -> None:
    cloud.greengrass.component_state = "FAILED"
    assert "Greengrass says FAILED of" in cloud.run("deploy", model, "--group", "arms", *FAST, expect=1).err
    nothing_was_made(cloud)


def test_a_version_that_is_there_is_not_touched(cloud: Cloud, model: Path) -> None:
    cloud.greengrass.put_component(MODEL, "4.0.0")
    words = ("deploy", model, "--group", "arms", *FAST)
    told = cloud.run(*words, "--component-version", "4.0.0", expect=1).err
    assert "dev.evergreen.Model 4.0.0 is there already" in told
    assert "the next free one is 4.0.1" in told

    def other_laptop() -> None:
        cloud.greengrass.before.clear()
        cloud.greengrass.put_component(MODEL, "4.0.1")

    cloud.greengrass.before["CreateComponentVersion"] = other_laptop
    assert "by somebody else: start again" in cloud.run(*words, expect=1).err
    assert (MODEL, "4.0.1") in cloud.greengrass.components
    assert cloud.images() == []
    cloud.run(*words)
    assert entry(cloud)["componentVersion"] == "4.0.2"


def test_credentials_profiles_and_regions(cloud: Cloud, model: Path, tmp_path: Path) -> None:
    words = ("status", "--group", "arms")
    keys = {name: cloud.environment.pop(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    assert "no AWS credentials; `aws configure`" in cloud.run(*words, expect=1).err
    assert (
        "config profile (mine) could not be found; `aws configure list-profiles`"
        in cloud.run(*words, "--profile", "mine", expect=1).err
    )
    config = tmp_path / "config"
    secrets = "\n".join(f"{name.lower()} = {value}" for name, value in keys.items())
    config.write_text(f"[profile mine]\nregion = eu-central-1\n{secrets}\n")
    cloud.environment["AWS_CONFIG_FILE"] = str(config)
    cloud.run(*words, "--profile", "mine")
    del cloud.environment["AWS_REGION"], cloud.environment["AWS_DEFAULT_REGION"]
    cloud.run(*words, "--profile", "mine")
    cloud.environment |= keys
    assert "no AWS region; give --region" in cloud.run(*words, expect=1).err
    assert "name the robots" in cloud.run("status", expect=2).err
    assert "write NAME@VERSION" in cloud.run("rollback", *words[1:], "--to", "nonsense", expect=2).err
    assert "does not exist" in cloud.run("deploy", "models/nope", *words[1:], expect=2).err
    cloud.environment["AWS_REGION"] = "eu-central-1"
    cloud.run(*words)
    del cloud.environment["AWS_REGION"]
    cloud.run(*words, "--region", "eu-central-1")
    cloud.environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    assert "AWS cannot be reached" in cloud.run(*words, "--region", "eu-central-1", expect=1).err
    cloud.environment["AWS_ENDPOINT_URL"] = "garbage"
    assert "Invalid endpoint: garbage" in cloud.run(*words, "--region", "eu-central-1", expect=1).err


def test_targets_that_cannot_be(cloud: Cloud, model: Path) -> None:
    assert "name the robots" in cloud.run("deploy", model, expect=2).err
    overlapping = ("--group", "arms", "--thing", "arm-1", *FAST)
    assert "arm-1 is in " in cloud.run("robot", BASE, *overlapping, expect=1).err
    assert "arm-1 is in " in cloud.run("rollback", *overlapping, expect=1).err
    for more in (("--thing", "arm-1"), ("--devices-of", "arms")):
        told = cloud.run("deploy", model, "--group", "arms", *more, *FAST, expect=1).err
        assert "arm-1 is in " in told
        assert "name targets without a common device" in told
    assert "no thing group 'nope'" in cloud.run("deploy", model, "--group", "nope", expect=1).err
    assert "nope is no Greengrass core device" in cloud.run("deploy", model, "--thing", "nope", expect=1).err
    cloud.add_device("arm-3", "arms", lite=False)
    assert "need different recipes" in cloud.run("deploy", model, "--group", "arms", expect=1).err
    assert "never had a deployment" in cloud.run("status", "--thing", "arm-1", expect=1).err
    assert "nothing to roll back" in cloud.run("rollback", "--group", "arms", expect=1).err
    nothing_was_made(cloud)


def test_what_is_missing_to_build_is_named(cloud: Cloud, model: Path) -> None:
    words = ("deploy", model, "--group", "arms", *FAST)
    told = cloud.run(*words, "--base", "registry.example/absent:1", expect=1).err
    assert "image registry.example/absent:1 is not on this computer and cannot be fetched" in told
    told = cloud.run(*words, "--base", "robot", expect=1).err
    assert "image robot is not on this computer: build it (docs/containers.md), or name the registry" in told
    cloud.add_device("arm-8", "bare")
    assert "no base image" in cloud.run("deploy", model, "--thing", "arm-8", *FAST, expect=2).err
    assert "no repository 'other'" in cloud.run(*words, "--repository", "other", expect=1).err
    assert "'nerdctl' is not installed" in cloud.run(*words, "--engine", "nerdctl", expect=1).err
    for step in ("build", "push", "login"):
        mark = cloud.folder / f"engine/fail-{step}"
        mark.touch()
        assert f"podman {step} failed (125): some chatter / Error: no space left" in cloud.run(*words, expect=1).err
        mark.unlink()
    cloud.environment["PATH"] = "/nowhere"
    assert "neither podman nor docker is installed" in cloud.run(*words, expect=1).err
    assert "does not exist" in cloud.run("deploy", "/nowhere", "--group", "arms", expect=2).err
    nothing_was_made(cloud)


def test_the_base_is_fetched_from_amazons_registry(cloud: Cloud, model: Path) -> None:
    """A laptop that never had the robot's image is not signed in."""
    base = f"{REGISTRY}/evergreen@sha256:{'5' * 64}"
    (cloud.folder / "engine/remote").write_text(base)
    cloud.greengrass.put_component(ROBOT, "1.2.0", {"Manifests": [{"Artifacts": [{"Uri": f"docker:{base}"}]}]})
    cloud.run("deploy", model, "--group", "arms", *FAST)
    assert [words[0] for words in cloud.engine_calls if words[0] in ("login", "pull", "push")] == [
        "login",
        "pull",
        "login",
        "push",
    ]


def test_clean_removes_nothing_that_another_release_uses(cloud: Cloud, model: Path) -> None:
    """A release is killed, and another one deploys what that made: from here, which strikes it, or from elsewhere."""
    words = ("deploy", model, "--group", "arms", *FAST)
    cloud.greengrass.refuse |= {"CreateDeployment": DENIED, "DeleteComponent": DENIED}
    cloud.run(*words, expect=1)
    (left,) = cloud.notes
    noted = left.read_text()
    left.write_text(noted[:-10])
    for more in ((), ("--dry-run",)):
        told = cloud.run("clean", *more, expect=1)
        assert f"notes {left} cannot be read" in told.err
        assert "nothing to clean up" not in told.out
    assert cloud.run("clean", "--json", expect=1).json["left"] == [f"notes {left}"]
    left.write_text(noted)
    cloud.greengrass.refuse.clear()
    cloud.run(*words)
    assert cloud.notes == []
    left.write_text(noted)
    told = cloud.run("clean", "--json").json
    assert told == {"removed": [], "left": []}
    assert cloud.notes == []
    assert (MODEL, "1.0.0") in cloud.greengrass.components
    assert len(cloud.images()) == 1


def test_two_releases_of_the_same_at_once(cloud: Cloud, model: Path) -> None:
    """The faster one's image and component stay when the other one fails."""
    cloud.add_device("arm-9", "stage", lite=True)

    def other_laptop() -> None:
        cloud.greengrass.before.clear()
        here = cloud.environment["XDG_STATE_HOME"]
        cloud.environment["XDG_STATE_HOME"] = f"{here}-2"
        cloud.run("deploy", model, "--group", "stage", "--base", BASE, *FAST)

    cloud.greengrass.before["CreateComponentVersion"] = other_laptop
    assert "by somebody else: start again" in cloud.run("deploy", model, "--group", "arms", *FAST, expect=1).err
    assert len(cloud.images()) == 1
    (cloud.folder / "engine/late-push").touch()
    cloud.greengrass.refuse["CreateComponentVersion"] = DENIED
    cloud.run("deploy", model, "--group", "arms", "--model-version", "2", *FAST, expect=1)
    assert len(cloud.images()) == 2


def test_an_answer_that_is_lost_removes_nothing(cloud: Cloud, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deployment was made, or not: nobody can tell."""
    from evergreen.release.aws import session  # noqa: PLC0415

    monkeypatch.setattr(session, "ATTEMPTS", 1)
    cloud.greengrass.lose.add("CreateDeployment")
    failed = cloud.run("deploy", model, "--group", "arms", "--json", *FAST, expect=1)
    advice = "`evergreen release status --group arms` shows it"
    assert advice in failed.json["error"]
    assert entry(cloud)["componentVersion"] == "1.0.0"
    assert (MODEL, "1.0.0") in cloud.greengrass.components
    assert len(cloud.images()) == 1
    assert cloud.notes == []
    assert advice in cloud.run("deploy", model, "--group", "arms", *FAST, expect=1).err


def test_the_robots_software_keeps_the_label_of_the_model(cloud: Cloud, model: Path) -> None:
    """Else a robot that refused the model of a rollback was called a success."""
    words = ("deploy", model, "--group", "arms", *FAST)
    cloud.run(*words)
    cloud.run("robot", "registry.example/robot:8", "--group", "arms", *FAST)
    assert cloud.run("status", "--group", "arms", "--json").json["deployments"][0]["model"] == "expert@1.0.0"
    del cloud.greengrass.latest(cloud.arn("arms"))["tags"]  # as earlier releases made it
    assert cloud.run("status", "--group", "arms", "--json").json["deployments"][0]["model"] == "expert@1.0.0"
    cloud.run(*words, "--model-version", "2.0.0")
    cloud.greengrass.behave = cloud.decline
    failed = cloud.run("rollback", "--group", "arms", "--json", *FAST, expect=1).json
    assert (failed["model"], failed["devices"][0]["outcome"]) == ("expert@1.0.0", "refused")


def start(cloud: Cloud, evergreen: Callable[..., Running], *words: object) -> Running:
    """As a process."""
    return evergreen(
        ["release", *words], **{name: value for name, value in cloud.environment.items() if name != "NO_COLOR"}
    )


def wait_for(condition: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_ctrl_c_while_it_pushes_leaves_nothing(cloud: Cloud, model: Path, evergreen: Callable[..., Running]) -> None:
    (cloud.folder / "engine/hang-push").touch()
    running = start(cloud, evergreen, "deploy", model, "--group", "arms")
    wait_for((cloud.folder / "engine/hanging").exists)
    running.process.send_signal(signal.SIGINT)
    assert running.finish(60.0) == 130
    assert "interrupted" in running.text()
    assert running.survivors() == []
    nothing_was_made(cloud)


def test_a_killed_release_is_cleaned_up_after(cloud: Cloud, model: Path, evergreen: Callable[..., Running]) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        go_on.wait(DEADLINE_S)

    cloud.greengrass.before["CreateDeployment"] = hold
    running = start(cloud, evergreen, "deploy", model, "--group", "arms")
    assert asked.wait(DEADLINE_S)
    assert "nothing to clean up" in cloud.run("clean").out  # it runs
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    cloud.greengrass.refuse["CreateDeployment"] = DENIED  # what is on its way comes to nothing
    go_on.set()
    assert (MODEL, "1.0.0") in cloud.greengrass.components
    removed = cloud.run("clean", "--json").json["removed"]
    assert len(removed) == 3
    nothing_was_made(cloud)


def test_ctrl_c_while_it_waits_tells_how_to_go_on(cloud: Cloud, model: Path, evergreen: Callable[..., Running]) -> None:
    cloud.greengrass.behave = lambda _device, _deployment: None
    running = start(cloud, evergreen, "deploy", model, "--group", "arms", *FAST)
    running.wait_text("wait for the devices: 2 pending", DEADLINE_S)
    running.process.send_signal(signal.SIGINT)
    assert running.finish(60.0) == 130
    assert "the deployment goes on; `evergreen release status --group arms --wait 30m` waits for it" in running.text()
    assert entry(cloud)["componentVersion"] == "1.0.0"
    assert cloud.notes == []
    assert len(cloud.images()) == 1
