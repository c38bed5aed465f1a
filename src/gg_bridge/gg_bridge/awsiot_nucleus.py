"""The port `gg_bridge.nucleus.Nucleus` over AWS's own client: the only file that knows it.

Three habits of that client shape this file:
- It calls back on its network thread or in an executor. Everything of ours runs in an executor with one thread, so that
  events keep their order and the network thread is never held up.
- It keeps what belongs to a request until the nucleus ends the request's stream, which Greengrass Lite never does: each
  request closes its own stream.
- It does not reconnect, and says that a connection broke only to the lifecycle handler.
"""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from awscrt.exceptions import AwsCrtError
from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup, SocketDomain, SocketOptions
from awsiot.eventstreamrpc import (
    AccessDeniedError,
    Connection,
    ConnectionClosedError,
    LifecycleHandler,
    MessageAmendment,
    StreamClosedError,
)
from awsiot.greengrasscoreipc import model
from awsiot.greengrasscoreipc.client import GreengrassCoreIPCClient
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

from gg_bridge.nucleus import ComponentState, ErrorKind, KeyPath, NucleusError

_LOG = logging.getLogger(__name__)

SOCKET_VARIABLE: Final = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"
TOKEN_VARIABLE: Final = "SVCUID"  # noqa: S105 (the variable's name, not the token)

_SETTLE_S: Final = 1.0
"""A stream that ended without an answer: so long may the news take that the whole connection did."""
_KINDS: Final[tuple[tuple[type[Exception], ErrorKind], ...]] = (
    (ConnectionClosedError, "gone"),
    (TimeoutError, "timeout"),
    (model.UnauthorizedError, "denied"),
    (AccessDeniedError, "denied"),
    (model.ResourceNotFoundError, "not_found"),
)
_NOT_ON_LITE: Final = frozenset(
    {
        "SubscribeToValidateConfigurationUpdates",
        "SendConfigurationValidityReport",
        "SubscribeToComponentUpdates",
        "DeferComponentUpdate",
        "UpdateThingShadow",
    }
)
"""Greengrass Lite refuses these with a ServiceError that has no message, as it does whatever it cannot do just now."""
_FAILURES: Final = (RuntimeError, AwsCrtError, TimeoutError, concurrent.futures.CancelledError)
"""All that the client raises: its own errors derive from RuntimeError."""


def connect(environment: Mapping[str, str], timeout_s: float) -> AwsIotNucleus:
    """See `gg_bridge.nucleus.connect`; `environment` is what the nucleus gave to this process."""
    missing = [name for name in (SOCKET_VARIABLE, TOKEN_VARIABLE) if not environment.get(name)]
    if missing:
        raise NucleusError(
            f"the environment has no {' and no '.join(missing)}: start this as a Greengrass component, "
            "or with python -m gg_bridge.testing as the nucleus",
            "gone",
        )
    path = Path(environment[SOCKET_VARIABLE])
    lifecycle = _Lifecycle()
    connection = _connection(path, environment[TOKEN_VARIABLE], timeout_s)
    lifecycle.answer_ping = connection.send_ping_response
    try:
        connection.connect(lifecycle).result(timeout_s)
    except _FAILURES as error:
        connection.close()
        raise _not_connected(path, error, timeout_s) from error
    executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="nucleus")
    nucleus = AwsIotNucleus(GreengrassCoreIPCClientV2(GreengrassCoreIPCClient(connection), executor), timeout_s)
    lifecycle.watch(nucleus.lost)
    return nucleus


def _connection(path: Path, token: str, timeout_s: float) -> Connection:
    loops = EventLoopGroup(num_threads=1)
    options = SocketOptions()
    options.domain = SocketDomain.Local
    options.connect_timeout_ms = max(1, int(timeout_s * 1000))
    greeting = json.dumps({"authToken": token}).encode()
    return Connection(
        host_name=str(path),
        port=0,  # a Unix socket has none
        bootstrap=ClientBootstrap(loops, DefaultHostResolver(loops)),
        socket_options=options,
        connect_message_amender=lambda: MessageAmendment(payload=greeting),
    )


def _not_connected(path: Path, error: BaseException, timeout_s: float) -> NucleusError:
    if isinstance(error, TimeoutError):
        return NucleusError(f"the nucleus at {path} did not greet back within {timeout_s:g} s", "timeout")
    if not os.path.exists(path):  # noqa: PTH110  Path.exists raises where a folder above may not be searched
        return NucleusError(f"no nucleus at {path}: there is no such socket; is Greengrass running?", "gone")
    name = getattr(error, "name", "")
    if isinstance(error, AccessDeniedError) or "CLOSED" in name:
        # Classic says no, Lite just hangs up.
        cure = "it is void once the nucleus has restarted: end, and let the nucleus start this component again"
        return NucleusError(f"the nucleus at {path} did not take the token in {TOKEN_VARIABLE}; {cure}", "denied")
    return NucleusError(f"nobody listens at {path} ({name or error}); is Greengrass running?", "gone")


