"""Models in S3, or whatever answers as it does at `AWS_ENDPOINT_URL`, with boto3's ways to find credentials."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from urllib3.exceptions import HTTPError

from gg_bridge.fetch.errors import ChangedError, CutError, FetchError
from gg_bridge.fetch.http import CONNECT_TIMEOUT_S, READ_TIMEOUT_S
from gg_bridge.fetch.source import S3Place
from gg_bridge.fetch.transfer import Opened

_BLOCK_BYTES = 32 << 10
"""botocore loses a block that is cut within, so it is small."""
_HOPELESS = frozenset({400, 401, 403, 404, 405})
_PASSING = frozenset(
    {"ExpiredToken", "RequestExpired", "RequestTimeTooSkewed", "RequestTimeout", "TokenRefreshRequired"}
)
"""S3 answers these with 400 or 403 too, but they tell of the moment and not of the model: a clock that is still in
1970, credentials that ran out during a long download."""
_CHANGED = frozenset({412, 416})
_NO_CREDENTIALS = (
    "no AWS credentials; on a Greengrass device the component depends on aws.greengrass.TokenExchangeService"
)


class S3Remote:
    """A prefix in a bucket, or one object, which then is called ""."""

    def __init__(self, place: S3Place) -> None:
        """Take objects from below `place`; credentials and region are looked for as every AWS tool does.

        That is also in `AWS_REGION`, which Greengrass and containers set, and boto3 does not read.
        """
        self._place = place
        try:
            self._client: Any = boto3.session.Session(region_name=os.environ.get("AWS_REGION") or None).client(
                "s3",
                config=Config(
                    connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S, retries={"total_max_attempts": 1}
                ),
            )
        except (BotoCoreError, ValueError) as error:
            raise FetchError(f"s3://{place.bucket}: {error}", retryable=False) from error

    def shown(self, name: str) -> str:
        """The object's address."""
        return f"s3://{self._place.bucket}/{self._key(name)}"

    @contextlib.contextmanager
    def open(self, name: str, start: int, tag: str) -> Iterator[Opened]:
        """Ask for an object; see `Remote`."""
        shown = self.shown(name)
        request: dict[str, str] = {"Bucket": self._place.bucket, "Key": self._key(name)}
        if start:
            request["Range"] = f"bytes={start}-"
            if tag:
                request["IfMatch"] = tag
        with _cuts(shown):
            answer = self._client.get_object(**request)
        body = answer["Body"]
        try:
            begin, total = _extent(answer)
            yield Opened(begin, total, str(answer.get("ETag", "")), _blocks(body, shown))
        finally:
            body.close()

    def _key(self, name: str) -> str:
        return "/".join(filter(None, (self._place.key, name)))


def _extent(answer: dict[str, Any]) -> tuple[int, int | None]:
    where = str(answer.get("ContentRange", ""))
    if where.startswith("bytes "):
        span, _, total = where.removeprefix("bytes ").partition("/")
        return int(span.partition("-")[0]), int(total) if total.isdecimal() else None
    length = answer.get("ContentLength")
    return 0, length if isinstance(length, int) else None


def _blocks(body: Any, shown: str) -> Iterator[bytes]:
    with _cuts(shown):
        while block := body.read(_BLOCK_BYTES):
            yield block


@contextlib.contextmanager
def _cuts(shown: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        _refuse(error, shown)
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise FetchError(f"{shown}: {_NO_CREDENTIALS}", retryable=False) from error
    except (ParamValidationError, ProfileNotFound) as error:
        raise FetchError(f"{shown}: {error}", retryable=False) from error
    except (BotoCoreError, HTTPError, OSError) as error:
        raise CutError(f"{shown}: {error}") from error


def _refuse(error: ClientError, shown: str) -> None:
    about = error.response.get("Error", {})
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    reason = f"{shown} answers {about.get('Code', status)}: {about.get('Message', '')}".rstrip(": ")
    if status in _CHANGED:
        raise ChangedError(reason) from error
    if status in _HOPELESS and about.get("Code") not in _PASSING:
        raise FetchError(reason, retryable=False) from error
    raise CutError(reason) from error
