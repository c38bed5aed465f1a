"""What changes while the actions of a launch file are gone through, and what substitutions look into."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from evergreen.launch import names
from evergreen.launch.actions import Action
from evergreen.launch.errors import LaunchError, Place
from evergreen.launch.packages import PackageIndex
from evergreen.launch.plan import ProcessPlan
from evergreen.launch.substitutions import Template, as_bool, as_condition, evaluate

NAMESPACE = "ros_namespace"
"""The launch configuration in which launch_ros keeps the namespace pushed so far."""


@dataclass(slots=True)
class Context:
    """The `Scope` of substitutions.

    Attributes:
        file: the launch file that ros2 launch takes for the current one.
        environment: as `set_env` left it.
        variables: launch configurations.
        processes: those found so far.
        known: names of launch configurations that were declared or asked for.
    """

    file: Path
    environment: dict[str, str]
    variables: dict[str, str]
    processes: list[ProcessPlan] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def variable(self, name: str) -> str | None:
        """A launch configuration, or None."""
        self.known.add(name)
        return self.variables.get(name)

    def prefix(self, package: str) -> Path:
        """Install prefix of a package; LaunchError where it is not installed."""
        return PackageIndex.of(self.environment).prefix(package)

    def executable(self, package: str, name: str) -> Path:
        """An executable of a package; LaunchError where it is not installed."""
        return PackageIndex.of(self.environment).executable(package, name)

    def text(self, template: Template, place: Place) -> str:
        """The template with its substitutions made."""
        try:
            return evaluate(template, self, place)
        except LaunchError as error:
            raise placed(error, place) from error

    def truth(self, template: Template | None, name: str, place: Place) -> bool:
        """A template that stands for true or false; False where there is none."""
        if template is None:
            return False
        try:
            return as_bool(self.text(template, place))
        except ValueError as error:
            raise place.error(f"{name}: {error}") from error

    def namespace_below(self, namespace: str | None, place: Place) -> str | None:
        """The absolute namespace of `namespace` below those pushed so far; None where there is neither."""
        whole = names.absolute(names.join(self.variables.get(NAMESPACE), namespace))
        if whole is not None:
            try:
                names.check_namespace(whole)
            except ValueError as error:
                raise place.error(str(error)) from error
        return whole

    def holds(self, action: Action) -> bool:
        """Whether the action's condition lets it happen."""
        condition = action.condition
        if condition is None:
            return True
        try:
            return as_condition(self.text(condition.template, action.place)) == condition.wanted
        except ValueError as error:
            raise action.place.error(str(error)) from error


def placed(error: LaunchError, place: Place) -> LaunchError:
    """The error with its place in front, unless it has one."""
    return error if str(error).startswith(str(place.file)) else place.error(str(error))
