"""Device shadows as far as a component uses them: documents that merge, with a version."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vla_core.errors import EvergreenError

Json = dict[str, Any]
_SECTIONS: Final = ("desired", "reported")


class ShadowError(EvergreenError):
    """A document that is no update of a shadow; `kind` as Greengrass names it."""

    def __init__(self, message: str, kind: str = "InvalidArgumentsError") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(slots=True)
class Shadows:
    """All shadows, by thing and name."""

    documents: dict[tuple[str, str], Json] = field(default_factory=dict)

    def get(self, thing: str, name: str) -> Json:
        """The document.

        Raises:
            ShadowError: there is none.
        """
        document = self.documents.get((thing, name))
        if document is None:
            raise ShadowError(f"no shadow {name!r} of thing {thing!r}", "ResourceNotFoundError")
        return copy.deepcopy(document)

    def update(self, thing: str, name: str, update: Any, now_s: int) -> Json:
        """Merge an update, and return it as the answer tells it.

        Raises:
            ShadowError: it is malformed, or names another version than the shadow has.
        """
        state = update.get("state") if isinstance(update, Mapping) else None
        if not isinstance(state, Mapping) or not set(state) <= set(_SECTIONS):
            raise ShadowError("a shadow update must have a state with desired or reported")
        old = self.documents.get((thing, name), {"state": {}, "version": 0})
        if update.get("version", old["version"]) != old["version"]:
            raise ShadowError(f"the shadow has version {old['version']}, not {update['version']}", "ConflictError")
        new = {"state": _merged(old["state"], state), "version": old["version"] + 1, "timestamp": now_s}
        self.documents[thing, name] = new
        return {"state": copy.deepcopy(dict(state)), "version": new["version"], "timestamp": now_s}


def _merged(old: Any, update: Mapping[str, Any]) -> Json:
    merged: Json = copy.deepcopy(dict(old)) if isinstance(old, Mapping) else {}
    for key, value in update.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = _merged(merged.get(key), value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged
