"""Files and arguments that are wrong, given to the real programs: one line says what to change, and nothing hangs."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")

from commands import Commands, Running
from rich.console import Console
from tiny_models import write_model

from evergreen.demo import run as demo
from evergreen.demo.graph import Graph
from evergreen.demo.resources import free_domain, writing
from evergreen.demo.results import CameraCount, Results
from evergreen.launch.events import Output
from vla_core.errors import EvergreenError

pytestmark = pytest.mark.ros

WAIT_S = 90.0
STOP_S = 30.0
NO_ROOM = "No space left on device; free some space, or choose another folder with --out"
PROGRAMS = {
    "cameras": 'pkg="vla_perception" exec="cameras"',
    "arm": 'pkg="arm_driver" exec="arm_controller"',
    "policy": 'pkg="vla_policy" exec="policy"',
}


@pytest.fixture
def launch(evergreen: Commands, tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    """Starts a launch file of these elements."""

    def start(elements: str) -> Running:
        file = tmp_path / "test.launch.xml"
        file.write_text(f"<launch>{elements}</launch>")
        return evergreen(["launch", file], ROS_DOMAIN_ID=domain, OMP_NUM_THREADS=1)

    with free_domain() as domain:
        yield start


def node(name: str, kind: str, parameters: Mapping[str, object], file: Path | None = None) -> str:
    """A `<node>` named `name`, of this kind, with these parameters and perhaps a parameter file."""
    lines = "".join(f'<param name="{key}" value="{value}"/>' for key, value in parameters.items())
    lines += f'<param from="{file}"/>' if file else ""
    return f'<node {PROGRAMS[kind]} name="{name}" exec_name="{name}" output="screen">{lines}</node>'


def errors_of(running: Running, name: str) -> list[str]:
    """What the process `name` reported as an error."""
    lines = [line for line in running.text().splitlines() if line.startswith(f"[{name}-")]
    return [line for line in lines if "[ERROR]" in line or "] error: " in line]


# --- models ----------------------------------------------------------------------------------------------------------


def bad_models(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name to a model's folder, and what must be said of it."""
    cut = write_model(folder / "cut") / "policy.onnx"
    whole = cut.stat().st_size
    cut.write_bytes(cut.read_bytes()[: whole // 2])
    return {
        "absent": (
            folder / "absent",
            f"model folder {folder}/absent does not exist; `ls {folder}` shows what is there",
        ),
        "cut": (cut.parent, f"{cut} has {whole // 2} bytes where the manifest says {whole}: fetch it again"),
        "ceiling": (
            write_model(folder / "ceiling", camera="ceiling"),
            "model ceiling@1 wants camera(s) ceiling; this robot has overhead, front, ",
        ),
        "legs": (
            write_model(folder / "legs", joint_names=("hip", "knee", "ankle", "heel", "toe", "nail")),
            "model legs@1 moves joint(s) hip, knee, ankle, heel, toe, nail; this robot has shoulder_pan, ",
        ),
        "stretched": (
            write_model(folder / "stretched", image_pipeline="rgb-stretch-v0"),
            f"{folder}/stretched needs image pipeline 'rgb-stretch-v0'; this Evergreen has 'rgb-cover-area-v1'. Train ",
        ),
    }


def test_a_model_that_cannot_run_is_named_with_the_cure(launch: Callable[[str], Running], tmp_path: Path) -> None:
    models = bad_models(tmp_path)
    running = launch(
        "".join(node(name, "policy", {"model": folder, "autostart": "true"}) for name, (folder, _) in models.items())
    )
    running.wait_for(lambda: all(errors_of(running, name) for name in models), WAIT_S)
    running.process.send_signal(signal.SIGINT)
    assert running.finish(STOP_S) == 0, running.text()
    assert running.survivors() == []
    assert "Traceback" not in running.text()
    for name, (_, expected) in models.items():
        (said,) = errors_of(running, name)
        assert expected in said
        assert running.text().count(expected) == 1, "said once"


@pytest.mark.sim
def test_a_demo_of_such_a_model_ends_with_the_same_words(evergreen: Commands, tmp_path: Path) -> None:
    model = write_model(tmp_path / "ceiling", camera="ceiling", prompt="put the black cube on the spot")
    out = tmp_path / "out"
    running = evergreen(["demo", "--policy", model, "--out", out, "--size", "64x48", "--fps", 5], OMP_NUM_THREADS=1)
    assert running.finish(WAIT_S) == 1, running.text()
    assert running.survivors() == []
    assert "error: the policy could not load its model: model ceiling@1 wants camera(s) ceiling" in running.text()
    assert "Traceback" not in running.text()


# --- configuration ---------------------------------------------------------------------------------------------------


def test_a_node_with_bad_files_says_which_line(launch: Callable[[str], Running], tmp_path: Path) -> None:
    def file(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    no_yaml = file("cameras.yaml", 'cameras:\n  front: {url: "http://127.0.0.1:1/x"\n  left: ]\n')
    misspelt = file("misspelt.yaml", "cameras:\n  front:\n    url: http://127.0.0.1:1/x\n    fsp: 15\n")
    torn = file("torn.yaml", "/**:\n  ros__parameters:\n    rate_hz: [1\n  x: {\n")
    wrong = file("wrong.yaml", "/**:\n  ros__parameters:\n    rate_hz: fast\n")
    unknown = file("unknown.yaml", "/**:\n  ros__parameters:\n    rate_hertz: 100.0\n")
    calibration = file("calibration.json", '{"shoulder_pan": ')
    nodes = {
        "no_yaml": ("cameras", {"cameras_file": no_yaml}, None),
        "misspelt": ("cameras", {"cameras_file": misspelt}, None),
        "no_file": ("cameras", {"cameras_file": tmp_path / "no.yaml"}, None),
        "torn": ("arm", {}, torn),
        "wrong": ("arm", {}, wrong),
        "no_calibration": ("arm", {"calibration": tmp_path / "no.json"}, unknown),
        "bad_calibration": ("arm", {"calibration": calibration}, None),
        "empty_calibration": ("arm", {}, None),
    }
    expected = {
        "no_yaml": f"{no_yaml}: line 3: no valid YAML",
        "misspelt": f"{misspelt}: line 4: camera 'front': fsp is an unknown key; allowed: camera_info, ",
        "no_file": f"{tmp_path}/no.yaml: cannot be read",
        "torn": f"{torn}'. Error: Error parsing a event near line 3",
        "wrong": "node wrong: parameter 'rate_hz' must be a number, not 'fast'",
        "no_calibration": f"parameter calibration: there is no file '{tmp_path}/no.json'; calibrate the arm with",
        "bad_calibration": f"parameter calibration: cannot read '{calibration}': ",
        "empty_calibration": "parameter calibration is empty; calibrate the arm with",
    }
    running = launch("".join(node(name, *what) for name, what in nodes.items()))
    assert running.finish(WAIT_S) == 1, running.text()
    assert running.text().count("exit code 2, cmd") == len(nodes), running.text()
    assert "Traceback" not in running.text()
    for name, words in expected.items():
        said = [line for line in errors_of(running, name) if "[rcl]" not in line]
        assert len(said) == 1, said
        assert words in said[0]
    assert "parameter 'rate_hertz' is unknown and has no effect; did you mean 'rate_hz'?" in running.text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '<launch>\n<node pkg="arm_driver" exec="arm_controller">\n</launch>',
            ":3: no well-formed XML: mismatched tag",
        ),
        ('<launch>\n<node pkg="arm_drive" exec="x"/>\n</launch>', ":2: <node>: package 'arm_drive' is not installed"),
        (
            '<launch>\n<node pkg="arm_driver" exec="arm_controller">\n<param from="/no.yaml"/></node>\n</launch>',
            ":3: <param>: parameter file /no.yaml does not exist",
        ),
    ],
)
def test_a_bad_launch_file_starts_nothing(evergreen: Commands, tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "bad.launch.xml"
    file.write_text(text)
    running = evergreen(["launch", file])
    assert running.finish(WAIT_S) == 2
    assert re.fullmatch(rf"error: {re.escape(f'{file}{expected}')}.*\n", running.text()), running.text()


# --- disks -----------------------------------------------------------------------------------------------------------


def test_a_demo_whose_disk_is_full_says_so_at_once(evergreen: Commands, tmp_path: Path) -> None:
    """It waited a minute for a graph that had long ended, and then showed three tracebacks."""
    (tmp_path / "demo.log").symlink_to("/dev/full")
    running = evergreen(["demo", "--policy", "expert", "--out", tmp_path])
    assert running.finish(WAIT_S) == 2, running.text()
    assert running.survivors() == []
    assert f"error: cannot write to {tmp_path}/demo.log: {NO_ROOM}" in running.text()
    assert "Traceback" not in running.text()


def test_a_disk_that_becomes_full_ends_the_demo(tmp_path: Path) -> None:
    """The graph was stopped, but the demo went on waiting for it."""
    log = demo.Log(tmp_path / "demo.log", Console(quiet=True), verbose=False)
    with contextlib.suppress(OSError), Path("/dev/full").open("w", buffering=1) as log._stream:
        log(Output("policy-1", "stdout", "driving"))
    assert log.failure == f"cannot write to {tmp_path}/demo.log: {NO_ROOM}"


@pytest.mark.parametrize("name", ["demo.json", "cameras.png", "latency.png"])
def test_results_that_find_no_room_are_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    results = Results("expert@1", 1, [], [], {"front": CameraCount(15.0, 0)}, 1.0, realtime_factor_min=1.0)
    options = demo.Options(
        episodes=1, seed=1, policy="expert", models=tmp_path, out=tmp_path, time_limit_s=1.0, size=(320, 240), fps=15.0,
        video=False, verbose=False,
    )  # fmt: skip
    with pytest.raises(EvergreenError, match=NO_ROOM), writing(tmp_path):
        demo._write(options, results, Graph(), Console(quiet=True))
