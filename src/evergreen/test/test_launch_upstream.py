"""Our plans against upstream's ros2 launch, where its sources are at hand.

EVERGREEN_UPSTREAM_LAUNCH names a folder into which launch, launch_xml, launch_ros, ros2launch, lark and osrf_pycommon
are installed (`pip install --no-deps --target`). docs/launch.md tells how.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evergreen.launch import (
    BRINGUP,
    LaunchPlan,
    PackageIndex,
    find_launch_file,
    make_plan,
    rcl_yaml,
    with_workspace,
)

UPSTREAM = os.environ.get("EVERGREEN_UPSTREAM_LAUNCH", "")
pytestmark = pytest.mark.skipif(not UPSTREAM, reason="EVERGREEN_UPSTREAM_LAUNCH is not set")

EVERYTHING = """<launch>
  <arg name="x" default="a b"/>
  <arg name="e" default=""/>
  <arg name="n" default="3"><choice value="3"/><choice value="4"/></arg>
  <let name="y" value="$(var x)/\\$(var z)"/>
  <set_env name="FOO" value="$(env HOME)/q"/>
  <node pkg="evergreen_bringup" exec="robot_description" name="sim" namespace="$(var e)"
        args="--a $(var x) 'b c' $(var y)d e" ros_args="--log-level debug" output="screen"
        respawn="$(equals $(var n) 3)" respawn_delay="2" on_exit="shutdown">
    <param name="i" value="$(var n)"/>
    <param name="s" value="$(var n)" type="str"/>
    <param name="f" value="1" type="float"/>
    <param name="b" value="yes"/>
    <param name="empty" value="$(var e)"/>
    <param name="text" value="'5'"/>
    <param name="l" value="[1, 2, 3]"/>
    <param name="ls" value="['q','$(var x)']"/>
    <param name="sep" value="a;b;$(var n)" value-sep=";" type="list_of_str"/>
    <param name="lf" value="[1.0, 2.5]" type="list_of_float"/>
    <param name="nest"><param name="in" value="1.5"/><param name="de"><param name="ep" value="x"/></param></param>
    <param name="sci" value="1e-3"/>
    <remap from="a" to="/b/$(var n)"/>
    <env name="E1" value="$(env FOO)"/>
  </node>
  <group if="$(not $(equals $(var n) 4))">
    <push_ros_namespace namespace="left"/>
    <let name="n" value="9"/>
    <set_env name="BAR" value="1"/>
    <node pkg="evergreen_bringup" exec="robot_description" namespace="arm"/>
    <node pkg="evergreen_bringup" exec="robot_description" name="q"/>
  </group>
  <executable cmd="echo   $(var n) $(env BAR none) x$(var x)y 'z w'" name="$(var x)" cwd="/tmp"/>
  <executable cmd="echo $(var y 'dd ee') $(if true $(var n) 5) $(env NOPE '') end" launch-prefix="nice -n 5"/>
</launch>
"""


def upstream(file: Path, arguments: dict[str, str]) -> list[dict[str, object]]:
    """What ros2 launch would run."""
    environment = with_workspace(os.environ)
    environment["AMENT_PREFIX_PATH"] = os.pathsep.join([environment["AMENT_PREFIX_PATH"], UPSTREAM])
    environment["PYTHONPATH"] = os.pathsep.join([UPSTREAM, environment.get("PYTHONPATH", "")])
    words = [f"{name}:={value}" for name, value in arguments.items()]
    script = Path(__file__).with_name("upstream_plan.py")
    done = subprocess.run(
        [sys.executable, str(script), str(file), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    plans = [line.removeprefix("PLAN ") for line in done.stdout.splitlines() if line.startswith("PLAN ")]
    assert done.returncode == 0, done.stdout + done.stderr
    processes = json.loads(plans[0])
    for process in processes:
        process["env"] = {name: process["env"].get(name) for name in ("FOO", "BAR", "E1", "EVERGREEN_CAMERA_PORT")}
    return processes


def ours(plan: LaunchPlan) -> list[dict[str, object]]:
    return [
        {
            "name": process.name,
            "command": [word if isinstance(word, str) else {"file": word.content} for word in process.command],
            "cwd": process.cwd,
            "env": {name: process.environment.get(name) for name in ("FOO", "BAR", "E1", "EVERGREEN_CAMERA_PORT")},
            "output": process.output,
            "respawn": process.respawn,
            "respawn_delay_s": process.respawn_delay_s,
            "respawn_limit": process.respawn_limit,
            "required": process.required,
        }
        for process in plan.processes
    ]


def read(plan: list[dict[str, object]]) -> list[dict[str, object]]:
    """Parameter files as rcl reads them: only the quotation marks around text differ on purpose."""
    for process in plan:
        words = process["command"]
        process["command"] = [
            rcl_yaml.load(word["file"]) if isinstance(word, dict) else word
            for word in (words if isinstance(words, list) else [])
        ]
    return plan


def compare(file: Path, arguments: dict[str, str]) -> None:
    plan = ours(make_plan(file, arguments))
    assert plan
    assert read(plan) == read(upstream(file, arguments))


def test_a_file_with_everything(tmp_path: Path) -> None:
    path = tmp_path / "everything.launch.xml"
    path.write_text(EVERYTHING)
    compare(path, {})
    compare(path, {"n": "4", "e": "deep/er"})


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"model": "/models/act"},
        {"model": "backend:expert", "prompt": "pick up: the 'black' cube", "description": "none", "seed": "7"},
        {"model": "m", "server": "wss://example.org:443", "autostart": "false"},
    ],
)
def test_the_demo(arguments: dict[str, str]) -> None:
    compare(find_launch_file(BRINGUP, "demo.launch.xml"), arguments)


@pytest.mark.parametrize("more", [{}, {"namespace": "left", "description": "none", "prompt": "yes"}])
def test_the_robot(more: dict[str, str]) -> None:
    arguments = {"port": "/dev/so101", "calibration": "/c.json", "cameras_file": "/cameras.yaml", "model": "m"}
    compare(find_launch_file(BRINGUP, "robot.launch.xml"), arguments | more)


def test_the_package_is_found_by_both() -> None:
    assert PackageIndex.of(with_workspace(os.environ)).find(BRINGUP) is not None
