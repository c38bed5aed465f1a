"""Fetching and previewing of models, as the bridge wants it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gg_bridge.configuration import ModelConfiguration
from gg_bridge.fetch import Progress, Source, fetch
from gg_bridge.fetch.pace import Pace
from gg_bridge.fetch.preview import preview
from gg_bridge.fetching import FetchModel
from gg_bridge.validation import Preview
from vla_core.manifest import Manifest
from vla_core.store import Store
from vla_core.store.space import human


def fetcher(store: Store) -> FetchModel:
    """Brings models into `store`."""

    def fetch_model(wish: ModelConfiguration, note: Callable[[str], None], cancelled: threading.Event) -> str:
        pace = Pace()

        def tell(progress: Progress) -> None:
            pace.note(progress.done_bytes - progress.resumed_bytes, time.monotonic())
            note(sentence(progress, pace))

        return fetch(_source(wish), store, tell, cancelled)

    return fetch_model


def previewer(store: Store) -> Preview:
    """Looks at manifests; `store` says whose models are taken."""

    def preview_model(wish: ModelConfiguration) -> Manifest | None:
        return preview(_source(wish), store.trust)

    return preview_model


def _source(wish: ModelConfiguration) -> Source:
    return Source(uri=wish.uri, version=wish.version, sha256=wish.sha256)


def sentence(progress: Progress, pace: Pace) -> str:
    """For people: how far it is, how fast it comes, and how long the rest takes."""
    if not progress.total_bytes:
        return progress.what
    far = f"{100 * progress.done_bytes // progress.total_bytes} % ({progress.what})"
    left_s = pace.left_s(progress.total_bytes - progress.done_bytes)
    return far if left_s is None else f"{far}, {human(round(pace.bytes_s or 0))}/s, {left_s:.0f} s left"
