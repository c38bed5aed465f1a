"""Models on the Hugging Face hub: plain HTTP, pinned to one commit for the whole fetch.

`HF_ENDPOINT` names another hub, `HF_TOKEN` is sent to it and nowhere else. https://huggingface.co/docs/hub/api
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping

from gg_bridge.fetch.errors import CutError, FetchError
from gg_bridge.fetch.http import HttpRemote
from gg_bridge.fetch.source import LOOPBACK, HubPlace
from vla_core.errors import ConfigError

ENDPOINT = "https://huggingface.co"
MAX_ANSWER_BYTES = 8 << 20
"""A repository's description lists all its files."""


def open_hub(place: HubPlace, environment: Mapping[str, str]) -> HttpRemote:
    """The folder of a repository at the commit that its revision means now.

    Raises:
        FetchError: there is no such repository or revision, or none for this token.
        ConfigError: HF_ENDPOINT is no address, or one that would give the token away.
    """
    endpoint = environment.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT
    if not endpoint.startswith(("https://", "http://")):
        raise ConfigError(f"HF_ENDPOINT is {endpoint!r}; it must begin with https://")
    token = environment.get("HF_TOKEN", "").strip()
    if token and endpoint.startswith("http://") and urllib.parse.urlsplit(endpoint).hostname not in LOOPBACK:
        raise ConfigError(f"HF_ENDPOINT is {endpoint!r}: anybody on the way could read HF_TOKEN; use https")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    hint = "a private repository needs HF_TOKEN" if not token else "HF_TOKEN may not reach it"
    revision = urllib.parse.quote(place.revision, safe="")
    about = HttpRemote(f"{endpoint}/api/models/{place.repository}/revision/{revision}", headers, hint)
    commit = _commit(about)
    folder = f"/{place.folder}" if place.folder else ""
    return HttpRemote(f"{endpoint}/{place.repository}/resolve/{commit}{folder}", headers, hint)


def _commit(about: HttpRemote) -> str:
    with about.open("", 0, "") as opened:
        answer = bytearray()
        for block in opened.blocks:
            answer += block
            if len(answer) > MAX_ANSWER_BYTES:
                raise FetchError(f"{about.shown('')} answers without end", retryable=False)
    try:
        commit = json.loads(answer)["sha"]
    except (ValueError, KeyError, TypeError) as error:
        raise CutError(f"{about.shown('')} does not answer as a hub does") from error
    if not isinstance(commit, str) or not commit.isalnum():
        raise CutError(f"{about.shown('')} names no commit")
    return commit
