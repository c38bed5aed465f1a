"""Where the parameter `model` finds its folder: in the store, or, where there is none, on its own."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from vla_core.errors import ConfigError, StoreError
from vla_core.signing import trust_of
from vla_core.store import STORE_VARIABLE, Store, durable
from vla_core.swap import LABEL
from vla_policy.serving import verification
from vla_policy.settings import Settings

PROMPT_FILE = "prompt.json"
"""In the store: an update may bring an instruction, and a respawned policy must not go back to the launch file's."""


class Shelf(Protocol):
    """What the policy asks of it; names are those of the parameter `model`."""

    def boots(self, model: str) -> str:
        """What to run at start where the launch file says `model`.

        Raises:
            EvergreenError: the store cannot take up the folder that it names.
        """
        ...

    def takes_up(self, model: str) -> str:
        """The name here of what the launch file says; empty where it says nothing, or there is no store.

        Raises:
            EvergreenError: the store cannot take up the folder that it names.
        """
        ...

    def find(self, model: str) -> Path:
        """Its folder.

        Raises:
            EvergreenError: there is no such model.
        """
        ...

    def words_to_verify(self, model: str) -> list[str]:
        """Arguments of the program that verifies it."""
        ...

    def hold(self, model: str) -> contextlib.AbstractContextManager[object]:
        """Keep it from being evicted while it is loaded."""
        ...

    def last_good(self) -> str:
        """What to go back to; empty for nothing."""
        ...

    def drives(self, model: str) -> None:
        """It drives now: boot it from now on."""
        ...

    def asked_with(self, model: str, prompt: str) -> None:
        """Somebody asked for it with this instruction: boot it with that."""
        ...

    def prompt_of(self, model: str) -> str | None:
        """The instruction that it was last asked for with; None where nobody asked for it."""
        ...

    def is_good(self, model: str) -> bool:
        """Whether it need not prove itself any more."""
        ...

    def proved_good(self, model: str) -> None:
        """It passed its probation."""
        ...

    def record(self, event: str, **facts: object) -> None:
        """A line for the audit trail."""
        ...


class Folders:
    """No store: `model` is a folder."""

    def boots(self, model: str) -> str:
        """See `Shelf`."""
        return model

    def takes_up(self, model: str) -> str:  # noqa: ARG002  it is what did not load
        """See `Shelf`."""
        return ""

    def find(self, model: str) -> Path:
        """See `Shelf`."""
        if LABEL.fullmatch(model):
            raise ConfigError(
                f"parameter 'model' is {model}, a model in a store, and this policy has none: set the parameter "
                f"'store' or {STORE_VARIABLE}, or give a model folder"
            )
        return Path(model).expanduser()

    def words_to_verify(self, model: str) -> list[str]:
        """See `Shelf`."""
        return verification.in_folder(self.find(model))

    def hold(self, model: str) -> contextlib.AbstractContextManager[object]:  # noqa: ARG002  nobody evicts folders
        """See `Shelf`."""
        return contextlib.nullcontext()

    def last_good(self) -> str:
        """See `Shelf`."""
        return ""

    def drives(self, model: str) -> None:
        """See `Shelf`."""

    def asked_with(self, model: str, prompt: str) -> None:
        """See `Shelf`."""

    def prompt_of(self, model: str) -> str | None:
        """See `Shelf`."""

    def is_good(self, model: str) -> bool:  # noqa: ARG002  there is nothing to go back to
        """See `Shelf`."""
        return True

    def proved_good(self, model: str) -> None:
        """See `Shelf`."""

    def record(self, event: str, **facts: object) -> None:
        """See `Shelf`."""


class Stored:
    """Models in a store, `name@version`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def boots(self, model: str) -> str:
        """See `Shelf`: a launch file only seeds an empty store, so that a respawn never undoes an update."""
        if current := self._store.state().current:
            return current
        if label := self.takes_up(model):
            self._store.set_current(label)
        return label

    def takes_up(self, model: str) -> str:
        """See `Shelf`."""
        if not model or LABEL.fullmatch(model):
            return model
        return self._store.adopt(Path(model).expanduser())

    def find(self, model: str) -> Path:
        """See `Shelf`."""
        if not LABEL.fullmatch(model):
            raise ConfigError(
                f"model {model!r} is no name@version; this policy runs what is in its store {self._store.root}: "
                f"{', '.join(self._store.labels()) or 'nothing yet'}"
            )
        return self._store.folder(model)

    def words_to_verify(self, model: str) -> list[str]:
        """See `Shelf`."""
        return verification.in_store(self._store.root, model)

    def hold(self, model: str) -> contextlib.AbstractContextManager[object]:
        """See `Shelf`."""
        return self._store.hold(model)

    def last_good(self) -> str:
        """See `Shelf`."""
        return self._store.state().last_good

    def drives(self, model: str) -> None:
        """See `Shelf`."""
        if self._store.state().current != model:
            self._store.set_current(model)

    def asked_with(self, model: str, prompt: str) -> None:
        """See `Shelf`; what was said to the models that the robot may go back to is kept."""
        state = self._store.state()
        kept = {label: text for label, text in self._prompts().items() if label in (state.current, state.last_good)}
        text = json.dumps({"format": 2, "prompts": kept | {model: prompt}}) + "\n"
        try:
            durable.replace_text(self._store.root / PROMPT_FILE, text)
        except OSError as error:
            raise StoreError(f"{self._store.root / PROMPT_FILE} cannot be written: {error}") from error

    def prompt_of(self, model: str) -> str | None:
        """See `Shelf`; a file that cannot be read is as good as none: the model has a prompt of its own."""
        return self._prompts().get(model)

    def _prompts(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
            document = json.loads((self._store.root / PROMPT_FILE).read_text(encoding="utf-8"))
            return {str(label): str(text) for label, text in document["prompts"].items()}
        return {}

    def is_good(self, model: str) -> bool:
        """See `Shelf`."""
        return self._store.state().last_good == model

    def proved_good(self, model: str) -> None:
        """See `Shelf`."""
        if not self.is_good(model):
            self._store.mark_good(model)

    def record(self, event: str, **facts: object) -> None:
        """See `Shelf`."""
        self._store.record(event, **facts)


def to_go_back(settings: Settings, good: str, shelf: Shelf) -> Settings:
    """How to load `good` instead of `settings.model`: with what was said to it, not to the one that failed.

    An instruction of the launch file's counts for every model.
    """
    prompt = shelf.prompt_of(good)
    if prompt is None:
        prompt = settings.prompt if shelf.prompt_of(settings.model) is None else ""
    return replace(settings, model=good, prompt=prompt)


def open_shelf(store: str) -> Shelf:
    """The shelf that the parameter `store` names; empty: that of the environment; empty too: folders.

    Raises:
        EvergreenError: the store cannot be opened.
    """
    root = store or os.environ.get(STORE_VARIABLE, "")
    return Stored(Store(Path(root).expanduser(), trust_of(os.environ))) if root else Folders()
