"""Parts of the bridge around its decisions, in this process: session, delivery, telling, validation, settings, view."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from bridge_support import wait_for, write_model

from gg_bridge import memory, report, validation
from gg_bridge import robot as robots
from gg_bridge.actions import Tell
from gg_bridge.bridge import Bridge, Manner, Ports
from gg_bridge.configuration import ModelConfiguration
from gg_bridge.delivery import Channel
from gg_bridge.fetch import FetchError
from gg_bridge.fetching import Fetching, is_retryable
from gg_bridge.models import fetcher, previewer
from gg_bridge.nucleus import NucleusError
from gg_bridge.outbox import Outbox
from gg_bridge.robot import Robot
from gg_bridge.session import REFUSALS, Connection, Hooks, Session
from gg_bridge.settings import Settings
from gg_bridge.telling import MAX_ERRORED, Telling, Ways
from gg_bridge.view import View
from vla_core import manifest as manifests
from vla_core import signing
from vla_core.errors import ConfigError, ManifestError, StoreError, StoreFull
from vla_core.joints import SO101_JOINTS
from vla_core.store import Store
from vla_core.swap import Outcome, Stage, SwapRequest, SwapStatus

ROBOT = Robot(("front", "wrist"), SO101_JOINTS)
WISH = ModelConfiguration(uri="https://user:secret@host/m?X-Amz-Signature=abc", version="1")


class FakeNucleus:
    """A nucleus of which each operation can be made to fail."""

    def __init__(self, **failures: NucleusError) -> None:
        self.failures = failures
        self.states: list[str] = []
        self.published: list[tuple[str, dict[str, Any]]] = []
        self.shadows: list[dict[str, Any]] = []
        self.gone: Callable[[str], None] = lambda _: None
        self.changed: Callable[[tuple[str, ...]], None] = lambda _: None
        self.closed = False

    def _maybe(self, name: str) -> None:
        if (error := self.failures.get(name)) is not None:
            raise error

    def configuration(self, *_: str) -> Mapping[str, Any]:
        self._maybe("configuration")
        return {}

    def on_configuration(self, changed: Callable[[tuple[str, ...]], None]) -> None:
        self._maybe("on_configuration")
        self.changed = changed

    def on_validation(self, judge: Callable[[Mapping[str, Any]], str]) -> None:
        self._maybe("on_validation")

    def on_component_update(self, decide: Callable[[str, bool], int]) -> None:
        self._maybe("on_component_update")

    def on_gone(self, gone: Callable[[str], None]) -> None:
        self.gone = gone

    def report_state(self, state: str) -> None:
        self._maybe("report_state")
        self.states.append(state)

    def update_configuration(self, key_path: object, value: object) -> None:
        self._maybe("update_configuration")

    def publish(self, topic: str, payload: bytes) -> None:
        if topic == "$aws/things/arm-7/shadow/name/evergreen/update":
            self.shadows.append(json.loads(payload))
            return
        self._maybe("publish")
        self.published.append((topic, json.loads(payload)))

    def close(self) -> None:
        self.closed = True


class Told:
    """Keeps what is logged and asked."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ends: list[str] = []
        self.connected = 0
        self.changes = 0

    def log(self, text: str, warn: bool) -> None:
        self.lines.append(text)

    def _connected(self) -> None:
        self.connected += 1

    def _changed(self) -> None:
        self.changes += 1

    @property
    def hooks(self) -> Hooks:
        return Hooks(self._connected, self._changed, lambda _: "", lambda *_: 0, self.ends.append, self.log)


@pytest.fixture
def told() -> Told:
    return Told()


UNSUPPORTED = NucleusError("not here", "unsupported")
GONE = NucleusError("nobody listens", "gone")
DENIED = NucleusError("void token", "denied")


# --- session


def run_session(results: list[FakeNucleus | NucleusError], told: Told) -> Session:
    """A session whose attempts to connect end so, the last one for ever."""

    def connect() -> FakeNucleus:
        result = results.pop(0) if len(results) > 1 else results[0]
        if isinstance(result, NucleusError):
            raise result
        return result

    session = Session(connect, told.hooks)
    session.start()
    return session


