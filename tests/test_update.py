"""Updates from end to end: a Greengrass nucleus, the bridge, the store, the policy, and an arm that goes on working.

See `update_robot`; here the store lies on a small disk. After every test a good model drives.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")
pytest.importorskip("awsiot")

from tiny_models import with_weights
from update_robot import WAIT_S, Robot, running_robot

from vla_core.manifest import sha256_file

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.timeout(600)]

DISK_BYTES = 160 << 20
"""The store leaves 64 MiB of its disk free."""
BURST = 50


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small disk at `folder`; False where that is not allowed, and the folder is a plain one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    yield mounted
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, bool]]:
    folder = tmp_path_factory.mktemp("disk") / "disk"
    with small_disk(folder) as is_small:
        yield folder, is_small


@pytest.fixture(scope="module")
def the_robot(tmp_path_factory: pytest.TempPathFactory, disk: tuple[Path, bool]) -> Iterator[Robot]:
    with running_robot(tmp_path_factory.mktemp("update"), disk[0] / "store") as robot:
        yield robot


@pytest.fixture
def robot(the_robot: Robot) -> Iterator[Robot]:
    the_robot.until_current()
    yield the_robot
    the_robot.until_current()


@pytest.mark.parametrize("character", ["classic", "lite"])
def test_a_deployed_model_drives_the_arm(robot: Robot, character: str) -> None:
    with robot.nucleus(character) as greengrass:
        folder = robot.model()
        sha256 = sha256_file(folder / "manifest.json")
        section = {
            "uri": f"file:{folder}",
            "version": str(robot.versions),
            "sha256": sha256,
            "prompt": "round and round",
        }
        deployment = greengrass.stand_in.deploy({"model": section})  # from the cloud: Lite restarts the component
        report = greengrass.until_reported(robot.newest, "succeeded")
        assert deployment.wait(WAIT_S).status == "SUCCEEDED"
        assert report["running"] == robot.newest
        assert {"fetch", "verify", "start", "judge", "switch", "probation", "end", "total"} <= set(
            report["durations_s"]
        )
        robot.until_drives(robot.newest)
        assert robot.watcher.policy["prompt"] == "round and round"
        robot.until(lambda: robot.watcher.bridge.get("outcome") == "succeeded", "the bridge's status says so")
        robot.until_logged(f"update to {robot.newest} succeeded")
        assert robot.store.state().current == robot.newest


def test_a_broken_model_is_refused_with_its_reason_and_the_old_one_drives_on(robot: Robot) -> None:
    old = robot.store.state().current
    with robot.nucleus("lite") as greengrass:
        altered = robot.model()
        (altered / "policy.onnx").write_bytes(b"\x08" + (altered / "policy.onnx").read_bytes()[1:-1] + b"x")
        cut = with_weights(robot.model(work=1))
        os.truncate(cut / "model.safetensors", 1 << 20)
        broken = {
            robot.model(ignored=float("nan")): "numbers that are not finite",
            robot.model(work=40): "too slow|no answer within",
            robot.model(camera="sonar"): r"wants camera\(s\) sonar",
            altered: "SHA-256",
            cut: "model.safetensors",
            with_weights(robot.model(work=1), cut_bytes=1000): "bytes where its header says",
        }
        for folder, reason in broken.items():
            greengrass.deploy(f"file:{folder}")
            report = greengrass.until_reported(f"file:{folder}", "refused")
            assert re.search(reason, report["reason"])
            assert report["running"] == old
            robot.until(lambda: robot.watcher.bridge["outcome"] == "refused", "the bridge's status says so")
            assert robot.watcher.bridge["reason"] == report["reason"]
            robot.until_logged(report["reason"])
            robot.until_drives(old)
        wrong = with_weights(robot.model(work=1))
        greengrass.deploy(f"file:{wrong}", sha256="0" * 64)
        assert "was asked for" in greengrass.until_reported(f"file:{wrong}", "refused")["reason"]
        assert robot.store.state().current == old
        # The very model, asked for rightly, is another wish.
        greengrass.deploy(f"file:{wrong}", sha256=sha256_file(wrong / "manifest.json"))
        greengrass.until_reported(robot.newest, "succeeded")


def test_without_a_network_it_is_tried_again_until_something_else_is_deployed(robot: Robot) -> None:
    old = robot.store.state().current
    with robot.nucleus("lite") as greengrass:
        greengrass.deploy("http://127.0.0.1:9/model")
        robot.until(lambda: robot.watcher.bridge.get("phase") == "fetching", "it is fetched")
        robot.until_drives(old)
        greengrass.deploy(f"file:{robot.model()}")
        greengrass.until_reported("http://127.0.0.1:9/model", "superseded")
        greengrass.until_reported(robot.newest, "succeeded")


def test_of_many_deployments_the_last_one_wins(robot: Robot) -> None:
    with robot.nucleus("lite") as greengrass:
        one, two = robot.model(), robot.model()
        first, second = f"pick@{robot.versions - 1}", robot.newest
        greengrass.deploy(f"file:{one}")
        greengrass.deploy(f"file:{two}")  # within the second
        greengrass.until_reported(second, "succeeded")
        greengrass.deploy(f"file:{two}")  # the same again
        greengrass.deploy(f"file:{one}")  # the older after the newer
        greengrass.until_reported(first, "succeeded")
        robot.until_drives(first)
        assert [report["model"] for report in greengrass.reports if report["outcome"] == "succeeded"] == [second, first]
        said = len(greengrass.reports)
        for number in range(BURST):
            greengrass.deploy(f"file:{one if number % 2 else two}", prompt=f"{number}")
            robot.until(robot.arm.client.status, "the simulation runs")
        robot.until(lambda: robot.watcher.policy["prompt"] == str(BURST - 1), "the last prompt is in force")
        robot.until(lambda: greengrass.reports[-1]["wished"]["prompt"] == str(BURST - 1), "the last is reported")
        assert greengrass.reports[-1]["outcome"] == "succeeded"
        ends = [report["request_id"] for report in greengrass.reports[said:]]
        assert len(ends) == len(set(ends))
        robot.until_drives(first)


STAGES = ["fetching", "start", "probation"]
"""Those between are in `test_update_kills`."""


def test_the_bridge_may_be_killed_at_any_stage(robot: Robot) -> None:
    with robot.nucleus("lite") as greengrass:
        for stage in STAGES:
            greengrass.deploy(f"file:{robot.model()}")

            def reached(stage: str = stage) -> bool:
                """A stage may be over within milliseconds."""
                bridge, policy = robot.watcher.bridge, robot.watcher.policy
                if stage == "fetching":
                    return bridge.get("wish") == f"file:{robot.folder}/model-{robot.versions}"
                began = stage in json.loads(policy.get("timeline") or "{}")
                return began and policy.get("request_id") == bridge.get("request_id")

            robot.until(reached, f"stage {stage}")
            os.kill(greengrass.pid(), signal.SIGKILL)
            greengrass.until_reported(robot.newest, "succeeded")
            robot.until_drives(robot.newest)


def test_the_nucleus_may_restart_at_any_time(robot: Robot) -> None:
    with robot.nucleus("lite") as greengrass:
        before = greengrass.pid()
        greengrass.deploy(f"file:{robot.model()}")
        robot.until(robot.is_taken_up, "it is swapped")
        greengrass.stand_in.restart()
        greengrass.until_reported(robot.newest, "succeeded")
        robot.until(lambda: greengrass.pid() != before, "the bridge was started anew")
        greengrass.stand_in.drop_connections()
        greengrass.deploy(f"file:{robot.model()}")
        greengrass.until_reported(robot.newest, "succeeded")
        robot.until_drives(robot.newest)


def test_on_a_full_disk_the_old_model_drives_on_and_the_new_one_comes_when_there_is_room(
    robot: Robot, disk: tuple[Path, bool]
) -> None:
    if not disk[1]:
        pytest.skip("mounting a small disk is not allowed here")
    old = robot.store.state().current
    with robot.nucleus("lite") as greengrass:
        ballast = disk[0] / "ballast"
        with ballast.open("wb") as stream, contextlib.suppress(OSError):
            while True:
                stream.write(b"x" * (1 << 20))
                stream.flush()
        greengrass.deploy(f"file:{robot.model()}")
        robot.until(lambda: robot.watcher.bridge.get("phase") == "waiting", "it waits for room")
        assert "full" in robot.watcher.bridge["reason"] or "would be free" in robot.watcher.bridge["reason"]
        robot.until_drives(old)
        ballast.unlink()
        greengrass.until_reported(robot.newest, "succeeded")
        robot.until_drives(robot.newest)
