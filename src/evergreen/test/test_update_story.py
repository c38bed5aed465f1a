"""The parts of `evergreen demo --update`: timeline, figures of the arm, broken models, cast, picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from evergreen.update import broken, picture
from evergreen.update.cast import BLACK, WHITE, assemble, first_of
from evergreen.update.narrator import table, title
from evergreen.update.results import Chapter, Step, Told, motion
from evergreen.update.timeline import BridgeSaid, Moment, Said, Timeline, build
from evergreen.update.witness import Witness
from vla_core import archives, manifest
from vla_core.errors import ConfigError
from vla_core.image import encode_jpeg
from vla_core.joints import SO101_JOINTS
from vla_core.setpoints import Commanded
from vla_core.swap import Outcome, Stage, SwapStatus

SWAP = {"verify": 0.1, "start": 0.6, "warm_up": 2.6, "judge": 2.8, "switch": 3.1, "probation": 3.2}


def bridge(at_s: float, phase: str, request_id: str = "r1", **more: str) -> BridgeSaid:
    return BridgeSaid(at_s, {"phase": phase, "request_id": request_id, **more})


def policy(at_s: float, timeline: dict[str, float], **more: object) -> Said:
    return Said(at_s, SwapStatus(**({"request_id": "r1", "timeline": timeline} | more)))


def succeeded() -> Timeline:
    bridges = [
        bridge(5.0, "idle", "r0", outcome="succeeded", model="black@1"),
        bridge(11.2, "fetching"),
        bridge(12.0, "swapping", model="white@1"),
        bridge(26.0, "idle", model="white@1", outcome="succeeded"),
    ]
    policies = [
        policy(12.45, {}),
        policy(12.52, {"verify": 0.1}),
        policy(13.9, {"verify": 0.1, "start": 0.6}),
        policy(25.7, SWAP | {"end": 13.2}, outcome=Outcome.SUCCEEDED),
    ]
    return build(10.0, 10.2, bridges, policies, {"r1-succeeded": 26.1})


def test_a_deployment_that_succeeds_has_every_moment_in_order() -> None:
    timeline = succeeded()
    assert list(timeline.at_s) == list(Moment)
    assert timeline.at_s[Moment.ASKED] == pytest.approx(12.52)  # the message that was quickest counts
    assert timeline.at_s[Moment.FIRST_ACTION] == pytest.approx(15.62)
    assert timeline.to_first_action_s == pytest.approx(5.42)
    assert (timeline.model, timeline.outcome) == ("white@1", Outcome.SUCCEEDED)
    stages = {part.stage: part.end_s - part.begin_s for part in timeline.stretches}
    assert list(stages) == [
        "deliver", "notice", "fetch", "ask", "verify", "start", "warm_up", "judge", "switch", "probation", "report",
    ]  # fmt: skip
    assert stages["start"] == pytest.approx(2.0)
    assert sum(stages.values()) == pytest.approx(16.1)


def test_a_deployment_that_was_refused_for_the_present_goes_on() -> None:
    """The first try's refusal was taken for the end, and what the second one did for nobody's."""
    bridges = [bridge(11.2, "fetching"), bridge(12.0, "swapping"), bridge(13.0, "waiting")]
    policies = [
        policy(12.5, {"verify": 0.1}),
        policy(12.6, {"verify": 0.1, "end": 0.2}, outcome=Outcome.REFUSED, passing=True),
    ]
    waits = build(10.0, 10.2, bridges, policies, {})
    assert (waits.outcome, Moment.OVER in waits.at_s) == (Outcome.NONE, False)
    policies += [
        policy(15.1, {"verify": 0.1}, request_id="r1:2"),
        policy(28.2, SWAP | {"end": 13.2}, request_id="r1:2", outcome=Outcome.SUCCEEDED),
    ]
    timeline = build(10.0, 10.2, bridges, policies, {})
    assert timeline.outcome is Outcome.SUCCEEDED
    assert timeline.at_s[Moment.FIRST_ACTION] == pytest.approx(18.2)


def test_stages_add_up_to_the_whole_and_json_tells_them() -> None:
    facts = json.loads(json.dumps(succeeded().as_dict()))
    assert facts["event_to_first_action_s"] == pytest.approx(5.42)
    until = ["notice", "fetch", "ask", "verify", "start", "warm_up", "judge", "switch"]
    assert sum(facts["stages_s"][stage] for stage in until) == pytest.approx(5.42, abs=0.01)
    assert facts["moments_s"]["deployed"] == 0.0
    assert facts["moments_s"]["reported"] == pytest.approx(16.1)


def test_one_that_the_gate_refuses_ends_while_it_is_judged() -> None:
    timeline = build(
        10.0,
        10.0,
        [bridge(11.0, "fetching"), bridge(12.0, "swapping", model="bad@1")],
        [
            policy(
                15.0, {"verify": 0.0, "start": 0.5, "warm_up": 2.0, "end": 2.5}, outcome=Outcome.REFUSED, reason="NaN"
            )
        ],
        {},
    )
    assert timeline.stretches[-1].stage == "warm_up"
    assert (timeline.outcome, timeline.reason) == (Outcome.REFUSED, "NaN")
    assert timeline.to_first_action_s is None
    assert Moment.FIRST_ACTION not in timeline.at_s


def test_one_that_cannot_be_fetched_never_reaches_the_policy() -> None:
    bridges = [bridge(11.0, "fetching"), bridge(11.5, "idle", outcome="refused", reason="wrong hash")]
    timeline = build(10.0, 10.1, bridges, [policy(9.0, SWAP | {"end": 9.0}, request_id="r0")], {"r1-refused": 11.6})
    assert [part.stage for part in timeline.stretches] == ["deliver", "notice", "fetch", "report"]
    assert (timeline.outcome, timeline.reason) == (Outcome.REFUSED, "wrong hash")


def test_what_the_bridge_said_before_the_deployment_is_not_of_it() -> None:
    old = bridge(5.0, "idle", "r0", outcome="succeeded")
    again = replace(old, at_s=10.5)  # a restarted bridge says its last wish again
    assert build(10.0, None, [old, again], [], {}).at_s == {Moment.DEPLOYED: 10.0}


def test_messages_that_overtake_each_other_make_no_negative_stage() -> None:
    bridges = [bridge(11.0, "fetching"), bridge(12.1, "swapping")]
    timeline = build(10.0, 10.0, bridges, [policy(12.0, {"verify": 0.05})], {})
    assert all(part.end_s >= part.begin_s for part in timeline.stretches)


def test_a_stage_of_another_release_is_passed_over() -> None:
    assert bridge(1.0, "idle", outcome="nothing").outcome is Outcome.NONE
    assert set(Stage) - {Stage.NONE} == {Stage(name) for name in SWAP}


def witness_with_gap(gap_s: float) -> Witness:
    """Trajectories of half a second, one ending `gap_s` before the first of the new model, at 15.62 s."""
    witness = Witness()
    for begin_s in np.arange(8.0, 15.62 - 0.5 - gap_s + 1e-9, 0.4):
        witness.on_trajectory(Commanded(round(begin_s * 1e9), round((begin_s + 0.5) * 1e9)))
    last_s = 15.62 - gap_s - 0.5
    witness.on_trajectory(Commanded(round(last_s * 1e9), round((last_s + 0.5) * 1e9)))
    for begin_s in np.arange(15.62, 27.0, 0.4):
        witness.on_trajectory(Commanded(round(begin_s * 1e9), round((begin_s + 0.5) * 1e9)))
    for at_s in np.arange(8.0, 27.0, 0.02):
        witness.on_speed(float(at_s), 0.8 if at_s < 15.0 else 0.3)
    return witness


def test_the_arm_had_a_setpoint_all_the_time() -> None:
    found = motion(witness_with_gap(-0.1), succeeded(), [])
    assert (found.gap_ms, found.largest_gap_ms, found.handover_gap_ms) == (0.0, 0.0, 0.0)
    assert found.speed_rad_s == pytest.approx(0.3)
    assert found.servo_period_ms is None


def test_a_gap_at_the_handover_is_found_in_full() -> None:
    writes_ns = [round(at_s * 1e9) for at_s in np.arange(10.0, 15.0, 0.01)]
    found = motion(witness_with_gap(0.35), succeeded(), writes_ns)
    assert found.handover_gap_ms == pytest.approx(350.0, abs=0.1)
    assert found.gap_ms == pytest.approx(350.0, abs=0.1)
    assert found.servo_period_ms == pytest.approx((25.62 - 14.99) * 1e3, abs=1.0)


def test_a_gap_elsewhere_is_not_the_handovers() -> None:
    witness = Witness()
    witness.on_trajectory(Commanded(8_000_000_000, 13_000_000_000))
    witness.on_trajectory(Commanded(13_400_000_000, 27_000_000_000))
    found = motion(witness, succeeded(), [])
    assert found.largest_gap_ms == pytest.approx(400.0)
    assert found.handover_gap_ms == 0.0


def linear_model(folder: Path, name: str, prompt: str) -> Path:
    """A small ONNX model with weights that every answer depends on."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    weights = [
        numpy_helper.from_array(np.eye(6, dtype=np.float32), "weight"),
        numpy_helper.from_array(np.zeros(6, np.float32), "bias"),
        numpy_helper.from_array(np.array([1, 1, 6], np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("Gemm", ["observation.state", "weight", "bias"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["action"]),
    ]
    inputs = [helper.make_tensor_value_info("observation.state", TensorProto.FLOAT, [1, 6])]
    outputs = [helper.make_tensor_value_info("action", TensorProto.FLOAT, [1, 1, 6])]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, weights)
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / broken.ONNX)
    made = manifest.Manifest(
        name=name,
        version="1",
        policy_type="act",
        backend="onnx",
        joint_names=SO101_JOINTS,
        prompt=prompt,
        files=manifest.list_files(folder),
    )
    manifest.write(folder, made)
    return folder


