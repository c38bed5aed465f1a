"""Artifacts in S3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evergreen.release.aws.session import ABSENT, Aws
from evergreen.release.errors import AwsError, ReleaseError


class Bucket:
    """One bucket."""

    def __init__(self, aws: Aws, name: str) -> None:
        self._aws, self.name = aws, name

    def check(self) -> None:
        """See that it is there.

        Raises:
            ReleaseError: it is not.
        """
        try:
            self._aws.call("s3", "head_bucket", Bucket=self.name)
        except AwsError as error:
            if error.code not in ABSENT:
                raise
            raise ReleaseError(f"no bucket {self.name!r}; make one: `aws s3 mb s3://{self.name}`") from error

    def size(self, key: str) -> int | None:
        """Of an object in bytes; None where there is none."""
        try:
            return int(self._aws.call("s3", "head_object", Bucket=self.name, Key=key)["ContentLength"])
        except AwsError as error:
            if error.code in ABSENT:
                return None
            raise

    def upload(self, file: Path, key: str, progress: Callable[[int], None]) -> None:
        """Put a file there, in parts where it is large; `progress` gets bytes as they go, in several threads.

        What was sent of a file is removed again when it is interrupted.
        """
        with self._aws.calling(f"s3 upload to s3://{self.name}/{key}"):
            self._aws.client("s3").upload_file(str(file), self.name, key, Callback=progress)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._aws.call("s3", "delete_object", Bucket=self.name, Key=key)
