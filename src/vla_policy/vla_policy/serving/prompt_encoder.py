"""The prompt encoder of a model folder, run with ONNX Runtime: a sentence to a vector, a vector to a target.

`prompt_encoder.onnx` takes `ids` `(1, n)` int64, the numbers of a sentence's word pieces, and gives `vector` `(1, dim)`
float32 of length 1. Its vocabulary is in its own metadata: the two cannot be parted. It runs once for each new prompt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla_core import manifest as manifests
from vla_core.errors import ModelError
from vla_core.manifest import Manifest
from vla_core.prompt_phrases import FILE_NAME as PHRASES_FILE
from vla_core.prompt_phrases import Match, Phrases, Vector
from vla_core.prompt_spelling import Spelling, count_words, plain
from vla_core.prompt_tokens import Tokens
from vla_policy.serving.onnx_graph import load_graph

ENCODER_FILE = "prompt_encoder.onnx"
INPUT, OUTPUT = "ids", "vector"
VOCABULARY_KEY, LONGEST_KEY = "vocabulary", "longest"
_LENGTH_TOLERANCE = 1e-3


class PromptEncoder:
    """A sentence to a unit vector; deterministic. One thread uses it at a time."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load the graph and its vocabulary.

        Raises:
            ModelError: it does not load, or is no prompt encoder.
        """
        try:
            self._graph = load_graph(path, threads)
            about = self._graph.get_modelmeta().custom_metadata_map
            self._tokens = Tokens.parse(about[VOCABULARY_KEY], int(about[LONGEST_KEY]))
            self.dim = len(self.encode("pick"))
        except ModelError:
            raise
        except Exception as error:  # ONNX Runtime's errors share no base
            raise ModelError(f"{path} is no prompt encoder: {error}") from error

    @property
    def words(self) -> frozenset[str]:
        """Those that it knows whole."""
        return self._tokens.words

    def encode(self, text: str) -> Vector:
        """`(dim,)` float32, of length 1."""
        ids = np.array([self._tokens.ids(text)], np.int64)
        vector: Vector = np.asarray(self._graph.run([OUTPUT], {INPUT: ids})[0][0], np.float32)
        length = float(np.linalg.norm(vector))
        if vector.ndim != 1 or not abs(length - 1) < _LENGTH_TOLERANCE:
            raise ModelError(f"the prompt encoder gave a vector of shape {vector.shape} and length {length}")
        return vector


class Listener:
    """An encoder with the phrases of its model: a prompt to what it asks for. Keeps the last answer."""

    def __init__(self, encoder: PromptEncoder, phrases: Phrases) -> None:
        """Take two that belong together.

        Raises:
            ModelError: they do not.
        """
        if encoder.dim != phrases.dim:
            raise ModelError(f"the prompt encoder gives {encoder.dim} numbers, its phrases have {phrases.dim}")
        self._encoder, self.phrases = encoder, phrases
        self._spelling = Spelling(count_words(phrases.texts), encoder.words)
        self._last: Match | None = None

    @classmethod
    def load(cls, folder: Path, manifest: Manifest) -> Listener:
        """Verify and load what `manifest.prompt_encoder` names.

        Raises:
            ManifestError: a file is missing or changed.
            ModelError: they do not belong together, or do not load.
        """
        entry = manifest.prompt_encoder
        if entry is None:
            raise ModelError(f"{folder}: its manifest names no prompt_encoder")
        for name in (ENCODER_FILE, PHRASES_FILE):
            manifests.verify_file(folder, manifest, name)
        phrases = Phrases.load(folder / PHRASES_FILE)
        if not manifest.files[ENCODER_FILE].sha256 == phrases.encoder_sha256 == entry.sha256:
            raise ModelError(
                f"{folder}: policy, {PHRASES_FILE} and {ENCODER_FILE} belong to different prompt encoders: "
                f"the manifest wants {entry.id} ({entry.sha256[:12]}…); fetch or export the model again"
            )
        if phrases.dim != entry.dim:
            raise ModelError(f"{folder}: {PHRASES_FILE} has {phrases.dim} numbers, its manifest says {entry.dim}")
        return cls(PromptEncoder(folder / ENCODER_FILE), phrases)

    def heard(self, text: str) -> str:
        """What is encoded of a prompt: its words, as they were meant."""
        return self._spelling.correct(plain(text))

    def understand(self, text: str) -> Match:
        """What `text` asks for; encodes only what is new."""
        last = self._last
        if last is None or last.text != text:
            last = self._last = self.phrases.match(text, self._encoder.encode(self.heard(text)))
        return last
