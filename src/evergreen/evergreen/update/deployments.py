"""A device as the cloud sees it: a stand-in nucleus with the component that bridges it to the robot."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evergreen.launch.events import Observer
from evergreen.update.component import Component
from evergreen.update.timeline import Moment, Timeline, build
from evergreen.update.witness import Witness
from gg_bridge.testing import StandInNucleus
from gg_bridge.testing.character import CharacterName
from gg_bridge.testing.deployments import Deployment
from vla_core.swap import Mode, Outcome

DEFAULTS = {"model": {"uri": "", "version": "", "sha256": "", "prompt": "", "swap": str(Mode.BLUE_GREEN)}}
"""The default configuration of the component's recipe: no model is wished for."""


@dataclass(frozen=True, slots=True)
class Update:
    """One deployment of a model, under way or over."""

    began_s: float
    deployment: Deployment
    nucleus: StandInNucleus
    witness: Witness

    @property
    def timeline(self) -> Timeline:
        """As far as it is known."""
        reports = {json.loads(message.payload)["report_id"]: message.at_s for message in self.nucleus.published}
        return build(self.began_s, self.deployment.told_s, self.witness.bridge, self.witness.policy, reports)

    @property
    def status(self) -> str:
        """The nucleus's."""
        return self.deployment.status

    @property
    def is_decided(self) -> bool:
        """Whether it has an outcome."""
        return self.timeline.outcome is not Outcome.NONE

    @property
    def is_over(self) -> bool:
        """Whether its outcome was reported, and the nucleus is done with it too."""
        return self.status != "IN_PROGRESS" and self.has(Moment.REPORTED)

    def has(self, moment: Moment) -> bool:
        """Whether this has come."""
        return moment in self.timeline.at_s


@dataclass(frozen=True, slots=True)
class Device:
    """Takes deployments."""

    nucleus: StandInNucleus
    component: Component
    witness: Witness

    @property
    def is_connected(self) -> bool:
        """Whether the component has said that it runs."""
        return "RUNNING" in self.nucleus.state_reports

    def deploy(self, uri: str, version: str, *, local: bool = False) -> Update:
        """Wish for the model at `uri`."""
        wish = {**DEFAULTS["model"], "uri": uri, "version": version}
        began_s = time.monotonic()
        return Update(began_s, self.nucleus.deploy({"model": wish}, local=local), self.nucleus, self.witness)


@contextlib.contextmanager
def device(
    character: CharacterName, folder: Path, store: Path, on_event: Observer, witness: Witness
) -> Iterator[Device]:
    """Start nucleus and component; sockets lie in `folder`, and `store` is the robot's.

    Raises:
        EvergreenError: they cannot be started.
    """
    component = Component(store, on_event)
    nucleus = StandInNucleus(
        character,
        folder / "nucleus.sock",
        defaults=DEFAULTS,
        on_restart_component=component.restart,
    )
    with nucleus, component:
        component.begin(nucleus.environment())
        yield Device(nucleus, component, witness)
