"""What Evergreen asks of an AWS IoT Greengrass nucleus: a port, and its errors.

`connect` gives the nucleus that started this component, through AWS's own client. Tests and demos give the same client
a `gg_bridge.testing.StandInNucleus` to talk to. The two nuclei differ: Greengrass Lite asks nobody to validate a
configuration, announces no component updates and has no shadows, which `NucleusError.kind == "unsupported"` says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from vla_core.errors import EvergreenError

ErrorKind: TypeAlias = Literal["gone", "timeout", "denied", "unsupported", "not_found", "other"]
ComponentState: TypeAlias = Literal["RUNNING", "ERRORED"]
KeyPath: TypeAlias = tuple[str, ...]


class NucleusError(EvergreenError):
    """The nucleus is not there, went away, refused a request or does not know it.

    Attributes:
        kind: `gone`: no connection (any more), and none will come back by itself: end with a non-zero exit code, and
            the nucleus starts the component again with a fresh token. `timeout`: it did not answer in time; the
            request may be repeated. `denied`: a void token, or the recipe's access control lacks the operation.
            `unsupported`: this nucleus does not have the operation. `not_found`: there is no such key or shadow.
            `other`: anything else, such as an answer that is malformed.
    """

    def __init__(self, message: str, kind: ErrorKind = "other") -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind


class Nucleus(Protocol):
    """A connection to a nucleus.

    Calls may come from any thread, also from inside a callback, and each returns within the connection's timeout.
    Callbacks all run in one thread, one after the other, in the order in which the nucleus sent what causes them; it
    belongs to the connection. An exception in a callback is logged and ends nothing. Every call may raise
    `NucleusError`.
    """

    def configuration(self, *key_path: str) -> Any:
        """This component's merged configuration, or the value at a key path (a leaf as such, not as `{leaf: value}`).

        Raises:
            NucleusError: kind `not_found` where there is no such key.
        """

    def on_configuration(self, changed: Callable[[KeyPath], None]) -> None:
        """Call `changed` with the key path of every change, once the whole merge can be read.

        A path may name a leaf, a branch above it, or nothing at all (the root): read again what you need. Events may
        be repeated. They begin with the subscription: read the configuration *after* it, or a change can be missed.
        """

    def on_validation(self, judge: Callable[[Mapping[str, Any]], str]) -> None:
        """Call `judge` with a configuration that a deployment would set; "" accepts it, else the reason of refusal.

        The nucleus waits 20 s and then fails the deployment: judge what can be judged without fetching anything.

        Raises:
            NucleusError: kind `unsupported` on Greengrass Lite.
        """

    def on_component_update(self, decide: Callable[[str, bool], int]) -> None:
        """Call `decide` before a deployment stops or replaces components.

        It gets the deployment's id and whether the nucleus itself restarts, and returns for how many milliseconds to
        put the deployment off, after which the nucleus asks again; 0 lets it go on.

        Raises:
            NucleusError: kind `unsupported` on Greengrass Lite.
        """

    def on_gone(self, gone: Callable[[str], None]) -> None:
        """Call `gone` once with the reason when the connection is lost; at once where it is lost already.

        Not called for `close`.
        """

    def report_state(self, state: ComponentState) -> None:
        """Tell the nucleus how the component does; deployments wait for `RUNNING`, `ERRORED` makes it start again."""

    def update_configuration(self, key_path: Sequence[str], value: Mapping[str, Any]) -> None:
        """Merge `value` into this component's own configuration below `key_path`."""

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish to AWS IoT Core over MQTT, quality of service 1."""

    def update_shadow(self, thing: str, name: str, document: Mapping[str, Any]) -> None:
        """Merge `document`, such as `{"state": {"reported": {…}}}`, into a thing's shadow.

        The shadow without a name is `name` "".

        Raises:
            NucleusError: kind `unsupported` on Greengrass Lite, and where the shadow manager is not deployed.
        """

    def close(self) -> None:
        """Hang up; callbacks end. Twice does no harm."""


def connect(timeout_s: float) -> Nucleus:
    """Connect to the nucleus that started this component; `timeout_s` holds for connecting and for each call.

    Raises:
        NucleusError: kind `gone` where the environment names no nucleus or nobody listens there, `denied` where it
            refuses the token, `timeout` where it does not answer.
    """
    try:
        # Only here: AWS's client starts threads of its own, and whoever tests against the port needs none of it.
        from gg_bridge.awsiot_nucleus import connect as connect_with_awsiot  # noqa: PLC0415
    except ImportError as error:
        raise NucleusError(f"AWS's Greengrass client is missing ({error}): pip install awsiotsdk", "gone") from error
    return connect_with_awsiot(os.environ, timeout_s)
