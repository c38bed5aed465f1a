"""A simulated robot that drives from a store, and a Greengrass nucleus that updates it.

The nucleus is the stand-in; everything else is what runs on a robot: AWS's client, `gg_bridge` as the component's
process, `/policy` with its policy servers, real ONNX graphs, a store, and the simulated arm.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import ROOT, Commands, Running, words_of
from tiny_models import OPEN_LOOP_S, write_model
from watch import Arm, Watcher

from evergreen.demo.resources import free_domain
from gg_bridge.testing import StandInNucleus, Timing
from vla_core.store import Store
from vla_sim.control import SimClient
from vla_sim.process import SimulatorProcess

CONFIG = ROOT / "launch/config"
WAIT_S = 150.0
FPS = 10
DEFAULTS = {"model": {"uri": "", "version": "", "sha256": "", "prompt": "", "swap": "blue_green"}}
TIMING = Timing(restart_delay_s=0.5, running_s=WAIT_S, retry_s=0.1, retries=100)
SMALL = ("--width", "128", "--height", "96", "--fps", str(FPS))
"""Pictures that cost next to nothing: no model looks at what is on them."""


class Robot:
    """A simulated robot that drives, with a store; `nucleus` puts it under Greengrass."""

    def __init__(
        self,
        folder: Path,
        store: Path,
        client: SimClient,
        *,
        port: Path | str,
        domain: int,
        cameras: Sequence[str],
        policy: Mapping[str, object],
        open_loop_s: float,
    ) -> None:
        """Start the graph with a store whose seed sees through the first of the cameras; `policy` sets parameters."""
        self.folder, self.domain = folder, domain
        self.store = Store(store)
        self.arm = Arm(client)
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.versions = 0
        self._open_loop_s = open_loop_s
        http_port = client.status()["http_port"]
        urls = {camera: f"http://127.0.0.1:{http_port}/{camera}/stream.mjpg" for camera in cameras}
        lines = [f"  {camera}: {{url: '{url}', fps: {FPS}}}" for camera, url in urls.items()]
        (folder / "cameras.yaml").write_text("\n".join(["cameras:", *lines]) + "\n")
        self._configure(policy)
        arguments = {
            "port": port,
            "calibration": CONFIG / "so101_sim_calibration.json",
            "cameras_file": folder / "cameras.yaml",
            "policy_config": folder / "policy.yaml",
            "model": self._write(folder / "seed", "seed", camera=cameras[0]),
            "autostart": "true",
            "description": "none",
        }
        self.watcher = Watcher(domain)
        words = [f"{name}:={value}" for name, value in arguments.items()]
        self.graph: Running = Commands(folder)(["launch", "evergreen_bringup", "robot.launch.xml", *words])
        self.until_drives("pick@seed")

    def _configure(self, policy: Mapping[str, object]) -> None:
        text = (CONFIG / "policy.yaml").read_text()
        for name, value in policy.items():
            text, changed = re.subn(rf"\b{name}: .*", f"{name}: {value}", text)
            if not changed:
                text = text.rstrip() + f"\n    {name}: {value}\n"
        (self.folder / "policy.yaml").write_text(text)

    def close(self) -> None:
        self.graph.close()
        self.watcher.close()

    def until(self, condition: Any, what: str) -> None:
        def explained() -> bool:
            assert self.graph.process.poll() is None, self.graph.text()
            return bool(condition())

        try:
            self.watcher.until(explained, what, WAIT_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\nbridge: {self.watcher.bridge}\n{self.log()}") from error

    def until_drives(self, label: str) -> None:
        """Wait until this model drives the arm."""

        def drives() -> bool:
            return self.watcher.policy.get("state") == "driving" and self.watcher.policy.get("active_model") == label

        self.until(drives, f"{label} drives")
        assert self.arm.moves(), self.graph.text()

    def until_current(self) -> None:
        """The model that the store calls current drives, and one server runs it."""
        self.until_drives(self.store.state().current)
        self.until(lambda: len(self.servers()) == 1, "one server is left")

    def servers(self) -> list[psutil.Process]:
        return [child for child in self.graph.children() if "vla_policy.serving.server" in words_of(child)]

    def model(self, **how: Any) -> Path:
        """A model that nobody has seen yet; its label is `pick@<number>`."""
        self.versions += 1
        folder = self.folder / f"model-{self.versions}"
        return self._write(folder, str(self.versions), **how)

    def _write(self, folder: Path, version: str, **how: Any) -> Path:
        return write_model(folder, name="pick", version=version, **{"open_loop_s": self._open_loop_s} | how)

    @property
    def newest(self) -> str:
        return f"pick@{self.versions}"

    def is_taken_up(self) -> bool:
        """Whether the newest model is being swapped in, or is in already: a stage may be over soon."""
        bridge, policy = self.watcher.bridge, self.watcher.policy
        return bridge.get("phase") == "swapping" or self.newest in (bridge.get("model"), policy.get("active_model"))

    def until_logged(self, text: str) -> None:
        """ROS writes log files every few seconds."""
        self.until(lambda: text in self.log(), f"{text!r} in the log")

    def log(self) -> str:
        """What the bridge's processes have said."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.logs.glob("*.log")))

    @contextlib.contextmanager
    def nucleus(self, character: str) -> Iterator[Greengrass]:
        """A nucleus that runs the bridge as its component."""
        with tempfile.TemporaryDirectory(prefix="gg") as sockets:
            command = [sys.executable, "-m", "gg_bridge.node", "--ros-args", "-p", "thing:=arm-7"]
            stand_in = StandInNucleus(
                character,
                Path(sockets, "ipc"),
                defaults=DEFAULTS,
                timing=TIMING,
                command=[*command, "-p", "quiet_time_s:=0.1", "-p", "defer_limit_s:=0.0"],
            )
            with stand_in:
                greengrass = Greengrass(self, stand_in)
                self.until(lambda: "RUNNING" in stand_in.state_reports, "the bridge runs")
                yield greengrass