def test_a_session_waits_for_the_nucleus_and_connects_again(told: Told) -> None:
    first, second = FakeNucleus(on_validation=UNSUPPORTED, on_component_update=UNSUPPORTED), FakeNucleus()
    session = run_session([GONE, GONE, first, GONE, second], told)
    wait_for("connected", lambda: told.connected == 1)
    assert first.states == ["RUNNING"]
    assert session.unsupported == ("validation of configurations", "deferral of updates")
    first.changed(("model",))
    assert told.changes == 1
    first.gone("it hung up")
    wait_for("connected again", lambda: told.connected == 2)
    assert first.closed
    assert session.unsupported == ()
    assert session.call(lambda nucleus: nucleus.configuration()) == {}
    assert told.lines.count("nobody listens") == 2
    assert any("the robot works on" in line for line in told.lines)
    session.stop()
    assert second.closed
    assert told.ends == []
    with pytest.raises(NucleusError) as caught:
        session.call(lambda nucleus: nucleus.configuration())
    assert caught.value.kind == "gone"


def test_a_void_token_ends_the_process_but_not_at_its_first_sign(told: Told) -> None:
    """Greengrass Lite starts a component again three times an hour only."""
    session = run_session([*[DENIED] * (REFUSALS - 1), GONE, DENIED], told)
    wait_for("the end", lambda: told.ends)
    assert told.ends == ["void token"]
    session.stop()


def test_a_failing_subscription_is_tried_anew(told: Told) -> None:
    broken = FakeNucleus(on_configuration=NucleusError("mute", "timeout"))
    session = run_session([broken, FakeNucleus()], told)
    wait_for("connected", lambda: session.connection is Connection.CONNECTED)
    assert broken.closed
    session.stop()


def test_a_defect_of_the_connection_ends_the_process_instead_of_the_thread_alone(told: Told) -> None:
    """The thread ended unnoticed, and the bridge was `connecting` for ever."""

    def connect() -> FakeNucleus:
        raise PermissionError("the socket's folder may not be searched")

    session = Session(connect, told.hooks)
    session.start()
    wait_for("the end", lambda: told.ends)
    assert "PermissionError" in told.ends[0]
    session.stop()


def test_a_session_that_never_began_can_be_stopped(told: Told) -> None:
    Session(FakeNucleus, told.hooks).stop()


# --- delivery


def channel(folder: Path, send: Callable[[str], None], told: Told) -> Channel:
    return Channel("AWS IoT Core", Outbox(folder), send, told.log)


def test_reports_wait_ever_longer_and_the_reason_is_told_once(tmp_path: Path, told: Told) -> None:
    def send(_: str) -> None:
        raise NucleusError("PublishToIoTCore: ServiceError", "other")

    way = channel(tmp_path, send, told)
    assert way.due_s is None
    way.put("a")
    delays = []
    for _ in range(9):
        way.run(0.0)
        delays.append(way.due_s)
    assert delays == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0, 120.0, 120.0]
    assert told.lines == ["reports for AWS IoT Core wait: PublishToIoTCore: ServiceError"]
    assert way.waiting == 1
    way.wake()
    assert way.due_s == 0.0


def test_reports_for_the_cloud_are_never_thrown_away_since_a_stream_ended(tmp_path: Path, told: Told) -> None:
    """A stream that ended without a word counts as an operation that is not there: all that waited was deleted."""

    def send(_: str) -> None:
        raise UNSUPPORTED

    way = channel(tmp_path, send, told)
    way.put("a")
    way.run(0.0)
    assert way.waiting == 1
    assert told.lines == ["reports for AWS IoT Core wait: not here"]


def test_a_report_may_hold_what_no_text_can() -> None:
    """A file's name that is no UTF-8 ended the bridge, and again each time it started."""
    told = Tell("d-1", WISH, "", "refused", "no model in m\udcff")
    assert report.to_text(report.build(told, thing="t", running="", unix_s=0.0)).encode()


