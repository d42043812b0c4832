"""Fake AWS: moto's server, an account on it, and a list of its resources."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, ClassVar
from unittest import mock

import boto3
import botocore.session
from botocore.exceptions import ClientError
from botocore.loaders import create_loader
from rich.console import Console

from d2serve.aws.account import Account
from d2serve.aws.transform import utc_now
from d2serve.cli.main import invoke
from tests.aws.sagemaker_server import SageMaker, Scenario

REGION = "eu-central-1"
ACCOUNT_ID = "123456789012"
BUCKET = f"sagemaker-{REGION}-{ACCOUNT_ID}"
ROLE = f"arn:aws:iam::{ACCOUNT_ID}:role/Serving"
READS = ("Describe", "List", "Get", "Head")
LOADER = create_loader()


@dataclass
class FakeAws:
    """An AWS account on moto's server that records calls and can fail them.

    Args:
        url: URL of moto's server.
        calls: all calls so far, such as sagemaker.CreateModel.
        requests: the same calls with their parameters.
        fail_at: index of the change that fails, from 0.
        on_sleep: called while a command waits.
    """

    url: str
    calls: list[str] = field(default_factory=list)
    requests: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    fail_at: int | None = None
    on_sleep: Callable[[float], None] = lambda _: None

    @property
    def changes(self) -> list[str]:
        """The calls so far that change something."""
        return [call for call in self.calls if not call.partition(".")[2].startswith(READS)]

    @property
    def scenario(self) -> Scenario:
        return SageMaker.scenario

    def reset_calls(self) -> None:
        """Forget the calls so far, and let the next ones succeed."""
        self.calls.clear()
        self.requests.clear()
        self.fail_at = None

    def set_status(self, endpoint: str, status: str) -> None:
        """Change the status of an endpoint."""
        SageMaker.next_statuses[endpoint] = [status]

    def client(self, service: str) -> Any:
        return _plain_session().client(service, endpoint_url=self.url)

    def account(self, session: boto3.Session | None = None) -> tuple[Account, io.StringIO]:
        """Return an account and the output of its console."""
        output = io.StringIO()
        account = Account(
            session or _recorded_session(),
            endpoint_url=self.url,
            sleep=lambda seconds: self.on_sleep(seconds),
            console=Console(file=output, soft_wrap=True, highlight=False, markup=False),
        )
        return account, output

    def run(self, *arguments: str, exit_code: int = 0, now: datetime | None = None) -> str:
        """Run a d2serve command on this account and return its output."""
        account, output = self.account()
        assert run_on(account, *arguments, now=now) == exit_code
        return output.getvalue()

    def resources(self) -> dict[str, list[str]]:
        """Return the names of all resources by kind."""
        sagemaker, s3 = self.client("sagemaker"), self.client("s3")
        scaling = self.client("application-autoscaling")
        buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
        targets = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")
        policies = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")
        alarms = self.client("cloudwatch").describe_alarms()
        return {
            "buckets": buckets,
            "objects": [f"s3://{name}/{key}" for name in buckets for key in _keys(s3, name)],
            "models": _names(sagemaker.list_models()["Models"], "ModelName"),
            "configs": _names(
                sagemaker.list_endpoint_configs()["EndpointConfigs"], "EndpointConfigName"
            ),
            "endpoints": _names(sagemaker.list_endpoints()["Endpoints"], "EndpointName"),
            "targets": _names(targets["ScalableTargets"], "ResourceId"),
            "policies": _names(policies["ScalingPolicies"], "PolicyName"),
            "alarms": _names(alarms["MetricAlarms"], "AlarmName"),
        }

    def record(self, params: Mapping[str, Any], model: Any) -> None:
        """Record a call before it is made, and fail it if its index is `fail_at`."""
        name = f"{model.service_model.service_name}.{model.name}"
        self.calls.append(name)
        self.requests.append((name, dict(params)))
        if model.name.startswith(READS) or self.fail_at is None:
            return
        if len(self.changes) - 1 == self.fail_at:
            error = {"Error": {"Code": "ThisOneFails", "Message": "requested by the test"}}
            raise ClientError(error, model.name)


def run_on(account: Account, *arguments: str, now: datetime | None = None) -> int:
    """Run a d2serve command on an account and return its exit code; `now` sets the clock."""
    clock = (lambda: now) if now else utc_now
    with (
        mock.patch("d2serve.aws.account.connect", return_value=account),
        mock.patch("d2serve.aws.transform.utc_now", clock),
    ):
        return invoke(arguments)


class Session(boto3.Session):  # type: ignore[misc]
    """Caches its clients, because making one takes longer than a test."""

    recorder: ClassVar[FakeAws]

    def client(self, service: str, endpoint_url: str, config: Any = None) -> Any:
        return _client(super().client, service, endpoint_url, config)


def new_session(region: str | None = REGION) -> Session:
    """Return a session with fake credentials and cached descriptions of AWS's services."""
    core = botocore.session.Session()
    core.register_component("data_loader", LOADER)
    return Session("testing", "testing", region_name=region, botocore_session=core)


@cache
def _recorded_session() -> Session:
    """Return a session whose calls are recorded by the fake AWS of the current test."""
    session = new_session()

    def record(params: Mapping[str, Any], model: Any, **_: Any) -> None:
        Session.recorder.record(params, model)

    session.events.register("before-parameter-build", record)
    return session


@cache
def _plain_session() -> Session:
    return new_session()


@cache
def _client(make: Callable[..., Any], service: str, endpoint_url: str, config: Any) -> Any:
    return make(service, endpoint_url=endpoint_url, config=config)


def _names(items: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return sorted(item[key] for item in items)


def _keys(s3: Any, bucket: str) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
