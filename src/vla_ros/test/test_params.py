"""Parameters from a dataclass, on a real node."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import rclpy
from rclpy.node import Node

from vla_core.errors import ConfigError
from vla_ros.params import declare, param, table

pytestmark = pytest.mark.ros


@dataclass(frozen=True, slots=True)
class Settings:
    rate_hz: float = param(100.0, "rate of the loop", unit="Hz", minimum=10, maximum=1000)
    retries: int = param(3, "tries before giving up", minimum=0, maximum=10)
    mode: str = param("hold", "what to do at the end", choices=("hold", "limp"))
    autostart: bool = param(False, "start at once")


@pytest.fixture
def make_node() -> Iterator[object]:
    nodes: list[Node] = []
    contexts: list[rclpy.Context] = []

    def make(*overrides: str) -> Node:
        context = rclpy.Context()
        arguments = ["--ros-args", *(word for override in overrides for word in ("-p", override))]
        rclpy.init(args=arguments, context=context)
        node = Node("loop", context=context)
        contexts.append(context)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()
    for context in contexts:
        context.shutdown()


def test_defaults_and_overrides(make_node) -> None:
    assert declare(make_node(), Settings) == Settings()
    assert declare(make_node("rate_hz:=50.5", "autostart:=true"), Settings) == Settings(rate_hz=50.5, autostart=True)


def test_a_whole_number_is_a_float_too(make_node) -> None:
    """Was refused by rclpy's static typing: `rate_hz: 50` in a YAML file is an integer."""
    assert declare(make_node("rate_hz:=50"), Settings).rate_hz == 50.0


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rate_hz:=5", "'rate_hz' is 5.0, below its least value 10 Hz"),
        ("rate_hz:=fast", "'rate_hz' must be a number, not 'fast'"),
        ("mode:=drop", "'mode' is 'drop'; allowed: hold, limp"),
        ("retries:=many", "retries"),
        ("retries:=11", "retries"),
    ],
)
def test_bad_values_name_parameter_and_cure(make_node, override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match="node loop") as caught:
        declare(make_node(override), Settings)
    assert expected in str(caught.value)


def test_the_description_carries_unit_and_choices(make_node) -> None:
    node = make_node()
    declare(node, Settings)
    assert node.describe_parameter("rate_hz").description == "rate of the loop [Hz]"
    assert "| `mode` | str | `hold` |" in table(Settings)
