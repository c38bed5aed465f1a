"""Credentials and region as the AWS CLI finds them, and what AWS says turned into one sentence."""

from __future__ import annotations

import contextlib
import email.utils
import functools
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as ConnectionFailed,
)

from evergreen.release.errors import AwsError

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 60
ATTEMPTS = 5
POLICY = "docs/iam/developer.json"
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "403"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_UNKNOWN = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_BUSY = frozenset(
    {
        "RequestAlreadyInProgressException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
"""Beside all faults at AWS's own (HTTP 500 and above)."""
_FAULT = 500
ABSENT = frozenset(
    {"404", "ImageNotFoundException", "NoSuchBucket", "NoSuchKey", "NotFound", "RepositoryNotFoundException"}
    | {"ResourceNotFoundException"}
)
"""What there is none of has another code with each service."""
NO_CREDENTIALS = (
    "no AWS credentials; `aws configure` or `aws configure sso` makes a profile, --profile chooses one "
    "(docs/release.md begins at nothing)"
)


class Aws:
    """One account in one region."""

    def __init__(self, profile: str = "", region: str = "") -> None:
        """Take the profile and region given, else those of the environment and the AWS CLI's configuration.

        As the AWS CLI, but other than boto3 alone, that looks at AWS_REGION, before AWS_DEFAULT_REGION.

        Raises:
            AwsError: there is no such profile, or no region.
        """
        wanted = region or os.environ.get("AWS_REGION") or None
        with _translated("the AWS configuration"):
            self._session = boto3.session.Session(profile_name=profile or None, region_name=wanted)
        if not self._session.region_name:
            raise AwsError("no AWS region; give --region, set AWS_REGION, or run `aws configure`")
        self.region = str(self._session.region_name)
        self._clients: dict[str, Any] = {}
        self._ahead_s = 0.0

    @functools.cached_property
    def account(self) -> str:
        """The account's number.

        Raises:
            AwsError: no or wrong credentials.
        """
        return str(self.call("sts", "get_caller_identity")["Account"])

    @property
    def partition(self) -> str:
        """`aws`, or `aws-cn` and the like."""
        return str(self._session.get_partition_for_region(self.region))

    @property
    def dns_suffix(self) -> str:
        """Where the addresses of services end."""
        return "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"

    def arn(self, service: str, resource: str) -> str:
        """Of something in this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """One operation, written as boto3 does.

        Raises:
            AwsError: with AWS's own code where AWS said no.
        """
        what = f"{service} {operation.replace('_', '-')}"
        with _translated(what):
            answer: dict[str, Any] = getattr(self.client(service), operation)(**arguments)
        self._note_time(answer)
        return answer

    def now_s(self) -> float:
        """The time by AWS's clock, seconds since 1970: a laptop's own may be wrong."""
        return time.time() + self._ahead_s

    def _note_time(self, answer: Mapping[str, Any]) -> None:
        stamp = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        with contextlib.suppress(ValueError):
            self._ahead_s = email.utils.parsedate_to_datetime(stamp).timestamp() - time.time()

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Everything that a listing operation has under `key`, page by page."""
        token: dict[str, Any] = {}
        while True:
            page = self.call(service, operation, **arguments, **token)
            yield from page.get(key, ())
            if not page.get("nextToken"):
                return
            token = {"nextToken": page["nextToken"]}

    @contextlib.contextmanager
    def calling(self, what: str) -> Iterator[None]:
        """For calls that are more than one operation."""
        with _translated(what):
            yield

    def client(self, service: str) -> Any:
        """AWS's client of a service.

        Raises:
            AwsError: there can be none, for example since the configured endpoint is no address.
        """
        if service not in self._clients:
            with _translated(service):
                self._clients[service] = self._make_client(service)
        return self._clients[service]

    def _make_client(self, service: str) -> Any:
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        )
        try:
            return self._session.client(service, config=config)
        except BotoCoreError:  # some are ValueErrors too
            raise
        except ValueError as error:
            raise AwsError(f"{service}: {error}; is AWS_ENDPOINT_URL right?") from error


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _refusal(error, what) from error
    except S3UploadFailedError as error:
        cause = error.__context__
        raise (_refusal(cause, what) if isinstance(cause, ClientError) else AwsError(f"{what}: {error}")) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise AwsError(NO_CREDENTIALS) from error
    except ProfileNotFound as error:
        raise AwsError(f"{error}; `aws configure list-profiles` shows which there are") from error
    except NoRegionError as error:
        raise AwsError("no AWS region; give --region, set AWS_REGION, or run `aws configure`") from error
    except (SSOError, TokenRetrievalError) as error:
        raise AwsError(f"the sign-in has expired: {error}; run `aws sso login`") from error
    except ParamValidationError as error:
        raise AwsError(f"{what}: {' '.join(str(error).split())}") from error
    except (EndpointConnectionError, ConnectionFailed, HTTPClientError, IncompleteReadError) as error:
        raise AwsError(f"{what}: AWS cannot be reached: {error}", fleeting=True) from error
    except BotoCoreError as error:
        raise AwsError(f"{what}: {error}") from error


def _refusal(error: ClientError, what: str) -> AwsError:
    about = error.response.get("Error", {})
    code, message = str(about.get("Code", "")), str(about.get("Message", "")).strip() or "no reason given"
    if code in _DENIED:
        return AwsError(f"no permission for {what}: {message}; {POLICY} has what a release needs", code)
    if code in _EXPIRED:
        return AwsError(f"the AWS credentials have expired ({code}); sign in again, for example `aws sso login`", code)
    if code in _UNKNOWN:
        return AwsError(f"AWS does not know these credentials ({code}): {message}; check --profile and --region", code)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return AwsError(f"{what}: {code}: {message}", code, fleeting=status >= _FAULT or code in _BUSY)