def answer(folder: Path) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(folder / broken.ONNX, providers=["CPUExecutionProvider"])
    return session.run(None, {"observation.state": np.ones((1, 6), np.float32)})[0]


def test_a_model_broken_by_nan_loads_and_answers_nothing_but_nan(tmp_path: Path) -> None:
    sound = linear_model(tmp_path / "sound", "sound", "the white cube")
    made = broken.make(broken.NAN, sound, tmp_path / "broken")
    assert np.isfinite(answer(sound)).all()
    assert np.isnan(answer(tmp_path / "broken")).all()
    assert made.label == "sound@1-nan"
    assert manifest.list_files(tmp_path / "broken") == made.files


def test_weights_that_lie_in_the_checkpoint_are_broken_too(tmp_path: Path) -> None:
    """A graph may read its weights from model.safetensors; it did not even load where that file was missing."""
    sound = linear_model(tmp_path / "sound", "sound", "the white cube")
    header = {
        "__metadata__": {"format": "pt"},
        "half": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        "count": {"dtype": "I64", "shape": [1], "data_offsets": [4, 12]},
    }
    text = json.dumps(header).encode()
    data = np.ones(2, np.float16).tobytes() + np.int64(7).tobytes()
    (sound / broken.CHECKPOINT).write_bytes(len(text).to_bytes(8, "little") + text + data)
    broken.make(broken.NAN, sound, tmp_path / "broken")
    spoilt = (tmp_path / "broken" / broken.CHECKPOINT).read_bytes()[8 + len(text) :]
    assert np.isnan(np.frombuffer(spoilt[:4], np.float16)).all()
    assert int.from_bytes(spoilt[4:], "little") == 7


