"""`evergreen model export` as a program: at a terminal, without one, and what it refuses."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")

from vla_core import manifest as manifests
from vla_core.joints import SO101_JOINTS, Units
from vla_training import tiny

pytestmark = [pytest.mark.train, pytest.mark.timeout(900)]

EVERGREEN = Path(sys.executable).with_name("evergreen")
DEADLINE_S = 600.0
"""Three imports of LeRobot one after the other; each takes five seconds, and ten times that on a busy machine."""


def export(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(EVERGREEN), "model", "export", *map(str, arguments)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.fixture(scope="module")
def act(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as somebody else would have it: their camera names, and what training leaves behind."""
    folder = tmp_path_factory.mktemp("foreign") / "pretrained_model"
    tiny.build("act", folder, pictures=("observation.images.top", "observation.images.hand"))
    trained = {"dataset": {"repo_id": "someone/pick-cube"}, "seed": 7, "steps": 1000}
    (folder / "train_config.json").write_text(json.dumps(trained))
    return folder


def type_at_a_terminal(command: Sequence[str], lines: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Run a command on a pty, typing each line once its question is on the screen."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True)
    os.close(slave)
    screen, waiting, deadline = "", list(lines), time.monotonic() + DEADLINE_S
    seen = 0
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    screen += os.read(master, 65536).decode(errors="replace")
                except OSError:  # the other end is gone
                    break
            while waiting and (at := screen.find(waiting[0][0], seen)) >= 0:
                seen = at + len(waiting[0][0])
                os.write(master, f"{waiting.pop(0)[1]}\n".encode())
        assert not waiting, f"never asked {waiting[0][0]!r}: {screen}"
        return process.wait(DEADLINE_S), screen
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_a_dialogue_makes_a_model_with_an_onnx_graph(act: Path, tmp_path: Path) -> None:
    out = tmp_path / "pick"
    code, screen = type_at_a_terminal(
        [str(EVERGREEN), "model", "export", str(act), "--out", str(out), "--calibration", str(calibration(tmp_path))],
        [
            ("Name of the model", "pick"),
            ("Its version", ""),
            ("Default prompt", "put the black cube on the spot"),
            ("Frames a second", "10"),
            ("Which camera feeds observation.images.top", ""),
            ("Which camera feeds observation.images.hand", "rear"),
            ("Names of the 6 joints", ""),
            ("Units of its joints", "deg"),
            ("Units of its gripper", ""),
        ],
    )
    assert code == 0, screen
    assert "rad off LeRobot" in screen
    made = manifests.load(out)
    manifests.verify(out, made)
    assert (made.label, made.backend, made.rate_hz) == ("pick@1.0.0", "onnx", 10.0)
    assert made.camera_keys == {"overhead": "observation.images.top", "rear": "observation.images.hand"}
    assert (made.units, made.joint_units) == (Units.DEG, {"gripper": Units.PERCENT_FROM_ZERO})
    assert made.joint_ranges["gripper"].lower_rad == pytest.approx(0.785398 - 1000 * np.pi / 4096, abs=1e-4)
    assert made.provenance["dataset"] == "someone/pick-cube"
    assert made.provenance["parity_max_abs_error_rad"] < 1e-4
    assert not (act / manifests.FILE_NAME).exists(), "the checkpoint itself stays as it is"
    assert "train_config.json" not in made.files


def calibration(folder: Path) -> Path:
    """A file as lerobot-calibrate writes it: 1000 ticks for the gripper, 2000 for the rest."""
    joints = {
        name: {"id": number + 1, "drive_mode": 0, "homing_offset": 0, "range_min": 1000, "range_max": 3000}
        for number, name in enumerate(SO101_JOINTS)
    }
    joints["gripper"] |= {"range_min": 1500, "range_max": 2500}
    path = folder / "calibration.json"
    path.write_text(json.dumps(joints))
    return path


def test_without_a_terminal_the_missing_options_are_named(act: Path, tmp_path: Path) -> None:
    done = export(act, "--out", tmp_path / "out", "--name", "pick", "--units", "rad")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--rate-hz HZ; --camera top=CAMERA (proposed: overhead)" in done.stderr
    assert "--name" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_vision_language_policy_needs_its_backbone_beside_it(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = tiny.build("smolvla", tmp_path / "smolvla")
    outside = (folder / tiny.VLM_FOLDER).rename(tmp_path / "elsewhere")
    for path in (folder / "config.json", folder / "policy_preprocessor.json"):
        path.write_text(path.read_text().replace('"vlm"', '"HuggingFaceTB/SmolVLM2-500M"'))
    options = ("--yes", "--json", "--rate-hz", "10", "--prompt", "put the white cube on the spot")
    done = export(folder, "--out", tmp_path / "none", *options)
    assert done.returncode == 1
    assert "'HuggingFaceTB/SmolVLM2-500M' is not in the checkpoint, and nothing is fetched from a hub" in done.stderr
    done = export(folder, "--out", tmp_path / "made", *options, "--backbone", outside)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["label"], facts["backend"], facts["chunk_size"]) == ("smolvla@1.0.0", "torch", 10)
    assert facts["infer_ms"] > 0
    assert "SmolVLM2-500M/tokenizer.json" in manifests.load(tmp_path / "made").files


def test_a_checkpoint_with_a_pickle_becomes_a_model_only_without_it(act: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(act, tmp_path / "checkpoint"))
    (folder / "optimizer.pt").write_bytes(b"\x80\x04")
    done = export(folder, "--yes", "--rate-hz", "10")
    assert done.returncode == 1
    assert "optimizer.pt could run code when it is loaded" in done.stderr
    assert not (folder / manifests.FILE_NAME).exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--camera", "side=front"), "--camera side=front: the checkpoint sees top, hand"),
        (("--camera", "top=nose"), "--camera top=nose: this robot has overhead, front, "),
        (
            ("--camera", "top=front", "--camera", "hand=front"),
            "one camera cannot feed two of the checkpoint's pictures",
        ),
        (("--units", "inches"), "--units inches: must be one of rad, deg"),
        (("--rate-hz", "fast"), "--rate-hz fast: is no number"),
        (("--joint-units", "thumb=deg"), "--joint-units thumb=deg: its joints are shoulder_pan, "),
        (("--out", "/proc/model"), "/proc/model"),
        (("--chunk-size", "0"), "--chunk-size 0: must be at least 1"),
        (("--out", "/tmp"), "--out /tmp is there already"),
        (("--backbone", "/nowhere"), "--backbone /nowhere: there is no config.json in it"),
    ],
)
def test_wrong_options_are_one_line(act: Path, tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    out = () if "--out" in arguments else ("--out", tmp_path / "out")
    done = export(act, "--yes", "--rate-hz", "10", *out, *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def unknown(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"type": "act"', '"type": "telepathy"'))


def of_another_size(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"dim_model": 32', '"dim_model": 64'))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (cut_short, r"checkpoint/model\.safetensors has \d+ bytes where its header says \d+: fetch it again"),
        (lambda folder: (folder / "policy_preprocessor.json").unlink(), r"checkpoint has no policy_preprocessor\.json"),
        (lambda folder: next(folder.glob("*unnormalizer*")).unlink(), r"unnormalizer_processor\.safetensors, which is"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"checkpoint has no model\.safetensors"),
        (unknown, "policy type 'telepathy' is unknown; LeRobot has act, "),
        (of_another_size, "LeRobot cannot load this act policy"),
    ],
    ids=["cut short", "no processor", "no normalisation", "no weights", "unknown type", "another size"],
)
def test_a_checkpoint_that_is_not_whole_leaves_nothing(
    act: Path, tmp_path: Path, spoil: Callable[[Path], None], expected: str
) -> None:
    folder = Path(shutil.copytree(act, tmp_path / "checkpoint"))
    spoil(folder)
    before = sorted(folder.iterdir())
    for place in (("--out", tmp_path / "out"), ()):
        done = export(folder, "--yes", "--rate-hz", "10", *place)
        assert done.returncode == 1, done.stderr
        error = done.stderr.splitlines()[-1]
        assert re.search(expected, error), done.stderr
        assert len(error) < 600
        assert not (tmp_path / "out").exists()
        assert sorted(folder.iterdir()) == before
        if spoil in (unknown, of_another_size):
            break  # LeRobot itself must look, which takes long: once is enough


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    done = export(tmp_path)
    assert done.returncode == 1
    assert "is no LeRobot checkpoint: it has no config.json" in done.stderr
