"""Calls to one AWS account in one region."""

import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from d2serve.aws.api import NO_REGION, Call, readable_errors
from d2serve.errors import AwsError, CommandError

CONFIG = Config(retries={"mode": "standard", "max_attempts": 5}, user_agent_extra="d2serve")


class Identity(NamedTuple):
    """Account and ARN of the credentials in use."""

    account_id: str
    arn: str


class Account:
    """Reads from an AWS account and changes it.

    Every method raises AwsError where AWS rejects the call or cannot be reached.

    Args:
        session: credentials and region.
        endpoint_url: URL to use instead of AWS's own.
        sleep: called with the seconds to pause while a slow change is polled.
        console: receives progress messages.
    """

    def __init__(
        self,
        session: boto3.Session,
        *,
        endpoint_url: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        console: Console | None = None,
    ) -> None:
        self.sleep = sleep
        self.console = console or Console(soft_wrap=True, highlight=False, markup=False)
        self._session = session
        self._client = cache(self._new_client)
        self._endpoint_url = endpoint_url

    @property
    def region(self) -> str:
        """Region such as eu-central-1.

        Raises:
            CommandError: no region is configured.
        """
        if not self._session.region_name:
            raise CommandError(NO_REGION)
        return str(self._session.region_name)

    @property
    def partition(self) -> str:
        """Second part of every ARN: aws, aws-cn or aws-us-gov."""
        with readable_errors("--region"):
            return str(self._session.get_partition_for_region(self.region))

    def has_credentials(self) -> bool:
        """Return whether credentials are configured, valid or not."""
        with readable_errors("credentials"):
            return self._session.get_credentials() is not None

    def identity(self) -> Identity:
        """Return account and ARN of the credentials."""
        caller = self.read("sts", "get_caller_identity")
        return Identity(caller["Account"], caller["Arn"])

    def read(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Make a call that changes nothing and return its response."""
        return self._invoke(service, operation, parameters)

    def find(self, service: str, operation: str, **parameters: Any) -> dict[str, Any] | None:
        """Describe a resource as `read` does; None if it does not exist."""
        try:
            return self.read(service, operation, **parameters)
        except AwsError as error:
            if error.not_found:
                return None
            raise

    def list_all(self, service: str, operation: str, key: str, **parameters: Any) -> list[Any]:
        """Return the items under `key` of all pages of a listing."""
        with readable_errors(f"{service}.{operation}"):
            pages = self._client(service).get_paginator(operation).paginate(**parameters)
            return [item for page in pages for item in page.get(key, [])]

    def apply(self, call: Call) -> Mapping[str, Any]:
        """Make a call that changes something and return its response."""
        if call.name == "s3.put_object":
            return self._upload(call)
        return self._invoke(call.service, call.operation, call.parameters)

    def _invoke(
        self, service: str, operation: str, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        with readable_errors(f"{service}.{operation}"):
            return dict(getattr(self._client(service), operation)(**parameters))

    def _upload(self, call: Call) -> Mapping[str, Any]:
        """Upload a file in parts, with a progress bar."""
        parameters = dict(call.parameters)
        path, bucket, key = (parameters.pop(name) for name in ("Body", "Bucket", "Key"))
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with (
            readable_errors(call.name),
            Progress(*columns, TransferSpeedColumn(), console=self.console) as progress,
        ):
            size = Path(path).stat().st_size
            task = progress.add_task(f"s3://{bucket}/{key}", total=size)
            self._client("s3").upload_file(
                path,
                bucket,
                key,
                ExtraArgs=parameters,
                Callback=lambda sent: progress.advance(task, sent),
            )
        return {}

    def _new_client(self, service: str) -> Any:
        with readable_errors(service):
            return self._session.client(service, endpoint_url=self._endpoint_url, config=CONFIG)


def connect(region: str | None) -> Account:
    """Return the account of the standard credentials: environment, profile or instance role."""
    with readable_errors("credentials"):
        return Account(boto3.Session(region_name=region))
