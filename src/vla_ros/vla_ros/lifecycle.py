"""A lifecycle node whose transitions may take long: they run in one thread beside the executor, one after the other.

rclpy calls `on_configure` and its kin from the executor, where a model that loads for ten seconds would leave every
parameter, service and diagnostic unanswered for as long.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import rclpy.task
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_srvs.srv import Trigger

Outcome = tuple[bool, str]
"""Success, and a sentence about it."""


Transition = Callable[[Any, Any], TransitionCallbackReturn]


def _nothing() -> None:
    """Notes nothing."""


def reported(transition: Transition) -> Transition:
    """Decorator for `on_configure` and its kin: a defect in one is logged before rclpy turns it into ERROR, mutely."""

    @functools.wraps(transition)
    def wrapper(node: Any, state: Any) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception:
            node.get_logger().error(traceback.format_exc())
            raise

    return wrapper


class BackgroundLifecycleNode(LifecycleNode):
    """Subclasses define `on_configure` and so on as ever; those are called in the transitions' thread."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._transitions = ThreadPoolExecutor(1, thread_name_prefix="transitions")
        change_state = self._service_change_state
        change_state.callback = self._in_background(change_state.callback)
        # rclpy keeps a callback's group busy until its coroutine has ended: in the node's default group, a transition
        # under way would keep every other callback waiting.
        self._long_group = ReentrantCallbackGroup()
        self._long_group.add_entity(change_state)
        change_state.callback_group = self._long_group

    def destroy_node(self) -> None:
        """Let a transition under way end, drop those that wait. Subclasses first make it end soon."""
        self._transitions.shutdown(wait=True, cancel_futures=True)
        super().destroy_node()

    def in_background(self, job: Callable[[], Any]) -> Future[Any]:
        """Run `job` after the transitions that are under way or waiting."""
        return self._transitions.submit(job)

    def create_background_trigger(
        self, name: str, job: Callable[[], Outcome], at_once: Callable[[], None] = _nothing
    ) -> None:
        """A Trigger service whose `job` runs among the transitions; its caller gets the job's outcome.

        `at_once` runs in the executor when the request comes, which may be long before the job's turn.
        """

        def callback(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            response.success, response.message = job()
            return response

        in_background = self._in_background(callback)

        async def noted(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            at_once()
            return await in_background(request, response)

        self.create_service(Trigger, name, noted, callback_group=self._long_group)

    def _in_background(self, callback: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """A service callback that waits for `callback`'s answer without keeping the executor from its work."""

        async def answer(request: Any, response: Any) -> Any:
            executor = self.executor
            done = rclpy.task.Future(executor=executor)

            def finish(job: Future[Any]) -> None:
                if (error := job.exception()) is not None:
                    done.set_exception(error)
                else:
                    done.set_result(job.result())
                executor.wake()

            self._transitions.submit(callback, request, response).add_done_callback(finish)
            return await done

        return answer
