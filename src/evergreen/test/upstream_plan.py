"""Prints what upstream's ros2 launch would run, as JSON, without running it. A script for test_launch_upstream.py.

It needs ros2/launch and ros2/launch_ros on the PYTHONPATH, with their installed metadata and share folders.
"""

import json
import sys
import types
from pathlib import Path
from unittest import mock


def main() -> int:
    """Usage: upstream_plan.py FILE [name:=value …]."""
    # Only load_composable_nodes needs it, and PyPI does not have it.
    services = types.ModuleType("composition_interfaces.srv")
    services.LoadNode = type("LoadNode", (), {"Request": None, "Response": None})
    interfaces = types.ModuleType("composition_interfaces")
    interfaces.srv = services
    sys.modules |= {"composition_interfaces": interfaces, "composition_interfaces.srv": services}

    from launch.actions.execute_local import ExecuteLocal  # noqa: PLC0415  after the stand-ins
    from ros2launch.api import api  # noqa: PLC0415

    recorded = []

    def record(self, context):
        self.prepare(context)
        command = [_content(word) for word in self.cmd]
        recorded.append(
            {
                "name": self.name,
                "command": command,
                "cwd": self.cwd,
                "env": dict(self.env),
                "output": self._ExecuteLocal__output[0].text if self._ExecuteLocal__output else "log",
                "respawn": self._ExecuteLocal__respawn,
                "respawn_delay_s": self._ExecuteLocal__respawn_delay or 0.0,
                "respawn_limit": self._ExecuteLocal__respawn_max_retries,
                "required": bool(self._ExecuteLocal__on_exit),
            }
        )

    with mock.patch.object(ExecuteLocal, "execute", record):
        code = api.launch_a_launch_file(
            launch_file_path=sys.argv[1], launch_file_arguments=sys.argv[2:], noninteractive=True
        )
    print("PLAN " + json.dumps(recorded))
    return code


def _content(word: str) -> object:
    return {"file": Path(word).read_text()} if "launch_params_" in word else word


if __name__ == "__main__":
    sys.exit(main())