def test_reports_that_cannot_be_kept_are_one_line(tmp_path: Path) -> None:
    """A store that cannot be written ended the node with a traceback."""
    (tmp_path / "bridge").write_text("in the way")
    with pytest.raises(StoreError, match="keeps its reports there"):
        Outbox(tmp_path / "bridge" / "mqtt")


def test_a_report_that_the_disk_does_not_take_is_delivered_from_memory(tmp_path: Path, told: Told) -> None:
    sent: list[str] = []
    way = channel(tmp_path / "box", sent.append, told)
    (tmp_path / "box").rmdir()
    way.put("a")
    (tmp_path / "box").mkdir()
    way.put("b")
    assert way.waiting == 2
    way.run(0.0)
    assert sorted(sent) == ["a", "b"]
    assert "kept in memory only" in told.lines[0]


# --- telling


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def telling(store: Store, nucleus: FakeNucleus, told: Told, **ways: object) -> Telling:
    given = Ways(**{"thing": "arm-7", "topic": "robots/{thing}/up", "shadow": "evergreen", "errored": True} | ways)
    return Telling(store, store.root / "bridge", given, lambda work: work(nucleus), told.log)


@pytest.fixture
def running() -> Iterator[list[Telling]]:
    started: list[Telling] = []
    yield started
    for each in started:
        each.stop()


def test_what_is_told_goes_to_log_trail_topic_and_shadow(store: Store, told: Told, running: list[Telling]) -> None:
    nucleus = FakeNucleus()
    teller = telling(store, nucleus, told)
    running.append(teller)
    teller.start()
    teller.tell(Tell("d-1", WISH, "pick@1", "rolled_back", "too slow", {"total": 3.14159}), "pick@0")
    wait_for("both", lambda: nucleus.published and nucleus.shadows and not teller.waiting)
    topic, sent = nucleus.published[0]
    assert topic == "robots/arm-7/up"
    assert (sent["report_id"], sent["model"], sent["running"]) == ("d-1-rolled_back", "pick@1", "pick@0")
    assert sent["durations_s"] == {"total": 3.142}
    assert nucleus.shadows == [{"state": {"reported": {"update": sent}}}]
    assert told.lines == ["update to pick@1 rolled back after 3.1 s: too slow; pick@0 drives on"]
    assert nucleus.states == ["ERRORED"]
    trail = [entry for entry in store.history() if entry["event"] == "update"]
    assert trail[0]["reason"] == "too slow"
    whole = json.dumps(sent) + "".join(map(str, trail)) + told.lines[0]
    assert "secret" not in whole
    assert "Signature" not in whole


def test_errored_is_not_reported_so_often_that_the_nucleus_gives_the_component_up(store: Store, told: Told) -> None:
    nucleus = FakeNucleus()
    for number in range(MAX_ERRORED + 2):
        fresh = telling(store, nucleus, told)  # ERRORED restarts the process
        fresh.tell(Tell(f"d-{number}", WISH, "pick@1", "refused", "bad"), "pick@0")
    fresh.tell(Tell("d-9", WISH, "pick@1", "succeeded"), "pick@1")
    assert nucleus.states == ["ERRORED"] * MAX_ERRORED


def test_a_step_of_the_clock_makes_errored_no_more_frequent(store: Store, told: Told) -> None:
    """What was reported while the clock was in 1970 did not count: the nucleus could give the component up."""
    nucleus = FakeNucleus()
    teller = telling(store, nucleus, told)
    for number in range(MAX_ERRORED):
        teller.tell(Tell(f"d-{number}", WISH, "pick@1", "refused", "bad"), "pick@0")
    trail = store.root / "history.jsonl"
    entries = [json.loads(line) | {"time": "1970-01-01T00:01:00.000+00:00"} for line in trail.read_text().splitlines()]
    trail.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    teller.tell(Tell("d-9", WISH, "pick@1", "refused", "bad"), "pick@0")
    assert nucleus.states == ["ERRORED"] * MAX_ERRORED


