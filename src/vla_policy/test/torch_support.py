"""Real servers of tiny LeRobot checkpoints, a bare client for them, and LeRobot itself to compare with."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import get_policy_class, make_pre_post_processors
from policy_support import Server

from vla_core import wire
from vla_policy.serving.address import Address
from vla_policy.serving.channel import Channel
from vla_policy.serving.client import is_healthy
from vla_training import tiny
from vla_training.tiny_backbones import write_vlm

PLUGINS = Path(__file__).parent / "plugins"
PLUGIN = "lerobot_policy_tiny"
TIMEOUT_S = 60.0
LOAD_S = 900.0
"""LeRobot takes five seconds to import, and a hundred times that on a machine that trains meanwhile."""
PERIOD_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000
TWO_CAMERAS = ("observation.images.front", "observation.images.wrist")
PI0 = {"chunk_size": 10, "n_action_steps": 10, "max_state_dim": 8, "max_action_dim": 8, "num_inference_steps": 3}
BACKBONE_KEYS = ("vlm_model_name", "tokenizer_name", "vision_encoder_name", "text_encoder_name")
PLUGGED_IN = ("tiny_pi0", "tiny_pi05", "single")
SEED = 0
"""The backend's own."""


def install_plugin(folder: Path) -> Path:
    """The plugin as an installed distribution: a folder for PYTHONPATH."""
    shutil.copytree(PLUGINS / PLUGIN, folder / PLUGIN)
    metadata = folder / f"{PLUGIN}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PLUGIN}\nVersion: 1.0\n")
    return folder


def with_path(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))}


def build(kind: str, folder: Path, pictures: Sequence[str] | None = None, **manifest: Any) -> Path:
    """A tiny model of any kind, those of the plugin among them."""
    if kind in PLUGGED_IN:
        sys.path[:0] = [] if str(PLUGINS) in sys.path else [str(PLUGINS)]
        __import__(PLUGIN)
    settings: dict[str, Any] = {}
    if kind in ("tiny_pi0", "tiny_pi05"):
        write_vlm(folder / tiny.VLM_FOLDER)
        settings = {**PI0, "image_resolution": (56, 56), "vlm_model_name": str(folder / tiny.VLM_FOLDER)}
    if pictures is None:
        pictures = () if kind in ("vqbet", "tdmpc", "single") else TWO_CAMERAS
    tiny.build(kind, folder, pictures=pictures, **settings)
    tiny.describe(folder, **({"chunk_size": 5} if kind == "single" else {}), **manifest)
    return folder


def scene(step: int, prompt: str = "put the black cube on the spot", at_ns: int | None = None) -> dict[str, Any]:
    """Observation `step` of a made-up episode, as on the wire; every step looks different."""
    rng = np.random.default_rng(step)
    return {
        "observation.images.front": rng.integers(0, 256, (tiny.HEIGHT, tiny.WIDTH, 3), dtype=np.uint8),
        "observation.images.wrist": rng.integers(0, 256, (tiny.HEIGHT, tiny.WIDTH, 3), dtype=np.uint8),
        "observation.state": (np.array(tiny.CENTRE) + rng.uniform(-0.1, 0.1, tiny.DOF)).astype(np.float32),
        "prompt": prompt,
        "stamp_ns": START_NS + step * PERIOD_NS if at_ns is None else at_ns,
    }


def wait_loaded(server: Server) -> Server:
    """As `Server.wait_healthy`, with LeRobot's patience."""
    deadline, pause = time.monotonic() + LOAD_S, threading.Event()
    while not is_healthy(server.address, 1.0):
        assert server.process.poll() is None, server.text
        assert time.monotonic() < deadline, f"not loaded within {LOAD_S} s: {server.text}"
        pause.wait(0.1)
    return server


class Peer:
    """A client that shows the whole answer."""

    def __init__(self, address: Address) -> None:
        self._channel = Channel(address, {}, time.monotonic() + TIMEOUT_S)
        self.metadata: Mapping[str, Any] = self._receive()

    def ask(self, observation: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        self._channel.send(wire.pack({**observation, **more}), time.monotonic() + TIMEOUT_S)
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        data = self._channel.receive(time.monotonic() + TIMEOUT_S)
        assert isinstance(data, bytes), data
        return wire.unpack(data)

    def close(self) -> None:
        self._channel.close()


@dataclass
class Served:
    """One kind's model and the server that runs it."""

    kind: str
    folder: Path
    server: Server

    def peer(self) -> Peer:
        return Peer(self.server.address)

    def answer(self, *steps: int, prompt: str = "put the black cube on the spot") -> np.ndarray:
        """What a session of its own answers to the last of `steps`."""
        peer = self.peer()
        for step in steps:
            answer = peer.ask(scene(step, prompt))
        peer.close()
        return answer["actions"]


class Reference:
    """LeRobot alone, in the way of its own control loop: one `select_action` a period."""

    def __init__(self, folder: Path) -> None:
        config = PreTrainedConfig.from_pretrained(folder)
        config.device = "cpu"
        overrides: dict[str, Any] = {"device_processor": {"device": "cpu"}}
        for key in BACKBONE_KEYS:
            if name := getattr(config, key, None):
                setattr(config, key, str(folder / name))
                overrides["tokenizer_processor"] = {"tokenizer_name": str(folder / name)}
        self.policy = get_policy_class(config.type).from_pretrained(folder, config=config)
        self.before, self.after = make_pre_post_processors(
            config, pretrained_path=str(folder), preprocessor_overrides=overrides
        )

    def play(self, steps: Sequence[int], actions: int) -> np.ndarray:
        """See `steps`, then give the first `actions` actions that it plays from the last of them: `(actions, dof)`."""
        self.policy.reset()
        for step in steps[:-1]:
            self._select(step)
        for queue in (getattr(self.policy, "_action_queue", []), getattr(self.policy, "_queues", {}).get("action", [])):
            queue.clear()
        self.policy._prev_mean = None  # TDMPC's last plan: ours are not one period apart, so each begins without
        torch.manual_seed(SEED)
        return np.stack([self._select(steps[-1]) for _ in range(actions)])

    def _select(self, step: int) -> np.ndarray:
        seen = scene(step)
        batch: dict[str, Any] = {
            "observation.state": torch.from_numpy(seen["observation.state"]),
            "task": seen["prompt"],
        }
        for key in self.policy.config.image_features:
            name = "front" if key == "observation.image" else key.rpartition(".")[2]
            picture = torch.from_numpy(seen[f"observation.images.{name}"])
            batch[key] = picture.permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            return self.after(self.policy.select_action(self.before(batch)))[0].numpy()
