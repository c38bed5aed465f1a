"""The launch files, the configuration that they name, and the node that publishes the description."""

import os
import queue
import shutil
import signal
import stat
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from evergreen.launch import (
    Event,
    Exited,
    Launcher,
    LaunchError,
    LaunchPlan,
    Output,
    TemporaryFile,
    declared_arguments,
    make_plan,
    rcl_yaml,
)
from evergreen.launch.packages import find_install
from vla_core import manifest
from vla_core.joints import SO101_JOINTS
from vla_core.runtime import run_dir
from vla_core.signing import KEYS_VARIABLE, REQUIRE_VARIABLE

HERE = Path(__file__).resolve().parents[1]
URDF = HERE / "urdf/so101.urdf"
DEADLINE_S = 60.0
DOMAIN = "46"

built = pytest.mark.skipif(find_install(HERE) is None, reason="the workspace is not built: `make build`")
ROBOT = {"port": "/dev/so101", "calibration": "/c.json", "cameras_file": "/cameras.yaml", "model": "/models/act"}


def parameters(plan: LaunchPlan, node: str) -> dict[str, object]:
    """What the launch file itself sets on a node."""
    (process,) = (process for process in plan.processes if process.node == node)
    files = [rcl_yaml.load(word.content) for word in process.command if isinstance(word, TemporaryFile)]
    return {name: value for file in files for name, value in file[node]["ros__parameters"].items()}


@built
def test_robot_starts_cameras_arm_policy_and_description() -> None:
    plan = make_plan(HERE / "robot.launch.xml", ROBOT)
    assert [process.node for process in plan.processes] == [
        "/cameras",
        "/arm_controller",
        "/policy",
        "/robot_description",
    ]
    required = {process.node for process in plan.processes if process.required}
    again = {process.node: process.respawn_delay_s for process in plan.processes if process.respawn}
    assert required == {"/arm_controller"}
    assert again == {"/cameras": 2.0, "/policy": 2.0, "/robot_description": 2.0}
    assert {process.respawn_limit for process in plan.processes if process.respawn} == {30}
    assert parameters(plan, "/arm_controller") == {"port": "/dev/so101", "calibration": "/c.json"}
    expected = {"model": "/models/act", "store": "", "server": "local", "prompt": "", "autostart": False}
    assert parameters(plan, "/policy") == expected


@built
def test_the_bridge_ends_its_launch_so_that_the_nucleus_starts_it_again() -> None:
    """A respawned one would keep the token of before, which a restarted nucleus does not know."""
    plan = make_plan(HERE / "gg_bridge.launch.xml", {"store": "/store", "namespace": "left"})
    (process,) = plan.processes
    assert (process.node, process.required, process.respawn) == ("/left/gg_bridge", True, False)
    assert parameters(plan, "/left/gg_bridge") == {
        "store": "/store",
        "policy": "policy",
        "nucleus": "auto",
        "defer_limit_s": 300.0,
        "trusted_keys": "",
        "require_signature": False,
    }


TRUST = {"trusted_keys": "/etc/evergreen/keys:/k.pub", "require_signature": "true"}


@built
def test_the_bridge_can_be_told_whose_models_it_takes() -> None:
    """No launch argument reached either parameter, so that signatures could not be required."""
    plan = make_plan(HERE / "gg_bridge.launch.xml", TRUST)
    found = parameters(plan, "/gg_bridge")
    assert (found["trusted_keys"], found["require_signature"]) == ("/etc/evergreen/keys:/k.pub", True)


@built
def test_the_policy_can_be_told_whose_models_it_takes() -> None:
    """By its environment, which is kept where the arguments say nothing."""

    def trust(arguments: dict[str, str], environment: dict[str, str]) -> tuple[str, ...]:
        plan = make_plan(HERE / "robot.launch.xml", {**ROBOT, **arguments}, {**os.environ, **environment})
        (policy,) = (process for process in plan.processes if process.node == "/policy")
        return tuple(policy.environment.get(name, "") for name in (KEYS_VARIABLE, REQUIRE_VARIABLE))

    nobodys = {KEYS_VARIABLE: "", REQUIRE_VARIABLE: ""}
    assert trust(TRUST, nobodys) == ("/etc/evergreen/keys:/k.pub", "1")
    assert trust({}, nobodys) == ("", "")
    assert trust({}, {KEYS_VARIABLE: "/k.pub", REQUIRE_VARIABLE: "1"}) == ("/k.pub", "1")


