"""AWS IoT Greengrass's cloud side as far as a release uses it, over HTTP: moto has none.

Routes, and what a request must hold, come from AWS's own description of the service, which botocore ships. Components,
deployments and their effect on devices are kept as the real one does: a component version is taken once, a deployment
replaces the target's former one, names only versions that exist, and reaches each device of the target. What a device
does with it is the test's to say: `behave`.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import itertools
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import botocore.session

Json = dict[str, Any]
ACCOUNT = "123456789012"  # moto's
REGION = "eu-central-1"


class Refused(Exception):  # noqa: N818
    """What AWS answers instead."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass
class Device:
    """A core device."""

    name: str
    groups: tuple[str, ...] = ()
    lite: bool = False
    seen_s: float = field(default_factory=time.time)
    executions: dict[str, Json] = field(default_factory=dict)
    """By deployment."""

    def becomes(self, deployment_id: str, status: str, reason: str = "") -> None:
        known = self.executions[deployment_id]
        known |= {"coreDeviceExecutionStatus": status, "modifiedTimestamp": time.time()}
        known |= {"reason": reason} if reason else {}


class GreengrassCloud:
    """A server; a context manager."""

    def __init__(self) -> None:
        model = botocore.session.Session().get_service_model("greengrassv2")
        self._routes = [
            (model.operation_model(name).http["method"], _pattern(model.operation_model(name).http["requestUri"]), name)
            for name in model.operation_names
        ]
        self.components: dict[tuple[str, str], Json] = {}
        self.deployments: dict[str, Json] = {}
        self.devices: dict[str, Device] = {}
        self.calls: list[str] = []
        self.refuse: dict[str, Refused] = {}
        """Operations that AWS says no to."""
        self.lose: set[str] = set()
        """Operations that are done, and whose answer is lost."""
        self.before: dict[str, Callable[[], None]] = {}
        """Called before an operation is answered."""
        self.component_state = "DEPLOYABLE"
        """Of new component versions."""
        self.behave: Callable[[Device, Json], None] = lambda _device, _deployment: None
        """What a device does with a deployment, at once."""
        self._numbers = itertools.count(1)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def latest(self, target_arn: str) -> Json:
        """The target's deployment in force."""
        return next(
            one for one in self.deployments.values() if one["targetArn"] == target_arn and one["isLatestForTarget"]
        )

    def put_component(self, name: str, version: str, recipe: Json | None = None) -> None:
        """One that is there already."""
        self.components[name, version] = {"recipe": recipe or {}, "tags": {}, "at_s": time.time()}

    # Operations

    def create_component_version(self, given: Json) -> Json:
        recipe = json.loads(base64.b64decode(given["inlineRecipe"]))
        name, version = recipe["ComponentName"], recipe["ComponentVersion"]
        if (name, version) in self.components:
            raise Refused("ConflictException", f"Component [{name} : {version}] already exists.", 409)
        self.components[name, version] = {
            "recipe": recipe,
            "tags": given.get("tags", {}),
            "at_s": time.time(),
            "state": self.component_state,
        }
        return self._described(name, version)

    def describe_component(self, given: Json) -> Json:
        return self._described(*self._known(given["arn"]))

    def get_component(self, given: Json) -> Json:
        recipe = json.dumps(self.components[self._known(given["arn"])]["recipe"])
        return {"recipeOutputFormat": "JSON", "recipe": base64.b64encode(recipe.encode()).decode(), "tags": {}}

    def delete_component(self, given: Json) -> Json:
        del self.components[self._known(given["arn"])]
        return {}

    def list_component_versions(self, given: Json) -> Json:
        name = given["arn"].split(":components:")[1]
        found = [version for known, version in self.components if known == name]
        if not found:
            raise Refused("ResourceNotFoundException", f"Component {name} does not exist.", 404)
        newest_first = sorted(found, key=lambda version: [int(part) for part in version.split(".")], reverse=True)
        entries = [{"componentName": name, "componentVersion": version} for version in newest_first]
        return {"componentVersions": entries}

    def create_deployment(self, given: Json) -> Json:
        target = given["targetArn"]
        for name, entry in given["components"].items():
            if name.startswith("dev.") and (name, entry["componentVersion"]) not in self.components:
                raise Refused("ResourceNotFoundException", f"{name} {entry['componentVersion']} does not exist.", 404)
        for one in self.deployments.values():
            if one["targetArn"] == target and one["isLatestForTarget"]:
                one |= {"isLatestForTarget": False, "deploymentStatus": "INACTIVE"}
        made = f"deployment-{next(self._numbers)}"
        self.deployments[made] = {
            **{key: value for key, value in given.items() if key != "clientToken"},
            "deploymentId": made,
            "deploymentStatus": "ACTIVE",
            "isLatestForTarget": True,
            "creationTimestamp": time.time(),
        }
        for device in self.devices.values():
            if target.endswith(f":thing/{device.name}") or target.rpartition("thinggroup/")[2] in device.groups:
                self._reach(device, self.deployments[made])
        return {"deploymentId": made}

    def get_deployment(self, given: Json) -> Json:
        return self.deployments[given["deploymentId"]]

    def list_deployments(self, given: Json) -> Json:
        target = given.get("targetArn")
        found = [one for one in self.deployments.values() if target in (None, one["targetArn"])]
        if given.get("historyFilter") != "ALL":
            found = [one for one in found if one["isLatestForTarget"]]
        keys = ("deploymentId", "targetArn", "creationTimestamp", "deploymentStatus", "isLatestForTarget")
        return {"deployments": [{key: one[key] for key in keys} for one in found]}

    def cancel_deployment(self, given: Json) -> Json:
        self.deployments[given["deploymentId"]]["deploymentStatus"] = "CANCELED"
        for device in self.devices.values():
            known = device.executions.get(given["deploymentId"])
            if known and known["coreDeviceExecutionStatus"] == "QUEUED":
                device.becomes(given["deploymentId"], "CANCELED")
        return {"message": "canceled"}

    def get_core_device(self, given: Json) -> Json:
        if given["coreDeviceThingName"] not in self.devices:
            raise Refused("ResourceNotFoundException", "no such core device", 404)
        return self._device(self.devices[given["coreDeviceThingName"]])

    def list_core_devices(self, given: Json) -> Json:
        group = given["thingGroupArn"].rpartition("/")[2]
        return {"coreDevices": [self._device(one) for one in self.devices.values() if group in one.groups]}

    def list_installed_components(self, given: Json) -> Json:
        device = self.devices[given["coreDeviceThingName"]]
        found = {
            name: entry["componentVersion"]
            for made in device.executions
            if self.deployments[made]["isLatestForTarget"]
            for name, entry in self.deployments[made]["components"].items()
        }
        return {"installedComponents": [{"componentName": name, "componentVersion": v} for name, v in found.items()]}

    def list_effective_deployments(self, given: Json) -> Json:
        return {"effectiveDeployments": list(self.devices[given["coreDeviceThingName"]].executions.values())}

    def _reach(self, device: Device, deployment: Json) -> None:
        now_s = time.time()
        device.executions[deployment["deploymentId"]] = {
            "deploymentId": deployment["deploymentId"],
            "deploymentName": deployment.get("deploymentName", ""),
            "targetArn": deployment["targetArn"],
            "coreDeviceExecutionStatus": "QUEUED",
            "creationTimestamp": now_s,
            "modifiedTimestamp": now_s,
        }
        self.behave(device, deployment)

    # The rest

    def _known(self, arn: str) -> tuple[str, str]:
        name, _, version = arn.split(":components:")[1].partition(":versions:")
        if (name, version) not in self.components:
            raise Refused("ResourceNotFoundException", f"{name} {version} does not exist.", 404)
        return name, version

    def _described(self, name: str, version: str) -> Json:
        known = self.components[name, version]
        state = known.get("state", "DEPLOYABLE")
        return {
            "arn": f"arn:aws:greengrass:{REGION}:{ACCOUNT}:components:{name}:versions:{version}",
            "componentName": name,
            "componentVersion": version,
            "creationTimestamp": known["at_s"],
            "status": {"componentState": state, "message": known.get("message", "")},
            "tags": known["tags"],
        }

    def _device(self, device: Device) -> Json:
        return {
            "coreDeviceThingName": device.name,
            "status": "HEALTHY",
            "lastStatusUpdateTimestamp": device.seen_s,
            "runtime": "aws_nucleus_lite" if device.lite else "aws_nucleus_classic",
        }

    def answer(self, method: str, path: str, query: str, body: bytes) -> Json:
        """One request."""
        name, uri = self._route(method, path)
        self.calls.append(name)
        if wait := self.before.get(name):
            wait()
        if no := self.refuse.get(name):
            raise no
        given = {key: values[-1] for key, values in urllib.parse.parse_qs(query).items()} | uri
        given |= json.loads(body) if body else {}
        handler = getattr(self, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
        answer: Json = handler(given)
        if name in self.lose:
            raise Refused("InternalServerException", "an answer that was lost", 500)
        return answer

    def _route(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        for known, pattern, name in self._routes:
            if known == method and (match := pattern.fullmatch(path)):
                return name, {key: urllib.parse.unquote(value) for key, value in match.groupdict().items()}
        raise Refused("UnknownOperationException", f"{method} {path}", 404)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        cloud = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path, _, query = self.path.partition("?")
                headers = {"Content-Type": "application/json"}
                try:
                    status, answer = 200, cloud.answer(self.command, path, query, body)
                except Refused as no:
                    status, answer = no.status, {"message": str(no)}
                    headers["x-amzn-errortype"] = no.code
                payload = json.dumps(answer).encode()
                with contextlib.suppress(ConnectionError):  # whoever asked may have been killed
                    self.send_response(status)
                    for key, value in {**headers, "Content-Length": str(len(payload))}.items():
                        self.send_header(key, value)
                    self.end_headers()
                    self.wfile.write(payload)

            do_GET = do_POST = do_DELETE = do_PUT = _serve  # noqa: N815  the server's names

            def log_message(self, *_: object) -> None: ...

        return Handler


def _pattern(uri: str) -> re.Pattern[str]:
    """`/a/{b}/c` as a pattern."""
    parts = re.split(r"\{(\w+)\+?\}", uri.partition("?")[0])
    names = [f"(?P<{part}>[^/]+)" if number % 2 else re.escape(part) for number, part in enumerate(parts)]
    return re.compile("".join(names))
