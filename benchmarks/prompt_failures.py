"""Where a model that listens fails: the trials of `evergreen eval --prompts`, counted by how their scenes lie.

    evergreen eval --model models/evergreen-prompt --prompts --episodes 100 --json out/prompts.json
    python benchmarks/prompt_failures.py out/prompts.json --json out/bench/prompt_failures.json

Nothing is played: a scene follows from its seed. Exit code 0, or 2 when the file cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from report import publish

from vla_core.errors import ConfigError, EvergreenError
from vla_sim import layout
from vla_training.places import CROWDED_M, Place, place_of
from vla_training.prompted import Kind, Row, Trial

LATE_S = 1.5
"""From then on, the jaws are around the first cube."""


SAID = {
    Place.CROWDED: f"another cube within {CROWDED_M * 100:.0f} cm",
    Place.END: "at an end of the half disc",
    Place.ELSEWHERE: "elsewhere",
}
"""As the groups are called."""


def place_in(trial: Trial, variety: str) -> str:
    """How the cube that is asked for last lies."""
    target = trial.row.targets[-1]
    return SAID[place_of(layout.draw(trial.seed, variety, target, names=trial.names(variety)).cubes, target)]


def groups_of(trial: Trial, variety: str) -> Iterator[str]:
    """What a trial is counted as."""
    if trial.row.kind is Kind.BEFORE_GRASP:
        yield f"{trial.row.kind}, {'after' if trial.change_s() > LATE_S else 'by'} {LATE_S:g} s"
    elif not trial.row.kind.changes and trial.row.kind is not Kind.ABSENT:
        yield f"one prompt, {place_in(trial, variety)}"


def count(summary: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Trials and failures by group."""
    variety = summary["settings"]["variety"]
    groups: dict[str, dict[str, int]] = {}
    for entry in summary["rows"]:
        row = Row(Kind(entry["kind"]), tuple(entry["prompts"]), tuple(entry["targets"]))
        for result in entry["results"]:
            for group in groups_of(Trial(row, result["seed"]), variety):
                counts = groups.setdefault(group, {"trials": 0, "failures": 0})
                counts["trials"] += 1
                counts["failures"] += not result["success"]
    return dict(sorted(groups.items()))


def main() -> int:
    """Count and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what `evergreen eval --prompts --json` wrote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    try:
        try:
            summary = json.loads(options.results.read_text(encoding="utf-8"))
            groups = count(summary)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{options.results} is not what `evergreen eval --prompts --json` writes: {error}"
            ) from error
        publish({"model": summary["model"], "groups": groups}, options.json)
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
