"""Command lines of nodes and executables, word for word as launch and launch_ros make them.

Parameters become files for `--params-file`, one for each `<param>`, under `/**` or, where both the node's name and its
namespace are given, under its full name.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from evergreen.launch import names, rcl_yaml
from evergreen.launch.actions import Executable, Node, ParameterFile, Parameters, Process
from evergreen.launch.context import Context, placed
from evergreen.launch.errors import LaunchError, Place
from evergreen.launch.plan import OUTPUTS, ProcessPlan, TemporaryFile
from evergreen.launch.substitutions import Template, parse
from evergreen.launch.values import ParameterValue, resolve


def plan_process(context: Context, action: Process) -> ProcessPlan:
    """Make the process that a `<node>` or an `<executable>` stands for."""
    place = action.place

    def text(template: Template | None) -> str | None:
        return None if template is None else context.text(template, place)

    if isinstance(action, Node):
        command, node, label = _node(context, action)
    elif isinstance(action, Executable):
        command, node, label = [context.text(word, place) for word in action.command], "", text(action.name)
    else:
        raise TypeError(f"no process: {action!r}")
    prefix = text(action.prefix)
    if prefix:
        command = [*shlex.split(prefix), *command]
    environment = dict(context.environment)
    for name, value in action.environment:
        environment[context.text(name, place)] = context.text(value, place)
    output = text(action.output) or "log"
    if output not in OUTPUTS:
        raise place.error(f"output is {output!r}; allowed: {', '.join(OUTPUTS)}")
    return ProcessPlan(
        name=f"{label or Path(str(command[0])).name}-{len(context.processes) + 1}",
        command=tuple(command),
        environment=environment,
        cwd=text(action.cwd),
        output=output,
        respawn=context.truth(action.respawn, "respawn", place),
        respawn_delay_s=action.respawn_delay_s,
        respawn_limit=action.respawn_limit,
        required=action.required,
        sigterm_after_s=action.sigterm_after_s,
        sigkill_after_s=action.sigkill_after_s,
        node=node,
        place=place,
    )


def _node(context: Context, action: Node) -> tuple[list[str | TemporaryFile], str, str | None]:
    """Command line, full name ('' where it is not given) and label (None where it is not given) of a node."""
    place = action.place
    program = context.text(action.executable, place)
    label = None if action.label is None else context.text(action.label, place)
    if action.package is not None:
        package = context.text(action.package, place)
        try:
            program = str(context.executable(package, program))
        except LaunchError as error:
            raise placed(error, place) from error
    command: list[str | TemporaryFile] = [program, *(context.text(word, place) for word in action.arguments)]
    if action.ros_arguments is not None:
        command += ["--ros-args", *(context.text(word, place) for word in action.ros_arguments)]
    command.append("--ros-args")
    name = None
    if action.name is not None:
        name = context.text(action.name, place)
        try:
            names.check_node_name(name)
        except ValueError as error:
            raise place.error(str(error)) from error
        command += ["-r", f"__node:={name}"]
    given = None if action.namespace is None else context.text(action.namespace, place)
    namespace = context.namespace_below(given, place)
    if namespace is not None:
        command += ["-r", f"__ns:={namespace}"]
    full_name = "" if name is None or namespace is None else str(names.join(namespace, name))
    for parameters in action.parameters:
        command += ["--params-file", _parameters(context, parameters, full_name or "/**", place)]
    for old, new in action.remappings:
        command += ["-r", f"{context.text(old, place)}:={context.text(new, place)}"]
    return command, full_name, label


def _parameters(
    context: Context, parameters: ParameterFile | Parameters, owner: str, place: Place
) -> str | TemporaryFile:
    if isinstance(parameters, ParameterFile):
        return _parameter_file(context, parameters)
    values: dict[str, ParameterValue] = {}
    for path, (value, where) in parameters.values.items():
        name = ".".join(context.text(part, where) for part in path)
        try:
            values[name] = resolve(value, context, where)
        except LaunchError as error:
            raise placed(error, place) from error
    return TemporaryFile(rcl_yaml.dump_parameters(owner, values))


def _parameter_file(context: Context, parameters: ParameterFile) -> str | TemporaryFile:
    place = parameters.place
    path = Path(context.text(parameters.path, place))
    if not path.is_file():
        raise place.error(f"parameter file {path} does not exist")
    if not context.truth(parameters.substitute, "allow_substs", place):
        return str(path)
    content = context.text(parse(path.read_text(encoding="utf-8"), place), place)
    try:
        yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise place.error(f"{path} is no YAML after its substitutions: {error}") from error
    return TemporaryFile(content)
