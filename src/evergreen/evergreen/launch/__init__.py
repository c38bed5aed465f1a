"""Reads standard ROS 2 XML launch files and runs what they say, where ros2 launch is not installed.

`make_plan` turns a file and its arguments into the processes to run, `Launcher` runs them in the background of a
program, and `Supervisor` in an asyncio program. `evergreen launch` is the command. docs/launch.md tells what it reads.
"""

from evergreen.launch.declared import declared_arguments
from evergreen.launch.errors import LaunchError
from evergreen.launch.events import (
    Abandoned,
    Dropped,
    Event,
    Exited,
    GivenUp,
    Leftovers,
    NotSignalled,
    NotStarted,
    Observer,
    Output,
    Respawning,
    Signalled,
    Started,
    Stopping,
)
from evergreen.launch.expand import make_plan
from evergreen.launch.launcher import Launcher
from evergreen.launch.packages import BRINGUP, PackageIndex, find_launch_file, with_workspace
from evergreen.launch.plan import LaunchPlan, ProcessPlan, TemporaryFile
from evergreen.launch.report import Console, LogFolder, all_of, as_json
from evergreen.launch.supervisor import ProcessState, Supervisor
from evergreen.launch.writer import Writer

__all__ = [
    "BRINGUP",
    "Abandoned",
    "Console",
    "Dropped",
    "Event",
    "Exited",
    "GivenUp",
    "LaunchError",
    "LaunchPlan",
    "Launcher",
    "Leftovers",
    "LogFolder",
    "NotSignalled",
    "NotStarted",
    "Observer",
    "Output",
    "PackageIndex",
    "ProcessPlan",
    "ProcessState",
    "Respawning",
    "Signalled",
    "Started",
    "Stopping",
    "Supervisor",
    "TemporaryFile",
    "Writer",
    "all_of",
    "as_json",
    "declared_arguments",
    "find_launch_file",
    "make_plan",
    "with_workspace",
]