def test_ways_that_are_not_wanted_are_not_used(store: Store, told: Told, running: list[Telling]) -> None:
    nucleus = FakeNucleus(report_state=GONE)
    teller = telling(store, nucleus, told, topic="", shadow="", errored=False)
    running.append(teller)
    teller.start()
    teller.tell(Tell("d-1", WISH, "", "refused", "bad"), "")
    assert teller.waiting == 0
    assert told.lines == ["update to https://host/m refused: bad"]


def test_a_denied_report_keeps_no_other_back(store: Store, told: Told, running: list[Telling]) -> None:
    nucleus = FakeNucleus(publish=NucleusError("PublishToIoTCore is denied: add accessControl", "denied"))
    teller = telling(store, nucleus, told)
    running.append(teller)
    teller.start()
    for number in range(3):
        teller.tell(Tell(f"d-{number}", WISH, "pick@1", "succeeded"), "pick@1")
    wait_for(
        "the shadow",
        lambda: nucleus.shadows and nucleus.shadows[-1]["state"]["reported"]["update"]["request_id"] == "d-2",
    )
    wait_for("the reason", lambda: any("add accessControl" in line for line in told.lines))
    assert teller.waiting == 3
    nucleus.failures.clear()
    teller.wake()
    wait_for("delivery", lambda: len(nucleus.published) == 3)
    assert [sent["request_id"] for _, sent in nucleus.published] == ["d-0", "d-1", "d-2"]


def test_a_report_stays_below_what_the_nucleus_takes() -> None:
    robot, label = "\U0001f916", "a" * 64 + "@" + "b" * 64
    wish = ModelConfiguration(uri="https://h/" + robot * 2038, prompt=robot * 1000)
    durations_s = dict.fromkeys(["fetch", "verify", "start", "warm_up", "judge", "switch", "probation", "total"], 1.0)
    told = Tell("d" * 30, wish, label, "rolled_back", robot * 9000, durations_s)
    text = report.to_text(report.build(told, thing="t" * 128, running=label, unix_s=0.0))
    assert len(base64.b64encode(text.encode())) < 9_500  # Greengrass Lite's longest message is 10,000
    assert json.loads(text)["reason"] == robot * report.MAX_REASON


# --- validation


def manifest(**more: object) -> manifests.Manifest:
    fields: dict[str, Any] = {"joint_names": SO101_JOINTS, "cameras": {"front": manifests.CameraInput(64, 32)}} | more
    return manifests.Manifest(name="pick", version="1", policy_type="act", backend="onnx", **fields)


def judged(document: object, preview: validation.Preview, **more: Any) -> str:
    given = {"robot": lambda: ROBOT, "present": lambda _: False, "refusal": lambda _: ""} | more
    return validation.judge(document, preview=preview, **given)


DOCUMENT = {"model": {"uri": "file:/m"}}


def test_a_configuration_is_accepted_where_model_and_robot_fit() -> None:
    assert judged(DOCUMENT, lambda _: manifest()) == ""
    assert judged(DOCUMENT, lambda _: None) == ""
    assert judged({}, lambda _: pytest.fail("nothing to look at")) == ""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"cameras": {"sonar": manifests.CameraInput(8, 8)}}, "wants camera(s) sonar; this robot has front, wrist"),
        ({"joint_names": ("knee",)}, "moves joint(s) knee"),
        ({"joint_names": SO101_JOINTS[:5]}, "does not move joint(s) gripper"),
        ({"image_pipeline": "rgb-v9"}, "image pipeline 'rgb-v9'"),
    ],
)
def test_a_model_that_the_robot_cannot_run_is_refused(more: dict[str, Any], said: str) -> None:
    assert said in judged(DOCUMENT, lambda _: manifest(**more))


