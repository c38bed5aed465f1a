"""Going back to the last good model unasked. In the swapper's thread, where nothing else is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from vla_core.errors import EvergreenError
from vla_policy.clock import NS_PER_S, Clock
from vla_policy.engine import Engine
from vla_policy.host import Host
from vla_policy.loaded import Loaded
from vla_policy.loader import Loader
from vla_policy.probation import Failed, Passed
from vla_policy.serving.link import LOCAL
from vla_policy.settings import Settings
from vla_policy.shelf import Shelf, to_go_back
from vla_policy.trial import Begun, Event, Trial

FIRST_PAUSE_S, LAST_PAUSE_S = 10.0, 300.0
"""Between attempts to load a last good model that does not load: each costs a hold, and seconds of computing."""


class Fallback:
    """Watches models that have not proved good, and replaces those that fail."""

    def __init__(
        self,
        host: Host,
        engine: Engine,
        loader: Loader,
        shelf: Shelf,
        *,
        later: Callable[[Callable[[], None]], None],
        clock: Clock,
    ) -> None:
        """Take what it acts on; `later` runs a job in the swapper's thread."""
        self._host = host
        self._engine = engine
        self._loader = loader
        self._shelf = shelf
        self._later = later
        self._clock = clock
        self._pause_s = FIRST_PAUSE_S
        self._not_before_ns = 0

    def guard(self, loaded: Loaded) -> Trial | None:
        """What is asked of a model that begins to drive and has not proved good; None where it has. From any thread."""
        try:
            if self._shelf.is_good(loaded.model):
                return None
        except EvergreenError as error:  # nothing could be noted; the arm moves all the same
            self._host.log(str(error))
            return None

        def report(event: Event) -> None:
            self._later(partial(self._guarded, loaded.model, event))

        settings = self._host.settings()
        objector = settings.objector(loaded.spec, from_rest=True)
        return Trial(loaded, settings.probation(patient=True), objector, report)

    def resume(self) -> None:
        """Drive again, unless somebody stopped it meanwhile, and watch what has not proved good."""
        loaded = self._engine.loaded
        self._engine.resume(None if loaded is None else self.guard(loaded))

    def despairs(self, model: str, reason: str) -> None:
        """The server of `model` keeps failing. From any thread."""
        self._later(partial(self._fall_back, model, reason))

    def _guarded(self, model: str, event: Event) -> None:
        loaded = self._engine.loaded
        now = model if loaded is None else loaded.model  # a swap may have come between the event and this
        if isinstance(event, Begun) and now == model:
            self._shelf.drives(model)
        elif isinstance(event, Passed) and (now == model or not self._shelf.is_good(now)):
            self._shelf.proved_good(model)
        elif isinstance(event, Failed):
            self._fall_back(model, event.reason)

    def _fall_back(self, model: str, reason: str) -> None:
        """Replace a model that gives trouble by the last good one, while the arm holds."""
        bad, good = self._engine.loaded, self._shelf.last_good()
        settings = self._host.settings()
        if bad is None or bad.model != model or good in ("", model) or settings.server != LOCAL:
            return
        if self._clock.now().mono_ns < self._not_before_ns:
            return  # the good one did not load either, just now; the bad one is tried again meanwhile
        self._engine.pause(f"{model} gives way to {good}, the last good model: {reason}")
        try:
            bad.link.close()
            new = self._load(to_go_back(replace(settings, model=model), good, self._shelf))
            if not self._engine.replace(bad, new):
                new.close()
                self._host.log(f"did not go back to {good}: the policy was started or cleaned up meanwhile")
                return
            self._host.see(new.spec)
            self._host.runs(new)
            self._shelf.drives(good)
            self._host.warn(f"{model} gave trouble ({reason}): went back to {good}, the last good model")
            self._shelf.record("fell_back", label=good, before=model, reason=reason)
        finally:
            self.resume()

    def _load(self, settings: Settings) -> Loaded:
        """Load the good model; where even that fails, it is not tried again at once."""
        try:
            loaded = self._loader.load(settings)
        except EvergreenError:
            self._not_before_ns = self._clock.now().mono_ns + round(self._pause_s * NS_PER_S)
            self._pause_s = min(LAST_PAUSE_S, 2.0 * self._pause_s)
            raise
        self._pause_s, self._not_before_ns = FIRST_PAUSE_S, 0
        return loaded
