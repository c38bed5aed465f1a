"""How every Evergreen node starts and ends.

SIGINT and SIGTERM end the process with exit code 0 after `destroy_node`, in which topics and services still work: a
node can say its last word, such as bringing the arm to rest. (rclpy's own handlers end the context first.) An expected
error is printed as one line and ends the process with 2; anything else is a defect and leaves its traceback and exit
code 1.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from vla_core.errors import ConfigError, EvergreenError
from vla_ros.transport import prefer_udp

EXIT_CONFIG = 2
SIGNALS = (signal.SIGINT, signal.SIGTERM)
RCL_SOURCE = re.compile(r", at /\S+:\d+")
"""Where in rcl's own source an error was found."""


def run(
    make_node: Callable[[], Node],
    args: Sequence[str] | None = None,
    make_executor: Callable[[], Executor] = SingleThreadedExecutor,
) -> int:
    """Build one node, spin it until a signal arrives, tidy up, and return the exit code."""
    with stop_signals() as stop:
        try:
            _init(args)
        except ConfigError as error:
            return _refuse(error)
        node: Node | None = None
        executor: Executor | None = None
        try:
            node = make_node()
            executor = make_executor()
            executor.add_node(node)
            stop.then(node.create_guard_condition(_nothing).trigger)
            while not stop.requested:
                executor.spin_once()
        except ExternalShutdownException:
            pass  # somebody called rclpy.shutdown()
        except Exit as end:
            _refuse(end)
            return end.code
        except EvergreenError as error:
            return _refuse(error)
        finally:
            if node is not None:
                node.destroy_node()
            if executor is not None:
                executor.shutdown(timeout_sec=1.0)
            rclpy.try_shutdown()
    return 0


def _init(args: Sequence[str] | None) -> None:
    """Initialise rclpy.

    Raises:
        ConfigError: the command line, a parameter file or the environment is wrong; rcl names the file and the line.
    """
    prefer_udp(rclpy.get_rmw_implementation_identifier())
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except _rclpy.UnknownROSArgsError as error:
        raise ConfigError(f"unknown words after --ros-args: {error}") from error
    except _rclpy.RCLError as error:
        raise ConfigError(f"ROS cannot start: {RCL_SOURCE.sub('', str(error))}") from error


def _refuse(error: EvergreenError) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return EXIT_CONFIG


class Exit(EvergreenError):  # noqa: N818  reads as what it is
    """Raised in a callback: end the node in good order, with this exit code and one line that says why."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class StopRequest:
    """Whether a signal asked to stop, and what wakes the one who waits."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._wake: Callable[[], None] = _nothing

    @property
    def requested(self) -> bool:
        """Whether SIGINT or SIGTERM has come."""
        return self._requested.is_set()

    def then(self, wake: Callable[[], None]) -> None:
        """Call `wake`, from another thread, when a signal comes; at once if one has come."""
        self._wake = wake
        if self.requested:
            wake()

    def request(self) -> None:
        """Ask to stop."""
        self._requested.set()
        self._wake()


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a StopRequest; the former handlers come back afterwards.

    Python runs signal handlers in the main thread, which waits inside rcl with no way out. So the C handler writes a
    byte to a socket (`set_wakeup_fd`), and a thread that reads it does the waking.
    """
    request = StopRequest()
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def listen() -> None:
        while number := reader.recv(1):
            if signal.Signals(number[0]) in SIGNALS:
                request.request()

    old_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    old_handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield request
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_fd)
        writer.close()  # ends the thread
        thread.join()
        reader.close()


def _nothing() -> None:
    """Wakes nobody."""
