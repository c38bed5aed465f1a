"""From the trained network to the two files of a model's folder: `prompt_encoder.onnx` and `phrases.json`.

The vocabulary is cut down to what English instructions need; a word that is left out is still read, by its pieces.
Weights are stored as one byte each with a scale for each column or row; arithmetic stays float32.
"""

from __future__ import annotations

import io
import shutil
import string
import warnings
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from vla_core import manifest as manifests
from vla_core.errors import ModelError
from vla_core.manifest import PromptEncoding
from vla_core.prompt_phrases import FILE_NAME as PHRASES_FILE
from vla_core.prompt_phrases import NOTHING, Phrases
from vla_core.prompt_spelling import plain
from vla_core.prompt_tokens import BEGIN, CONTINUED, END, UNKNOWN
from vla_policy.serving.prompt_encoder import ENCODER_FILE, INPUT, LONGEST_KEY, OUTPUT, VOCABULARY_KEY, PromptEncoder
from vla_training import phrases, phrases_grammar
from vla_training.prompt_network import LONGEST, PromptNetwork, source_folder

ENCODER_ID = "minilm-l2-words"
PIECES = 7500
"""Of 30,522. One byte for each of a piece's 384 numbers."""
LEAST_SIMILARITY, LEAST_LEAD = 0.5, 0.5
"""Chosen on sentences of the grammar with something that a trial encoder had not learnt: of the requests 88.9 % were
understood and none was mistaken, of the refusals 96.8 % held. From 0.4 it was 89.1 % and 96.5 %; without a lead, 0.2 %
of the requests were mistaken for another target's."""
SAMPLE, SAMPLE_SEED = 40, 0
"""Of the grammar's sentences, how many for each target and each kind are listed among the known phrases."""
OPSET = 18
_LEAST_NUMBERS = 4096
"""A smaller table is not worth a scale."""


def export(network: PromptNetwork, folder: Path) -> PromptEncoding:
    """Write both files into `folder`; returns what the manifest says of them."""
    kept = keep_pieces()
    graph = _graph(network, [number for number, _ in kept])
    _shrink(graph)
    about = {VOCABULARY_KEY: "\n".join(piece for _, piece in kept), LONGEST_KEY: str(LONGEST)}
    helper.set_model_props(graph, about)
    onnx.checker.check_model(graph)
    path = folder / ENCODER_FILE
    onnx.save(graph, path)
    sha256 = manifests.sha256_file(path)
    known = list_phrases(PromptEncoder(path), sha256)
    (folder / PHRASES_FILE).write_text(known.to_json(), encoding="utf-8")
    return PromptEncoding(ENCODER_ID, sha256, known.dim)


def install(encoder: Path, model: Path) -> PromptEncoding:
    """Copy an encoder's two files into a model's folder; returns what the manifest says of them.

    Raises:
        ModelError: they are missing, or do not belong together.
    """
    known = Phrases.load(encoder / PHRASES_FILE)
    try:
        sha256 = manifests.sha256_file(encoder / ENCODER_FILE)
    except OSError as error:
        raise ModelError(f"{encoder / ENCODER_FILE}: cannot be read: {error.strerror}") from error
    if known.encoder_sha256 != sha256:
        raise ModelError(f"{encoder}: {PHRASES_FILE} was made with another {ENCODER_FILE}; make both again")
    for name in (ENCODER_FILE, PHRASES_FILE):
        shutil.copyfile(encoder / name, model / name)
    return PromptEncoding(ENCODER_ID, sha256, known.dim)


def list_phrases(encoder: PromptEncoder, sha256: str) -> Phrases:
    """The known phrases and a sample of the grammar with their vectors, and those that stand for the targets."""
    asking = [(text, target) for target in phrases.TARGETS for text in (*phrases.known(target), *_sample(target))]
    refused = [(text, NOTHING) for text in (*_refusals(), *_sample_of_refusals())]
    texts, targets = zip(*asking, *refused, strict=True)
    vectors = np.array([encoder.encode(plain(text)) for text in texts])
    standing = {target: phrases.vector(target) for target in phrases.TARGETS}
    return Phrases(texts, targets, vectors, standing, LEAST_SIMILARITY, LEAST_LEAD, sha256)