@built
@pytest.mark.parametrize("prompt", ["yes", "12", "1e5", "08", "y", "pick up: the cube", "['a']", "it's"])
def test_a_prompt_stays_text_whatever_it_says(prompt: str) -> None:
    """YAML would read some prompts as booleans, numbers or mappings; `1e5` and `08` did arrive as doubles."""
    plan = make_plan(HERE / "robot.launch.xml", {**ROBOT, "prompt": prompt})
    assert parameters(plan, "/policy")["prompt"] == prompt


@built
def test_a_namespace_goes_in_front_of_everything() -> None:
    plan = make_plan(HERE / "robot.launch.xml", {**ROBOT, "namespace": "left"})
    assert all(process.node.startswith("/left/") for process in plan.processes)


@built
def test_nothing_moves_unless_asked() -> None:
    defaults = {argument.name: argument.default for argument in declared_arguments(HERE / "robot.launch.xml")}
    assert defaults["autostart"] == "false"
    with pytest.raises(LaunchError, match=r"'port' .* must be given"):
        make_plan(HERE / "robot.launch.xml", {})
    with pytest.raises(LaunchError, match=r"'model' .* must be given"):
        make_plan(HERE / "robot.launch.xml", {name: value for name, value in ROBOT.items() if name != "model"})


@built
def test_the_demo_is_the_robot_with_a_simulated_world(tmp_path: Path) -> None:
    plan = make_plan(
        HERE / "demo.launch.xml", {"model": "m", "run_dir": str(tmp_path), "http_port": "8123", "seed": "7"}
    )
    simulator, *robot = plan.processes
    words = [str(word) for word in simulator.command]
    assert simulator.required
    assert words[words.index("--port-link") + 1] == parameters(plan, "/arm_controller")["port"] == f"{tmp_path}/arm"
    assert words[words.index("--control") + 1] == f"{tmp_path}/simulator.sock"
    assert words[words.index("--seed") + 1] == "7"
    assert [process.node for process in robot] == ["/cameras", "/arm_controller", "/policy", "/robot_description"]
    for process in robot:
        assert process.environment["EVERGREEN_CAMERA_PORT"] == "8123"
        assert process.environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    files = [Path(str(parameters(plan, "/cameras")["cameras_file"]))]
    files += [Path(str(parameters(plan, "/arm_controller")["calibration"]))]
    assert all(file.is_file() for file in files)


@pytest.fixture
def bare() -> Iterator[dict[str, str]]:
    """The environment of a container: nobody chose a run folder. What the default makes is removed."""
    chosen = ("EVERGREEN_RUN_DIR", "XDG_RUNTIME_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    environment["USER"] = f"test-{os.getpid()}"  # other demos may run here
    yield environment
    shutil.rmtree(f"/tmp/evergreen-{environment['USER']}", ignore_errors=True)


@built
def test_the_demo_needs_no_arguments(bare: dict[str, str]) -> None:
    """`model` was required, though every demo can run the expert."""
    plan = make_plan(HERE / "demo.launch.xml", {}, bare)
    model = manifest.load(Path(str(parameters(plan, "/policy")["model"])))
    assert (model.name, model.backend) == ("expert", "expert")
    # The three who know a run folder agree: launch file, simulator and the nodes' own default.
    folder = f"/tmp/evergreen-{bare['USER']}/evergreen"
    assert parameters(plan, "/arm_controller")["port"] == f"{folder}/arm"
    for process in plan.processes:
        assert str(run_dir(process.environment)) == folder
        assert process.environment["EVERGREEN_SIM_CONTROL"] == f"{folder}/simulator.sock"
    nobody = {name: value for name, value in bare.items() if name != "USER"}
    assert parameters(make_plan(HERE / "demo.launch.xml", {}, nobody), "/arm_controller")["port"] == (
        "/tmp/evergreen-demo/evergreen/arm"
    )


@built
@pytest.mark.sim
def test_the_simulator_starts_where_nobody_chose_a_run_folder(bare: dict[str, str]) -> None:
    """It ended with `there is no folder`: launch file and simulator had different defaults; it made only its own."""
    plan = make_plan(HERE / "demo.launch.xml", {"http_port": "0"}, bare)
    port = Path(str(parameters(plan, "/arm_controller")["port"]))
    told: queue.Queue[Event] = queue.Queue()
    with Launcher(LaunchPlan(plan.file, plan.processes[:1], plan.environment), on_event=told.put) as launcher:
        while not (isinstance(event := told.get(timeout=DEADLINE_S), Output) and "simulator ready" in event.line):
            assert not isinstance(event, Exited), event
        assert port.is_symlink()
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in (port.parent, port.parent.parent)] == [0o700, 0o700]
        assert launcher.stop() == 0


