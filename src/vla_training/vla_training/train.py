"""Train an ACT policy from demonstrations.

Phase S and A train everything end to end, on random scenes and on demonstrations. Phase R, which may be left out, does
what A does once more from there: its rate rises again and falls. Phase B, which may be left out, freezes the ResNet,
computes its features once, and trains the transformer on them; phase H before it lets a new transformer learn whom a
prompt means, from scenes that are asked about several cubes at once. Late checkpoints of the last phase play in closed
loop, and the one that succeeds most often is the result: a LeRobot checkpoint with an ONNX graph and a manifest. Run it
again with the same output folder and it continues where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.act.modeling_act import ACTPolicy
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vla_core.errors import ConfigError
from vla_core.manifest import PromptEncoding, sha256_file
from vla_core.prompt_phrases import FILE_NAME, Phrases
from vla_core.store import locks
from vla_sim.layout import NAMED
from vla_training import act, dataset, export, prompt_export
from vla_training.batches import Batches, PromptVectors, compute_stats
from vla_training.config import Phase, TrainConfig
from vla_training.learner import IMITATION, Learner, loss_of
from vla_training.loss_plot import plot_loss
from vla_training.optimise import Trainer
from vla_training.phrases import TARGETS, known
from vla_training.select import Score, play

SEED_STEP = 1000
"""Keeps phase S's random numbers apart from phase A's."""
STATS_FILE = "stats.safetensors"


class PassThrough(nn.Module):
    """Stands where the backbone was while features come from the cache."""

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """LeRobot expects a dictionary from torchvision's layer getter."""
        return {"feature_map": features}