def keep_pieces() -> list[tuple[int, str]]:
    """Number and text of the word pieces that stay, in the pretrained order, which is that of frequency.

    Every letter, the words of the known phrases and of the grammar, names of colours, and then the commonest.
    """
    pieces = (source_folder() / "vocab.txt").read_text(encoding="utf-8").split("\n")
    wanted = {BEGIN, END, UNKNOWN, *_letters(), *_colour_words(), *phrases_grammar.words()}
    for text in (*(t for target in phrases.TARGETS for t in phrases.known(target)), *_refusals()):
        wanted |= set(text.lower().replace("-", " ").replace(",", " ").split())
    chosen = {number for number, piece in enumerate(pieces) if piece in wanted}
    for number, piece in enumerate(pieces):
        if len(chosen) >= PIECES:
            break
        if piece.removeprefix(CONTINUED).isascii() and piece.removeprefix(CONTINUED).isalpha():
            chosen.add(number)
    return [(number, pieces[number]) for number in sorted(chosen)]


def _letters() -> Iterable[str]:
    for char in string.ascii_lowercase + string.digits:
        yield from (char, CONTINUED + char)
    yield from string.punctuation


def _colour_words() -> set[str]:
    """The words in the 949 names that people gave colours in the XKCD colour survey (CC0)."""
    from matplotlib.colors import XKCD_COLORS  # noqa: PLC0415  slow

    return {word for name in XKCD_COLORS for word in name.removeprefix("xkcd:").replace("/", " ").split()}


def _refusals() -> Iterable[str]:
    for kind in phrases.known_refusals().values():
        yield from kind


def _sample(target: str) -> tuple[str, ...]:
    return phrases_grammar.requests(target, SAMPLE, SAMPLE_SEED)


def _sample_of_refusals() -> Iterable[str]:
    return chain.from_iterable(phrases_grammar.refusals(SAMPLE, SAMPLE_SEED).values())


class _Alone(nn.Module):
    """The network for one sentence without padding, over the pieces that stay."""

    def __init__(self, network: PromptNetwork, numbers: list[int]) -> None:
        super().__init__()
        self.network = network
        embeddings = network.bert.embeddings
        self.words = nn.Parameter(embeddings.word_embeddings.weight[numbers].detach())
        places = embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
        self.places = nn.Parameter(places[:LONGEST].detach())

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.words[ids] + self.places[: ids.shape[1]]
        hidden = self.network.bert.embeddings.LayerNorm(rows)
        for layer in self.network.bert.encoder.layer:
            hidden = _layer(layer, hidden)
        return self.network.head(hidden, torch.ones_like(ids))


def _layer(layer: nn.Module, hidden: Tensor) -> Tensor:
    """A BERT layer spelled out: attention without a mask, which one sentence does not need."""
    attention = layer.attention.self
    heads, width = attention.num_attention_heads, attention.attention_head_size

    def split(values: Tensor) -> Tensor:
        return values.reshape(1, -1, heads, width).transpose(1, 2)

    query, key, value = split(attention.query(hidden)), split(attention.key(hidden)), split(attention.value(hidden))
    seen = torch.softmax(query @ key.transpose(2, 3) / width**0.5, dim=-1) @ value
    joined = seen.transpose(1, 2).reshape(1, -1, heads * width)
    output = layer.attention.output
    hidden = output.LayerNorm(output.dense(joined) + hidden)
    return layer.output.LayerNorm(layer.output.dense(layer.intermediate(hidden)) + hidden)


def _graph(network: PromptNetwork, numbers: list[int]) -> onnx.ModelProto:
    alone, buffer = _Alone(network, numbers).eval(), io.BytesIO()
    example = torch.arange(7)[None]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about shapes that do not vary here
        torch.onnx.export(
            alone,
            (example,),
            buffer,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {1: "n"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def _shrink(model: onnx.ModelProto) -> None:
    """Store every large table as int8, with a scale for each column of a matrix and each row of what is looked up."""
    graph, looked_up = model.graph, {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    stored, nodes = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim != 2 or values.dtype != np.float32 or values.size < _LEAST_NUMBERS:
            stored.append(tensor)
            continue
        axis = 0 if tensor.name in looked_up else 1
        small, scales = quantise(values, axis)
        names = [f"{tensor.name}.int8", f"{tensor.name}.scales"]
        stored += [numpy_helper.from_array(part, name) for part, name in zip((small, scales), names, strict=True)]
        nodes.append(helper.make_node("DequantizeLinear", names, [tensor.name], axis=axis))
    del graph.initializer[:]
    graph.initializer.extend(stored)
    former = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *former])


def quantise(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """`values` `(m, n)` as int8, and the scale of each slice along `axis`."""
    most = np.abs(values).max(axis=1 - axis, keepdims=True)
    scales = np.maximum(most, np.finfo(np.float32).tiny) / 127
    return np.rint(values / scales).astype(np.int8), scales.ravel().astype(np.float32)
