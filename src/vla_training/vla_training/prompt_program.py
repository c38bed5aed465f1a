"""Makes the prompt encoder of a model: `python -m vla_training.prompt_program --out FOLDER`.

Trains it (less than a minute of computing), writes `prompt_encoder.onnx` and `phrases.json` into FOLDER, and prints the
entry `prompt_encoder` of the model's manifest as JSON. The same recipe gives the same encoder on the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vla_core.errors import EvergreenError
from vla_training import prompt_export, prompt_training
from vla_training.prompt_training import Recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m vla_training.prompt_program", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the two files go")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"({value})")
    given = vars(parser.parse_args(arguments))
    folder: Path = given.pop("out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        network = prompt_training.train(
            Recipe(**given), lambda step, loss: print(f"step {step}: loss {loss:.3f}", file=sys.stderr, flush=True)
        )
        entry = prompt_export.export(network, folder)
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(entry)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
