"""Things, thing groups, and the shadows into which robots report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from evergreen.release.aws import SHADOW
from evergreen.release.aws.session import ABSENT, Aws
from evergreen.release.errors import AwsError, ReleaseError
from evergreen.release.outcome import Report, Wish


class Iot:
    """What a release asks of AWS IoT Core."""

    def __init__(self, aws: Aws, shadow: str = SHADOW) -> None:
        self._aws, self._shadow = aws, shadow

    def thing_arn(self, thing: str) -> str:
        """Of a thing that there is.

        Raises:
            ReleaseError: there is none.
        """
        return self._described("describe_thing", "thing", thing, "thingName", "thingArn")

    def group_arn(self, group: str) -> str:
        """Of a thing group that there is.

        Raises:
            ReleaseError: there is none.
        """
        return self._described("describe_thing_group", "thing group", group, "thingGroupName", "thingGroupArn")

    def report(self, thing: str) -> Report | None:
        """The last report of the thing's bridge."""
        try:
            answer = self._aws.call("iot-data", "get_thing_shadow", thingName=thing, shadowName=self._shadow)
        except AwsError as error:
            if error.code in ABSENT:
                return None
            raise
        with self._aws.calling("iot-data get-thing-shadow"):
            payload = answer["payload"].read()
        return parse_shadow(payload)

    def _described(self, operation: str, kind: str, name: str, argument: str, key: str) -> str:
        try:
            return str(self._aws.call("iot", operation, **{argument: name})[key])
        except AwsError as error:
            if error.code in ABSENT:
                raise ReleaseError(
                    f"no {kind} {name!r} in {self._aws.region}; `aws iot list-{kind.replace(' ', '-')}s` shows which "
                    "there are"
                ) from error
            raise


def parse_shadow(payload: bytes) -> Report | None:
    """A shadow's document as the report in it; None where it holds none. Whatever is in it was written by a device."""
    try:
        document = json.loads(payload)
    except ValueError:
        return None
    update = _below(document, "state", "reported", "update")
    if not update or not isinstance(update.get("outcome"), str):
        return None
    stamps = _stamps(document, "metadata", "reported", "update")
    at_s = max(stamps.values(), default=0)
    fresh = _stamps(document, "metadata", "reported", "update", "durations_s")
    durations = _below(update, "durations_s")
    wished = _below(update, "wished")
    return Report(
        outcome=update["outcome"],
        model=_text(update.get("model")),
        running=_text(update.get("running")),
        reason=_text(update.get("reason")),
        version=_text(wished.get("version")),
        wish=Wish(*(wished[key] if isinstance(wished.get(key), str) else None for key in ("prompt", "swap", "sha256"))),
        durations_s={
            key: float(value)
            for key, value in durations.items()
            if isinstance(value, int | float) and fresh.get(key, 0) == at_s  # shadows keep keys of earlier reports
        },
        at_s=float(at_s),
    )


def _stamps(document: Any, *keys: str) -> dict[str, int]:
    """When AWS got each value below these keys, seconds since 1970."""
    return {
        key: entry["timestamp"]
        for key, entry in _below(document, *keys).items()
        if isinstance(entry, Mapping) and isinstance(entry.get("timestamp"), int)
    }


def _below(document: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document if isinstance(document, Mapping) else {}


def _text(value: Any) -> str:
    """One line of it."""
    return " ".join(value.split()) if isinstance(value, str) else ""
