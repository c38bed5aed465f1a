"""What the verbs of `evergreen release` do: services, plan, screen and journal put together."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from evergreen.release import documents, journal, plan, usage
from evergreen.release.errors import RefusedError, ReleaseError, WaitingError
from evergreen.release.outcome import Kind, Outcome
from evergreen.release.plan import Plan
from evergreen.release.removal import Remover
from evergreen.release.screen import Screen
from evergreen.release.services import Services, find_targets
from evergreen.release.steps import Ports, Timing, carry_out, undo
from evergreen.release.steps.watch import Patience, Watch, look, refusal
from evergreen.release.targets import Target
from evergreen.release.work import Deployed, Work
from gg_bridge.fetch.source import without_secrets
from gg_bridge.recipes import MODEL
from vla_core.errors import EvergreenError

EXIT_FAILED = 1


def deploy(arguments: argparse.Namespace) -> int:
    """`evergreen release deploy`."""
    usage.demand_model(arguments)
    services = Services.of(arguments.profile, arguments.region, arguments.shadow)
    with tempfile.TemporaryDirectory(prefix="evergreen-release-") as scratch:
        return _release(arguments, services, plan.model(arguments, services, Path(scratch)))


def robot(arguments: argparse.Namespace) -> int:
    """`evergreen release robot`."""
    usage.demand_robot(arguments)
    services = Services.of(arguments.profile, arguments.region, arguments.shadow)
    return _release(arguments, services, plan.robot(arguments, services))


def rollback(arguments: argparse.Namespace) -> int:
    """`evergreen release rollback`."""
    usage.demand_rollback(arguments)
    services = Services.of(arguments.profile, arguments.region, arguments.shadow)
    return _release(arguments, services, plan.rollback(arguments, services))


def status(arguments: argparse.Namespace) -> int:
    """`evergreen release status`."""
    usage.demand_targets(arguments)
    services = Services.of(arguments.profile, arguments.region, arguments.shadow)
    screen = Screen(quiet=arguments.json)
    found = find_targets(services, arguments.thing, arguments.group, arguments.devices_of)
    targets = found.targets
    work, rows = _in_force(services, targets)
    outcomes = look(services.greengrass, services.iot, work.deployed, services.clock.unix())
    if arguments.wait and not all(outcome.kind.is_final for outcome in outcomes):
        patience = Patience(arguments.wait, arguments.poll)
        watch = Watch(work, services.greengrass, services.iot, targets, patience, clock=services.clock)
        with screen.show(watch.title) as view:
            watch.run(view)
        outcomes = list(work.outcomes.values())
    failed = [one for one in outcomes if one.kind.is_final and one.kind is not Kind.SUCCEEDED]
    if arguments.json:
        print(json.dumps({"deployments": rows, "devices": [one.to_dict() for one in outcomes]}, indent=2))
    else:
        for row in rows:
            screen.say(f"{row['target']}: {row['model'] or 'a deployment'}, {row['deployment_id']}")
        screen.devices(outcomes)
    if failed:
        raise RefusedError(refusal(failed, targets))
    return 0


def clean(arguments: argparse.Namespace) -> int:
    """`evergreen release clean`."""
    screen = Screen(quiet=arguments.json)
    removed, kept = [], []
    folder = journal.folder_of(os.environ)
    unreadable = [f"notes {path}" for path in journal.unreadable(folder)]
    with journal.unfinished(folder) as journals:
        leftovers = [(notes, leftover) for notes in journals for leftover in notes.leftovers]
        if leftovers and not arguments.dry_run:
            services = Services.of(arguments.profile, arguments.region)
            for notes in journals:
                if (notes.account, notes.region) != (services.aws.account, services.aws.region):
                    there = f"account {notes.account}, region {notes.region}"
                    screen.say(f"left alone: what a release of {notes.label or 'the robot'} made in {there}")
                else:
                    removed += [leftover.shown for leftover in undo(notes, Remover(services.aws), screen.say)]
                kept += [leftover.shown for leftover in notes.leftovers]
        elif arguments.dry_run:
            kept = [leftover.shown for _, leftover in leftovers]
    if arguments.json:
        print(json.dumps({"removed": removed, "left": kept + unreadable}, indent=2))
    elif kept and arguments.dry_run:
        print("\n".join(f"would remove {shown}" for shown in kept))
    elif not removed and not kept and not unreadable:
        print("nothing to clean up")
    for file in unreadable:
        screen.say(f"{file} cannot be read: what that release made is not known; look into the file, then delete it")
    return EXIT_FAILED if unreadable or (kept and not arguments.dry_run) else 0


def _release(arguments: argparse.Namespace, services: Services, made: Plan) -> int:
    if arguments.dry_run:
        _foretell(made, as_json=arguments.json)
        return 0
    work, screen = made.work, Screen(quiet=arguments.json)
    timings: list[Timing] = []

    def done(timing: Timing) -> None:
        timings.append(timing)
        screen.done(timing)

    notes = journal.begin(journal.folder_of(os.environ), services.aws.account, services.aws.region, work.label)
    ports = Ports(notes, Remover(services.aws), screen.show, done, time.monotonic, screen.say)
    error = ""
    try:
        carry_out(made.steps, ports)
    except KeyboardInterrupt:
        error = _told("interrupted", work, screen)
        raise
    except (RefusedError, WaitingError) as problem:  # these say what to do
        error = str(problem)
        raise
    except EvergreenError as problem:
        error = _told(str(problem), work, screen)
        raise
    finally:
        notes.close()
        _conclude(work, timings, screen, as_json=arguments.json, error=error)
    return 0


def _told(error: str, work: Work, screen: Screen) -> str:
    """The error, with what to do where a deployment was made or may have been; says the latter."""
    if not work.asked:
        return error
    screen.say(advice := _still_going(work))
    return f"{error}; {advice}"


def _still_going(work: Work) -> str:
    options = " ".join(dict.fromkeys(target.option for target in work.asked))
    if len(work.deployed) < len(work.asked):
        return (
            f"whether the deployment to {work.asked[-1].shown} was made is not known, so that nothing was removed; "
            f"`evergreen release status {options}` shows it, the same command again goes on, `evergreen release "
            f"rollback {options}` takes it back"
        )
    return (
        f"the deployment goes on; `evergreen release status {options} --wait 30m` waits for it, `evergreen release "
        f"rollback {options}` takes it back"
    )


def _conclude(work: Work, timings: list[Timing], screen: Screen, *, as_json: bool, error: str) -> None:
    outcomes = sorted(work.outcomes.values(), key=lambda outcome: outcome.thing)
    if as_json:
        print(json.dumps(_summary(work, timings, outcomes, error), indent=2))
        return
    if outcomes:
        screen.devices(outcomes)
    if timings:
        screen.table(timings)


def _summary(work: Work, timings: list[Timing], outcomes: list[Outcome], error: str) -> dict[str, Any]:
    """For `--json`. What no deployment names is not told: it was never made, or is removed again."""
    stands = bool(work.asked)
    return {
        "model": work.label,
        "component": work.component,
        "component_version": work.version if stands else "",
        "image": work.image if stands else "",
        "uri": without_secrets(work.uri) if stands else "",
        "deployments": [one.to_dict() for one in work.deployed],
        "devices": [outcome.to_dict() for outcome in outcomes],
        "steps": [timing.to_dict() for timing in timings],
        "error": error,
    }


def _foretell(made: Plan, *, as_json: bool) -> None:
    """Looks first at everything that can be looked at: what cannot work is an error here too."""
    unchecked = [step.foresee() for step in made.steps]
    told = [
        {"step": step.title, "would": list(step.would()), "unchecked": list(lines)}
        for step, lines in zip(made.steps, unchecked, strict=True)
    ]
    if as_json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for entry in told:
        print(f"{entry['step']}:")
        for line in entry["would"]:
            print("\n".join(f"  {row}" for row in line.splitlines()))
    for line in dict.fromkeys(itertools.chain.from_iterable(unchecked)):
        print(f"not checked: {line}")
    print("nothing was done; what stands for a hash is known once it is packed or built")


def _in_force(services: Services, targets: tuple[Target, ...]) -> tuple[Work, list[dict[str, str]]]:
    """The latest deployment of each target, as if it had been made just now."""
    work, rows = Work(MODEL), []
    for target in targets:
        latest = services.labelled(services.greengrass.latest(target.arn))
        if latest is None:
            raise ReleaseError(f"{target.shown} never had a deployment; `evergreen release deploy` makes one")
        label = documents.model_of(latest)
        created_s, sha256 = latest["creationTimestamp"].timestamp(), services.sha256_of(latest)
        one = Deployed(target, str(latest["deploymentId"]), created_s, label, sha256)
        work.deployed.append(one)
        rows.append({"target": target.shown, "deployment_id": one.deployment_id, "model": label})
    return work, rows
