"""Telling of updates: the log, the audit trail, AWS IoT Core, the shadow, and the component's state."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gg_bridge import report
from gg_bridge.actions import FAILED, Tell
from gg_bridge.delivery import Channel, Delivery, Log
from gg_bridge.nucleus import Nucleus, NucleusError
from gg_bridge.outbox import Outbox
from vla_core.errors import StoreError
from vla_core.store import Store

MAX_ERRORED = 2
ERRORED_WINDOW_S = 3600.0
"""The classic nucleus restarts a component that reports ERRORED, and at the third time within an hour gives it up."""
SHADOW_TOPIC = "$aws/things/{thing}/shadow/name/{shadow}/update"
"""Of AWS IoT Core. Lite has no shadows of its own, and those of classic's shadow manager stay on the device unless it
is told to synchronise them: this way both reach the cloud alike."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CallNucleus = Callable[[Callable[[Nucleus], None]], None]
"""Does something with the nucleus; raises NucleusError."""


@dataclass(frozen=True, slots=True)
class Ways:
    """Where reports go.

    Attributes:
        thing: name of this robot in AWS IoT.
        topic: of AWS IoT Core; empty: none.
        shadow: name of the thing's shadow; empty: none.
        errored: whether a failed update is reported as the component's state, too.
    """

    thing: str
    topic: str
    shadow: str
    errored: bool


def _boot() -> str:
    """Another after each start of the computer."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Telling:
    """Queues what is told; a thread of its own delivers it."""

    def __init__(self, store: Store, folder: Path, ways: Ways, call: CallNucleus, log: Log) -> None:
        self._store, self._ways, self._call, self._log = store, ways, call, log
        self._channels = []
        if ways.topic:
            self._channels.append(Channel("AWS IoT Core", Outbox(folder / "mqtt"), self._publish, log))
        if ways.shadow:
            # Of a state only the latest counts.
            self._channels.append(Channel("the shadow", Outbox(folder / "shadow", 1), self._update_shadow, log))
        self._delivery = Delivery(self._channels)
        self.last = ""

    @property
    def waiting(self) -> int:
        """Reports that are not delivered yet."""
        return self._delivery.waiting

    def start(self) -> None:
        """Begin to deliver."""
        self._delivery.start()

    def stop(self) -> None:
        """End; what waits stays on disk."""
        self._delivery.stop()

    def wake(self) -> None:
        """The nucleus is there again."""
        self._delivery.wake()

    def tell(self, told: Tell, running: str) -> None:
        """One update ended, or takes long; `running` is what the policy runs."""
        self.last = report.sentence(told, running)
        self._log(self.last, told.outcome != "succeeded")
        transfer = report.transfer_of(self._store.history(), told.label) if told.label else {}
        built = report.build(told, thing=self._ways.thing, running=running, unix_s=time.time(), transfer=transfer)
        self.record("update", **{key: value for key, value in built.items() if key not in {"format", "time"}})
        self._delivery.put(report.to_text(built))
        if told.outcome in FAILED and self._ways.errored:
            self._report_errored()

    def record(self, event: str, **facts: object) -> None:
        """Add a line to the store's audit trail; a full disk stops nothing."""
        try:
            self._store.record(event, **facts)
        except StoreError as error:
            self._log(f"not in the audit trail: {error}", True)

    def _report_errored(self) -> None:
        if self._errored_lately() >= MAX_ERRORED:
            return
        try:
            self._call(lambda nucleus: nucleus.report_state("ERRORED"))
        except NucleusError as error:
            self._log(f"the component's state could not be reported: {error}", True)
        else:
            self.record("errored", boot=_boot(), uptime_s=round(time.monotonic(), 1))

    def _errored_lately(self) -> int:
        """By the time since the computer started, which no step of the clock changes and every process shares."""
        since_s = time.monotonic() - ERRORED_WINDOW_S
        events = [entry for entry in self._store.history() if entry.get("event") == "errored"]
        return sum(entry.get("boot") == _boot() and float(entry.get("uptime_s", 0.0)) > since_s for entry in events)

    def _publish(self, text: str) -> None:
        topic = self._ways.topic.replace("{thing}", self._ways.thing)
        self._call(lambda nucleus: nucleus.publish(topic, text.encode()))

    def _update_shadow(self, text: str) -> None:
        topic = SHADOW_TOPIC.format(thing=self._ways.thing, shadow=self._ways.shadow)
        document = report.to_text(report.to_shadow(json.loads(text)))
        self._call(lambda nucleus: nucleus.publish(topic, document.encode()))