def test_a_model_broken_by_hash_is_not_what_its_manifest_says(tmp_path: Path) -> None:
    sound = linear_model(tmp_path / "sound", "sound", "the white cube")
    made = broken.make(broken.HASH, sound, tmp_path / "broken")
    found = manifest.list_files(tmp_path / "broken")
    assert found[broken.ONNX].size == made.files[broken.ONNX].size
    assert found[broken.ONNX].sha256 != made.files[broken.ONNX].sha256


def test_what_is_no_onnx_file_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ONNX file"):
        list(broken.float_weights(b"\xff" * 8))
    with pytest.raises(ConfigError, match="no ONNX file"):
        list(broken.float_weights(b"\x0f"))
    folder = tmp_path / "scripted"
    folder.mkdir()
    scripted = manifest.Manifest(
        name="s", version="1", policy_type="expert", backend="expert", joint_names=SO101_JOINTS
    )
    manifest.write(folder, scripted)
    with pytest.raises(ConfigError, match=r"has no policy\.onnx that could be broken"):
        broken.make(broken.NAN, folder, tmp_path / "broken")


def shipped(folder: Path, *names: str) -> Path:
    for name in names:
        linear_model(folder / name, name, f"put the {'white' if 'white' in name else 'black'} cube on the spot")
    (folder / "expert").mkdir(parents=True)
    expert = manifest.Manifest(
        name="expert", version="1", policy_type="expert", backend="expert", joint_names=SO101_JOINTS, prompt="black"
    )
    manifest.write(folder / "expert", expert)
    return folder


