"""The talk's whole story by `evergreen release`: two commands on a laptop, and the robot picks the other cube.

Images are real, in a real registry; the robot runs them by the recipes that the release wrote, under the stand-in
nucleus. Between laptop and robot stand moto and the stand-in for Greengrass's cloud. The pieces are the rehearsal's
(test_containers.py), which does by hand what is one command here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")
pytest.importorskip("awsiot")

import test_containers as rehearsal
from commands import ROOT, Running
from greengrass_cloud import Device as CloudDevice
from greengrass_cloud import Json
from release_support import MODEL, ROBOT, Cloud
from test_containers import BLACK, WAIT_S, WHITE, lifts, story  # noqa: F401  the last is a fixture

from vla_core.manifest import load

pytestmark = [
    pytest.mark.ros,
    pytest.mark.sim,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(rehearsal.REASON), reason=rehearsal.REASON or "ready"),
]

THING, GROUP = "arm-7", "stage"
RELEASE_S = 900.0


class Link:
    """Carries deployments from the cloud to the robot, and its reports back."""

    def __init__(self, cloud: Cloud, robot: rehearsal.Device) -> None:
        self._cloud, self._robot = cloud, robot
        self._robots_image = ""
        self._over = threading.Event()
        cloud.greengrass.behave = self._begin
        threading.Thread(target=self._carry_reports, daemon=True).start()

    def close(self) -> None:
        self._over.set()

    def _begin(self, device: CloudDevice, deployment: Json) -> None:
        threading.Thread(target=self._apply, args=(device, deployment), daemon=True).start()

    def _apply(self, device: CloudDevice, deployment: Json) -> None:
        made = deployment["deploymentId"]
        device.becomes(made, "IN_PROGRESS")
        try:
            status, reason = self._on_the_robot(deployment)
        except Exception as error:  # noqa: BLE001  whatever it was, the device has to say how it ended
            status, reason = "FAILED", repr(error)
        device.becomes(made, status, reason)

    def _on_the_robot(self, deployment: Json) -> tuple[str, str]:
        components = deployment["components"]
        image = self._image(ROBOT, components[ROBOT]["componentVersion"])
        if image != self._robots_image:
            self._robots_image = image
            self._robot.start_robot(image)
        if MODEL not in components:
            return "SUCCEEDED", ""
        version, label = components[MODEL]["componentVersion"], deployment["tags"]["evergreen:model"]
        ended = self._robot.deploy_model(version, self._image(MODEL, version), label).wait(WAIT_S)
        return ended.status, ended.reason

    def _image(self, component: str, version: str) -> str:
        recipe = self._cloud.greengrass.components[component, version]["recipe"]
        return str(recipe["Manifests"][0]["Artifacts"][0]["Uri"]).removeprefix("docker:")

    def _carry_reports(self) -> None:
        """The robot's shadow as AWS IoT would have it."""
        sent: Any = None
        while not self._over.wait(0.2):
            state = self._robot.nucleus.shadows.get((THING, "evergreen"), {}).get("state")
            if state and state != sent:
                payload = json.dumps({"state": state})
                self._cloud.client("iot-data").update_thing_shadow(
                    thingName=THING, shadowName="evergreen", payload=payload
                )
                sent = json.loads(payload)["state"]


def test_two_commands_and_the_robot_picks_the_other_cube(
    story: Any,  # noqa: F811
    cloud: Cloud,
    evergreen: Callable[..., Running],
    tmp_path: Path,
) -> None:
    factory, robot, observer, client, facts = story
    black, white = load(ROOT / BLACK).label, load(ROOT / WHITE).label
    cloud.add_device(THING, GROUP, lite=True)
    link = Link(cloud, robot)
    engine = factory._podman.shim(tmp_path / "laptop") / "docker"
    address = factory._registry.address
    environment = {
        **{name: value for name, value in cloud.environment.items() if name != "NO_COLOR"},
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
        "BUILDAH_ISOLATION": "chroot",
    }

    def release(*words: object) -> str:
        """Run it to its end, while the observer looks on."""
        where = ("--group", GROUP, "--wait", f"{RELEASE_S:.0f}s", "--poll", "1s")
        running = evergreen(["release", *words, *where], **environment)
        observer.until(lambda: running.process.poll() is not None, "the release ends", RELEASE_S)
        said = f"{running.text()}\n--- robot\n{robot.robot.text[-4000:]}\n--- model\n{robot.model.text[-4000:]}"
        assert running.finish(60.0) == 0, said
        return running.text()

    def drives(label: str) -> bool:
        return observer.policy.get("state") == "driving" and observer.policy.get("active_model") == label

    images = ("--registry", address, "--engine", engine)
    try:
        factory.make_base()  # at once where the rehearsal has built it before
        release("robot", f"{address}/evergreen:1", *images)
        observer.until(lambda: observer.policy.get("state") == "unconfigured", "the policy waits", WAIT_S)

        told = release("deploy", ROOT / BLACK, *images)
        assert "1 of 1 devices succeeded" in told
        observer.until(lambda: drives(black), "the black model drives", WAIT_S)
        assert lifts(observer, client, "black")

        told = release("deploy", ROOT / WHITE, *images)
        facts["release"] = [line for line in told.splitlines() if line.startswith(("✓", "-"))]
        observer.until(lambda: drives(white), "the white model drives", WAIT_S)
        assert lifts(observer, client, "white")

        release("rollback")
        observer.until(lambda: drives(black), "the black model drives again", WAIT_S)
        assert robot.robot.code is None  # the robot's own container never stopped
    finally:
        link.close()
