"""An AWS of one's own: moto's server, an account on it, and a look at all that it holds."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import boto3
import botocore.session
from botocore.exceptions import ClientError
from botocore.loaders import create_loader
from rich.console import Console

from d2serve.aws.account import Account
from tests.aws.sagemaker_server import Fate, SageMaker

REGION = "eu-central-1"
ACCOUNT_ID = "123456789012"
BUCKET = f"sagemaker-{REGION}-{ACCOUNT_ID}"
ROLE = f"arn:aws:iam::{ACCOUNT_ID}:role/Serving"
READS = ("Describe", "List", "Get", "Head")
LOADER = create_loader()
Main = Callable[..., int]


@dataclass
class World:
    """What a test talks to.

    Args:
        url: of moto's server.
        calls: every call so far, such as sagemaker.CreateModel.
        fail_at: which of the calls that change something fails, counted from 0.
        on_sleep: what happens while a command waits.
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
    def fate(self) -> Fate:
        return SageMaker.fate

    def fresh(self) -> None:
        """Forget the calls so far."""
        self.calls.clear()
        self.requests.clear()
        self.fail_at = None

    def server_sees(self, endpoint: str, status: str) -> None:
        """Has an endpoint be in that status."""
        SageMaker.coming[endpoint] = [status]

    def client(self, service: str) -> Any:
        return _plain_session().client(service, endpoint_url=self.url)

    def account(self, session: boto3.Session | None = None) -> tuple[Account, io.StringIO]:
        told = io.StringIO()
        console = Console(file=told, soft_wrap=True, highlight=False, markup=False)
        account = Account(
            session or _watched_session(),
            endpoint_url=self.url,
            sleep=lambda seconds: self.on_sleep(seconds),
            console=console,
        )
        return account, told

    def run(self, main: Main, *arguments: str, **injected: Any) -> str:
        """What a command tells; it must end well."""
        account, told = self.account()
        assert main(list(arguments), connect=lambda _: account, **injected) == 0
        return told.getvalue()

    def holdings(self) -> dict[str, list[str]]:
        """The names of all there is."""
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

    def note(self, params: Mapping[str, Any], model: Any) -> None:
        """Remember a call that is about to be made, and fail it if it is to."""
        name = f"{model.service_model.service_name}.{model.name}"
        self.calls.append(name)
        self.requests.append((name, dict(params)))
        if model.name.startswith(READS) or self.fail_at is None:
            return
        if len(self.changes) - 1 == self.fail_at:
            error = {"Error": {"Code": "ThisOneFails", "Message": "as the test has it"}}
            raise ClientError(error, model.name)


class Session(boto3.Session):  # type: ignore[misc]
    """Makes a client once, which takes longer than a test."""

    watched_by: ClassVar[World]

    def client(self, service: str, endpoint_url: str, config: Any = None) -> Any:
        return _client(super().client, service, endpoint_url, config)


def new_session(region: str | None = REGION) -> Session:
    """With credentials that are none, and descriptions of AWS's services that are read once."""
    core = botocore.session.Session()
    core.register_component("data_loader", LOADER)
    return Session("testing", "testing", region_name=region, botocore_session=core)


@cache
def _watched_session() -> Session:
    """Tells its calls to the world of the test that runs."""
    session = new_session()

    def note(params: Mapping[str, Any], model: Any, **_: Any) -> None:
        Session.watched_by.note(params, model)

    session.events.register("before-parameter-build", note)
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
