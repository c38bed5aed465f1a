"""From the parameter `model` to a server that has it: found on the shelf, held there, loaded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace

from vla_core.errors import EvergreenError, ModelError
from vla_core.swap import LABEL
from vla_policy.engine import Engine
from vla_policy.loaded import Loaded
from vla_policy.schedule import Crashes
from vla_policy.serving.errors import ServerUnavailableError
from vla_policy.serving.link import LOCAL
from vla_policy.settings import Settings
from vla_policy.shelf import Shelf, to_go_back


class Loader:
    """Loads models of one shelf into one engine's reach."""

    def __init__(self, engine: Engine, shelf: Shelf, log: Callable[[str], None]) -> None:
        """Take both; `log` gets what went wrong on the way to a model that loads."""
        self._engine = engine
        self._shelf = shelf
        self._log = log
        self._failures: dict[str, int] = {}

    def load(self, settings: Settings, cancelled: threading.Event | None = None) -> Loaded:
        """Load `settings.model`; with `cancelled`, beside the one that drives.

        Raises:
            EvergreenError: why not; nothing is loaded or held then.
        """
        model = settings.model
        held = contextlib.ExitStack()
        try:
            if model:
                held.enter_context(self._shelf.hold(model))
            folder = self._shelf.find(model) if model else None
            loaded = self._engine.load(settings, folder, held.close, cancelled)
        except BaseException:
            held.close()
            raise
        if LABEL.fullmatch(model) and settings.server == LOCAL and loaded.spec.label != model:
            loaded.close()
            raise ModelError(f"the server of {model} says that it runs {loaded.spec.label}: fetch the model again")
        return loaded

    def load_to_start(self, settings: Settings, launched: Settings) -> tuple[Loaded, str]:
        """Load `settings.model`, or another where that one cannot be loaded.

        The other is the last good model; where there is none, that of the launch file, `launched.model`, which is
        taken into the store.

        Returns:
            What was loaded, and, where that is another, why.

        Raises:
            EvergreenError: neither loads, or trying again may help.
        """
        try:
            loaded = self.load(settings)
        except EvergreenError as error:
            if settings.server != LOCAL or not self._is_final(settings.model, error):
                raise
            other, what = self._instead(settings, launched)
            if other is None:
                raise
            reason = f"{settings.model} does not load: {error} Went back to {other.model}, {what}"
            self._log(reason)
            loaded = self.load(other)
            self._shelf.drives(other.model)
            self._shelf.record("fell_back", label=other.model, to=what, before=settings.model, reason=str(error))
            return loaded, reason
        self._failures.clear()
        return loaded, ""

    def _instead(self, settings: Settings, launched: Settings) -> tuple[Settings | None, str]:
        """How to load another model than `settings.model`, and which that is; None where there is no other."""
        good = self._shelf.last_good()
        if good not in ("", settings.model):
            return to_go_back(settings, good, self._shelf), "the last good model"
        try:
            seed = self._shelf.takes_up(launched.model)
        except EvergreenError as error:
            self._log(f"the launch file's model {launched.model} cannot be taken up instead: {error}")
            return None, ""
        if seed in ("", settings.model):
            return None, ""
        prompt = self._shelf.prompt_of(seed)
        told = launched.prompt if prompt is None else prompt
        return replace(settings, model=seed, prompt=told), "the launch file's model, for want of a good one"

    def _is_final(self, model: str, error: EvergreenError) -> bool:
        """A server that died, or was not ready in time, gets another chance; a model at fault does not."""
        self._failures[model] = self._failures.get(model, 0) + 1
        return not isinstance(error, ServerUnavailableError) or self._failures[model] >= Crashes.MANY
