"""One batch transform job: its requests, its steps and its wait."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from scripts.aws.account import Account
from scripts.aws.calls import Call
from scripts.aws.deployment import check_network
from scripts.aws.environment import RESPONSE_TIMEOUT_S, container_environment
from scripts.aws.errors import AwsError
from scripts.aws.images import image_uri
from scripts.aws.logs import TRANSFORM_JOBS, log_tail
from scripts.aws.resources import delete_model, model_parameters, network
from scripts.aws.site import Site
from scripts.aws.steps import Step
from scripts.aws.waiting import wait_while
from scripts.errors import CommandError
from scripts.package import Package

MOST_PAYLOAD_MB = 100  # of all requests at once on an instance, as SageMaker has it
LONGEST_NAME = 40
LONGEST_S = 5 * 24 * 3600.0  # SageMaker ends a job then


@dataclass(frozen=True)
class Job:
    """What `make transform` was asked for.

    Raises:
        CommandError: a value that SageMaker would not take.
    """

    package: Package
    time: datetime
    input: str
    output: str
    instance: str = "ml.m5.xlarge"
    instances: int = 1
    requests_at_once: int = 8  # per instance
    max_payload_mb: int = 6  # of one picture
    content_type: str = "application/x-image"
    accept: str = "application/json"
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: str = "d2serve"
    kms_key: str | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    network_isolation: bool = False

    def __post_init__(self) -> None:
        check_network(self.subnets, self.security_groups)
        for name, url in (("INPUT", self.input), ("OUTPUT", self.output)):
            if not url.startswith("s3://"):
                raise CommandError(f"{name} {url!r}: an S3 address looks like s3://bucket/prefix/")
        if min(self.instances, self.requests_at_once, self.max_payload_mb) < 1:
            raise CommandError("instances, requests at once and the payload must be 1 or more")
        if self.requests_at_once * self.max_payload_mb > MOST_PAYLOAD_MB:
            raise CommandError(
                f"{self.requests_at_once} requests at once of up to {self.max_payload_mb} MB are "
                f"more than the {MOST_PAYLOAD_MB} MB that SageMaker sends at a time"
            )

    @property
    def name(self) -> str:
        """Of the job and its model: the package's and the time."""
        base = self.package.name.replace("_", "-")[:LONGEST_NAME].strip("-")
        return f"{base}-{self.time:%Y%m%d-%H%M%S}"

    @property
    def package_key(self) -> str:
        """Where the package lies while the job runs."""
        return f"{self.prefix.strip('/')}-transform/{self.name}/{self.package.name}.tar.gz"


def job_steps(account: Account, job: Job, site: Site) -> list[Step]:
    """The model, and the job on it run to its end."""
    settle = partial(_wait, account, job.name)
    return [
        Step(_create_model(job, site), delete_model(job.name)),
        Step(_create_transform_job(job), settle=settle),
    ]


def _create_model(job: Job, site: Site) -> Call:
    container = {
        "Image": image_uri(site.region, job.instance),
        "Environment": container_environment("transform", job.environment),
        "ModelDataUrl": f"s3://{site.bucket}/{job.package_key}",
    }
    networking = network(job.subnets, job.security_groups, job.network_isolation)
    parameters = model_parameters(container, site.role_arn, networking, _tags(job))
    return Call("sagemaker", "create_model", {"ModelName": job.name, **parameters})


def _create_transform_job(job: Job) -> Call:
    output = {"S3OutputPath": job.output, "Accept": job.accept, "AssembleWith": "None"}
    machines: dict[str, Any] = {"InstanceType": job.instance, "InstanceCount": job.instances}
    if job.kms_key:
        output["KmsKeyId"] = job.kms_key
        machines["VolumeKmsKeyId"] = job.kms_key
    parameters = {
        "TransformJobName": job.name,
        "ModelName": job.name,
        "MaxConcurrentTransforms": job.requests_at_once,
        "MaxPayloadInMB": job.max_payload_mb,
        "BatchStrategy": "SingleRecord",
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": RESPONSE_TIMEOUT_S["transform"]},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": job.input}},
            "ContentType": job.content_type,
            "CompressionType": "None",
            "SplitType": "None",
        },
        "TransformOutput": output,
        "TransformResources": machines,
        "Tags": _tags(job),
    }
    return Call("sagemaker", "create_transform_job", parameters)


def _tags(job: Job) -> list[dict[str, str]]:
    return [{"Key": "created-by", "Value": "d2serve"}, {"Key": "d2serve:job", "Value": job.name}]


def _wait(account: Account, name: str) -> None:
    def look() -> dict[str, Any]:
        return account.ask("sagemaker", "describe_transform_job", TransformJobName=name)

    try:
        busy = ("InProgress", "Stopping")
        seen = wait_while(account, look, "TransformJobStatus", busy, longest_s=LONGEST_S)
    except (KeyboardInterrupt, AwsError):
        account.carry_out(Call("sagemaker", "stop_transform_job", {"TransformJobName": name}))
        raise
    if seen["TransformJobStatus"] != "Completed":
        reason = seen.get("FailureReason", "AWS gives no reason")
        log = log_tail(account, TRANSFORM_JOBS, f"{name}/")
        raise CommandError(f"{name} is {seen['TransformJobStatus']}: {reason}; {log}")
