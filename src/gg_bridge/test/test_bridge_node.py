"""The bridge as a process, with AWS's own client, against the stand-in nucleus of either kind."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("awsiot")

from bridge_support import SEED, WAIT_S, BridgeProcess, Listener, StandInPolicy, seeded, wait_for, write_model

from evergreen.demo.resources import free_domain
from gg_bridge.testing import Faults, StandInNucleus, Timing
from vla_core.manifest import sha256_file
from vla_core.swap import Outcome

pytestmark = pytest.mark.ros

POLICY_LATE_S = 4.5
"""More than the bridge once waited for a policy, less than what it waits now."""
TIMING = Timing(restart_delay_s=0.3, retry_s=0.2)
DEFAULTS = {"model": {"uri": "", "version": "", "sha256": "", "prompt": "", "swap": "blue_green"}}


class Scene:
    """A robot's store, its policy, a nucleus, and the bridge between them."""

    def __init__(self, folder: Path, domain: int) -> None:
        self.folder = folder
        self.store = seeded(folder)
        self.domain = domain
        self.policy = StandInPolicy(domain)
        self.listener = Listener(domain)
        self.nucleus: StandInNucleus | None = None
        self.bridges: list[BridgeProcess] = []
        self._stack = contextlib.ExitStack()
        self._sockets = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gg"))
        self.parameters: dict[str, object] = {}
        self._restarting = threading.Lock()
        self._closed = False

    def close(self) -> None:
        with self._restarting:
            self._closed = True
        for bridge in self.bridges:
            if bridge.process.poll() is None:
                bridge.kill()
        self._stack.close()
        self.listener.close()
        self.policy.stop()

    @property
    def bridge(self) -> BridgeProcess:
        return self.bridges[-1]

    def begin(self, character: str, **parameters: object) -> StandInNucleus:
        """Start nucleus and bridge, and wait until they speak."""
        self.parameters = parameters
        self.nucleus = self._stack.enter_context(
            StandInNucleus(
                character,
                Path(self._sockets, "ipc"),
                defaults=DEFAULTS,
                timing=TIMING,
                on_restart_component=self.restart_component,
            )
        )
        self.start()
        wait_for("RUNNING", lambda: "RUNNING" in self.nucleus.state_reports, lambda: self.bridge.text)
        return self.nucleus

    def start(self) -> BridgeProcess:
        environment = {"ROS_DOMAIN_ID": str(self.domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        given = self.nucleus.environment() if self.nucleus is not None else {}
        self.bridges.append(BridgeProcess(self.store.root, environment | given, **self.parameters))
        return self.bridges[-1]

    def restart_component(self) -> None:
        """What a nucleus does: SIGTERM, and a new process."""
        with self._restarting:
            if not self._closed:
                self.bridge.stop()
                self.start()

    def model(self, version: str, **more: object) -> Path:
        return write_model(self.folder / f"model-{version}", version, **more)

    @property
    def reports(self) -> list[dict[str, Any]]:
        assert self.nucleus is not None
        return [json.loads(message.payload) for message in self.nucleus.published]

    def until_reported(self, outcome: str, count: int = 1) -> dict[str, Any]:
        """The last report, once there are `count` with that outcome."""

        def right() -> list[dict[str, Any]]:
            return [report for report in self.reports if report["outcome"] == outcome]

        wait_for(
            f"{count} reports of {outcome}", lambda: len(right()) >= count, lambda: (self.reports, self.bridge.text)
        )
        return right()[-1]

    def until_half_fetched(self) -> None:
        """With `slow_server`."""
        wait_for("half", lambda: self.listener.status.get("progress", "").startswith("50"), lambda: self.bridge.text)

    def until_connected(self) -> None:
        assert self.nucleus is not None
        wait_for("a client", lambda: self.nucleus.clients == 1, lambda: self.bridge.text)
        self.bridge.wait_text("connected to the nucleus")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with free_domain() as domain:
        scene = Scene(tmp_path, domain)
        try:
            yield scene
        finally:
            scene.close()


def wish(folder: Path, **more: str) -> dict[str, Any]:
    return {"model": {"uri": f"file:{folder}", **more}}


@pytest.mark.parametrize("character", ["classic", "lite"])
def test_a_deployed_model_is_fetched_swapped_in_and_reported(scene: Scene, character: str) -> None:
    nucleus = scene.begin(character)
    folder = scene.model("1")
    sha256 = sha256_file(folder / "manifest.json")
    deployment = nucleus.deploy(wish(folder, version="1", sha256=sha256, prompt="lift it", swap="restart"))
    report = scene.until_reported("succeeded")
    assert deployment.wait(WAIT_S).status == "SUCCEEDED"
    request = scene.policy.requests[0]
    assert (request["model"], request["prompt"], request["swap"]) == ("pick@1", "lift it", "restart")
    assert (report["thing"], report["model"], report["running"]) == ("arm-7", "pick@1", "pick@1")
    assert report["request_id"] == request["request_id"]
    assert report["wished"]["sha256"] == sha256
    assert {"fetch", "end", "total"} <= set(report["durations_s"])
    assert nucleus.published[0].topic == "evergreen/arm-7/update"
    assert scene.store.verify("pick@1").version == "1"
    wait_for("the status", lambda: "succeeded" in scene.listener.sentence)
    assert any(entry["event"] == "update" and entry["outcome"] == "succeeded" for entry in scene.store.history())
    wait_for("the shadow", lambda: ("arm-7", "evergreen") in nucleus.shadows)
    shadow = nucleus.shadows["arm-7", "evergreen"]
    assert shadow["state"]["reported"]["update"]["model"] == "pick@1"
    assert scene.bridge.stop() == 0
    assert len(scene.reports) == 1


def test_an_unchanged_or_repeated_configuration_asks_for_nothing(scene: Scene) -> None:
    nucleus = scene.begin("classic")
    nucleus.faults = Faults(repeat_events=5, reverse_events=True)
    one, two = wish(scene.model("1")), wish(scene.model("2"))
    for configuration in (one, one, two, two, one):
        nucleus.deploy(configuration).wait(WAIT_S)
        wait_for("it is desired", lambda uri=configuration["model"]["uri"]: scene.listener.status.get("wish") == uri)
        wait_for("its end", lambda: scene.listener.status.get("outcome") == "succeeded")
    assert scene.policy.models == ["pick@1", "pick@2", "pick@1"]


def test_of_two_deployments_within_a_second_the_later_wins(scene: Scene) -> None:
    nucleus = scene.begin("classic", quiet_time_s=0.5)
    nucleus.deploy(wish(scene.model("1")))
    nucleus.deploy(wish(scene.model("2")))
    assert scene.until_reported("succeeded")["model"] == "pick@2"
    assert scene.policy.models == ["pick@2"]


@pytest.mark.parametrize("character", ["classic", "lite"])
def test_a_refused_model_is_remembered_and_a_newer_one_is_tried(scene: Scene, character: str) -> None:
    nucleus = scene.begin(character)
    scene.policy.plan = lambda label: Outcome.ROLLED_BACK if label == "pick@1" else Outcome.SUCCEEDED
    nucleus.deploy(wish(scene.model("1")))
    report = scene.until_reported("rolled_back")
    assert (report["reason"], report["running"]) == ("too slow: 900 ms", SEED)
    wait_for("the component's state", lambda: "ERRORED" in nucleus.state_reports)
    wait_for("the refusal", lambda: scene.store.state().refused == {"pick@1": "too slow: 900 ms"})
    assert "pick@0 drives on" in scene.bridge.text or "pick@0 drives on" in scene.bridges[-2].text
    # Lite restarts the component after the deployment, classic after ERRORED: nobody tries it again.
    wait_for("the restart", lambda: len(scene.bridges) == 2 and nucleus.clients == 1)
    scene.until_connected()
    wait_for("the status", lambda: "rolled back" in scene.listener.sentence)
    nucleus.deploy(wish(scene.model("2")))
    assert scene.until_reported("succeeded")["model"] == "pick@2"
    assert scene.policy.models == ["pick@1", "pick@2"]


def test_a_refused_model_is_tried_again_when_somebody_asks_for_it(scene: Scene) -> None:
    nucleus = scene.begin("lite", report_errored=False)
    assert not scene.listener.retry().success
    scene.policy.plan = lambda _: Outcome.REFUSED
    nucleus.deploy(wish(scene.model("1")), local=True)
    scene.until_reported("refused")
    wait_for("the status", lambda: scene.listener.status.get("outcome") == "refused")
    scene.policy.plan = lambda _: Outcome.SUCCEEDED
    assert scene.listener.retry().success
    scene.until_reported("succeeded")
    assert "ERRORED" not in nucleus.state_reports
    assert scene.store.state().refused == {}


def edited(folder: Path, **more: object) -> Path:
    """The model with other words in its manifest."""
    manifest = json.loads((folder / "manifest.json").read_text()) | more
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_what_does_not_fit_fails_the_deployment_before_anything_changes(scene: Scene) -> None:
    """A deployment within the bridge's first second was accepted, since the policy was not discovered yet."""
    nucleus = scene.begin("classic")
    good = scene.model("1")
    sonar = edited(scene.model("2"), cameras={"sonar": {"width": 64, "height": 32}})
    arm = edited(scene.model("3"), joint_names=["shoulder_pan", "knee"])
    for section, said in (
        ({"uri": f"file:{sonar}"}, "wants camera(s) sonar; this robot has overhead"),
        ({"uri": f"file:{arm}"}, "moves joint(s) knee"),
        ({"uri": 5}, "model.uri is 5; it has to be text"),
        ({"uri": "gopher:x"}, "none of"),
        ({"uri": "file:/nowhere/m"}, "/nowhere/m does not exist"),
        ({"uri": f"file:{good}", "version": "7"}, "holds pick@1 where version 7 was asked for"),
        ({"uri": f"file:{good}", "sha256": "0" * 64}, "was asked for"),
        ({"uri": "http://127.0.0.1:9/m"}, "127.0.0.1:9"),
    ):
        deployment = nucleus.deploy({"model": {**DEFAULTS["model"], **section}}).wait(WAIT_S)
        assert deployment.status == "FAILED_NO_STATE_CHANGE"
        assert said in deployment.reason
        assert nucleus.configuration("model", "uri") == ""
    scene.bridge.wait_text("refused before anything was changed")
    assert nucleus.deploy(wish(good)).wait(WAIT_S).status == "SUCCEEDED"
    assert scene.until_reported("succeeded")["model"] == "pick@1"
    assert scene.policy.models == ["pick@1"], scene.bridge.text


def test_a_deployment_that_comes_before_the_policy_is_judged_when_the_policy_says_what_there_is(scene: Scene) -> None:
    """It was accepted after two seconds, unjudged."""
    scene.policy.stop()
    nucleus = scene.begin("classic")
    sonar = edited(scene.model("1"), cameras={"sonar": {"width": 64, "height": 32}})
    deployment = nucleus.deploy(wish(sonar))
    late = threading.Timer(POLICY_LATE_S, scene.policy.start)
    late.start()
    deployment.wait(WAIT_S)
    late.join()
    assert deployment.status == "FAILED_NO_STATE_CHANGE"
    assert "wants camera(s) sonar; this robot has overhead" in deployment.reason


def test_a_malformed_value_is_reported_once_and_the_robot_works_on(scene: Scene) -> None:
    nucleus = scene.begin("lite")
    nucleus.deploy({"model": {"version": 3}}, local=True)
    report = scene.until_reported("refused")
    assert "model.version is 3" in report["reason"]
    nucleus.deploy({"model": {"version": "", "promt": "x"}}, local=True)
    scene.bridge.wait_text("did you mean 'prompt'?")
    nucleus.deploy(wish(scene.model("1")), local=True)
    scene.until_reported("succeeded")
    assert [report["outcome"] for report in scene.reports] == ["refused", "succeeded"]


def test_a_deployment_waits_while_the_arm_moves(scene: Scene) -> None:
    scene.policy.velocity_rad_s = 0.5
    nucleus = scene.begin("classic")
    wait_for("the policy is heard", lambda: scene.listener.status.get("active_model") == SEED)
    deployment = nucleus.deploy(wish(scene.model("1")))
    scene.bridge.wait_text(f"deployment {deployment.id} waits 15 s")
    assert deployment.status == "IN_PROGRESS"
    assert scene.policy.requests == []


@pytest.mark.parametrize("character", ["classic", "lite"])
def test_after_a_restart_of_the_nucleus_the_process_ends_with_1_and_the_next_one_goes_on(
    scene: Scene, character: str
) -> None:
    nucleus = scene.begin(character)
    scene.policy.plan = lambda _: None
    nucleus.deploy(wish(scene.model("1")), local=True).wait(WAIT_S)
    wait_for("the request", lambda: scene.policy.requests)
    first = scene.bridge
    nucleus.restart()
    if character == "lite":
        assert first.wait() == 1
        assert "to be started again" in first.text
        assert "Traceback" not in first.text
        scene.start()
    scene.until_connected()
    scene.policy.finish(Outcome.SUCCEEDED)
    assert scene.until_reported("succeeded")["model"] == "pick@1"
    assert len(scene.policy.requests) == 1


def test_a_dropped_connection_comes_back_by_itself_and_nothing_is_missed(scene: Scene) -> None:
    nucleus = scene.begin("lite")
    nucleus.faults = Faults(fail=frozenset({"PublishToIoTCore"}))
    nucleus.deploy(wish(scene.model("1")), local=True).wait(WAIT_S)
    scene.bridge.wait_text("reports for AWS IoT Core wait")
    nucleus.drop_connections(mid_message=True)
    scene.bridge.wait_text("connects again")
    nucleus.deploy(wish(scene.model("2")), local=True).wait(WAIT_S)
    wait_for("the second swap", lambda: scene.policy.models == ["pick@1", "pick@2"], lambda: scene.bridge.text)
    assert scene.reports == []
    assert scene.bridge.process.poll() is None
    wait_for(
        "two reports, and the shadow's latest state, wait",
        lambda: scene.listener.status.get("reports_waiting") == "3",
        lambda: f"{scene.listener.status} {scene.bridge.text}",
    )
    scene.bridge.kill()
    nucleus.faults = Faults()
    scene.start()
    scene.until_reported("succeeded", count=2)
    assert [report["model"] for report in scene.reports] == ["pick@1", "pick@2"]


def test_without_a_nucleus_it_says_so_and_stays(scene: Scene) -> None:
    bridge = scene.start()
    bridge.wait_text("no nucleus: nobody can change the model through this node; the robot works on")
    wait_for("the status", lambda: scene.listener.status.get("nucleus") == "none")
    assert scene.listener.sentence.startswith("no nucleus")
    assert bridge.stop() == 0


def test_a_nucleus_that_comes_later_is_waited_for(scene: Scene) -> None:
    scene.nucleus = StandInNucleus("lite", Path(scene._sockets, "late"), defaults=DEFAULTS)
    bridge = scene.start()
    bridge.wait_text("is Greengrass running?")
    wait_for("the status", lambda: scene.listener.status.get("nucleus") == "connecting")
    with scene.nucleus:
        bridge.wait_text("connected to the nucleus")
        assert bridge.stop() == 0


def test_where_a_nucleus_is_required_its_absence_ends_it_with_2_and_one_line(scene: Scene) -> None:
    scene.parameters = {"nucleus": "required"}
    bridge = scene.start()
    assert bridge.wait() == 2
    assert "parameter 'nucleus' is 'required', but no nucleus started this process" in bridge.text
    assert "Traceback" not in bridge.text


@contextlib.contextmanager
def slow_server(folder: Path, gate: threading.Event) -> Iterator[str]:
    """Serves a folder; the weights only half, until `gate` opens."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.endswith("weights.txt"):
                super().do_GET()
                return
            content = (folder / "weights.txt").read_bytes()
            start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            half = max(start, len(content) // 2)
            self.wfile.write(content[start:half])
            self.wfile.flush()
            gate.wait(WAIT_S)
            self.wfile.write(content[half:])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    gate.set()
    server.shutdown()
    server.server_close()


def test_killed_in_the_middle_of_a_fetch_the_next_process_goes_on(scene: Scene) -> None:
    nucleus = scene.begin("lite")
    folder, gate = scene.model("1"), threading.Event()
    with slow_server(folder, gate) as url:
        nucleus.deploy({"model": {"uri": url}}, local=True)
        wait_for(
            "progress", lambda: scene.listener.status.get("progress", "").startswith("50"), lambda: scene.bridge.text
        )
        scene.bridge.kill()
        gate.set()
        scene.start()
        report = scene.until_reported("succeeded")
    assert report["model"] == "pick@1"
    assert scene.policy.models == ["pick@1"]


def test_killed_in_the_middle_of_a_swap_the_next_process_learns_the_outcome(scene: Scene) -> None:
    nucleus = scene.begin("lite")
    scene.policy.plan = lambda _: None
    nucleus.deploy(wish(scene.model("1")), local=True)
    wait_for("the request", lambda: scene.policy.requests)
    scene.bridge.kill()
    scene.policy.finish(Outcome.REFUSED, "NaN in its answer")
    scene.start()
    report = scene.until_reported("refused")
    assert (report["reason"], report["running"]) == ("NaN in its answer", SEED)
    assert len(scene.policy.requests) == 1
    wait_for("the refusal", lambda: scene.store.state().refused == {"pick@1": "NaN in its answer"})


def test_a_newer_deployment_ends_the_fetch_of_an_older_one(scene: Scene) -> None:
    nucleus = scene.begin("lite")
    folder, gate = scene.model("1"), threading.Event()
    with slow_server(folder, gate) as url:
        nucleus.deploy({"model": {"uri": url}}, local=True)
        wait_for(
            "progress", lambda: scene.listener.status.get("progress", "").startswith("50"), lambda: scene.bridge.text
        )
        nucleus.deploy(wish(scene.model("2")), local=True)
        scene.until_reported("superseded")
        gate.set()
        assert scene.until_reported("succeeded")["model"] == "pick@2"
    assert scene.policy.models == ["pick@2"]


def test_a_policy_that_is_away_is_waited_for_and_gets_its_prompt_back_after_a_restart(scene: Scene) -> None:
    nucleus = scene.begin("lite")
    scene.policy.stop()
    nucleus.deploy(wish(scene.model("1"), prompt="lift it"), local=True)
    wait_for("the status", lambda: "the swap waits for it" in scene.listener.sentence, lambda: scene.bridge.text)
    scene.policy.start()
    scene.until_reported("succeeded")
    scene.policy.stop()
    scene.policy.start(active="pick@1")
    wait_for("the prompt", lambda: len(scene.policy.requests) == 2, lambda: scene.bridge.text)
    assert scene.policy.requests[1]["prompt"] == "lift it"
    assert [report["outcome"] for report in scene.reports] == ["succeeded"]


def test_a_request_that_the_policy_does_not_take_is_reported(scene: Scene) -> None:
    nucleus = scene.begin("lite")
    scene.policy.refuses = "this policy has no store"
    nucleus.deploy(wish(scene.model("1")), local=True)
    assert "this policy has no store" in scene.until_reported("refused")["reason"]


@contextlib.contextmanager
def broken_server(folder: Path) -> Iterator[tuple[str, threading.Event]]:
    """Serves a folder once it is mended; before, it answers 503."""
    mended = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if mended.is_set():
                super().do_GET()
            else:
                self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", mended
    server.shutdown()
    server.server_close()


def test_a_server_that_is_down_is_told_once_and_tried_until_it_is_up(scene: Scene) -> None:
    nucleus = scene.begin("lite")
    with broken_server(scene.model("1")) as (url, mended):
        nucleus.deploy({"model": {"uri": url}}, local=True)
        report = scene.until_reported("retrying")
        assert "503" in report["reason"]
        mended.set()
        assert scene.listener.retry().success or scene.listener.status["phase"] != "waiting"
        scene.until_reported("succeeded")
    assert [report["outcome"] for report in scene.reports] == ["retrying", "succeeded"]
