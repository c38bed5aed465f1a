"""The node's parameters: what may be set while it runs, and which of them together ask for another model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.parameter import Parameter

from vla_core.errors import EvergreenError
from vla_core.swap import SwapRequest
from vla_policy.settings import ACTIVE_MODEL, CHANGEABLE, REQUEST, Settings, objection, requested
from vla_ros.params import declare


class Parameters:
    """Those of one node."""

    def __init__(self, node: Any) -> None:
        """Declare them.

        Raises:
            ConfigError: one has the wrong type, or lies outside its bounds.
        """
        self._node = node
        self.settings: Settings = declare(node, Settings, read_only=False)
        node.declare_parameter(ACTIVE_MODEL, "", ParameterDescriptor(description="what runs: name@version (read-only)"))
        self._active = ""
        self._is_undecided = False

    def listen(self, ask: Callable[[SwapRequest], None]) -> None:
        """Judge what is set from now on, and let `ask` hear of requests, in the executor's thread."""
        self._ask = ask
        self._node.add_on_set_parameters_callback(self._judge)
        self._node.add_post_set_parameters_callback(self._after)

    def present(self, names: Sequence[str]) -> dict[str, Any]:
        """Their values."""
        return {name: self._node.get_parameter(name).value for name in names}

    def wanted(self) -> dict[str, Any]:
        """What may be changed for the next configure, without what a request asks for that is not decided yet.

        A model is verified and judged before it may drive: no transition must take up what a swap has not let pass.
        """
        names = CHANGEABLE - set(REQUEST) if self._is_undecided else CHANGEABLE
        return self.present(sorted(names))

    def set(self, **values: str) -> None:
        """Set what nobody else does."""
        self._node.set_parameters([Parameter(name, value=value) for name, value in values.items()])

    def show_active(self, label: str) -> None:
        """Let `active_model` say so."""
        if self._active != label:
            self._active = label
            self.set(**{ACTIVE_MODEL: label})

    def _judge(self, given: list[Parameter]) -> SetParametersResult:
        reasons = [objection(one.name, one.value, self._active) for one in given]
        try:
            self._request(given)
        except EvergreenError as error:
            reasons.append(str(error))
        return SetParametersResult(successful=not any(reasons), reason="; ".join(filter(None, reasons)))

    def _after(self, given: list[Parameter]) -> None:
        request = self._request(given)
        if request is not None or any(one.name in REQUEST for one in given):
            self._is_undecided = request is not None
        if request is not None:
            self._ask(request)

    def _request(self, given: list[Parameter]) -> SwapRequest | None:
        values = {one.name: one.value for one in given}
        return requested(self.present(REQUEST) | values) if values.get("request_id") else None
