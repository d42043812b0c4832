"""One AWS account in one region."""

import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from d2serve.aws.api import NO_REGION, AwsError, Call, readable_errors
from d2serve.errors import CommandError

CONFIG = Config(retries={"mode": "standard", "max_attempts": 5}, user_agent_extra="d2serve")


class Identity(NamedTuple):
    """Who calls."""

    account_id: str
    arn: str


class Account:
    """Asks AWS, and carries out calls.

    Args:
        session: credentials and region.
        endpoint_url: in place of AWS's own addresses.
        sleep: waits for so many seconds between two looks at something that takes its time.
        console: where progress is shown.

    Every method raises AwsError where AWS refuses or cannot be reached.
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
        """Such as eu-central-1."""
        if not self._session.region_name:
            raise CommandError(NO_REGION)
        return str(self._session.region_name)

    @property
    def partition(self) -> str:
        """aws, aws-cn or aws-us-gov: the second part of every ARN."""
        return str(self._session.get_partition_for_region(self.region))

    def has_credentials(self) -> bool:
        """Whether there are any, valid or not."""
        with readable_errors("credentials"):
            return self._session.get_credentials() is not None

    def identity(self) -> Identity:
        """Whose credentials these are."""
        answer = self.ask("sts", "get_caller_identity")
        return Identity(answer["Account"], answer["Arn"])

    def ask(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """AWS's answer to a call that changes nothing."""
        with readable_errors(f"{service}.{operation}"):
            return dict(getattr(self._client(service), operation)(**parameters))

    def find(self, service: str, operation: str, **parameters: Any) -> dict[str, Any] | None:
        """As `ask`, but None where the thing does not exist."""
        try:
            return self.ask(service, operation, **parameters)
        except AwsError as error:
            if error.not_found:
                return None
            raise

    def list_all(self, service: str, operation: str, key: str, **parameters: Any) -> list[Any]:
        """What all pages of a listing hold under `key`."""
        with readable_errors(f"{service}.{operation}"):
            pages = self._client(service).get_paginator(operation).paginate(**parameters)
            return [item for page in pages for item in page.get(key, [])]

    def carry_out(self, call: Call) -> Mapping[str, Any]:
        """Make a call that changes something, and return AWS's answer."""
        if call.name == "s3.put_object":
            return self._upload(call)
        return self.ask(call.service, call.operation, **call.parameters)

    def _upload(self, call: Call) -> Mapping[str, Any]:
        """In parts, with a progress bar."""
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
    """The account of the usual credentials: environment, profile or instance role."""
    with readable_errors("credentials"):
        return Account(boto3.Session(region_name=region))
