"""The table of prompts that `evergreen eval --prompts` plays: read from a file, and summed up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vla_core.errors import ConfigError
from vla_training.evaluate import EpisodeResult, LoopSettings, wilson
from vla_training.prompted import Kind, Row, Trial

SHIPPED = Path(__file__).parent / "prompts" / "eval.yaml"
_KEYS = {"kind", "prompt", "target", "then"}


def load_rows(path: Path) -> tuple[Row, ...]:
    """Read a YAML list, or JSON with one object a line, of rows `kind`, `prompt`, `target`.

    Rows in which the prompt changes have `then`, with the `prompt` and `target` that follow.

    Raises:
        ConfigError: the file cannot be read, or a row is not of this form.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = (
            [json.loads(line) for line in text.splitlines() if line.strip()] if _by_line(path) else yaml.safe_load(text)
        )
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(raw, list) or not raw:
        raise ConfigError(f"{path} must hold a list of rows with kind, prompt and target")
    return tuple(_row(entry, f"{path}: row {number}") for number, entry in enumerate(raw, 1))


def _by_line(path: Path) -> bool:
    return path.suffix in (".jsonl", ".json")


def _row(entry: Any, where: str) -> Row:
    try:
        unknown = set(entry) - _KEYS
        kind = Kind(entry["kind"])
        steps = [entry, *([entry["then"]] if "then" in entry else [])]
        prompts, targets = (tuple(str(step[key]) for step in steps) for key in ("prompt", "target"))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ConfigError(f"{where} needs kind (one of {', '.join(Kind)}), prompt and target: {error!r}") from error
    if unknown:
        raise ConfigError(f"{where}: {min(unknown)!r} is none of {', '.join(sorted(_KEYS))}")
    try:
        return Row(kind, prompts, targets)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def summarise_rows(
    subject: str, shift: str, played: Sequence[tuple[Trial, EpisodeResult]], settings: LoopSettings
) -> dict[str, Any]:
    """Counts and intervals by prompt and by kind, settings and every episode, ready for JSON.

    `failed_but_placed` counts failures that end with the cube that was asked for last on the spot: another one was
    moved or lifted, or the jaws still hold it.
    """
    by_row: dict[Row, list[EpisodeResult]] = {}
    by_kind: dict[Kind, list[EpisodeResult]] = {}
    for trial, result in played:
        by_row.setdefault(trial.row, []).append(result)
        by_kind.setdefault(trial.row.kind, []).append(result)
    return {
        "model": subject,
        "shift": shift,
        "graph": False,
        **_counts([result for _, result in played]),
        "kinds": {kind.value: _counts(results) for kind, results in by_kind.items()},
        "rows": [
            {
                "kind": row.kind.value,
                "prompts": list(row.prompts),
                "targets": list(row.targets),
                **_counts(results),
                "results": [asdict(result) for result in results],
            }
            for row, results in by_row.items()
        ],
        "settings": asdict(settings),
    }


def _counts(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    successes = sum(result.success for result in results)
    low, high = wilson(successes, len(results))
    times = [result.time_s for result in results if result.success]
    return {
        "episodes": len(results),
        "successes": successes,
        "success_rate": round(successes / len(results), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "failed_but_placed": sum(result.placed and not result.success for result in results),
        "wrong_object": sum(result.wrong_lifted for result in results),
        "not_understood": sum(result.note.startswith("not understood") for result in results),
        "median_s": round(float(np.median(times)), 2) if times else None,
    }


def meanings_of(rows: Sequence[Row]) -> Mapping[str, str]:
    """What each prompt of the rows means."""
    return {prompt: target for row in rows for prompt, target in zip(row.prompts, row.targets, strict=True)}
