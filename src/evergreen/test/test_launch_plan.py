"""From launch files to command lines: scopes, includes, conditions, parameters, and what is refused."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from evergreen.launch.declared import declared_arguments
from evergreen.launch.errors import LaunchError
from evergreen.launch.expand import make_plan
from evergreen.launch.packages import PackageIndex, find_launch_file, with_workspace
from evergreen.launch.plan import LaunchPlan, ProcessPlan, TemporaryFile


def install(prefix: Path, package: str, *executables: str) -> None:
    """Make a package as colcon installs one."""
    marker = prefix / "share/ament_index/resource_index/packages" / package
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()
    (prefix / "share" / package).mkdir(parents=True, exist_ok=True)
    for name in executables:
        path = prefix / "lib" / package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    folder = tmp_path / "prefix"
    install(folder, "evergreen_bringup")
    install(folder, "pkg", "run", "walk")
    return folder


class Maker:
    """Writes launch files and plans them in a small environment."""

    def __init__(self, folder: Path, prefix: Path) -> None:
        self.folder = folder
        self.environment = {"AMENT_PREFIX_PATH": str(prefix), "HOME": "/home/me"}

    def write(self, body: str, name: str = "main.launch.xml") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<launch>{dedent(body)}</launch>\n")
        return path

    def plan(self, body: str, arguments: Mapping[str, str] | None = None) -> LaunchPlan:
        return make_plan(self.write(body), arguments, self.environment)

    def only(self, body: str, arguments: Mapping[str, str] | None = None) -> ProcessPlan:
        (process,) = self.plan(body, arguments).processes
        return process

    def parameters(self, params: str, arguments: Mapping[str, str] | None = None) -> dict[str, object]:
        """All parameters that a node with these elements gets."""
        values: dict[str, object] = {}
        for word in self.only(f'<node pkg="pkg" exec="run">{params}</node>', arguments).command:
            if isinstance(word, TemporaryFile):
                values |= yaml.safe_load(word.content)["/**"]["ros__parameters"]
        return values


@pytest.fixture
def maker(tmp_path: Path, prefix: Path) -> Maker:
    return Maker(tmp_path, prefix)


# --- command lines ---------------------------------------------------------------------------------------------------


def test_node_command_line(maker: Maker, prefix: Path) -> None:
    process = maker.only(
        """
        <arg name="port" default="/dev/tty0"/>
        <node pkg="pkg" exec="run" name="driver" namespace="arm" args="--port $(var port) 'two words'"
              ros_args="--log-level debug" output="screen">
          <remap from="a" to="b"/>
        </node>"""
    )
    program = str(prefix / "lib/pkg/run")
    assert process.command == (
        *(program, "--port", "/dev/tty0", "two words", "--ros-args", "--log-level", "debug"),
        *("--ros-args", "-r", "__node:=driver", "-r", "__ns:=/arm", "-r", "a:=b"),
    )
    assert (process.name, process.node, process.output) == ("run-1", "/arm/driver", "screen")


def test_words_of_a_command_line_stick_to_substitutions(maker: Maker) -> None:
    process = maker.only("""<let name="x" value="a b"/><executable cmd="prog  --x=$(var x)/y 'q r' $(var x) end"/>""")
    assert process.command == ("prog", "--x=a b/y", "q r", "a b", "end")


def test_prefix_cwd_environment_and_label(maker: Maker) -> None:
    process = maker.only(
        """
        <set_env name="OUTER" value="1"/>
        <unset_env name="HOME"/>
        <executable cmd="prog" name="label" cwd="/tmp" launch-prefix="nice -n 5">
          <env name="INNER" value="$(env OUTER)2"/>
        </executable>"""
    )
    assert process.command == ("nice", "-n", "5", "prog")
    assert (process.name, process.cwd) == ("label-1", "/tmp")
    assert (process.environment["OUTER"], process.environment["INNER"]) == ("1", "12")
    assert "HOME" not in process.environment


def test_process_traits(maker: Maker) -> None:
    process = maker.only(
        """<executable cmd="prog" respawn="$(not false)" respawn_delay="1.5" respawn_max_retries="3" on_exit="shutdown"
             sigterm_timeout="2" sigkill_timeout="0.5"/>"""
    )
    assert (process.respawn, process.respawn_delay_s, process.respawn_limit, process.required) == (True, 1.5, 3, True)
    assert (process.sigterm_after_s, process.sigkill_after_s) == (2.0, 0.5)
    plain = maker.only('<executable cmd="prog"/>')
    assert (plain.respawn, plain.respawn_limit, plain.required, plain.output) == (False, -1, False, "log")
    assert (plain.sigterm_after_s, plain.sigkill_after_s) == (5.0, 5.0)


# --- scopes, conditions, includes ------------------------------------------------------------------------------------


def test_groups_scope_configurations_environment_and_namespace(maker: Maker) -> None:
    plan = maker.plan(
        """
        <let name="x" value="outside"/>
        <group>
          <let name="x" value="inside"/>
          <set_env name="E" value="inside"/>
          <push_ros_namespace namespace="left"/>
          <push_ros_namespace namespace="arm"/>
          <node pkg="pkg" exec="run" args="$(var x) $(env E none)"/>
        </group>
        <node pkg="pkg" exec="run" args="$(var x) $(env E none)"/>
        <group scoped="false"><let name="x" value="stays"/></group>
        <node pkg="pkg" exec="run" args="$(var x)"/>"""
    )
    inside, outside, after = (process.command[1:] for process in plan.processes)
    assert inside == ("inside", "inside", "--ros-args", "-r", "__ns:=/left/arm")
    assert outside == ("outside", "none", "--ros-args")
    assert after[0] == "stays"


@pytest.mark.parametrize(
    ("value", "names"), [("true", ["a-1"]), ("1", ["a-1"]), ("false", ["b-1"]), (" FALSE ", ["b-1"])]
)
def test_conditions(maker: Maker, value: str, names: list[str]) -> None:
    plan = maker.plan(
        """<arg name="c"/><executable cmd="a" if="$(var c)"/><group unless="$(var c)"><executable cmd="b"/></group>""",
        {"c": value},
    )
    assert [process.name for process in plan.processes] == names


def test_include_passes_arguments_and_keeps_defaults_for_the_rest(maker: Maker) -> None:
    maker.write(
        """<arg name="given"/><arg name="open" default="default"/>
        <executable cmd="$(dirname)/p $(var given) $(var open)"/>""",
        "inner.launch.xml",
    )
    process = maker.only(
        """<arg name="v" default="7"/>
        <include file="$(dirname)/inner.launch.xml"><arg name="given" value="$(var v)"/></include>"""
    )
    assert process.command == (f"{maker.folder}/p", "7", "default")


def test_include_of_a_package(maker: Maker, prefix: Path) -> None:
    (prefix / "share/pkg/launch").mkdir()
    (prefix / "share/pkg/launch/inner.launch.xml").write_text('<launch><executable cmd="p"/></launch>')
    process = maker.only('<include file="$(find-pkg-share pkg)/launch/inner.launch.xml"/>')
    assert process.place.file == prefix / "share/pkg/launch/inner.launch.xml"
    assert find_launch_file("pkg", "inner.launch.xml", maker.environment) == process.place.file


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        ('name="p" value="1"', 1),
        ('name="p" value="1.5"', 1.5),
        ('name="p" value="true"', True),
        ('name="p" value="on"', True),
        ('name="p" value="text"', "text"),
        ('name="p" value="y"', "y"),
        ('name="p" value="1e-3"', 0.001),
        ('name="p" value=""', ""),
        ('name="p" value="\'5\'"', "5"),
        ('name="p" value="1" type="str"', "1"),
        ('name="p" value="1" type="float"', 1.0),
        ('name="p" value="1" type="bool"', True),
        ('name="p" value="$(var n)"', 3),
        ('name="p" value="$(var n)" type="str"', "3"),
        ('name="p" value="$(var n)" type="float"', 3.0),
        ('name="p" value="$(var n)$(var n)"', 33),
        ('name="p" value="a/$(var n)"', "a/3"),
        ('name="p" value="[1, 2]"', [1, 2]),
        ('name="p" value="[1.0, 2.5]"', [1.0, 2.5]),
        ('name="p" value="[a, \'$(var n)s\']"', ["a", "3s"]),
        ('name="p" value="1;2" value-sep=";"', [1, 2]),
        ('name="p" value="1;$(var n)" value-sep=";" type="list_of_str"', ["1", "3"]),
        ('name="p" value="$(var list)"', [4, 5]),
        ('name="$(var name)" value="2"', 2),
    ],
)
def test_parameter_types_follow_yaml(maker: Maker, param: str, expected: object) -> None:
    arguments = {"n": "3", "list": "[4, 5]", "name": "p"}
    plan_arguments = "".join(f'<arg name="{name}"/>' for name in arguments)
    process = maker.only(f'{plan_arguments}<node pkg="pkg" exec="run"><param {param}/></node>', arguments)
    (word,) = (word for word in process.command if isinstance(word, TemporaryFile))
    value = yaml.safe_load(word.content)["/**"]["ros__parameters"]["p"]
    assert value == expected
    assert type(value) is type(expected)


def test_nested_parameters_are_joined_with_dots(maker: Maker) -> None:
    values = maker.parameters(
        """<param name="a"><param name="b" value="1"/><param name="c"><param name="d" value="x"/></param></param>"""
    )
    assert values == {"a.b": 1, "a.c.d": "x"}


def test_parameters_belong_to_the_node_where_its_full_name_is_given(maker: Maker) -> None:
    process = maker.only('<node pkg="pkg" exec="run" name="n" namespace=""><param name="p" value="1"/></node>')
    (word,) = (word for word in process.command if isinstance(word, TemporaryFile))
    assert yaml.safe_load(word.content) == {"/n": {"ros__parameters": {"p": 1}}}


def test_parameter_files_are_passed_on_or_filled_in(maker: Maker, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("/**: {ros__parameters: {home: $(env HOME)}}\n")
    plain = maker.only(f'<node pkg="pkg" exec="run"><param from="{file}"/></node>')
    assert plain.command[-2:] == ("--params-file", str(file))
    filled = maker.only(f'<node pkg="pkg" exec="run"><param from="{file}" allow_substs="true"/></node>')
    assert filled.command[-1] == TemporaryFile("/**: {ros__parameters: {home: /home/me}}\n")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "line", "element", "message"),
    [
        ("\n<nod pkg='p' exec='e'/>", 2, "nod", "unknown element; did you mean <node>?"),
        ("\n\n<lifecycle_node pkg='p' exec='e'/>", 3, "lifecycle_node", "unknown element"),
        ("<node pkg='p'/>", 1, "node", "attribute 'exec' is missing"),
        ("<node pkg='pkg' exec='run' nmae='x'/>", 1, "node", "unknown attribute 'nmae'"),
        ("<node pkg='pkg' exec='run'>\n<parm name='p' value='1'/></node>", 2, "parm", "unknown element in <node>"),
        ("<executable cmd='ls' shell='true'/>", 1, "executable", "never go through a shell"),
        ("<executable cmd=''/>", 1, "executable", "cmd is empty"),
        ("<executable cmd='ls' if='true' unless='true'/>", 1, "executable", "exclude each other"),
        ("<executable cmd='ls' if='maybe'/>", 1, "executable", "'maybe' is no condition"),
        ("<executable cmd='ls' on_exit='restart'/>", 1, "executable", "allowed: shutdown"),
        ("<executable cmd='ls' respawn='often'/>", 1, "executable", "respawn: 'often' is neither true nor false"),
        ("<executable cmd='ls' respawn_delay='-1'/>", 1, "executable", "a number of seconds of 0 or more"),
        ("<executable cmd='ls' output='loud'/>", 1, "executable", "output is 'loud'; allowed: screen"),
        ('<executable cmd="ls \'x"/>', 1, "executable", "No closing quotation"),
        ("<node pkg='nope' exec='run'/>", 1, "node", "package 'nope' is not installed"),
        ("<node pkg='pgk' exec='run'/>", 1, "node", "did you mean 'pkg'?"),
        ("<node pkg='pkg' exec='fly'/>", 1, "node", "has no executable 'fly'"),
        ("<node pkg='pkg' exec='run' name='a-b'/>", 1, "node", "'a-b' is no node name"),
        ("<node pkg='pkg' exec='run' namespace='1x'/>", 1, "node", "'/1x' is no namespace"),
        ("<arg name='needed' description='the port'/>", 1, "arg", "'needed' (the port) must be given"),
        ("<arg name='c' default='x'><choice value='a'/></arg>", 1, "arg", "is 'x'; allowed: a"),
        ("<include file='other.launch.xml'/>", 1, "include", "is relative"),
        ("<include file='$(dirname)/none.launch.xml'/>", 1, "include", "does not exist"),
        ("<node pkg='pkg' exec='run'><param name='p' value='{a: 1}'/></node>", 1, "param", "is dict to YAML"),
        ("<node pkg='pkg' exec='run'><param name='p' value='[1, a]'/></node>", 1, "param", "mixes types"),
        ("<node pkg='pkg' exec='run'><param name='p' value='x' type='int'/></node>", 1, "param", "'x' is no int"),
        (
            "<node pkg='pkg' exec='run'><param name='p' value='1' type='long'/></node>",
            1,
            "param",
            "unknown type 'long'",
        ),
        ("<node pkg='pkg' exec='run'><param name='p'/></node>", 1, "param", "either a value or nested"),
        ("<node pkg='pkg' exec='run'><param name='p' from='f'/></node>", 1, "param", "exclude each other"),
        ("<node pkg='pkg' exec='run'><param from='/none.yaml'/></node>", 1, "param", "/none.yaml does not exist"),
    ],
)
def test_errors_name_file_line_and_element(maker: Maker, body: str, line: int, element: str, message: str) -> None:
    with pytest.raises(LaunchError, match=re.escape(message)) as caught:
        maker.plan(body)
    assert str(caught.value).startswith(f"{maker.folder}/main.launch.xml:{line}: <{element}>: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<launch><node></launch>", ":1: no well-formed XML: mismatched tag"),
        ("<robot/>", "outermost element is <launch>"),
        ("<launch>\nhello</launch>", ":2: text 'hello' between elements"),
        ('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><launch/>', "entities are not allowed"),
    ],
)
def test_refuses_other_documents(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.launch.xml"
    path.write_text(content)
    with pytest.raises(LaunchError, match=re.escape(message)):
        make_plan(path, environment={})


def test_refuses_python_launch_files_and_missing_ones(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="needs `ros2 launch`"):
        make_plan(tmp_path / "x.launch.py", environment={})
    with pytest.raises(LaunchError, match="No such file"):
        make_plan(tmp_path / "x.launch.xml", environment={})


def test_refuses_endless_includes(maker: Maker) -> None:
    with pytest.raises(LaunchError, match="does it include itself"):
        maker.plan('<include file="$(filename)"/>')


def test_refuses_arguments_that_nothing_takes(maker: Maker) -> None:
    body = '<arg name="port" default=""/><group if="false"><arg name="hidden" default=""/></group>'
    maker.plan(body, {"hidden": "known, though not used this time"})
    with pytest.raises(LaunchError, match=r"'prot' is unknown to main.launch.xml; did you mean 'port'\?"):
        maker.plan(body, {"prot": "/dev/tty0"})


# --- declared arguments and packages ---------------------------------------------------------------------------------


def test_declared_arguments_include_those_left_open_by_includes(maker: Maker) -> None:
    maker.write(
        '<arg name="given"/><arg name="left" default="$(var nothing \'a b\')" description="left open"/>',
        "in.launch.xml",
    )
    path = maker.write(
        """<arg name="own"><choice value="a"/><choice value="b"/></arg>
        <include file="$(dirname)/in.launch.xml"><arg name="given" value="1"/></include>"""
    )
    own, left = declared_arguments(path, maker.environment)
    assert (own.name, own.default, own.choices) == ("own", None, ("a", "b"))
    assert (left.name, left.default, left.description) == ("left", "$(var nothing 'a b')", "left open")


def test_workspace_is_found_from_a_folder_below_it(tmp_path: Path) -> None:
    """Isolated install folders, with the hooks that a linked build needs."""
    workspace = tmp_path / "ws"
    for package in ("evergreen_bringup", "other"):
        install(workspace / "install" / package, package, "run")
        share = workspace / "install" / package / "share" / package
        (share / "package.dsv").write_text("source;share/other/hook/pythonpath.sh\nsource;../../build/x.dsv\n")
    hook = workspace / "install/other/share/other/hook"
    hook.mkdir()
    (hook / "pythonpath.dsv").write_text("prepend-non-duplicate;PYTHONPATH;lib/site-packages\n")
    below = workspace / "src/deep"
    below.mkdir(parents=True)
    environment = with_workspace({"PYTHONPATH": "/mine"}, below)
    index = PackageIndex.of(environment)
    assert index.executable("other", "run") == workspace / "install/other/lib/other/run"
    assert environment["PYTHONPATH"].split(os.pathsep) == [f"{workspace}/install/other/lib/site-packages", "/mine"]
    if Path(sys.prefix, "share/ament_index").is_dir():
        assert index.prefixes[-1] == Path(sys.prefix)


def test_a_sourced_workspace_stays_as_it_is(prefix: Path) -> None:
    environment = with_workspace({"AMENT_PREFIX_PATH": f"{prefix}{os.pathsep}{sys.prefix}"})
    assert environment["AMENT_PREFIX_PATH"] == f"{prefix}{os.pathsep}{sys.prefix}"


def test_says_how_to_build_where_nothing_is_installed() -> None:
    with pytest.raises(LaunchError, match="AMENT_PREFIX_PATH is empty: build the workspace with `make build`"):
        PackageIndex.of({}).prefix("vla_sim")