def test_the_trained_pair_plays_where_it_is_there(tmp_path: Path) -> None:
    models = shipped(tmp_path / "models", "evergreen-black", "evergreen-white", "act-black")
    (work := tmp_path / "work").mkdir()
    cast = assemble("", "", broken.NAN, work, models)
    assert (cast.before.label, cast.after.label) == ("evergreen-black@1", "evergreen-white@1")
    assert (cast.before.target, cast.after.target) == ("black", "white")
    assert cast.broken.label == "evergreen-white@1-nan"
    assert archives.read_manifest(Path(cast.after.uri.removeprefix("file:")))[0].label == cast.after.label
    assert first_of(BLACK, models) == "evergreen-black"


def test_without_a_white_model_the_expert_is_sent_for_the_white_cube_and_says_so(tmp_path: Path) -> None:
    models = shipped(tmp_path / "models", "act-black")
    (work := tmp_path / "work").mkdir()
    cast = assemble("", "", broken.NAN, work, models)
    assert (cast.before.label, cast.after.label) == ("act-black@1", "expert-white@1")
    assert cast.after.target == "white"
    assert cast.broken.label == "act-black@1-nan"
    assert "no evergreen-black" in cast.lines()[0]
    assert "scripted expert" in cast.lines()[1]
    assert first_of(WHITE, models) == ""


def test_a_cast_that_cannot_play_is_refused_in_words(tmp_path: Path) -> None:
    models = shipped(tmp_path / "models", "act-black")
    (work := tmp_path / "work").mkdir()
    with pytest.raises(ConfigError, match="cannot take over from itself"):
        assemble("act-black", "act-black", broken.NAN, work, models)
    with pytest.raises(ConfigError, match="no model 'nobody'"):
        assemble("nobody", "", broken.NAN, work, models)
    with pytest.raises(ConfigError, match="neither model has weights"):
        assemble("expert", "", broken.NAN, work, shipped(tmp_path / "scripted"))


def test_where_neither_has_weights_another_one_is_broken(tmp_path: Path) -> None:
    models = shipped(tmp_path / "models", "act-black")
    (work := tmp_path / "work").mkdir()
    assert assemble("expert", "", broken.HASH, work, models).broken.label == "act-black@1-hash"


def told(*, ok: bool, missing: tuple[str, ...] = ()) -> Told:
    timeline = succeeded()
    chapter = Chapter(timeline, "SUCCEEDED", motion(witness_with_gap(-0.1), timeline, []), "succeeded")
    steps = [Step("one", True, ""), Step("two", ok, "why")]
    return Told("lite", {"before": "black@1"}, steps, [chapter], missing=missing)


def test_a_story_is_as_told_only_when_every_step_came_and_went_well() -> None:
    assert told(ok=True).as_told
    assert not told(ok=False).as_told
    assert not told(ok=True, missing=("three",)).as_told
    facts = json.loads(told(ok=True).to_json())
    assert facts["as_told"] is True
    assert facts["updates"][0]["arm"]["handover_gap_ms"] == 0.0


def test_the_table_has_a_row_for_each_stage() -> None:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table(told(ok=True).updates[0]))
    lines = capture.get().splitlines()
    assert [line.split()[0] for line in lines[1:]] == [part.stage for part in succeeded().stretches]
    assert title(told(ok=True).updates[0]) == (
        "white@1: succeeded, first action 5.42 s after the configuration event, longest time without a setpoint 0 ms"
    )


def test_the_picture_shows_stages_arm_and_stills(tmp_path: Path) -> None:
    jpeg = encode_jpeg(np.full((120, 160, 3), 99, np.uint8))
    path = tmp_path / "update.png"
    assert picture.draw(told(ok=True), witness_with_gap(0.3), {"before": jpeg, "after": b"no picture"}, path)
    assert min(cv2.imread(str(path)).shape[:2]) > 300
    assert not picture.draw(replace(told(ok=True), updates=[]), Witness(), {}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
