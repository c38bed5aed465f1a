"""The files that containers are made from, as far as they can be judged without building anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import ROOT
from containers import Podman

from gg_bridge.recipes import Facts, render
from gg_bridge.recipes.render import SETTINGS
from vla_core.signing import KEYS_VARIABLE, REQUIRE_VARIABLE

DOCKER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RECIPES = {"robot": "robot", "model": "image"}


def run_script(service: str) -> str:
    way: Any = RECIPES[service]
    return str(render(way, "lite", Facts("1.0.0", "evergreen:1"))["Manifests"][0]["Lifecycle"]["run"]["Script"])


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_service_is_shut_in_and_looked_after(service: str) -> None:
    found = SERVICES[service]
    assert found["read_only"] is True
    assert found["tmpfs"] == ["/tmp"]
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in found
    assert found["restart"] == "on-failure"
    assert found["healthcheck"]["test"][2] == "health"


@pytest.mark.parametrize("service", sorted(RECIPES))
def test_compose_and_recipe_start_the_same_container(service: str) -> None:
    found, script = SERVICES[service], run_script(service)
    flags = {
        "--network host": found["network_mode"] == "host",
        "--ipc host": found["ipc"] == "host",
        "--init": found["init"],
        "--read-only": found["read_only"],
        "--volume evergreen:/var/lib/evergreen": "evergreen:/var/lib/evergreen" in found["volumes"],
        "--group-add dialout --group-add video": found.get("group_add") == ["dialout", "video"],
        "--env SVCUID": "SVCUID" in found["environment"],
        f":{SETTINGS}:ro": any(volume.endswith(f":{SETTINGS}:ro") for volume in found["volumes"]),
        f"--env {KEYS_VARIABLE}": KEYS_VARIABLE in found["environment"],
        f"--env {REQUIRE_VARIABLE}": REQUIRE_VARIABLE in found["environment"],
        "--env ROS_DOMAIN_ID": "ROS_DOMAIN_ID" in found["environment"],
        "--env ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST" in found["environment"]["ROS_AUTOMATIC_DISCOVERY_RANGE"],
    }
    assert {flag: flag in script for flag in flags} == flags
    for variable in re.findall(r"--env (AWS_\w*SOCKET\w+)", script):
        assert variable in found["environment"]


def test_the_model_image_is_eight_lines_and_names_what_it_carries() -> None:
    lines = (DOCKER / "Dockerfile.model").read_text().splitlines()
    assert len(lines) == 8
    assert "COPY --chown=10001:10001 ${MODEL} /opt/evergreen/payload" in lines
    assert "--uid 10001 --gid 10001 " in (DOCKER / "install-system").read_text()
    assert "ENV EVERGREEN_PAYLOAD=file:/opt/evergreen/payload" in lines
    command = next(line for line in lines if line.startswith("CMD"))
    assert all(word in run_script("model") for word in re.findall(r'"([^"]+)"', command))


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.model"])
def test_a_start_may_take_minutes(name: str) -> None:
    """Of an image's health check nothing is inherited by one in an image upon it."""
    text = (DOCKER / name).read_text()
    for option in ("interval=30s", "timeout=20s", "start-period=180s", "retries=3"):
        assert f"--{option}" in text
    for service in SERVICES.values():
        assert service["healthcheck"]["start_period"] == "180s"


@pytest.mark.skipif(shutil.which("podman") is None or os.geteuid() != 0, reason="needs podman, as root")
def test_the_model_belongs_to_the_user_of_the_bridge(tmp_path: Path) -> None:
    """LeRobot writes weights as 0600: as root's they could not be read on the robot."""
    (model := tmp_path / "context/model").mkdir(parents=True)
    (model / "model.safetensors").touch(mode=0o600)
    (model / "processor").mkdir(mode=0o700)
    (model / "processor/stats.safetensors").touch(mode=0o600)
    podman = Podman(tmp_path / "storage", "vfs")
    try:
        how = ("--format=docker", "--build-arg=BASE=scratch", "--build-arg=MODEL=model", "-t", "model")
        podman("build", *how, "-f", DOCKER / "Dockerfile.model", tmp_path / "context")
        assert '"StartPeriod": 180000000000' in podman("image", "inspect", "model")
        podman("save", "-o", tmp_path / "saved.tar", "model")
    finally:
        podman.close()
    owners = {entry.name: entry.uid for entry in layers(tmp_path / "saved.tar") if "payload/" in entry.name}
    names = ("model.safetensors", "processor", "processor/stats.safetensors")
    assert owners == {f"opt/evergreen/payload/{name}": 10001 for name in names}


def layers(saved: Path) -> Iterator[tarfile.TarInfo]:
    """What is in an image's layers."""
    with tarfile.open(saved) as image:
        for member in image:
            if member.isfile() and member.name.endswith(".tar"):
                with tarfile.open(fileobj=image.extractfile(member)) as layer:
                    yield from layer


def test_the_robots_image_runs_as_nobody_in_particular_and_has_a_health_check() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    final = text[text.rindex("\nFROM ") :]
    assert "\nUSER evergreen\n" in final
    assert '"health"]' in final
    assert "ARG BASE=ros:jazzy-ros-base" in text


@pytest.mark.parametrize("name", ["entrypoint", "install-python", "install-system", "build-workspace"])
def test_scripts_are_executable_and_parse(name: str) -> None:
    file = DOCKER / name
    assert file.stat().st_mode & 0o111
    assert subprocess.run(["sh", "-n", str(file)], capture_output=True, check=False).returncode == 0


def test_the_context_has_what_the_images_copy_and_no_more() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    sources = {word.split("/")[0] for line in copied for word in line.split()}
    assert sources <= set(kept)