def test_a_robot_that_nobody_described_yet_takes_nothing_that_could_be_judged() -> None:
    """It took whatever was sound: a deployment that could not fit succeeded, since the computer was busy."""
    assert "/policy has never said which cameras" in judged(DOCUMENT, lambda _: manifest(), robot=lambda: None)
    assert judged(DOCUMENT, lambda _: None, robot=lambda: None) == ""


def test_a_robot_that_does_not_answer_is_not_waited_for() -> None:
    gate = threading.Event()

    def ask() -> Robot:
        gate.wait(60.0)
        return ROBOT

    assert "pick@1 is not known" in judged(DOCUMENT, lambda _: manifest(), robot=ask, limit_s=0.05)
    gate.set()


def test_what_the_robot_has_is_kept(tmp_path: Path) -> None:
    assert robots.load(tmp_path) is None
    robots.save(tmp_path / "new", ROBOT)
    assert robots.load(tmp_path / "new") == ROBOT
    (tmp_path / "new" / robots.FILE_NAME).write_text("[]")
    assert robots.load(tmp_path / "new") is None


def test_what_is_in_force_is_accepted_though_it_was_refused() -> None:
    """A deployment that is rolled back to such a configuration must not fail once more."""
    assert judged(DOCUMENT, lambda _: manifest(), refusal=lambda _: "too slow").startswith(
        "this robot refused it before"
    )
    assert judged(DOCUMENT, lambda _: manifest(), present=lambda _: True, refusal=lambda _: "too slow") == ""


def test_a_manifest_that_does_not_come_is_not_waited_for(told: Told) -> None:
    """The reason, which goes to logs and to the deployment, had the address whole: a presigned one is a secret."""
    gate = threading.Event()

    def preview(_: ModelConfiguration) -> None:
        gate.wait(60.0)

    began_s = time.monotonic()
    said = judged({"model": {"uri": WISH.uri.replace("user:secret@", "")}}, preview, limit_s=0.05)
    assert "https://host/m did not come within 0 s" in said
    assert "Signature" not in said
    assert time.monotonic() - began_s < 30.0
    gate.set()


def test_an_error_of_the_preview_is_the_reason() -> None:
    def preview(_: ModelConfiguration) -> None:
        raise FetchError("404", retryable=False)

    assert judged(DOCUMENT, preview) == "404"
    assert "model.uri is 1" in judged({"model": {"uri": 1}}, preview)


def test_previews_of_folders_and_archives(tmp_path: Path, store: Store) -> None:
    from vla_core import archives  # noqa: PLC0415

    folder = write_model(tmp_path / "m", "1")
    look = previewer(store)
    assert look(ModelConfiguration(uri=str(folder))).label == "pick@1"
    archives.pack(folder, manifests.load(folder), tmp_path / "m.tar.gz")
    assert look(ModelConfiguration(uri=str(tmp_path / "m.tar.gz"), version="1")).label == "pick@1"
    with pytest.raises(FetchError, match="where version 2"):
        look(ModelConfiguration(uri=str(folder), version="2"))
    with pytest.raises(FetchError, match="SHA-256"):
        look(ModelConfiguration(uri=str(folder), sha256="0" * 64))
    (folder / "manifest.json").write_bytes(b"\xff\x00")
    with pytest.raises(ManifestError):
        look(ModelConfiguration(uri=str(folder)))


# --- fetching


def test_fetches_follow_each_other_and_a_cancelled_one_says_nothing(told: Told) -> None:
    gate, order, ended = threading.Event(), [], []

    def fetch(wish: ModelConfiguration, note: Callable[[str], None], cancelled: threading.Event) -> str:
        order.append(f"begin {wish.uri}")
        if wish.uri == "a":
            gate.wait(60.0)
        note("50 %")
        order.append(f"end {wish.uri}")
        return wish.uri

    fetching = Fetching(fetch, told.log)
    for uri in ("a", "b"):
        fetching.start(ModelConfiguration(uri=uri), ended.append, lambda *_: None)
    gate.set()
    wait_for("b", lambda: ended == ["b"])
    assert order == ["begin a", "end a", "begin b", "end b"]
    fetching.stop()


