"""Parameters as they arrive in a node: what PyYAML writes is not always what rcl reads."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evergreen.launch import rcl_yaml
from evergreen.launch.expand import make_plan
from evergreen.launch.plan import TemporaryFile

DEADLINE_S = 60.0
HERE = Path(__file__).resolve()
NUMBERS_TO_RCL_ALONE = ["1e5", "1E3", "1e-3", "08", "0089", "nan", "inf", "-Infinity", "0x1p3"]
"""Text to PyYAML, which writes it without quotation marks; a double to rcl."""
WORDS = [*NUMBERS_TO_RCL_ALONE, "y", "N", "yes", "null", "12", "1.5", "", 'it\'s "so": # [x]\t\\', "é \N{ROBOT FACE}"]
PROBE = f"""#!{sys.executable}
import json, ssl, sys
import rclpy
rclpy.init()
node = rclpy.create_node("probe", automatically_declare_parameters_from_overrides=True)
names = [name for name in node._parameters if name.startswith("p")]
json.dump({{name: node.get_parameter(name).value for name in names}}, sys.stdout)
rclpy.shutdown()
"""


def workspace(folder: Path) -> dict[str, str]:
    """A package with one executable, which prints its node's parameters; the environment that finds it."""
    marker = folder / "share/ament_index/resource_index/packages/probes"
    marker.parent.mkdir(parents=True)
    for name in ("probes", "evergreen_bringup"):
        marker.with_name(name).touch()
    program = folder / "lib/probes/probe"
    program.parent.mkdir(parents=True)
    program.write_text(PROBE)
    program.chmod(0o755)
    return {**os.environ, "AMENT_PREFIX_PATH": f"{folder}{os.pathsep}{sys.prefix}"}


def arrived(tmp_path: Path, params: str, arguments: dict[str, str]) -> dict[str, object]:
    """What a real node with these `<param>` elements gets from `evergreen launch`."""
    declared = "".join(f'<arg name="{name}"/>' for name in arguments)
    file = tmp_path / "probe.launch.xml"
    file.write_text(
        f'<launch>{declared}<node pkg="probes" exec="probe" name="probe" output="screen">{params}</node></launch>'
    )
    words = [f"{name}:={value}" for name, value in arguments.items()]
    done = subprocess.run(
        [sys.executable, "-m", "evergreen.cli", "launch", str(file), *words, "--json"],
        env={**workspace(tmp_path / "prefix"), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (said,) = (event["line"] for event in events if event["event"] == "output" and event["stream"] == "stdout")
    return json.loads(said)


@pytest.mark.ros
def test_text_arrives_as_text_whatever_it_says(tmp_path: Path) -> None:
    """`model:=1e5` and `prompt:=08` arrived as doubles, so that the node refused them; `prompt:=y` was an error."""
    pytest.importorskip("rclpy")
    params = "".join(f'<param name="p{i}" value="$(var a{i})" type="str"/>' for i in range(len(WORDS)))
    params += '<param name="plain" value="$(var a9)"/><param name="plist" value="[1e5, \'y\']" type="list_of_str"/>'
    heard = arrived(tmp_path, params, {f"a{i}": word for i, word in enumerate(WORDS)})
    assert [heard[f"p{i}"] for i in range(len(WORDS))] == WORDS
    assert heard["plain"] == WORDS[9] == "y"
    assert heard["plist"] == ["1e5", "y"]


@pytest.mark.ros
def test_without_a_type_numbers_are_those_of_rcl(tmp_path: Path) -> None:
    """With quotation marks around all that PyYAML reads as text, `value="1e-3"` would no longer arrive as a number."""
    pytest.importorskip("rclpy")
    words = NUMBERS_TO_RCL_ALONE
    ours = "".join(f'<param name="p{i}" value="{word}"/>' for i, word in enumerate(words))
    file = tmp_path / "bare.yaml"  # as ros2 launch writes them
    file.write_text(yaml.dump({"/**": {"ros__parameters": {f"pbare{i}": word for i, word in enumerate(words)}}}))
    heard = arrived(tmp_path, f'{ours}<param from="{file}"/>', {})
    for i, word in enumerate(words):
        value, bare = heard[f"p{i}"], heard[f"pbare{i}"]
        assert isinstance(value, float), word
        assert value == bare or (math.isnan(value) and math.isnan(float(str(bare)))), word


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("010", 8), ("1:30", 90), ("1_0.5", 10.5), (".inf", math.inf), ("on", True), ("'1e5'", "1e5")],
)
def test_what_yaml_knows_stays_as_it_is(text: str, value: object) -> None:
    assert rcl_yaml.load(text) == value
    assert type(rcl_yaml.load(text)) is type(value)


def test_numbers_and_truths_are_written_plain(tmp_path: Path) -> None:
    file = tmp_path / "x.launch.xml"
    params = '<param name="s" value="1" type="str"/><param name="i" value="1"/><param name="b" value="yes"/>'
    file.write_text(f'<launch><node pkg="probes" exec="probe">{params}</node></launch>')
    (process,) = make_plan(file, {}, workspace(tmp_path / "prefix")).processes
    lines = [word.content.splitlines()[-1] for word in process.command if isinstance(word, TemporaryFile)]
    assert lines == ['    s: "1"', "    i: 1", "    b: true"]
