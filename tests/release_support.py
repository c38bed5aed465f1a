"""A whole AWS for tests of releases: moto for what it has, the stand-in for Greengrass, and an engine that notes."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from greengrass_cloud import REGION, Device, GreengrassCloud, Json
from moto.server import ThreadedMotoServer

from evergreen import cli

MODEL, ROBOT = "dev.evergreen.Model", "dev.evergreen.Robot"
BASE = "registry.example/robot:7"
HERE = Path(__file__).parent


@dataclass
class Result:
    """Of one run of `evergreen release …`."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Cloud:
    """An account: two robots in the group `arms`, which runs the robot's software but no model."""

    greengrass: GreengrassCloud
    folder: Path
    environment: dict[str, str]
    operations: set[tuple[str, str]] = field(default_factory=set)
    """Service and operation of every call that `run` made."""
    runs: bool = False

    def client(self, service: str) -> Any:
        return client(service, self.environment["AWS_ENDPOINT_URL"])

    def add_device(self, name: str, *groups: str, lite: bool = False) -> Device:
        iot = self.client("iot")
        iot.create_thing(thingName=name)
        for group in groups:
            if group not in {entry["groupName"] for entry in iot.list_thing_groups()["thingGroups"]}:
                iot.create_thing_group(thingGroupName=group)
            iot.add_thing_to_thing_group(thingGroupName=group, thingName=name)
        self.greengrass.devices[name] = Device(name, groups, lite)
        return self.greengrass.devices[name]

    def arn(self, group: str) -> str:
        return str(self.client("iot").describe_thing_group(thingGroupName=group)["thingGroupArn"])

    def report(self, thing: str, outcome: str, model: str, **more: Any) -> None:
        """As the bridge reports."""
        update = {
            "outcome": outcome,
            "model": model,
            "running": model,
            "reason": "",
            "durations_s": {"total": 4.2},
        } | more
        payload = json.dumps({"state": {"reported": {"update": update}}})
        self.client("iot-data").update_thing_shadow(thingName=thing, shadowName="evergreen", payload=payload)

    def obey(self, device: Device, deployment: Json) -> None:
        """A device that takes whatever it gets."""
        if label := deployment.get("tags", {}).get("evergreen:model"):
            self.report(device.name, "succeeded", label)
        device.becomes(deployment["deploymentId"], "SUCCEEDED")

    def decline(self, device: Device, deployment: Json) -> None:
        """A robot with Lite whose policy does not want the model."""
        label = deployment["tags"]["evergreen:model"]
        self.report(device.name, "refused", label, running="old@1", reason="answers in 310 ms; 100 ms are allowed")
        device.becomes(deployment["deploymentId"], "SUCCEEDED")

    def run(self, *words: object, expect: int = 0) -> Result:
        """`evergreen release words`, in this process."""
        out, err = io.StringIO(), io.StringIO()
        with environment(self.environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self.runs = True
            code = cli.main(["release", *map(str, words)])
            self.runs = False
        assert code == expect, out.getvalue() + err.getvalue()
        assert "Traceback" not in err.getvalue()
        return Result(code, out.getvalue(), err.getvalue())

    @property
    def engine_calls(self) -> list[list[str]]:
        path = self.folder / "engine/calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def notes(self) -> list[Path]:
        """Journals that were left."""
        return sorted((self.folder / "state/evergreen/releases").glob("*.json"))

    def images(self) -> list[str]:
        found = self.client("ecr").list_images(repositoryName="evergreen")["imageIds"]
        return sorted(image["imageTag"] for image in found)


@functools.cache
def client(service: str, url: str) -> Any:
    """One for all tests: making one takes longer than most calls."""
    session = boto3.session.Session("key", "secret", region_name=REGION)
    return session.client(service, endpoint_url=url)


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """These variables, and none of AWS's beside them."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith("AWS_"):
            del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """Its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@contextlib.contextmanager
def make_cloud(folder: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A fresh account."""
    urllib3.request("POST", f"{moto_url}/moto-api/reset")
    engine = folder / "engine"
    engine.mkdir(parents=True)
    (engine / "images").write_text(BASE)
    (engine / "remote").write_text("registry.example/robot:8\nregistry.example/robot:9")
    program = folder / "bin/podman"
    program.parent.mkdir()
    words = shlex.join([sys.executable, "-I", "-S", str(HERE / "fake_engine.py")])  # without site: started in 20 ms
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    with GreengrassCloud() as greengrass:
        values = {
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": str(folder / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": moto_url,
            "AWS_ENDPOINT_URL_GREENGRASSV2": greengrass.url,
            "AWS_MAX_ATTEMPTS": "1",
            "PATH": f"{program.parent}:/usr/bin:/bin",
            "FAKE_ENGINE": str(engine),
            "XDG_STATE_HOME": str(folder / "state"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
        cloud = Cloud(greengrass, folder, values)
        _note_operations(cloud, monkeypatch)
        cloud.client("ecr").create_repository(repositoryName="evergreen")
        cloud.add_device("arm-1", "arms", lite=True)
        cloud.add_device("arm-2", "arms", lite=True)
        recipe = {"Manifests": [{"Artifacts": [{"Uri": f"docker:{BASE}"}]}]}
        greengrass.put_component(ROBOT, "1.2.0", recipe)
        robot = {"componentVersion": "1.2.0", "configurationUpdate": {"merge": '{"devices": "--device /dev/so101"}'}}
        greengrass.behave = cloud.obey
        policies = {"failureHandlingPolicy": "DO_NOTHING"}
        greengrass.create_deployment(
            {"targetArn": cloud.arn("arms"), "components": {ROBOT: robot}, "deploymentPolicies": policies}
        )
        yield cloud


def _note_operations(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.client import BaseClient  # noqa: PLC0415

    real = BaseClient._make_api_call

    def noting(client: Any, operation: str, arguments: Json) -> Any:
        if cloud.runs:
            cloud.operations.add((client.meta.service_model.service_name, operation))
        return real(client, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", noting)
