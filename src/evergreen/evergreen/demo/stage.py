"""What every demo claims of the machine and gives to its launch file."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from evergreen.demo.resources import free_domain, free_port, private_folder
from evergreen.demo.session import POLL_S, START_TIMEOUT_S, DemoError
from evergreen.launch.packages import find_launch_file
from vla_core.runtime import run_dir

if TYPE_CHECKING:
    from vla_sim.control import SimClient

FILMED = ("front", "front_left")
"""The model's own view, and one from which a person sees the grasp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What every demo may be told; see `evergreen demo --help`."""

    seed: int
    models: Path
    out: Path
    time_limit_s: float
    size: tuple[int, int]
    fps: float
    video: bool
    verbose: bool


@contextlib.contextmanager
def claimed() -> Iterator[Path]:
    """A ROS domain of one's own, which this process and its children use from now on, and a folder for sockets.

    Raises:
        ConfigError: there is none.
    """
    with free_domain() as domain, private_folder(run_dir()) as folder:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        yield folder


def arguments(folder: Path, seed: int, model: Path, size: tuple[int, int], fps: float) -> dict[str, str]:
    """Arguments of `demo.launch.xml`."""
    width, height = size
    return {
        "run_dir": str(folder),
        "http_port": str(free_port()),
        "seed": str(seed),
        "model": str(model.absolute()),
        "width": str(width),
        "height": str(height),
        "fps": f"{fps:g}",
        "autostart": "false",
    }


def connect(path: Path, failed: Callable[[], str | None]) -> SimClient:
    """Wait for the simulator's control socket.

    Raises:
        DemoError: the graph broke down meanwhile; `failed` says why.
        SimError: it did not appear in time.
    """
    from vla_sim.control import SimClient, SimError  # noqa: PLC0415  the robot's image has no simulator

    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        if problem := failed():
            raise DemoError(problem)
        try:
            return SimClient(path)
        except SimError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(POLL_S)


def policy_config(folder: Path, **changes: float) -> Path:
    """A file in `folder` with the policy's usual parameters, but for these."""
    usual = find_launch_file("evergreen_bringup", "demo.launch.xml").parent / "config/policy.yaml"
    parameters = yaml.safe_load(usual.read_text(encoding="utf-8"))
    parameters["/**/policy"]["ros__parameters"] |= changes
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return path
