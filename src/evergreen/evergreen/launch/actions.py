"""What a launch file says, before any substitution is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evergreen.launch.errors import Place
from evergreen.launch.substitutions import Template
from evergreen.launch.values import Value

SIGTERM_AFTER_S = 5.0
"""From SIGINT to SIGTERM; ros2 launch's default of `sigterm_timeout`."""
SIGKILL_AFTER_S = 5.0
"""From SIGTERM to SIGKILL; ros2 launch's default of `sigkill_timeout`."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`if` or `unless`."""

    template: Template
    wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One element of a launch file."""

    place: Place
    condition: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument(Action):
    """`<arg>` at the top level or in a group: declares a launch argument."""

    name: str
    default: Template | None = None
    description: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Let(Action):
    """`<let>`: sets a launch configuration."""

    name: Template
    value: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Include(Action):
    """`<include>` with the arguments it passes on."""

    file: Template
    arguments: tuple[tuple[Template, Template], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Action):
    """`<group>`: a common condition, and a scope for configurations and environment."""

    actions: tuple[Action, ...]
    scoped: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEnvironment(Action):
    """`<set_env>`, and `<unset_env>` where the value is None."""

    name: Template
    value: Template | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PushNamespace(Action):
    """`<push_ros_namespace>`."""

    namespace: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Process(Action):
    """What nodes and executables have in common.

    Attributes:
        output: where its output goes: screen, log, both, own_log or full.
        prefix: words before the command, for instance a debugger.
        respawn_limit: how often at most; negative is for ever.
        required: its end ends the graph.
        sigterm_after_s: from SIGINT to SIGTERM.
        sigkill_after_s: from SIGTERM to SIGKILL.
    """

    environment: tuple[tuple[Template, Template], ...] = ()
    cwd: Template | None = None
    output: Template | None = None
    prefix: Template | None = None
    respawn: Template | None = None
    respawn_delay_s: float = 0.0
    respawn_limit: int = -1
    required: bool = False
    sigterm_after_s: float = SIGTERM_AFTER_S
    sigkill_after_s: float = SIGKILL_AFTER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Executable(Process):
    """`<executable>`: any program."""

    command: tuple[Template, ...]
    name: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterFile:
    """`<param from=…>`."""

    path: Template
    substitute: Template | None
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """One `<param name=…>`: a value, or by nested elements several whose names are joined with dots."""

    values: Mapping[tuple[Template, ...], tuple[Value, Place]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Process):
    """`<node>`: a ROS node."""

    executable: Template
    package: Template | None = None
    name: Template | None = None
    namespace: Template | None = None
    label: Template | None = None
    arguments: tuple[Template, ...] = ()
    ros_arguments: tuple[Template, ...] | None = None
    remappings: tuple[tuple[Template, Template], ...] = ()
    parameters: tuple[ParameterFile | Parameters, ...] = ()
