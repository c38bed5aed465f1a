"""Wait until the devices of a wave have told what became of the deployment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from evergreen.release import documents
from evergreen.release.aws.greengrass import Greengrass
from evergreen.release.aws.iot import Iot
from evergreen.release.errors import AwsError, RefusedError, WaitingError
from evergreen.release.journal import Leftover
from evergreen.release.outcome import Facts, Kind, Outcome, Wanted, ago, judge
from evergreen.release.steps import View
from evergreen.release.targets import Target
from evergreen.release.work import Deployed, Work

SHOWN_DEVICES = 5
"""In one sentence; `release status` has them all."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How to wait.

    Attributes:
        limit_s: how long.
        poll_s: between two looks.
        stop_at_first: at a refusal stop waiting, and cancel the deployments for devices that have not begun.
    """

    limit_s: float
    poll_s: float
    stop_at_first: bool = False


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, and AWS's idea of it.

    Attributes:
        monotonic: s.
        unix: by AWS's clock, seconds since 1970.
        sleep: for so many seconds.
    """

    monotonic: Callable[[], float]
    unix: Callable[[], float]
    sleep: Callable[[float], None] = time.sleep


class Watch:
    """Polls Greengrass and the shadows; puts what it finds into `work.outcomes`."""

    settles = False

    def __init__(
        self,
        work: Work,
        greengrass: Greengrass,
        iot: Iot,
        targets: Sequence[Target],
        patience: Patience,
        *,
        clock: Clock,
        title: str = "wait for the devices",
    ) -> None:
        self._work, self._greengrass, self._iot, self._targets = work, greengrass, iot, targets
        self._patience, self._clock = patience, clock
        self.title = title

    def would(self) -> Sequence[str]:
        """See `Step`."""
        things = ", ".join(thing for target in self._targets for thing in target.things)
        limit = ago(self._patience.limit_s)
        return [f"wait up to {limit} for {things or 'no device'}: deployment status, and the report in each shadow"]

    def foresee(self) -> Sequence[str]:
        """See `Step`."""
        return []

    def needless(self) -> str:
        """See `Step`."""
        return "" if any(target.things for target in self._targets) else "there is no core device to wait for"

    def leaves(self) -> Leftover | None:
        """See `Step`."""
        return None

    def run(self, view: View) -> str:
        """See `Step`.

        Raises:
            RefusedError: at least one device did not take it.
            WaitingError: time is up.
        """
        wave = [one for one in self._work.deployed if one.target in self._targets]
        begun_s = self._clock.monotonic()
        outcomes: list[Outcome] = []
        while True:
            try:
                outcomes, trouble = look(self._greengrass, self._iot, wave, self._clock.unix()), None
            except AwsError as error:
                if not error.fleeting:
                    raise
                trouble = error
                view.say(f"asks again: {error}")
            else:
                if told := self._judge(outcomes, wave, view):
                    return told
            if self._clock.monotonic() - begun_s >= self._patience.limit_s:
                if trouble and not outcomes:
                    raise trouble
                raise WaitingError(too_late(outcomes, self._everyone, self._patience.limit_s))
            self._clock.sleep(self._patience.poll_s)

    def _judge(self, outcomes: Sequence[Outcome], wave: Sequence[Deployed], view: View) -> str:
        """Empty while it is to go on.

        Raises:
            RefusedError: it need not, as devices did not take it.
        """
        self._work.outcomes.update({outcome.thing: outcome for outcome in outcomes})
        done = [outcome for outcome in outcomes if outcome.kind.is_final]
        view.amount(len(done), len(outcomes), "devices")
        view.say(sentence(outcomes))
        failed = [outcome for outcome in done if outcome.kind is not Kind.SUCCEEDED]
        if failed and self._patience.stop_at_first:
            raise RefusedError(refusal(failed, self._everyone) + self._cancel(wave))
        if failed and len(done) == len(outcomes):
            raise RefusedError(refusal(failed, self._everyone))
        return f"{len(done)} of {len(outcomes)} devices succeeded" if len(done) == len(outcomes) else ""

    def _cancel(self, wave: Sequence[Deployed]) -> str:
        """Cancel the wave's deployments; tells of those that could not be."""
        told = ""
        for one in wave:
            try:
                self._greengrass.cancel(one.deployment_id)
            except AwsError as error:
                told += f". The deployment to {one.target.shown} could not be cancelled: {error}"
        return told

    @property
    def _everyone(self) -> tuple[Target, ...]:
        """All targets that got a deployment so far, of earlier waves too."""
        return tuple(dict.fromkeys([one.target for one in self._work.deployed])) or tuple(self._targets)


def look(greengrass: Greengrass, iot: Iot, wave: Iterable[Deployed], now_s: float) -> list[Outcome]:
    """How every device of these deployments stands."""
    outcomes = []
    for one in wave:
        made = greengrass.deployment(one.deployment_id)
        latest = bool(made.get("isLatestForTarget", True))
        wanted = Wanted(one.label, one.created_s, latest, documents.wish_of(made, one.sha256))
        outcomes += [judge(_facts(greengrass, iot, thing, one), wanted, now_s) for thing in one.target.things]
    return outcomes


def _facts(greengrass: Greengrass, iot: Iot, thing: str, one: Deployed) -> Facts:
    execution = greengrass.execution(thing, one.deployment_id)
    changed = execution.get("modifiedTimestamp")
    begun = execution.get("coreDeviceExecutionStatus", "QUEUED") != "QUEUED"
    return Facts(
        thing,
        execution=str(execution.get("coreDeviceExecutionStatus", "")),
        reason=" ".join(str(execution.get("reason", "")).split()),
        changed_s=changed.timestamp() if changed is not None else 0.0,
        seen_s=0.0 if begun else greengrass.device(thing).seen_s,
        report=iot.report(thing) if one.label else None,
    )


def sentence(outcomes: Sequence[Outcome]) -> str:
    """For one line of progress."""
    open_ones = [outcome for outcome in outcomes if not outcome.kind.is_final]
    if len(open_ones) == 1:
        return f"{open_ones[0].thing}: {open_ones[0].reason}"
    counts = Counter(str(outcome.kind) for outcome in outcomes)
    return ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(counts.items()))


def refusal(failed: Sequence[Outcome], targets: Sequence[Target]) -> str:
    """What to do when devices did not take it."""
    listed = "; ".join(f"{one.thing} {str(one.kind).replace('_', ' ')}: {one.reason}" for one in failed[:SHOWN_DEVICES])
    more = f"; and {len(failed) - SHOWN_DEVICES} more" if len(failed) > SHOWN_DEVICES else ""
    options = " ".join(target.option for target in targets)
    return f"not taken: {listed}{more}. `evergreen release rollback {options}` deploys the former model again"


def too_late(outcomes: Sequence[Outcome], targets: Sequence[Target], limit_s: float) -> str:
    """What to do when time is up."""
    late = [outcome for outcome in outcomes if not outcome.kind.is_final]
    listed = "; ".join(f"{one.thing}: {one.reason}" for one in late[:SHOWN_DEVICES])
    more = f"; and {len(late) - SHOWN_DEVICES} more" if len(late) > SHOWN_DEVICES else ""
    options = " ".join(target.option for target in targets)
    return (
        f"{len(late)} of {len(outcomes)} devices have not answered within {ago(limit_s)}: {listed}{more}. The "
        "deployment stays in force, and a device takes it once it is back; go on waiting with "
        f"`evergreen release status {options} --wait 2h`, or take it back with `evergreen release rollback {options}`"
    )