def test_a_fetch_that_fails_says_whether_to_try_again(told: Told) -> None:
    failures: list[tuple[str, bool]] = []
    errors: list[Exception] = [
        FetchError("cut", retryable=True),
        StoreFull("full"),
        ManifestError("broken"),
        ZeroDivisionError(),
    ]

    def fetch(*_: object) -> str:
        raise errors[len(failures)]

    fetching = Fetching(fetch, told.log)
    for number in range(len(errors)):
        fetching.start(WISH, lambda _: None, lambda *failure: failures.append(failure))
        wait_for("its end", lambda wanted=number + 1: len(failures) == wanted)
    assert failures[:3] == [("cut", True), ("full", True), ("broken", False)]
    assert failures[3] == ("defect while fetching: ZeroDivisionError()", False)
    assert "Traceback" in told.lines[0]
    assert not is_retryable(StoreError("other content"))


def test_models_are_fetched_into_the_store(tmp_path: Path, store: Store) -> None:
    folder, notes = write_model(tmp_path / "m", "1"), []
    label = fetcher(store)(ModelConfiguration(uri=f"file:{folder}"), notes.append, threading.Event())
    assert label == "pick@1"
    assert store.labels() == ("pick@1",)
    assert notes


# --- memory


def test_what_is_fetched_stays_until_the_policy_has_taken_or_refused_it(tmp_path: Path, store: Store) -> None:
    """Nobody held it between the two: `gc`, or another fetch that needed room, removed it, and it was refused."""
    folder = write_model(tmp_path / "m", "1")
    wish = ModelConfiguration(uri=str(folder))
    memory.save(store.root / "bridge", memory.Memory(generation=1, digest=wish.digest, wish=wish))
    asked: list[SwapRequest] = []
    ports = Ports(
        store=store,
        connect=None,
        fetch=fetcher(store),
        preview=lambda _: None,
        ask=lambda request, _: asked.append(request),
        robot=lambda _: None,
        show=lambda _: None,
        log=lambda *_: None,
        end=lambda _: None,
    )
    bridge = Bridge(ports, Manner(Ways("t", "", "", errored=False), quiet_time_s=0.1, defer_limit_s=0.0))
    bridge.start()
    try:
        wait_for("the request", lambda: asked)
        assert store.gc() == ()
        bridge.heard(SwapStatus(request_id=asked[0].request_id, stage=Stage.START))
        assert store.gc() == ()
        bridge.heard(SwapStatus(request_id=asked[0].request_id, outcome=Outcome.REFUSED, passing=True))
        wait_for("it to wait", lambda: bridge.view().phase == "waiting")
        assert store.gc() == ()
        wait_for("the next request", lambda: len(asked) > 1)
        bridge.heard(SwapStatus(request_id=asked[1].request_id, outcome=Outcome.REFUSED, reason="too slow"))
        wait_for("it to go", lambda: store.gc() == ("pick@1",))
    finally:
        bridge.stop()
    assert bridge.defect is None


def test_memory_is_its_owners_alone(tmp_path: Path) -> None:
    """It holds the address whole, which may be a presigned one, and everybody could read it."""
    memory.save(tmp_path, memory.Memory(wish=WISH))
    assert (tmp_path / memory.FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_memory_survives_and_forgets_old_refusals(tmp_path: Path) -> None:
    assert memory.load(tmp_path) == memory.Memory()
    mind = memory.Memory(generation=3, digest="abc", wish=WISH, label="pick@1", outcome="refused", reason="r")
    for number in range(memory.KEPT_REFUSALS + 5):
        mind = mind.with_refusal(str(number), "bad")
    assert len(mind.refused) == memory.KEPT_REFUSALS
    assert list(mind.refused)[-1] == str(memory.KEPT_REFUSALS + 4)
    memory.save(tmp_path / "new", mind)
    assert memory.load(tmp_path / "new") == mind
    assert mind.without_refusal("9").refused.get("9") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "wish": 3, "refused": {}}', '"x"'])
