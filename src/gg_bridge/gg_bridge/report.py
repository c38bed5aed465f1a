"""What a robot tells about an update, over MQTT and in its named shadow.

```
{"format": 1, "report_id": "<request_id>-<outcome>", "thing": "arm-7", "time": "2026-11-26T05:18:37.123+00:00",
 "request_id": "…", "outcome": "succeeded", "model": "evergreen-black@1.1.0", "running": "evergreen-black@1.1.0",
 "reason": "",
 "wished": {"uri": "…", "version": "…", "sha256": "…", "prompt": "…", "swap": "blue_green"},
 "durations_s": {"fetch": 3.2, "verify": 0.4, …, "total": 12.9},
 "transfer": {"bytes": 1910000, "delta_from": "evergreen-black@1.0.0", "whole_because": ""}}
```
`transfer` is left out where nothing was fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from gg_bridge.actions import Tell
from gg_bridge.configuration import ModelConfiguration
from gg_bridge.fetch.source import without_secrets

FORMAT = 1
MAX_REASON, MAX_URI, MAX_PROMPT = 500, 512, 256
"""Characters: Greengrass Lite takes messages of 10 kB, of which base64 and UTF-8 leave a quarter."""


def build(
    told: Tell, *, thing: str, running: str, unix_s: float, transfer: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The report as a JSON object. `running` is what drives the arm after it all; `transfer` how the model came."""
    return {
        "format": FORMAT,
        "report_id": f"{told.request_id}-{told.outcome}",  # a report that comes twice has the same
        "thing": thing,
        "time": datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds"),
        "request_id": told.request_id,
        "outcome": told.outcome,
        "model": told.label,
        "running": running,
        "reason": told.reason[:MAX_REASON],
        "wished": wished(told.wish),
        "durations_s": {stage: round(seconds, 3) for stage, seconds in told.durations_s.items()},
        **({"transfer": dict(transfer)} if transfer else {}),
    }


def transfer_of(history: Iterable[Mapping[str, Any]], label: str) -> dict[str, Any]:
    """How a model came last, by the store's history; nothing where it was there already."""
    last: Mapping[str, Any] = {}
    for entry in history:
        if entry.get("event") in ("fetched", "present") and entry.get("label") == label:
            last = entry
    if last.get("event") != "fetched":
        return {}
    return {
        "bytes": last.get("came", 0),
        "delta_from": last.get("base", ""),
        "whole_because": str(last.get("fallback", ""))[:MAX_REASON],
    }


def wished(wish: ModelConfiguration) -> dict[str, str]:
    """The configuration as reports tell it: bounded, and without what gives access to an address."""
    return asdict(wish) | {"uri": without_secrets(wish.uri)[:MAX_URI], "prompt": wish.prompt[:MAX_PROMPT]}


def to_text(report: Mapping[str, Any]) -> str:
    """For the wire and the disk."""
    text = json.dumps(report, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()  # a file's name may hold what no text can


def to_shadow(report: Mapping[str, Any]) -> dict[str, Any]:
    """The shadow's document: the state that is, not a history."""
    return {"state": {"reported": {"update": dict(report)}}}


def sentence(told: Tell, running: str) -> str:
    """For the log and the status."""
    what = told.label or without_secrets(told.wish.uri) or "the configuration"
    drives = f"; {running} drives on" if running and running != told.label else ""
    reason = f": {told.reason}" if told.reason else ""
    took = f" after {told.durations_s['total']:.1f} s" if "total" in told.durations_s else ""
    return f"update to {what} {told.outcome.replace('_', ' ')}{took}{reason}{drives}"
