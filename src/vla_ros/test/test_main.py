"""How nodes start and end, as processes."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.ros

NODE = textwrap.dedent(
    """
    import sys
    from rclpy.node import Node
    from std_msgs.msg import String
    from vla_core.errors import ConfigError
    from vla_ros.main import Exit, run

    class Talker(Node):
        def __init__(self):
            super().__init__("talker")
            if "broken" in sys.argv:
                raise ConfigError("parameter 'x' is 1; allowed: 2")
            if "defect" in sys.argv:
                raise ZeroDivisionError
            self.publisher = self.create_publisher(String, "words", 10)
            self.create_timer(600.0, lambda: None)  # nothing happens for a long time
            if "exit" in sys.argv:
                self.create_timer(0.01, self.leave)
            print("ready", flush=True)

        def leave(self):
            raise Exit("the nucleus is gone", 7)

        def destroy_node(self):
            self.publisher.publish(String(data="goodbye"))  # raises once the context has ended
            print("last word said", flush=True)
            super().destroy_node()

    sys.exit(run(Talker))
    """
)


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", NODE, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": "57"},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_idle_node_which_can_still_publish(number: signal.Signals) -> None:
    """rclpy's handlers end the context first: the arm was not brought to rest on SIGTERM."""
    process = start()
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert output == "last word said\n"
    assert process.returncode == 0, errors
    assert errors == ""


def test_a_configuration_error_is_one_line_and_code_2() -> None:
    output, errors = (process := start("broken")).communicate(timeout=20)
    assert (output, errors, process.returncode) == ("", "error: parameter 'x' is 1; allowed: 2\n", 2)


def test_a_defect_leaves_its_traceback_and_code_1() -> None:
    _, errors = (process := start("defect")).communicate(timeout=20)
    assert "ZeroDivisionError" in errors
    assert process.returncode == 1


def test_a_callback_ends_the_node_in_good_order_with_a_code_of_its_own() -> None:
    output, errors = (process := start("exit")).communicate(timeout=20)
    assert (output, errors) == ("ready\nlast word said\n", "error: the nucleus is gone\n")
    assert process.returncode == 7
