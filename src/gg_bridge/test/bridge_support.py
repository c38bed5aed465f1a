"""The bridge as a process, a policy that speaks the swap's contract, and models that are only text."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from vla_core import manifest as manifests
from vla_core.joints import SO101_JOINTS
from vla_core.store import Store
from vla_core.swap import Outcome, Stage, SwapStatus
from vla_ros import diagnostics, qos

WAIT_S = 120.0
POLL_S = 0.02
SEED = "pick@0"
_pause = threading.Event()


def wait_for(what: str, true: Callable[[], object], explain: Callable[[], object] = str) -> None:
    """Wait until `true()`, with a deadline; `explain` tells what there was instead."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, f"not within {WAIT_S:g} s: {what}; {explain()}"
        _pause.wait(POLL_S)


def write_model(folder: Path, version: str, **more: object) -> Path:
    """A model named `pick` whose only file is text: no policy server is there to load it."""
    folder.mkdir(parents=True)
    (folder / "weights.txt").write_text(f"weights {version} {more}")
    fields: dict[str, Any] = {"joint_names": SO101_JOINTS, "cameras": {"front": manifests.CameraInput(64, 32)}} | more
    manifests.write(
        folder,
        manifests.Manifest(
            name="pick",
            version=version,
            policy_type="act",
            backend="onnx",
            files=manifests.list_files(folder),
            **fields,
        ),
    )
    return folder


class StandInPolicy:
    """The node `policy` as the bridge sees it: one atomic parameter set, and a status that is latched.

    `plan` says how a request for a label ends: an outcome at once, or None to wait for `finish`. It publishes the arm's
    joint states as well.
    """

    def __init__(self, domain: int) -> None:
        self.plan: Callable[[str], Outcome | None] = lambda _: Outcome.SUCCEEDED
        self.requests: list[dict[str, str]] = []
        self.refuses = ""
        self.velocity_rad_s = 0.0
        self._domain = domain
        self._known: set[str] = set()
        self.start()

    def start(self, active: str = SEED, state: str = "driving") -> None:
        """As a fresh process."""
        self._context = Context()
        rclpy.init(context=self._context, domain_id=self._domain)
        self._node = rclpy.create_node("policy", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._known.clear()
        self.status = SwapStatus(active_model=active, state=state)
        for name in ("model", "prompt", "swap", "request_id"):
            self._node.declare_parameter(name, "")
        self._node.declare_parameter("cameras", ["overhead", "front"])
        self._node.declare_parameter("joint_names", list(SO101_JOINTS))
        self._node.add_on_set_parameters_callback(self._on_set)
        self._publisher = self._node.create_publisher(DiagnosticStatus, "~/status", qos.POLICY_STATUS)
        self._joints = self._node.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._node.create_timer(0.05, self._publish_joints)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self._say()

    def stop(self) -> None:
        """As a process that ends."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)
        self._thread.join()

    def finish(self, outcome: Outcome, reason: str = "") -> None:
        """The swap under way ends so."""
        active = self._asked["model"] if outcome is Outcome.SUCCEEDED else self.status.active_model
        self._say(outcome=outcome, stage=Stage.NONE, reason=reason, active_model=active, timeline={"end": 0.5})

    def _publish_joints(self) -> None:
        names = list(SO101_JOINTS)
        self._joints.publish(JointState(name=names, position=[0.0] * 6, velocity=[self.velocity_rad_s] * 6))

    @property
    def models(self) -> list[str]:
        """What was asked for, in this order."""
        return [request["model"] for request in self.requests]

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        self._asked = {parameter.name: parameter.value for parameter in parameters}
        if self.refuses:
            return SetParametersResult(successful=False, reason=self.refuses)
        request_id = self._asked["request_id"]
        if request_id in self._known:
            self._say()
            return SetParametersResult(successful=True)
        self._known.add(request_id)
        self.requests.append(self._asked)
        if self.status.request_id and not self.status.is_over:
            self._say(outcome=Outcome.SUPERSEDED, stage=Stage.NONE)
        self._say(request_id=request_id, outcome=Outcome.NONE, stage=Stage.START, reason="")
        outcome = self.plan(self._asked["model"])
        if outcome is not None:
            self.finish(outcome, "" if outcome is Outcome.SUCCEEDED else "too slow: 900 ms")
        return SetParametersResult(successful=True)

    def _say(self, **changes: Any) -> None:
        self.status = status = replace(self.status, **changes)
        values = {
            "request_id": status.request_id,
            "stage": str(status.stage),
            "outcome": str(status.outcome),
            "outcome_reason": status.reason,
            "passing": "true" if status.passing else "false",
            "active_model": status.active_model,
            "state": status.state,
            "prompt": status.prompt,
            "timeline": json.dumps(dict(status.timeline)),
        }
        self._publisher.publish(diagnostics.status("policy", diagnostics.OK, "", values))


class Listener:
    """Hears the bridge's status, and calls its service."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node("listener", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._retry = self._node.create_client(Trigger, "gg_bridge/retry")
        self.status: dict[str, str] = {}
        self.sentence = ""
        self._node.create_subscription(DiagnosticStatus, "gg_bridge/status", self._on_status, qos.STATUS)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def _on_status(self, message: DiagnosticStatus) -> None:
        self.status, self.sentence = diagnostics.values(message), message.message

    def retry(self) -> Trigger.Response:
        """Call `gg_bridge/retry`."""
        wait_for("the service gg_bridge/retry", self._retry.service_is_ready)
        future = self._retry.call_async(Trigger.Request())
        wait_for("an answer of gg_bridge/retry", future.done)
        return future.result()

    def close(self) -> None:
        """Stop listening."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)
        self._thread.join()


class BridgeProcess:
    """`gg_bridge` as a process; its output is in `text`."""

    def __init__(self, store: Path, environment: Mapping[str, str], **parameters: object) -> None:
        given = {"quiet_time_s": 0.1, "thing": "arm-7", "nucleus_timeout_s": 5.0, **parameters}
        words = [word for name, value in given.items() for word in ("-p", f"{name}:={value}")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gg_bridge.node", "--ros-args", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith(("SVCUID", "AWS_GG"))}
            | {"EVERGREEN_STORE": str(store), "PYTHONUNBUFFERED": "1"}
            | dict(environment),
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def wait_text(self, text: str) -> None:
        wait_for(f"{text!r} in the log", lambda: text in self.text, lambda: self.text)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)

    def stop(self) -> int:
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        return code


def seeded(folder: Path) -> Store:
    """A store whose current model is the seed, as a robot that drives has one."""
    store = Store(folder / "store")
    store.adopt(write_model(folder / "seed", "0"))
    store.set_current(SEED)
    store.mark_good(SEED)
    return store