class Greengrass:
    """The nucleus, as whoever deploys sees it."""

    def __init__(self, robot: Robot, stand_in: StandInNucleus) -> None:
        self.robot, self.stand_in = robot, stand_in

    def deploy(self, uri: object, **more: str) -> None:
        """On the device, so that Lite does not restart the component."""
        section = DEFAULTS["model"] | {"uri": str(uri), **more}
        self.stand_in.deploy({"model": section}, local=True)

    @property
    def reports(self) -> list[dict[str, Any]]:
        topic = "evergreen/arm-7/update"
        return [json.loads(message.payload) for message in self.stand_in.published if message.topic == topic]

    def until_reported(self, label_or_uri: str, *outcomes: str) -> dict[str, Any]:
        """The report on that model."""

        def found() -> list[dict[str, Any]]:
            return [
                report
                for report in self.reports
                if label_or_uri in (report["model"], report["wished"]["uri"]) and report["outcome"] in outcomes
            ]

        self.robot.until(found, f"a report that {label_or_uri} is {' or '.join(outcomes)}, not {self.reports[-3:]}")
        return found()[-1]

    def pid(self) -> int:
        self.robot.until(lambda: self.stand_in.component_status()["pid"], "the bridge has a process")
        return int(str(self.stand_in.component_status()["pid"]))


@contextlib.contextmanager
def running_robot(
    folder: Path,
    store: Path,
    *,
    cameras: Sequence[str] = ("front",),
    policy: Mapping[str, object] | None = None,
    open_loop_s: float = OPEN_LOOP_S,
) -> Iterator[Robot]:
    """A robot that drives its seed, in a ROS domain of its own."""
    with contextlib.ExitStack() as stack:
        domain = stack.enter_context(free_domain())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        environment = {
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_DOMAIN_ID": domain,
            "ROS_LOG_DIR": folder / "logs",
            "EVERGREEN_STORE": store,
            "OMP_NUM_THREADS": 1,
        }
        for name, value in environment.items():
            patch.setenv(name, str(value))
        hardware = stack.enter_context(
            SimulatorProcess(folder, ["--http-port", "0", "--cameras", ",".join(cameras), *SMALL])
        )
        client = stack.enter_context(hardware.client())
        robot = Robot(
            folder,
            store,
            client,
            port=hardware.port,
            domain=domain,
            cameras=cameras,
            policy={"probation_s": 1.0} | dict(policy or {}),
            open_loop_s=open_loop_s,
        )
        stack.callback(robot.close)
        yield robot
