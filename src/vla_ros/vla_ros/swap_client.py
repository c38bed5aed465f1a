"""Asking the policy for another model, and hearing how it goes: the one way for all who do.

client = SwapClient(node)
future = client.request(SwapRequest("pick@3", "deployment-7"))   # rclpy future: taken or not, and why
…spin…
answer = client.answer("deployment-7")                           # SwapStatus once it is over, else None
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.task import Future

from vla_core.swap import SwapRequest, SwapStatus, parse_status
from vla_ros import diagnostics, qos

ASK_AGAIN_S = 2.0
"""A policy takes a request within milliseconds; a machine that is short of breath needs longer."""
KEPT_ANSWERS = 64
"""Whoever asked looks within seconds."""


def parameters(request: SwapRequest) -> list[Parameter]:
    """The request as the parameters that are set together."""
    values = {
        "model": request.model,
        "prompt": request.prompt,
        "swap": str(request.mode),
        "request_id": request.request_id,
    }
    return [
        Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value))
        for name, value in values.items()
    ]


def _ignore(_: SwapStatus) -> None:
    """Nobody listens."""


class SwapClient:
    """Speaks to one policy. Its callbacks run in the executor of the given node."""

    def __init__(self, node: Node, policy: str = "policy", on_status: Callable[[SwapStatus], None] = _ignore) -> None:
        """Take the asking node and the policy's name, relative to its namespace; `on_status` hears every status."""
        self._node = node
        self._on_status = on_status
        self._answers: OrderedDict[str, SwapStatus] = OrderedDict()
        self.status: SwapStatus | None = None
        self._client = node.create_client(SetParametersAtomically, f"{policy}/set_parameters_atomically")
        self._subscription = node.create_subscription(
            DiagnosticStatus, f"{policy}/status", self._hear, qos.POLICY_STATUS
        )

    @property
    def is_ready(self) -> bool:
        """Whether the policy can be asked."""
        return self._client.service_is_ready()

    def request(self, request: SwapRequest) -> Future:
        """Ask; the future's result has `successful` and `reason`: whether the request was taken, not how it went.

        It is asked again until somebody answers: after a crash of the policy, discovery still names the dead one for
        seconds. A policy that hears a request twice swaps once. Cancel the future to give up.
        """
        message = SetParametersAtomically.Request(parameters=parameters(request))
        taken, asked = Future(), []

        def end() -> None:
            self._node.destroy_timer(timer)
            for pending in asked:
                self._client.remove_pending_request(pending)

        def pass_on(answered: Future) -> None:
            if not taken.done():
                taken.set_result(answered.result().result)

        def ask() -> None:
            if taken.done():
                end()
                return
            asked.append(self._client.call_async(message))
            asked[-1].add_done_callback(pass_on)

        timer = self._node.create_timer(ASK_AGAIN_S, ask)
        taken.add_done_callback(lambda _: end())
        ask()
        return taken

    def answer(self, request_id: str) -> SwapStatus | None:
        """How the request ended; None while it has not, or nobody said."""
        return self._answers.get(request_id)

    def close(self) -> None:
        """Let go of the policy."""
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_client(self._client)

    def _hear(self, message: DiagnosticStatus) -> None:
        with contextlib.suppress(ValueError):  # of another release: its other news are none for us
            status = self.status = parse_status(diagnostics.values(message))
            if status.is_over and status.request_id not in self._answers:
                self._answers[status.request_id] = status
                if len(self._answers) > KEPT_ANSWERS:
                    self._answers.popitem(last=False)
            self._on_status(status)
