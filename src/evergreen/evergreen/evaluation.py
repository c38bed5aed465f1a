"""What `evergreen eval` does: plays, shows progress, keeps pictures of failures, sums up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evergreen.demo.pictures import contact_sheet
from evergreen.demo.resources import writing
from vla_core import manifest
from vla_core.errors import ConfigError
from vla_core.latency import summarise as percentiles
from vla_sim.targets import target_of

if TYPE_CHECKING:
    from vla_training.evaluate import LoopSettings
    from vla_training.measure import Played, Subject
    from vla_training.prompted import Trial

SCENES_A_SEED = 1000
SHOWN_FAILURES = 24
ROLLOUT_PICTURES = 6
ROLLOUT_CAMERA = "front_left"
"""From there a person sees the grasp."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; see `evergreen eval --help`."""

    subject: Path | None
    taught: bool
    target: str
    episodes: int
    seed: int
    variety: str
    time_limit_s: float
    latency_s: float
    jobs: int
    failures: Path | None
    rollout: Path | None = None
    cubes_of: int | None = None
    prompt: str = ""
    console: Console = field(default_factory=lambda: Console(stderr=True))

    @property
    def shift(self) -> str:
        """The aspect that is at its extremes; empty where none is."""
        return "" if self.variety == "varied" else self.variety


def in_process(options: Options) -> dict[str, Any]:
    """Play as fast as the cores allow; the content of the JSON file.

    Raises:
        EvergreenError: the model cannot be played.
    """
    try:
        from vla_training import measure, prompted  # noqa: PLC0415  loads MuJoCo
    except ModuleNotFoundError as error:
        raise ConfigError(f"measuring needs the Python package {error.name}; run `make setup`") from error

    subject, target, prompt = _asked(options)
    base = loop_settings(options, target)
    settings = base if options.taught or options.subject is None else measure.settings_for(options.subject, base)
    seeds: Sequence[int | Trial] = seeds_of(options)
    if prompt:
        row = prompted.Row(prompted.Kind.KNOWN, (prompt,), (target,))
        seeds = [prompted.Trial(row, seed) for seed in seeds_of(options)]
    results = [played.result for played in played_in(subject, seeds, settings, options)]
    summary = measure.summarise(label_of(options), options.shift, results, settings)
    if prompt:
        summary |= {"prompt": prompt, "target": target}
    if options.rollout:
        pictures = measure.rollout(subject, seeds[0], settings, ROLLOUT_PICTURES, ROLLOUT_CAMERA)
        with writing(options.rollout):
            options.rollout.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(pictures.items(), options.rollout, columns=ROLLOUT_PICTURES)
    return summary


def _asked(options: Options) -> tuple[Subject, str, str]:
    """What is measured, which cube it must place, and what it is told; an empty prompt where it does not listen."""
    from vla_training import measure  # noqa: PLC0415  loads MuJoCo

    folder = options.subject
    if folder is None:
        target = options.target or target_of(options.prompt)
        return measure.Subject(None, meanings={options.prompt: target}), target, options.prompt
    if options.taught or not (options.prompt or measure.listens(folder)):
        return measure.Subject(folder, options.taught), options.target or _target(options), ""
    prompt = options.prompt or manifest.load(folder).prompt
    meant = measure.understood(folder, prompt)
    return measure.Subject(folder), options.target or meant, prompt


def loop_settings(options: Options, target: str) -> LoopSettings:
    """What the loop is made of, before the model has its say."""
    from vla_training import evaluate  # noqa: PLC0415  loads MuJoCo

    return evaluate.LoopSettings(
        latency_s=options.latency_s,
        limit_s=options.time_limit_s,
        target=target,
        variety=options.variety,
        cubes_of=options.cubes_of,
    )


def seeds_of(options: Options, rows: int = 1) -> range:
    """The scenes; of the first of `rows` that are SCENES_A_SEED apart."""
    from vla_training import evaluate  # noqa: PLC0415  loads MuJoCo

    first = evaluate.HELD_OUT_SEED + options.seed * rows * SCENES_A_SEED
    return range(first, first + options.episodes)


