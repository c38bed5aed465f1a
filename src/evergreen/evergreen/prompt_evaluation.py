"""What `evergreen eval --prompts` does: plays every row of a table of prompts, and shows the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evergreen.evaluation import SCENES_A_SEED, Options, label_of, loop_settings, played_in, seeds_of
from vla_core.errors import ConfigError


def play(options: Options, path: Path | None) -> dict[str, Any]:
    """Play all rows of the file at `path`, or of the shipped one; the content of the JSON file.

    Raises:
        EvergreenError: the file or the model cannot be played.
    """
    try:
        from vla_training import measure, prompt_rows, prompted  # noqa: PLC0415  loads MuJoCo
    except ModuleNotFoundError as error:
        raise ConfigError(f"measuring needs the Python package {error.name}; run `make setup`") from error

    rows = prompt_rows.load_rows(path or prompt_rows.SHIPPED)
    base = loop_settings(options, rows[0].targets[0])
    if options.subject is None:
        settings, subject = base, measure.Subject(None, meanings=prompt_rows.meanings_of(rows))
    else:
        measure.check_listens(options.subject)
        settings, subject = measure.settings_for(options.subject, base), measure.Subject(options.subject)
    trials = prompted.trials_of(rows, seeds_of(options, len(rows)), SCENES_A_SEED)
    played = played_in(subject, trials, settings, options)
    results = [(trial, each.result) for trial, each in zip(trials, played, strict=True)]
    return prompt_rows.summarise_rows(label_of(options), options.shift, results, settings)


def show(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the table: each row, and each kind together."""
    table = Table(
        "prompt", "success", "95 %", "failed, but placed", "wrong", "not understood", "median", title=summary["model"]
    )
    for kind, counts in summary["kinds"].items():
        table.add_row(kind, *_cells(counts), style="bold")
        for row in summary["rows"]:
            if row["kind"] == kind:
                table.add_row("  " + " → ".join(row["prompts"]), *_cells(row))
        table.add_section()
    table.add_row("all", *_cells(summary), style="bold")
    (console or Console()).print(table)


def _cells(counts: Mapping[str, Any]) -> list[str]:
    low, high = counts["interval_95"]
    return [
        f"{counts['successes']} of {counts['episodes']}",
        f"{low:.0%}-{high:.0%}",
        str(counts["failed_but_placed"]),
        str(counts["wrong_object"]),
        str(counts["not_understood"]),
        "" if counts["median_s"] is None else f"{counts['median_s']:.1f} s",
    ]