class _Lifecycle(LifecycleHandler):  # type: ignore[misc]
    """What happens to the connection, told by the network thread: nothing here may block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: str | None = None
        self._watcher: Callable[[str], None] | None = None
        self.answer_ping: Callable[[MessageAmendment], Any] | None = None

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call `watcher` once the connection is lost, at once where it is already."""
        with self._lock:
            self._watcher = watcher
            lost = self._lost
        if lost is not None:
            watcher(lost)

    def on_disconnect(self, reason: Exception | None) -> None:
        with self._lock:
            self._lost = "it hung up" if reason is None else getattr(reason, "name", "") or str(reason)
            watcher = self._watcher
        if watcher is not None:
            watcher(self._lost)

    def on_error(self, error: Exception) -> bool:
        _LOG.warning("the nucleus sent a protocol error (%s)", type(error).__name__)
        return True

    def on_ping(self, headers: Sequence[Any], payload: bytes) -> None:
        del headers
        if self.answer_ping is not None:
            self.answer_ping(MessageAmendment(payload=payload))


class AwsIotNucleus:
    """See `gg_bridge.nucleus.Nucleus`."""

    def __init__(self, client: GreengrassCoreIPCClientV2, timeout_s: float) -> None:
        self._streams = client
        self._requests = client.client
        self._executor = client.executor
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._closed = False
        self._lost = threading.Event()
        self._reason = ""
        self._gone: list[Callable[[str], None]] = []
        self._subscriptions: list[Any] = []  # only kept alive
        self._callback_thread = 0

    # Configuration

    def configuration(self, *key_path: str) -> Any:
        """See the port."""
        value = self._read(key_path)
        if not key_path or not _is_only_key(value, key_path[-1]):
            return value
        # {leaf: value} is what a leaf looks like, and a branch that has one child of its own name: the parent tells.
        return _child(self._read(key_path[:-1]), key_path)

    def _read(self, key_path: Sequence[str]) -> Mapping[str, Any]:
        request = model.GetConfigurationRequest(key_path=list(key_path))
        answer = self._request("GetConfiguration", self._requests.new_get_configuration, request)
        if not isinstance(answer.value, dict):
            raise NucleusError(f"the nucleus answered GetConfiguration with {answer.value!r} in place of an object")
        return answer.value

    def update_configuration(self, key_path: Sequence[str], value: Mapping[str, Any]) -> None:
        """See the port."""
        request = model.UpdateConfigurationRequest(
            key_path=list(key_path),
            timestamp=_now(),  # Lite demands it; an older one than the key's is ignored
            value_to_merge=dict(value),
        )
        self._request("UpdateConfiguration", self._requests.new_update_configuration, request)

    def on_configuration(self, changed: Callable[[KeyPath], None]) -> None:
        """See the port."""

        def on_event(event: model.ConfigurationUpdateEvents) -> None:
            update = event.configuration_update_event
            path = () if update is None else update.key_path or ()
            changed(tuple(str(key) for key in path))

        self._subscribe("SubscribeToConfigurationUpdate", on_event, key_path=[])

    # Deployments

    def on_validation(self, judge: Callable[[Mapping[str, Any]], str]) -> None:
        """See the port."""

        def on_event(event: model.ValidateConfigurationUpdateEvents) -> None:
            asked = event.validate_configuration_update_event
            if asked is None or asked.deployment_id is None:
                raise NucleusError(f"the nucleus asked to validate {event!r}, without a deployment")
            reason = "it could not be judged"
            try:
                reason = judge(asked.configuration or {})
            except Exception as error:  # whatever it is: the nucleus must hear a no, and not wait for 20 s
                reason = f"it could not be judged: {error}"
                raise
            finally:
                self._report_validity(asked.deployment_id, reason)

        self._subscribe("SubscribeToValidateConfigurationUpdates", on_event)

    def _report_validity(self, deployment: str, reason: str) -> None:
        status = model.ConfigurationValidityStatus
        report = model.ConfigurationValidityReport(
            status=status.REJECTED if reason else status.ACCEPTED, deployment_id=deployment, message=reason
        )
        request = model.SendConfigurationValidityReportRequest(configuration_validity_report=report)
        make = self._requests.new_send_configuration_validity_report
        self._request("SendConfigurationValidityReport", make, request)

    def on_component_update(self, decide: Callable[[str, bool], int]) -> None:
        """See the port."""

        def on_event(event: model.ComponentUpdatePolicyEvents) -> None:
            update = event.pre_update_event
            if update is None:  # a post-update event
                return
            defer_ms = 0
            try:
                defer_ms = decide(update.deployment_id or "", bool(update.is_ggc_restarting))
            finally:
                request = model.DeferComponentUpdateRequest(
                    deployment_id=update.deployment_id, recheck_after_ms=defer_ms
                )
                self._request("DeferComponentUpdate", self._requests.new_defer_component_update, request)

        self._subscribe("SubscribeToComponentUpdates", on_event)

    # Telling

    def report_state(self, state: ComponentState) -> None:
        """See the port."""
        request = model.UpdateStateRequest(state=state)
        self._request("UpdateState", self._requests.new_update_state, request)

    def publish(self, topic: str, payload: bytes) -> None:
        """See the port."""
        request = model.PublishToIoTCoreRequest(topic_name=topic, qos=model.QOS.AT_LEAST_ONCE, payload=payload)
        self._request("PublishToIoTCore", self._requests.new_publish_to_iot_core, request)

    def update_shadow(self, thing: str, name: str, document: Mapping[str, Any]) -> None:
        """See the port."""
        request = model.UpdateThingShadowRequest(
            thing_name=thing, shadow_name=name or None, payload=json.dumps(document).encode()
        )
        self._request("UpdateThingShadow", self._requests.new_update_thing_shadow, request)

    # The connection

    def on_gone(self, gone: Callable[[str], None]) -> None:
        """See the port."""
        with self._lock:
            self._gone.append(gone)
            late = self._lost.is_set()
        if late:
            self._submit(gone, self._reason)

    def lost(self, reason: str) -> None:
        """The network thread says that the connection is no more."""
        with self._lock:
            if self._lost.is_set():
                return
            what = "is closed" if self._closed else f"is lost ({reason})"
            self._reason = f"the connection to the nucleus {what}"
            self._lost.set()
            told = () if self._closed else tuple(self._gone)
        for gone in told:
            self._submit(gone, self._reason)

    def close(self) -> None:
        """See the port."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        inside = threading.get_ident() == self._callback_thread
        end = self._streams.close(executor_wait=not inside)
        concurrent.futures.wait([end], self._timeout_s)

    def _submit(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            self._executor.submit(self._guarded(callback), *arguments)
        except RuntimeError:
            _LOG.debug("closed before %r could be told", callback)

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        def guarded(*arguments: Any) -> None:
            if self._closed:
                return
            self._callback_thread = threading.get_ident()
            try:
                callback(*arguments)
            except NucleusError as error:
                _LOG.error("%s", error)
            except Exception:  # noqa: BLE001 (one bad callback must not end the others)
                _LOG.exception("a callback of the nucleus failed")

        return guarded

    # Requests and streams

    def _subscribe(self, operation: str, on_event: Callable[[Any], None], **arguments: Any) -> None:
        subscribe = {
            "SubscribeToConfigurationUpdate": self._streams.subscribe_to_configuration_update_async,
            "SubscribeToValidateConfigurationUpdates": (
                self._streams.subscribe_to_validate_configuration_updates_async
            ),
            "SubscribeToComponentUpdates": self._streams.subscribe_to_component_updates_async,
        }[operation]

        def on_error(error: Exception) -> bool:  # network thread
            _LOG.warning("%s: an event that cannot be read (%s)", operation, type(error).__name__)
            return False  # the stream goes on

        try:
            answer, stream = subscribe(on_stream_event=self._guarded(on_event), on_stream_error=on_error, **arguments)
            try:
                answer.result(self._timeout_s)
            except BaseException:
                stream.close()
                raise
        except _FAILURES as error:
            raise self._failure(operation, error) from error
        with self._lock:
            self._subscriptions.append(stream)

    def _request(self, operation: str, make: Callable[[], Any], request: Any) -> Any:
        try:
            stream = make()
            try:
                stream.activate(request)
                return stream.get_response().result(self._timeout_s)
            finally:
                stream.close()
        except _FAILURES as error:
            raise self._failure(operation, error) from error

    def _failure(self, operation: str, error: BaseException) -> NucleusError:
        if isinstance(error, StreamClosedError) and not self._closed and not self._lost.wait(_SETTLE_S):
            # How the classic nucleus refuses what it does not know: it ends the stream and says nothing.
            return NucleusError(f"this nucleus has no {operation}", "unsupported")
        if self._closed or self._lost.is_set():
            return NucleusError(f"{operation}: {self._reason or 'the connection to the nucleus is closed'}", "gone")
        if isinstance(error, TimeoutError):
            return NucleusError(f"the nucleus did not answer {operation} within {self._timeout_s:g} s", "timeout")
        said = getattr(error, "message", None)
        if isinstance(error, model.ServiceError) and said is None and operation in _NOT_ON_LITE:
            return NucleusError(f"this nucleus (Greengrass Lite) has no {operation}", "unsupported")
        kind: ErrorKind = next((kind for type_, kind in _KINDS if isinstance(error, type_)), "other")
        cure = f"; allow it in the recipe's accessControl: aws.greengrass#{operation}" if kind == "denied" else ""
        return NucleusError(f"the nucleus refused {operation}: {type(error).__name__} {said or error}{cure}", kind)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _is_only_key(value: Mapping[str, Any], key: str) -> bool:
    return [name.casefold() for name in value] == [key.casefold()]


def _child(branch: Mapping[str, Any], key_path: Sequence[str]) -> Any:
    wanted = key_path[-1].casefold()  # both nuclei ignore the case of keys
    for name, value in branch.items():
        if name.casefold() == wanted:
            return value
    raise NucleusError(f"the configuration has no {'/'.join(key_path)} any more", "not_found")
