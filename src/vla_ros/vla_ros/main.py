"""How every Evergreen node starts and ends.

SIGINT and SIGTERM end the process with exit code 0 after `destroy_node`; an expected error is printed as one line and
ends it with 2; anything else is a defect and leaves its traceback and exit code 1.
"""

from __future__ import annotations

import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
import sys
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from vla_core.errors import EvergreenError

EXIT_CONFIG = 2
RCLError = _rclpy.RCLError
"""What rclpy's C layer raises; rclpy itself gives it no public name."""


def run(
    make_node: Callable[[], Node],
    args: Sequence[str] | None = None,
    make_executor: Callable[[], Executor] = SingleThreadedExecutor,
) -> int:
    """Build one node, spin it until a signal arrives, tidy up, and return the exit code."""
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.ALL)
    node: Node | None = None
    executor: Executor | None = None
    try:
        node = make_node()
        executor = make_executor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_CONFIG
    except RCLError:
        if rclpy.ok():
            raise
        # A signal arrived while the node was being built: rclpy's objects cannot be made in a context that is ending.
    finally:
        if node is not None:
            node.destroy_node()
        if executor is not None:
            executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown()
    return 0