class Run:
    """One training run in one output folder."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.policy = act.build(config.policy)
        if config.start:
            act.warm_start(self.policy, config.start)
        self.policy.to(memory_format=torch.channels_last)
        self._learner = Learner(self.policy, pointing=config.pointing) if config.prompt_encoder else None
        self._data: dataset.Dataset | None = None
        self._stats: act.Stats | None = None

    def see(self) -> None:
        """Phase S: learn to see on random scenes."""
        if self.config.see is None:
            return
        data = self._load(self.config.see_data)
        stats = compute_stats(data, self.config.policy.image_key)
        batches = self._batches(data, stats, self.config.seed + SEED_STEP)
        for _ in self._whole("S", self.config.see, batches):
            pass

    def end_to_end(self) -> Iterator[tuple[Path, Phase]]:
        """Phases A and R: everything, on demonstrations; yields a checkpoint folder now and then, and its phase."""
        refine = self.config.refine
        phases = [("A", self.config.end_to_end, "S", 0)] + ([("R", refine, "A", 2 * SEED_STEP)] if refine else [])
        for name, phase, after, apart in phases:
            batches = self._batches(self.data, self.stats, self.config.seed + apart)
            for step in self._whole(name, phase, batches, after):
                yield self._save(act.folded(self.policy), f"{name}-{step:05d}"), phase

    def head(self, phase: Phase) -> Iterator[Path]:
        """Phases H and B, from where the phase before ended; yields a checkpoint folder of B now and then."""
        policy = act.folded(self.policy)
        backbone = policy.model.backbone
        if (hear := self.config.hear) is not None:
            torch.manual_seed(self.config.seed)
            policy = act.folded(act.build(self.config.policy))
        policy.model.backbone = PassThrough()
        policy.train()
        if hear is not None:
            scenes = self._batches(self._load(self.config.see_data), self.stats, self.config.seed + SEED_STEP)
            for _ in self._cached("H", hear, policy, backbone, scenes):
                pass
        demonstrations = self._batches(self.data, self.stats, self.config.seed)
        for trainer in self._cached("B", phase, policy, backbone, demonstrations):
            whole = _assembled(policy, backbone, trainer)
            # For phase F; what it lacks are counts that only a running average of BatchNorm without momentum needs.
            self.policy.load_state_dict(whole.state_dict(), strict=False)
            yield self._save(whole, f"B-{trainer.progress.step:05d}")

    def finish(self, phase: Phase) -> Iterator[Path]:
        """Phase F: everything, from where phase B ended; yields a checkpoint folder now and then."""
        for step in self._whole("F", phase, self._batches(self.data, self.stats, self.config.seed + 3 * SEED_STEP)):
            yield self._save(act.folded(self.policy), f"F-{step:05d}")

    def _save(self, policy: ACTPolicy, name: str) -> Path:
        act.save_checkpoint(policy, self.stats, self._checkpoints / name)
        return self._checkpoints / name

    def _cached(
        self, name: str, phase: Phase, policy: ACTPolicy, backbone: nn.Module, batches: Batches
    ) -> Iterator[Trainer]:
        """A phase of the transformer alone, on features that are computed once; yields at each checkpoint."""
        samples = batches.subset(self.config.cached_pictures)
        features = cache(lambda: batches.features(backbone, phase, samples, self.config.cached_variants))
        trainer = Trainer(
            name,
            policy,
            phase,
            loss_of=lambda batch: {IMITATION: loss_of(policy, batch)},
            batch_of=lambda step: batches.cached(phase, step, features(), samples),
            folder=self.folder,
        )
        trainer.restore()
        for _ in trainer.run():
            self._plot()
            yield trainer

    def best(self) -> Path:
        """All phases from A on, and the checkpoint that succeeds most often in closed loop; of equals, the last."""
        phases = {"F": self.config.finish, "B": self.config.head, "R": self.config.refine}
        last = next((name for name, phase in phases.items() if phase), "A")
        for checkpoint, phase in self._all():
            if checkpoint.name.startswith(last):
                self._play_late(checkpoint, phase)
        found = sorted(path for path in self._checkpoints.glob(f"{last}-*") if path.is_dir())
        return max(reversed(found), key=lambda checkpoint: (self._score_of(checkpoint) or Score(0, 0, 0)).merit)

    def _all(self) -> Iterator[tuple[Path, Phase]]:
        """Every phase from A on; yields its checkpoints."""
        yield from self.end_to_end()
        if (head := self.config.head) is not None:
            yield from ((checkpoint, head) for checkpoint in self.head(head))
        if (finish := self.config.finish) is not None:
            yield from ((checkpoint, finish) for checkpoint in self.finish(finish))

    def _play_late(self, checkpoint: Path, phase: Phase) -> None:
        """Score a checkpoint, if the phase has come so far that it may be the best."""
        selection = self.config.selection
        step = int(checkpoint.name.partition("-")[2])
        if selection.episodes and step >= selection.after * phase.steps and self._score_of(checkpoint) is None:
            score = play(checkpoint, self.config)
            _score_path(checkpoint).write_text(json.dumps(score.to_json()) + "\n", encoding="utf-8")
            print(f"{checkpoint.name}: {score}", flush=True)

    @staticmethod
    def _score_of(checkpoint: Path) -> Score | None:
        path = _score_path(checkpoint)
        return Score(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def stats(self) -> act.Stats:
        """What states, actions and pictures are normalised by; from the demonstrations."""
        if self._stats is None:
            path = self.folder / STATS_FILE
            if path.is_file():
                self._stats = _read_stats(path)
            else:
                self._stats = compute_stats(self.data, self.config.policy.image_key)
                _write_stats(path, self._stats)
        return self._stats

    @property
    def data(self) -> dataset.Dataset:
        """The demonstrations."""
        if self._data is None:
            self._data = self._load(self.config.data)
        return self._data

    def _batches(self, data: dataset.Dataset, stats: act.Stats, seed: int) -> Batches:
        encoder = self.config.prompt_encoder
        vectors = prompt_vectors(data.texts, encoder) if encoder else None
        return Batches(data, stats, self.config.policy.image_key, seed, vectors, pointing=self.config.pointing)

    def _whole(self, name: str, phase: Phase, batches: Batches, after: str = "") -> Iterator[int]:
        self.policy.train()
        learner = self._learner
        with act.frozen_stages(self.policy, phase.frozen_stages):
            trainer = Trainer(
                name,
                learner or self.policy,
                phase,
                loss_of=learner.losses if learner else lambda batch: {IMITATION: loss_of(self.policy, batch)},
                batch_of=lambda step: batches.end_to_end(phase, step),
                folder=self.folder,
            )
            if not trainer.restore() and after:
                trainer.start_from(after)
            for step in trainer.run():
                self._plot()
                yield step

    def _plot(self) -> None:
        plot_loss(self.folder / "log.jsonl", self.folder / "loss.png")

    def _load(self, folders: Sequence[Path]) -> dataset.Dataset:
        data = dataset.load(folders, self.config.policy.chunk_size, into_memory=True)
        print(f"{data.episodes} episodes, {len(data)} frames with pictures", flush=True)
        return data


def prompt_vectors(texts: Sequence[str], encoder: Path) -> PromptVectors:
    """What the policy is fed for these sentences: the vectors of what they ask for.

    Raises:
        ConfigError: a sentence that is none of `vla_training.phrases`, or asks for what the encoder does not know.
        ModelError: no encoder in that folder.
    """
    phrases = Phrases.load(encoder / FILE_NAME)
    targets = {text: target for target in TARGETS for text in known(target)}
    if strange := [text for text in texts if text not in targets]:
        raise ConfigError(f"the demonstrations' prompt {strange[0]!r} is no known phrase: record them again")
    vectors = np.array([phrases.vector_of(colour) for colour in NAMED], np.float32)
    return PromptVectors(vectors, np.array([NAMED.index(targets[text]) for text in texts], np.int64))


def _assembled(policy: ACTPolicy, backbone: nn.Module, trainer: Trainer) -> ACTPolicy:
    """The whole policy of a step: the backbone back in its place, weights averaged where that is on."""
    weights = dict(policy.state_dict())
    if trainer.average:
        weights |= trainer.average.values
    weights |= {f"model.backbone.{key}": value for key, value in backbone.state_dict().items()}
    whole = ACTPolicy(policy.config)
    whole.load_state_dict(weights)
    return whole.eval()


def _score_path(checkpoint: Path) -> Path:
    """Beside a checkpoint, not in it: a checkpoint's folder becomes the model's."""
    return checkpoint.with_name(f"{checkpoint.name}.score.json")


def _write_stats(path: Path, stats: act.Stats) -> None:
    save_file({f"{key} {kind}": value for key, kinds in stats.items() for kind, value in kinds.items()}, path)


def _read_stats(path: Path) -> act.Stats:
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in load_file(path).items():
        feature, kind = key.split(" ")
        found.setdefault(feature, {})[kind] = value
    return found


def train(config: TrainConfig, folder: Path, provenance: dict[str, Any]) -> Path:
    """Run all phases, choose the best checkpoint, export it, and return the model's folder.

    Raises:
        ConfigError: no data, with the folder where it should be.
        ModelError: the output folder belongs to another network.
        StoreBusy: another run writes to that folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Two runs would write the same states and log; the lock follows no link.
    with locks.folder(folder.resolve(), shared=False):
        return _train(Run(config, folder), provenance)


def _train(run: Run, provenance: dict[str, Any]) -> Path:
    config = run.config
    run.see()
    best = run.best()
    encoding = prompt_export.install(config.prompt_encoder, best) if config.prompt_encoder else None
    parity = export.export_onnx(best)
    facts = {"episodes": run.data.episodes, "frames": len(run.data), "seed": config.seed, **provenance}
    facts["parity_max_abs_error_rad"] = parity.max_abs_error_rad
    if config.start:
        facts["start_sha256"] = sha256_file(config.start / act.WEIGHTS_FILE)
    export.write_manifest(best, manifest_settings(config, encoding), facts)
    return best


def manifest_settings(config: TrainConfig, encoding: PromptEncoding | None = None) -> export.ManifestSettings:
    """What the run's configuration, and the prompt encoder that it took, say about the model."""
    return export.ManifestSettings(
        config.name, config.version, config.prompt, config.rate_hz, config.open_loop_s, prompt_encoder=encoding
    )
