"""Compares ways of encoding prompts on phrases that none of them has seen, and writes a table.

    .venv/bin/python benchmarks/prompt_encoders.py --encoder models/evergreen-prompt --json out/prompts.json

Every way gets the same known phrases (`vla_training.phrases`) and is judged alike, by `vla_core.prompt_phrases`. What
stands for a target is the mean of its phrases, or the model's own vector; a line has a threshold for the cosine to it,
and one for its lead over the next. `wrong` is what would move the arm to another cube than was asked for; `held` what
would hold it; of texts that ask for nothing, `refused` is how many hold it. `--sentence` also runs the whole pretrained
sentence encoder, as it comes (needs torch).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_core.prompt_phrases import FILE_NAME as PHRASES_FILE
from vla_core.prompt_phrases import NOTHING, Match, Phrases
from vla_policy.serving.prompt_encoder import ENCODER_FILE, Listener, PromptEncoder
from vla_training import phrases, phrases_grammar

Encode = Callable[[str], NDArray[np.float32]]
LEADS = (0.0, 0.3, 0.5)
THRESHOLDS = (0.4, 0.5, 0.6)
KEPT_COUNT, KEPT_SEED = 150, 7
"""Of the grammar's sentences with something kept back: for each target and each kind."""
Case = tuple[str, str, str]
"""A sentence, the target that it asks for, and its kind."""


def hashed(dim: int, *, bigrams: bool) -> Encode:
    """A bag of words: each word, or pair of neighbours, adds 1 or -1 to one of `dim` numbers."""

    def encode(text: str) -> NDArray[np.float32]:
        words = re.findall(r"[a-z0-9]+", text.lower())
        vector = np.zeros(dim, np.float32)
        for item in [*words, *(f"{a} {b}" for a, b in pairwise(words) if bigrams)]:
            code = zlib.crc32(item.encode())
            vector[code % dim] += 1 if code >> 16 & 1 else -1
        length = float(np.linalg.norm(vector))
        return vector / length if length else np.eye(dim, dtype=np.float32)[0]

    return encode


def sentence(layers: int = 6) -> Encode:
    """The mean over the words of the pretrained encoder's output, as its authors use it."""
    import torch  # noqa: PLC0415

    from vla_training.prompt_network import PromptNetwork, batch_of, source_tokens  # noqa: PLC0415

    network, tokens = PromptNetwork(layers, 32).eval(), source_tokens()

    def encode(text: str) -> NDArray[np.float32]:
        with torch.no_grad():
            mean = network.read(*batch_of([text], tokens))[0].mean(dim=0).numpy()
        return np.asarray(mean / np.linalg.norm(mean), np.float32)

    return encode


def learn(encode: Encode, least_similarity: float = 0.5) -> Phrases:
    """The known phrases, encoded."""
    asking = [(text, target) for target in phrases.TARGETS for text in phrases.known(target)]
    refused = [(text, NOTHING) for kind in phrases.known_refusals().values() for text in kind]
    texts, targets = zip(*asking, *refused, strict=True)
    vectors = np.array([encode(text) for text in texts])
    middles = {}
    for target in phrases.TARGETS:
        mean = vectors[[other == target for other in targets]].mean(axis=0)
        middles[target] = mean / np.linalg.norm(mean)
    return Phrases(texts, targets, vectors, middles, least_similarity, 0.0, "0" * 64)


def judge(encode: Encode, known: Phrases, cases: Sequence[Case]) -> dict[str, Any]:
    """What becomes of every sentence, by threshold and lead and by kind."""
    vectors = [encode(text) for text, _, _ in cases]
    found: dict[str, Any] = {}
    for least, lead in product(THRESHOLDS, LEADS):
        used = replace(known, least_similarity=least, least_lead=lead)
        matches = [used.match(text, vector) for (text, _, _), vector in zip(cases, vectors, strict=True)]
        found[f"{least:g}/{lead:g}"] = tally(cases, matches)
    return found


def unseen() -> list[Case]:
    """The sentences that judge."""
    asking = [
        (text, target, new)
        for target in phrases.TARGETS
        for new, texts in phrases.held_out(target).items()
        for text in texts
    ]
    foreign = [(text, target, "foreign") for target, texts in phrases.FOREIGN.items() for text in texts]
    refused = [(text, NOTHING, kind) for kind, texts in phrases.unseen_refusals().items() for text in texts]
    return [*asking, *foreign, *refused]


