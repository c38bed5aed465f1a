"""What a prompt means: the nearest phrase that is known, and what that phrase asks for.

A model that listens was trained with a few intentions, its *targets* ("black", "white"). For each it was fed one
vector, to which the encoder was taught to bring all phrases that ask for it. A prompt's own vector never reaches the
policy: it is compared with the known phrases, among which are also many that ask for nothing ("not the black cube",
"open the door"). Where it is near one target it is taken for that, and the policy is fed the very vector that it was
trained with; else the arm holds.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError, ModelError
from vla_core.prompt_spelling import plain

FILE_NAME = "phrases.json"
FORMAT = 1
NOTHING = ""
"""The target of a phrase that asks for nothing."""
THE_SAME = 0.995
"""A prompt that is this near to a known phrase is that phrase, but for the rounding of what is stored."""
DENYING = frozenset({"not", "never", "don't", "dont", "mustn't", "shouldn't"})
"""A prompt with one of these words is acted on only if it is a known phrase: to move on a "don't" is the worst."""
SHOWN_CHARACTERS = 80
"""Of a prompt in a reason: a whole page on `/prompt` must not fill a log."""
_UNIT_TOLERANCE = 1e-3

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Match:
    """What a prompt was taken for.

    Attributes:
        text: the prompt.
        target: what it asks for; empty where it is not understood.
        phrase: the nearest known phrase.
        similarity: of that, -1 to 1: the cosine between the two vectors.
        reason: why the arm must hold; empty where it is understood.
    """

    text: str
    target: str
    phrase: str
    similarity: float
    reason: str = ""

    def __post_init__(self) -> None:
        if bool(self.target) == bool(self.reason):
            raise ConfigError(f"a prompt has either a target or a reason to hold, not {self.target!r}, {self.reason!r}")

    def to_wire(self) -> dict[str, object]:
        """As it travels in a server's answer."""
        return {
            "text": self.text,
            "target": self.target,
            "phrase": self.phrase,
            "similarity": self.similarity,
            "reason": self.reason,
        }

    @staticmethod
    def from_wire(raw: object) -> Match | None:
        """What a server's answer says of the prompt; None where it says nothing that makes sense."""
        try:
            if not isinstance(raw, dict):
                return None
            text = {key: str(raw[key]) for key in ("text", "target", "phrase", "reason")}
            return Match(similarity=float(raw["similarity"]), **text)
        except (KeyError, TypeError, ValueError, ConfigError):
            return None