def test_a_memory_that_is_nonsense_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / memory.FILE_NAME).write_text(text)
    with pytest.raises(ConfigError, match=r"memory\.json"):
        memory.load(tmp_path)


def test_a_memory_that_is_nonsense_is_put_aside(tmp_path: Path, told: Told) -> None:
    """The node ended with 2 until somebody deleted the file on the robot: no deployment reached it any more."""
    (tmp_path / memory.FILE_NAME).write_text("{")
    assert memory.recall(tmp_path, told.log).digest == ""
    assert "begins anew" in told.lines[0]
    assert (tmp_path / memory.ASIDE_NAME).read_text() == "{"
    assert memory.recall(tmp_path, told.log) == memory.Memory()


# --- settings and view


def test_settings_choose_nucleus_store_thing_and_trust(tmp_path: Path) -> None:
    """Naming keys by the parameter dropped the environment's requirement: unsigned models were taken."""
    environment = {"EVERGREEN_STORE": str(tmp_path / "s"), "AWS_IOT_THING_NAME": "arm-9"}
    settings = Settings()
    assert settings.open_store(environment).root == tmp_path / "s"
    assert replace(settings, store=str(tmp_path / "t")).open_store(environment).root == tmp_path / "t"
    assert settings.manner(environment).ways.thing == "arm-9"
    assert replace(settings, thing="x").manner(environment).ways.thing == "x"
    assert not settings.wants_nucleus(environment)
    component = environment | {"AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": "/run/ipc"}
    assert settings.wants_nucleus(component)
    assert not replace(settings, nucleus="none").wants_nucleus(component)
    with pytest.raises(ConfigError, match="'nucleus' is 'required'"):
        replace(settings, nucleus="required").wants_nucleus(environment)
    with pytest.raises(ConfigError, match="no key is trusted"):
        replace(settings, require_signature=True).open_store(environment)
    signing.generate(tmp_path / "k.pem")
    named = replace(settings, trusted_keys=str(tmp_path / "k.pem.pub"))
    assert not named.open_store(environment).trust.required
    assert named.open_store(environment | {"EVERGREEN_REQUIRE_SIGNATURE": "1"}).trust.required
    with pytest.raises(ConfigError, match=r"nowhere/k\.pub"):
        replace(settings, trusted_keys="/nowhere/k.pub").open_store(environment)


@pytest.mark.parametrize(
    ("view", "well", "sentence"),
    [
        (View(), False, "no nucleus: the model stays as it is; the robot works on. no model is asked for"),
        (View(nucleus="connected"), True, "no model is asked for"),
        (View(nucleus="connected", wish="u", model="p@1", outcome="succeeded"), True, "p@1 succeeded"),
        (
            View(nucleus="lost", model="p@1", outcome="succeeded"),
            False,
            "no connection to the nucleus at present. p@1 s",
        ),
        (View(nucleus="connected", wish="u", phase="fetching", progress="3 %"), True, "fetching u: 3 %"),
        (
            View(nucleus="connected", wish="u", phase="waiting", reason="503"),
            False,
            "u will be tried again: 503",
        ),
        (View(nucleus="connected", model="p@1", phase="swapping", stage="judge"), True, "swapping to p@1, stage judge"),
        (View(nucleus="connected", model="p@1", outcome="rolled_back", reason="slow"), False, "p@1 rolled back: slow"),
    ],
)
def test_a_view_says_in_a_sentence_what_there_is(view: View, well: bool, sentence: str) -> None:
    assert view.is_well is well
    assert view.sentence.startswith(sentence)


def test_the_documentation_names_every_parameter_and_every_key() -> None:
    text = (Path(__file__).parents[3] / "docs/gg_bridge.md").read_text()
    for name in (*Settings.__dataclass_fields__, *ModelConfiguration.__dataclass_fields__):
        assert f"| `{name}` |" in text