def kept_back() -> list[Case]:
    """Sentences of the grammar with something that a trial encoder (`--sentences learnt`) did not learn from."""
    part = phrases_grammar.Part.KEPT
    asking = [
        (text, target, "kept back")
        for target in phrases.TARGETS
        for text in phrases_grammar.requests(target, KEPT_COUNT, KEPT_SEED, part)
    ]
    kinds = phrases_grammar.refusals(KEPT_COUNT, KEPT_SEED, part)
    return [*asking, *((text, NOTHING, kind) for kind, texts in kinds.items() for text in texts)]


def of_strangers(file: Path) -> list[Case]:
    """Sentences whose author saw none of ours: `asking` with a colour at {}, and `nothing`."""
    said = json.loads(file.read_text(encoding="utf-8"))
    asking = [(text.format(target), target, "asking") for text in said["asking"] for target in phrases.TARGETS]
    return [*asking, *((text, NOTHING, "nothing") for text in said["nothing"])]


def tally(cases: Sequence[Case], matches: Sequence[Match]) -> dict[str, dict[str, Any]]:
    """Counts by kind, and of some that went wrong what they were."""
    kinds: dict[str, dict[str, Any]] = {}
    for (text, wanted, kind), match in zip(cases, matches, strict=True):
        name = kind if wanted else f"nothing: {kind}"
        row = kinds.setdefault(name, {"n": 0, "right": 0, "wrong": 0, "held": 0, "mistaken": []})
        row["n"] += 1
        outcome = "held" if not match.target and wanted else "right" if match.target == wanted else "wrong"
        row[outcome] += 1
        if outcome == "wrong":
            row["mistaken"].append(f"{text} -> {match.target}")
    return kinds


def share(table: Mapping[str, Mapping[str, Any]], what: str, *, nothing: bool) -> float:
    """Of all unseen requests, or of all texts that ask for nothing; other languages apart."""
    rows = [row for kind, row in table.items() if kind.startswith("nothing") == nothing and kind != "foreign"]
    return sum(row[what] for row in rows) / sum(row["n"] for row in rows)


def heard(listener: Listener, encoder: PromptEncoder, text: str) -> NDArray[np.float32]:
    """As the policy server does it."""
    return encoder.encode(listener.heard(text))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--encoder", type=Path, action="append", default=[], metavar="FOLDER", help="of a prompt encoder"
    )
    parser.add_argument("--sentence", action="store_true", help="also the whole sentence encoder (needs torch; slow)")
    judges = parser.add_mutually_exclusive_group()
    judges.add_argument(
        "--file", type=Path, help="judge by the sentences of this file, such as benchmarks/strangers.json"
    )
    judges.add_argument(
        "--kept", action="store_true", help="judge by the grammar's sentences that a trial did not learn"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    given = parser.parse_args()
    ways: dict[str, Encode] = {
        "hashed words, 64": hashed(64, bigrams=False),
        "hashed words, 512": hashed(512, bigrams=False),
        "hashed words and pairs, 512": hashed(512, bigrams=True),
    }
    if given.sentence:
        ways["sentence encoder, 384"] = sentence()
    shipped: dict[str, Phrases] = {}
    for folder in given.encoder:
        encoder, shipped[folder.name] = PromptEncoder(folder / ENCODER_FILE), Phrases.load(folder / PHRASES_FILE)
        listener = Listener(encoder, shipped[folder.name])
        ways[folder.name] = partial(heard, listener, encoder)
    cases = of_strangers(given.file) if given.file else kept_back() if given.kept else unseen()
    results: dict[str, Any] = {}
    print(f"{'':34s} {'from/lead':>9s} {'right':>6s} {'wrong':>6s} {'held':>6s} {'refused':>8s} {'ms':>6s}")
    for name, encode in ways.items():
        known = shipped.get(name) or learn(encode)
        begun = time.perf_counter()
        for text in known.texts[:50]:
            encode(text)
        took_ms = (time.perf_counter() - begun) * 1e3 / 50
        results[name] = judge(encode, known, cases)
        for least, table in results[name].items():
            shares = [share(table, what, nothing=False) for what in ("right", "wrong", "held")]
            shares.append(share(table, "right", nothing=True))
            numbers = " ".join(f"{value:6.3f}" for value in shares)
            print(f"{name:34s} {least:>9s} {numbers}  {took_ms:6.2f}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