def played_in(
    subject: Subject, trials: Sequence[int | Trial], settings: LoopSettings, options: Options
) -> Iterator[Played]:
    """Play with a progress bar, and write the contact sheet of the failures."""
    from vla_training import measure  # noqa: PLC0415  loads MuJoCo

    failures: dict[str, bytes] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    won = 0
    with Progress(*columns, console=options.console) as progress:
        bar = progress.add_task("playing", total=len(trials))
        for count, played in enumerate(measure.play(subject, trials, settings, options.jobs), 1):
            won += played.result.success
            progress.update(bar, advance=1, description=f"{won} of {count} succeeded")
            if played.pictures and len(failures) < 2 * SHOWN_FAILURES:
                failures[f"{played.result.seed} scene"] = played.pictures[0]
                failures[f"{played.result.seed} end: {measure.why(played.result)}"] = played.pictures[1]
            yield played
    _keep(failures, options)


def through_graph(options: Options) -> dict[str, Any]:
    """Play through the whole graph in real time; the content of the JSON file.

    Raises:
        EvergreenError: the graph broke down, or the simulation did not keep up with real time.
    """
    folder = options.subject
    if folder is None:
        raise ConfigError("the graph plays models: give --model models/expert")
    from evergreen.demo import run as demo  # noqa: PLC0415  rclpy is slow to import
    from evergreen.demo.session import WRONG_LIFTED  # noqa: PLC0415  as above
    from vla_training.evaluate import wilson  # noqa: PLC0415  loads MuJoCo

    results = demo.run(
        demo.Options(
            episodes=options.episodes,
            seed=options.seed,
            policy=str(folder),
            models=folder.parent,
            out=Path("out/eval") / f"graph-{label_of(options)}{options.shift and '-' + options.shift}",
            time_limit_s=options.time_limit_s,
            size=(320, 240),
            fps=15.0,
            video=False,
            verbose=False,
            variety=options.variety,
            prompt=options.prompt,
        ),
        options.console,
    )
    seconds = sorted(episode.seconds for episode in results.episodes if episode.success)
    low, high = wilson(results.successes, len(results.episodes))
    return {
        "model": label_of(options),
        "episodes": len(results.episodes),
        "successes": results.successes,
        "success_rate": round(results.successes / len(results.episodes), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "wrong_object": sum(episode.detail == WRONG_LIFTED for episode in results.episodes),
        "median_s": round(seconds[len(seconds) // 2], 2) if seconds else None,
        "shift": options.shift,
        "seeds": [results.episodes[0].seed, results.episodes[-1].seed],
        "graph": True,
        "valid": results.valid,
        "latency_ms": percentiles(chunk.total_ms for chunk in results.latencies).as_dict(),
        "realtime_factor": round(results.realtime_factor, 4),
        "results": [episode.as_dict() for episode in results.episodes],
    }


def write(summary: Mapping[str, Any], path: Path) -> None:
    """Write the figures as JSON."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def sentence(summary: Mapping[str, Any]) -> str:
    """The result for people."""
    low, high = summary["interval_95"]
    text = (
        f"{summary['model']}: {summary['successes']} of {summary['episodes']} placed"
        f" ({low:.1%} to {high:.1%}), wrong object lifted {summary['wrong_object']} times"
    )
    if summary["median_s"] is not None:
        text += f", median {summary['median_s']:.1f} s"
    if latency := summary.get("latency_ms"):
        text += f", latency p95 {latency['p95']:.0f} ms"
    return text + ("" if summary.get("valid", True) else "; INVALID: the simulation fell behind, or a node died")


def label_of(options: Options) -> str:
    """Name of what is measured."""
    if options.subject is None:
        return "expert"
    if options.taught:
        return f"taught:{options.subject.stem}"
    return manifest.load(options.subject).name


def _target(options: Options) -> str:
    if options.taught or options.subject is None:
        raise ConfigError("--target says which object a taught trajectory is to place")
    try:
        return target_of(manifest.load(options.subject).prompt)
    except ConfigError as error:
        raise ConfigError(f"{options.subject}: {error}, or give --target") from error


def _keep(failures: Mapping[str, bytes], options: Options) -> None:
    """The contact sheet; an old one goes where nothing failed."""
    path = (
        options.failures or Path("out/eval") / f"{label_of(options).replace(':', '-')}-{options.variety}-failures.png"
    )
    with writing(path):
        if not failures:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(failures.items(), path, columns=6)
    options.console.print(f"failures: {path}", highlight=False)
