"""What a new version of a model costs on the way, for several kinds of new versions, by several ways to send it.

    python benchmarks/deltas.py --json out/deltas.json

The pairs are real: a shipped model and fine-tunes of it, made by gradient steps on demonstrations (`delta_pairs.py`;
minutes, kept below --pairs), and the two shipped models, which were trained apart. Bytes are of the whole model, its
manifest left out. Every delta is rebuilt and compared with its target's hashes; seconds are wall time of one thread, so
leave the machine alone.

Exit code 0 when it could be measured, 2 when not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delta_methods import compare
from report import machine, publish

from evergreen.model.travelling import LINES, measure, seconds
from vla_core.delta.build import build
from vla_core.delta.rebuild import rebuild
from vla_core.errors import ConfigError, EvergreenError

PAIRS: Mapping[str, tuple[str, str]] = {
    "frozen backbone, 100 steps at 1e-4": ("", "frozen-100"),
    "frozen backbone, 300 steps at 1e-4": ("", "frozen-300"),
    "decoder and head only, 100 steps at 1e-4": ("", "expert-100"),
    "LoRA of rank 8, merged, 100 steps at 1e-3": ("", "lora-100"),
    "two fine-tunes: frozen backbone, decoder only": ("frozen-300", "expert-100"),
    "all weights, 10 steps at 1e-5": ("", "full-10"),
    "all weights, 110 steps at 1e-5": ("", "full-110"),
    "all weights, float32, 100 steps at 1e-5": ("full-10-float32", "full-110-float32"),
}
"""What is measured: old and new, below the folder of pairs; "" is the shipped model."""


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/evergreen-black"), help="what is fine-tuned")
    parser.add_argument("--other", type=Path, default=Path("models/evergreen-white"), help="trained apart from it")
    parser.add_argument("--data", type=Path, default=Path("out/data/white"), help="demonstrations to fine-tune on")
    parser.add_argument("--pairs", type=Path, default=Path("out/delta-pairs"), help="where fine-tunes are kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result there")
    options = parser.parse_args()
    try:
        publish(run(options), options.json)
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Make the pairs where they are missing, and measure each."""
    if not all((options.pairs / new / "manifest.json").is_file() for _, new in PAIRS.values()):
        from delta_pairs import make  # noqa: PLC0415  torch and LeRobot, for this alone

        if not options.data.is_dir():
            raise ConfigError(f"{options.data} has no demonstrations; `evergreen record --expert` makes some")
        make(options.model, options.data, options.pairs)
    began = machine()
    found = {}
    for name, (old, new) in PAIRS.items():
        found[name] = one(options.pairs / old if old else options.model, options.pairs / new)
    found["trained apart"] = one(options.model, options.other)
    return {**began, "assumed_mbit_s": LINES, "pairs": found, "markdown": table(found)}


def one(old: Path, new: Path) -> dict[str, Any]:
    """One pair: bytes by every way, and what building and rebuilding take."""
    travel = measure(old, new, lambda *_: None)
    sizes = {**travel.ways, **compare(old, new)}
    with tempfile.TemporaryDirectory() as scratch:
        delta = Path(scratch) / "x.delta"
        began = time.perf_counter()
        built = build(old, new, delta)
        build_s, began = time.perf_counter() - began, time.perf_counter()
        for name in built.header.files:
            rebuild(delta, old, name, lambda _content: None)  # raises where it does not match
        rebuild_s = time.perf_counter() - began
    return {
        "old": str(travel.old),
        "new": str(travel.new),
        "bytes": sizes,
        "delta_share": round(travel.delta / travel.whole, 4),
        "build_s": round(build_s, 2),
        "rebuild_s": round(rebuild_s, 2),
        "times_s": {
            line: {way: round(seconds(sizes[way], rate), 1) for way in ("whole", "image layer, gzip", "delta")}
            for line, rate in LINES.items()
        },
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The result as Markdown, a row a pair, megabytes; of the delta also its share of the whole."""
    ways = list(next(iter(found.values()))["bytes"])
    ways = [way for way in ways if way != "delta"]
    lines = [f"| pair | {' | '.join(ways)} | **delta** | share |", f"| --- |{' --- |' * (len(ways) + 2)}"]
    for name, pair in found.items():
        cells = [f"{pair['bytes'][way] / 1e6:.2f}" for way in ways]
        delta, share = pair["bytes"]["delta"] / 1e6, 100 * pair["delta_share"]
        lines.append(f"| {name} | {' | '.join(cells)} | **{delta:.2f}** | {share:.1f} % |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
