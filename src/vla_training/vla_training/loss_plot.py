"""The loss log of a training run as a picture."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure


def plot_loss(log: Path, picture: Path) -> None:
    """Draw the losses of `log.jsonl` as a PNG."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    if not lines:
        return
    phases = list(dict.fromkeys(line["phase"] for line in lines))
    figure = Figure(figsize=(4.5 * len(phases), 3.2))
    axes = figure.subplots(1, len(phases), squeeze=False, sharey=True)
    for axis, phase in zip(axes[0], phases, strict=True):
        chosen = [line for line in lines if line["phase"] == phase]
        axis.semilogy([line["step"] for line in chosen], [line["loss"] for line in chosen], linewidth=0.8)
        axis.set(title=f"phase {phase}", xlabel="step", ylabel="loss")
        axis.grid(visible=True, which="both", alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=90)
