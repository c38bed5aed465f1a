"""Files over HTTP(S), with urllib3: ranges, ETags, redirects, proxies from the environment."""

from __future__ import annotations

import contextlib
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError

from gg_bridge.fetch.errors import ChangedError, CutError, FetchError
from gg_bridge.fetch.source import without_secrets
from gg_bridge.fetch.transfer import BLOCK_BYTES, Opened

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 30.0
"""A line on which nothing comes for 30 s is taken for cut."""
MAX_REDIRECTS = 5
AGENT = "evergreen"
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_GONE = frozenset({400, 401, 403, 404, 405, 410, 451})
"""Answers that asking again does not change."""
_CURES = {
    401: "it wants credentials",
    403: "access is denied; a presigned address may have expired",
    404: "it is not there",
    410: "it is gone",
}


class HttpRemote:
    """A folder's URL, or one file's."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, hint: str = "") -> None:
        """Take files from below `url`.

        Args:
            url: of the folder, or of the one file, which then is called "". Its query goes with every request.
            headers: sent along, but never to another host that it redirects to.
            hint: ends messages about what is not there.
        """
        self._parts = urllib.parse.urlsplit(url)
        self._headers = {"User-Agent": AGENT, "Accept-Encoding": "identity", **(headers or {})}
        self._hint = hint
        self._pool = _make_pool(self._parts.scheme, self._parts.hostname or "")

    def url(self, name: str) -> str:
        """The address of a file."""
        if not name:
            return urllib.parse.urlunsplit(self._parts)
        path = f"{self._parts.path.rstrip('/')}/{urllib.parse.quote(name)}"
        return urllib.parse.urlunsplit(self._parts._replace(path=path))

    def shown(self, name: str) -> str:
        """The address without its query."""
        return without_secrets(self.url(name))

    @contextlib.contextmanager
    def open(self, name: str, start: int, tag: str) -> Iterator[Opened]:
        """Ask for a file; see `Remote`."""
        shown = self.shown(name)
        headers = dict(self._headers)
        if start:
            headers["Range"] = f"bytes={start}-"
            if tag and not tag.startswith("W/"):  # a weak tag is not allowed there; the caller compares it
                headers["If-Range"] = tag
        with _cuts(shown):
            response = self._pool.request("GET", self.url(name), headers=headers, preload_content=False)
        try:
            self._refuse_downgrade(response, shown)
            self._judge(response, shown)
            begin, total = _extent(response, shown)
            yield Opened(begin, total, response.headers.get("ETag", ""), _blocks(response, shown))
        finally:
            response.close()

    def _judge(self, response: urllib3.BaseHTTPResponse, shown: str) -> None:
        status = response.status
        if status in (200, 206):
            if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
                raise FetchError(f"{shown} comes compressed though it was asked for as it is", retryable=False)
            return
        if status == 416:
            raise ChangedError(f"{shown} is shorter than what was downloaded of it")
        if status in _GONE:
            hint = f"; {self._hint}" if self._hint else ""
            raise FetchError(f"{shown} answers {status}: {_CURES.get(status, 'refused')}{hint}", retryable=False)
        raise CutError(f"{shown} answers {status}", _retry_after_s(response))

    def _refuse_downgrade(self, response: urllib3.BaseHTTPResponse, shown: str) -> None:
        if self._parts.scheme != "https" or response.retries is None:
            return
        for hop in response.retries.history:
            if (hop.redirect_location or "").lower().startswith("http:"):
                raise FetchError(f"{shown} redirects to plain http, which anybody could change", retryable=False)


def _make_pool(scheme: str, host: str) -> urllib3.PoolManager:
    retries = urllib3.Retry(
        total=None, connect=0, read=0, status=0, other=0, redirect=MAX_REDIRECTS, respect_retry_after_header=False
    )
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
    proxy = urllib.request.getproxies().get(scheme, "")
    if proxy and not urllib.request.proxy_bypass(host):
        return urllib3.ProxyManager(proxy, retries=retries, timeout=timeout)
    return urllib3.PoolManager(retries=retries, timeout=timeout)


def _extent(response: urllib3.BaseHTTPResponse, shown: str) -> tuple[int, int | None]:
    """First byte and whole size of what comes."""
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match:
            raise ChangedError(f"{shown} sends a part without saying which")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _blocks(response: urllib3.BaseHTTPResponse, shown: str) -> Iterator[bytes]:
    with _cuts(shown):
        while block := response.read1(BLOCK_BYTES, decode_content=False):
            yield block


@contextlib.contextmanager
def _cuts(shown: str) -> Iterator[None]:
    """urllib3's errors as cuts; they must not show the request's address, which may hold a secret."""
    try:
        yield
    except MaxRetryError as error:
        raise CutError(f"{shown}: {error.reason or 'no answer'}") from error
    except (HTTPError, OSError) as error:
        raise CutError(f"{shown}: {error}") from error


def _retry_after_s(response: urllib3.BaseHTTPResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0