@built
@pytest.mark.parametrize("name", ["robot.launch.xml", "demo.launch.xml", "gg_bridge.launch.xml"])
def test_every_argument_is_explained(name: str) -> None:
    assert [argument.name for argument in declared_arguments(HERE / name) if not argument.description] == []


@built
@pytest.mark.ros
def test_a_mistake_in_the_configuration_is_told_once(tmp_path: Path) -> None:
    """The node said so in a line and ended with 2, and was started again for ever."""
    pytest.importorskip("rclpy")
    file = tmp_path / "cameras.launch.xml"
    file.write_text(
        """<launch><node pkg="vla_perception" exec="cameras" name="cameras" output="screen" respawn="true">
        <param name="cameras_file" value="/does/not/exist.yaml" type="str"/></node></launch>"""
    )
    command = [sys.executable, "-m", "evergreen.cli", "launch", str(file)]
    environment = {**os.environ, "ROS_DOMAIN_ID": DOMAIN, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    (said,) = (line for line in done.stdout.splitlines() if line.startswith("[cameras-1] "))
    assert "/does/not/exist.yaml" in said
    assert done.stdout.splitlines()[-1].startswith(
        "[ERROR] [cameras-1]: process is not started again: exit code 2 means"
    )


def test_parameter_files_fit_any_namespace() -> None:
    for name in ("so101.yaml", "policy.yaml"):
        content = yaml.safe_load((HERE / "config" / name).read_text())
        assert all(key == "/**" or key.startswith("/**/") for key in content), name
        assert all(list(section) == ["ros__parameters"] for section in content.values()), name


def test_urdf_has_the_joints_and_limits_of_the_arm_controller() -> None:
    urdf = ET.parse(URDF).getroot()  # noqa: S314  our own file
    joints = {joint.get("name"): joint for joint in urdf.findall("joint[@type='revolute']")}
    assert set(joints) == set(SO101_JOINTS)
    (section,) = yaml.safe_load((HERE / "config/so101.yaml").read_text()).values()
    arm = section["ros__parameters"]
    assert arm["joint_names"] == list(SO101_JOINTS)
    for side, key in (("lower", "lower_rad"), ("upper", "upper_rad")):
        limits = [float(joints[name].find("limit").get(side)) for name in SO101_JOINTS]
        assert arm[key] == pytest.approx(limits, abs=1e-5)


def start(*words: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "ROS_DOMAIN_ID": DOMAIN, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), environment.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "evergreen_bringup.node", *words], env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.ros
def test_description_reaches_a_late_subscriber_and_the_node_ends_cleanly(tmp_path: Path) -> None:
    rclpy = pytest.importorskip("rclpy")
    from std_msgs.msg import String  # noqa: PLC0415  only where ROS is

    from vla_ros import qos  # noqa: PLC0415

    text = URDF.read_text()
    file = tmp_path / "params.yaml"
    file.write_text(yaml.dump({"/**": {"ros__parameters": {"robot_description": text}}}))
    with start("--ros-args", "--params-file", str(file)) as process:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=int(DOMAIN))
        try:
            node = rclpy.create_node("listener", context=context)
            executor = rclpy.executors.SingleThreadedExecutor(context=context)
            executor.add_node(node)
            heard: list[str] = []
            node.create_subscription(
                String, "robot_description", lambda message: heard.append(message.data), qos.STATUS
            )
            deadline_s = time.monotonic() + DEADLINE_S
            while not heard and time.monotonic() < deadline_s:
                executor.spin_once(timeout_sec=0.1)
            assert heard == [text]
            node.destroy_node()
        finally:
            process.send_signal(signal.SIGINT)
            rclpy.try_shutdown(context=context)
        assert process.wait(DEADLINE_S) == 0


@pytest.mark.ros
@pytest.mark.parametrize(("text", "message"), [("''", "begins with ''"), ("<launch/>", "begins with '<launch/>'")])
def test_a_description_that_is_none_is_one_line_and_2(text: str, message: str) -> None:
    pytest.importorskip("rclpy")
    with start("--ros-args", "-p", f"robot_description:={text}") as process:
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert "parameter 'robot_description'" in err
    assert message in err
    assert len(err.strip().splitlines()) == 1
