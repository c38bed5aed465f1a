"""Transitions that take long, on a real node."""

import threading
from collections.abc import Iterator

import pytest
import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node

from vla_ros.lifecycle import BackgroundLifecycleNode

pytestmark = pytest.mark.ros
TIMEOUT_S = 20.0


class Slow(BackgroundLifecycleNode):
    def __init__(self) -> None:
        super().__init__("slow")
        self.may_finish = threading.Event()
        self.ticks = threading.Semaphore(0)
        self.create_timer(0.02, self.ticks.release)

    def on_configure(self, state: object) -> TransitionCallbackReturn:
        self.may_finish.wait(TIMEOUT_S)
        return TransitionCallbackReturn.SUCCESS


@pytest.fixture
def nodes() -> Iterator[tuple[Slow, Node]]:
    rclpy.init(domain_id=58)
    slow, client = Slow(), Node("client")
    executors = [SingleThreadedExecutor(), SingleThreadedExecutor()]
    threads = []
    for executor, node in zip(executors, (slow, client), strict=True):
        executor.add_node(node)
        threads.append(threading.Thread(target=executor.spin, daemon=True))
        threads[-1].start()
    yield slow, client
    slow.may_finish.set()
    for executor, thread in zip(executors, threads, strict=True):
        executor.shutdown()
        thread.join(TIMEOUT_S)
    slow.destroy_node()
    client.destroy_node()
    rclpy.try_shutdown()


def test_a_node_answers_while_a_service_makes_it_load(nodes: tuple[Slow, Node]) -> None:
    """The transition's service kept the default callback group busy: timers and get_state waited for the model."""
    slow, client = nodes
    change = client.create_client(ChangeState, "slow/change_state")
    state = client.create_client(GetState, "slow/get_state")
    assert change.wait_for_service(TIMEOUT_S)
    assert state.wait_for_service(TIMEOUT_S)
    asked = change.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
    while slow.ticks.acquire(blocking=False):
        pass
    answer = state.call(GetState.Request(), timeout_sec=TIMEOUT_S)
    assert answer is not None
    assert slow.ticks.acquire(timeout=TIMEOUT_S)
    assert not asked.done()
    slow.may_finish.set()
    done = threading.Event()
    asked.add_done_callback(lambda _: done.set())
    assert done.wait(TIMEOUT_S)
    assert asked.result().success
    assert state.call(GetState.Request(), timeout_sec=TIMEOUT_S).current_state.id == State.PRIMARY_STATE_INACTIVE