@dataclass(frozen=True, slots=True)
class Phrases:
    """The known phrases of one model, and how near a prompt must come.

    Attributes:
        texts: `n` phrases.
        targets: what each asks for; NOTHING where it asks for nothing.
        vectors: `(n, dim)`, unit length.
        centroids: target to the `(dim,)` unit vector that the policy was trained with, about which its phrases lie.
        least_similarity: cosine to a target's vector from which a prompt counts as asking for it.
        least_lead: by how much that must exceed the cosine to any other target's vector.
        encoder_sha256: of the encoder's file that gave the vectors.
    """

    texts: tuple[str, ...]
    targets: tuple[str, ...]
    vectors: Vector
    centroids: Mapping[str, Vector]
    least_similarity: float
    least_lead: float
    encoder_sha256: str

    def __post_init__(self) -> None:
        same_length = len(self.texts) == len(self.targets) == len(self.vectors)
        if not self.centroids or self.vectors.ndim != 2 or not same_length:
            raise ModelError(f"{len(self.texts)} phrases need as many targets and vectors, and at least one target")
        for vector in (*self.centroids.values(), *self.vectors):
            if vector.shape != (self.dim,) or abs(float(np.linalg.norm(vector)) - 1) > _UNIT_TOLERANCE:
                raise ModelError(f"a phrase's vector must have {self.dim} numbers and length 1")
        if unknown := sorted(set(self.targets) - {*self.centroids, NOTHING}):
            raise ModelError(f"phrases ask for {unknown[0]!r}, for which there is no vector")
        for name, value in (("least_similarity", self.least_similarity), ("least_lead", self.least_lead)):
            if not 0 <= value < 1:
                raise ModelError(f"{name} {value} is not between 0 and 1")

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return int(self.vectors.shape[1])

    def vector_of(self, target: str) -> Vector:
        """`(dim,)`: what the policy is fed for `target`.

        Raises:
            ConfigError: there is no such target.
        """
        if target not in self.centroids:
            raise ConfigError(f"no phrase asks for {target!r}: this model knows {', '.join(self.centroids)}")
        return self.centroids[target]

    def match(self, text: str, vector: Vector) -> Match:
        """What `text`, whose encoding is `vector`, asks for."""
        near = self.vectors @ vector
        nearest = int(near.argmax())
        phrase, similarity = self.texts[nearest], float(near[nearest])
        target, is_clear = self._target(vector)
        shown = f"prompt {_shortened(text)!r}"
        if not text.strip():
            target, reason = NOTHING, "the prompt is empty: say which cube, or release it by a swap"
        elif similarity >= THE_SAME and self.targets[nearest]:
            target, reason = self.targets[nearest], ""
        elif self.targets[nearest] and (denying := DENYING & {*plain(text).replace("\u2019", "'").split()}):
            reason = (
                f"{shown} has {min(denying)!r} in it: say what to do instead; nearest is {phrase!r} ({similarity:.2f})"
            )
        elif self.targets[nearest] == target and is_clear:
            reason = ""
        elif self.targets[nearest] == NOTHING:
            reason = f"{shown} asks for nothing known: it is nearest to {phrase!r} ({similarity:.2f})"
        else:
            reason = f"{shown} is not clear: nearest is {phrase!r} ({similarity:.2f}), too far to act on"
        return Match(text, NOTHING if reason else target, phrase, similarity, reason)

    def _target(self, vector: Vector) -> tuple[str, bool]:
        """The target whose vector is nearest, and whether it is near and far ahead of the rest."""
        ranked = sorted(((float(standing @ vector), name) for name, standing in self.centroids.items()), reverse=True)
        (best, target), second = ranked[0], max((value for value, _ in ranked[1:]), default=-1.0)
        return target, best >= self.least_similarity and best - second >= self.least_lead

    def to_json(self) -> str:
        """The text of `phrases.json`."""
        fields = {
            "format": FORMAT,
            "dim": self.dim,
            "encoder_sha256": self.encoder_sha256,
            "least_similarity": self.least_similarity,
            "least_lead": self.least_lead,
            "targets": {name: _packed(vector, "<f4") for name, vector in self.centroids.items()},
            "phrases": [[text, target] for text, target in zip(self.texts, self.targets, strict=True)],
            "vectors": _packed(self.vectors, "<f2"),
        }
        return json.dumps(fields, ensure_ascii=False, indent=0) + "\n"

    @staticmethod
    def load(path: Path) -> Phrases:
        """Read what `to_json` wrote.

        Raises:
            ModelError: it cannot be read, or is no such file.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            return _from_json(raw)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelError(f"{path} lists no phrases: {error!r}") from error
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error


def _from_json(raw: Mapping[str, Any]) -> Phrases:
    if raw["format"] != FORMAT:
        raise ModelError(f"format {raw['format']!r} is another release's; this Evergreen reads {FORMAT}")
    dim = int(raw["dim"])
    return Phrases(
        texts=tuple(str(text) for text, _ in raw["phrases"]),
        targets=tuple(str(target) for _, target in raw["phrases"]),
        vectors=_unpacked(raw["vectors"], "<f2").reshape(-1, dim),
        centroids={str(name): _unpacked(packed, "<f4") for name, packed in raw["targets"].items()},
        least_similarity=float(raw["least_similarity"]),
        least_lead=float(raw["least_lead"]),
        encoder_sha256=str(raw["encoder_sha256"]),
    )


def _packed(vectors: Vector, form: str) -> str:
    """Numbers in base64: what the policy is fed exactly, what is only compared with in half of that."""
    return base64.b64encode(vectors.astype(form).tobytes()).decode("ascii")


def _unpacked(text: str, form: str) -> Vector:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype=form).astype(np.float32)
    except binascii.Error as error:
        raise ValueError(f"vectors must be base64: {error}") from error


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
