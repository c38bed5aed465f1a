"""A node beside a program of its own: it spins in a thread, and the program keeps the signals."""

from __future__ import annotations

import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from vla_ros.transport import prefer_udp

SPIN_S = 0.1
"""How long the end waits for the thread; tearing down an executor that spins breaks it off with an exception."""
JOIN_S = 5.0

AnyNode = TypeVar("AnyNode", bound=Node)


@contextmanager
def spinning(make_node: Callable[[], AnyNode], namespace: str = "") -> Iterator[AnyNode]:
    """Make the node in `namespace` and spin it until the context is left."""
    ros_args = ["--ros-args", "-r", f"__ns:=/{namespace.strip('/')}"] if namespace.strip("/") else []
    prefer_udp(rclpy.get_rmw_implementation_identifier())
    rclpy.init(args=ros_args, signal_handler_options=SignalHandlerOptions.NO)
    ending = threading.Event()
    node = executor = thread = None
    try:
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(node)

        def spin() -> None:
            try:
                while not ending.is_set():
                    executor.spin_once(timeout_sec=SPIN_S)
            except ExternalShutdownException:
                return

        thread = threading.Thread(target=spin, name="ros", daemon=True)
        thread.start()
        yield node
    finally:
        ending.set()
        if thread is not None:
            thread.join(JOIN_S)
        if executor is not None:
            executor.shutdown(timeout_sec=1.0)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
