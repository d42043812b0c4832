"""SageMaker batch transform over images in S3."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Any

from d2serve.aws.account import Account
from d2serve.aws.api import Call
from d2serve.aws.containers import RESPONSE_TIMEOUT_S
from d2serve.aws.context import AccountContext, example_context, find_context
from d2serve.aws.deployment import DEFAULT_INSTANCE, check_network
from d2serve.aws.primary_container import (
    check_image,
    host_image,
    primary_container,
    warn_if_unpatched,
)
from d2serve.aws.ray_image import TRANSFORM_AMI
from d2serve.aws.resources import (
    delete_model,
    first_upload,
    model_parameters,
    network,
    upload_steps,
)
from d2serve.aws.steps import Step, apply_steps, roll_back, show_steps
from d2serve.aws.waiting import NO_REASON, TRANSFORM_LOGS, log_tail, wait_while
from d2serve.building.package import Package
from d2serve.errors import AwsError, CommandError

MAX_TOTAL_PAYLOAD_MB = 100  # SageMaker's limit on all concurrent requests of an instance
MAX_BASE_CHARACTERS = 40
TIMEOUT_S = 5 * 24 * 3600.0  # SageMaker ends a job then


def utc_now() -> datetime:
    """Return the current time, which becomes part of a job's name."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class TransformJob:
    """A batch transform job.

    Attributes:
        package: the package to run.
        input: s3:// prefix of the images.
        output: s3:// URL for the responses.
        instance: instance type such as ml.g5.xlarge.
        instances: number of instances.
        requests_at_once: concurrent requests per instance.
        max_payload_mb: maximum size of one image.
        content_type: type of all images.
        accept: type of the responses.
        environment: variables of the container.
        prefix: start of the S3 keys.
        kms_key: encrypts volumes and objects in S3.
        subnets: subnets of a VPC.
        security_groups: security groups of a VPC.
        network_isolation: whether the container has no network access.
        image: URI of the container's image; None for AWS's own.
        time: part of the job's name.

    Raises:
        CommandError: SageMaker would reject a value.
    """

    package: Package
    input: str
    output: str
    instance: str = DEFAULT_INSTANCE
    instances: int = 1
    requests_at_once: int = 8
    max_payload_mb: int = 6
    content_type: str = "application/x-image"
    accept: str = "application/json"
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: str = "d2serve"
    kms_key: str | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    network_isolation: bool = False
    image: str | None = None
    time: datetime = field(default_factory=lambda: utc_now())

    def __post_init__(self) -> None:
        check_network(self.subnets, self.security_groups)
        check_image(self.image)
        for option, url in (("--input", self.input), ("--output", self.output)):
            if not url.startswith("s3://"):
                raise CommandError(f"{option} {url!r} is not an S3 URL: use s3://bucket/prefix/")
        for name in ("instances", "requests_at_once", "max_payload_mb"):
            if (value := getattr(self, name)) < 1:
                raise CommandError(
                    f"--{name.replace('_', '-')} {value} is out of range: use a number from 1"
                )
        if self.requests_at_once * self.max_payload_mb > MAX_TOTAL_PAYLOAD_MB:
            raise CommandError(
                f"--requests-at-once {self.requests_at_once} times --max-payload-mb "
                f"{self.max_payload_mb} exceeds SageMaker's limit of {MAX_TOTAL_PAYLOAD_MB} MB"
            )

    @property
    def name(self) -> str:
        """Name of the job and of its model: the package's name and the time."""
        base = self.package.name.replace("_", "-")[:MAX_BASE_CHARACTERS].strip("-")
        return f"{base}-{self.time:%Y%m%d-%H%M%S}"

    @property
    def package_key(self) -> str:
        """S3 key of the package while the job runs."""
        return f"{self.prefix.strip('/')}-transform/{self.name}/{self.package.name}.tar.gz"


def transform(
    account: Account,
    job: TransformJob,
    *,
    role: str | None = None,
    bucket: str | None = None,
    dry_run: bool = False,
) -> None:
    """Run a job to its end, then delete its model and package.

    Args:
        account: the account.
        job: the job to run.
        role: name or ARN of the execution role; None for the role that runs this.
        bucket: bucket for the package; None for SageMaker's default bucket.
        dry_run: print the calls instead of making them; works without credentials.

    Raises:
        CommandError: the job or a call failed.
    """
    warn_if_unpatched(account, job.package, "transform")
    if dry_run and not account.has_credentials():
        context = example_context(account, role, bucket)
        in_new_bucket = context.is_default_bucket()
        upload = first_upload(job.package, context, job.package_key, in_new_bucket=in_new_bucket)
    else:
        context = find_context(account, role, bucket)
        upload = upload_steps(account, job.package, context, job.package_key)
    steps = [*upload, *job_steps(account, job, context)]
    if dry_run:
        show_steps(account, steps)
        return
    apply_steps(account, steps)
    # The responses may be in the new bucket.
    roll_back(account, [s.undo for s in steps if s.undo and s.undo.operation != "delete_bucket"])
    account.console.print(f"{job.name} is done; its responses are in {job.output}")


def job_steps(account: Account, job: TransformJob, context: AccountContext) -> list[Step]:
    """Return the steps that create the model and run the job."""
    wait = partial(_wait, account, job.name)
    return [
        Step(_create_model(job, context), delete_model(job.name)),
        Step(_create_transform_job(job), wait=wait),
    ]


def _create_model(job: TransformJob, context: AccountContext) -> Call:
    container = primary_container(
        job.package, "transform", context.region, job.instance, job.environment, job.image
    )
    container["ModelDataUrl"] = f"s3://{context.bucket}/{job.package_key}"
    networking = network(job.subnets, job.security_groups, job.network_isolation)
    parameters = model_parameters(container, context.role_arn, networking, _tags(job))
    return Call("sagemaker", "create_model", {"ModelName": job.name, **parameters})


def _create_transform_job(job: TransformJob) -> Call:
    output = {"S3OutputPath": job.output, "Accept": job.accept, "AssembleWith": "None"}
    machines: dict[str, Any] = {"InstanceType": job.instance, "InstanceCount": job.instances}
    if ami := host_image(job.package, job.instance, TRANSFORM_AMI):
        machines["TransformAmiVersion"] = ami
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


def _tags(job: TransformJob) -> list[dict[str, str]]:
    return [{"Key": "created-by", "Value": "d2serve"}, {"Key": "d2serve:job", "Value": job.name}]


def _wait(account: Account, name: str) -> None:
    """Wait for the end of the job; stop it when interrupted."""
    describe = partial(account.read, "sagemaker", "describe_transform_job", TransformJobName=name)
    busy = ("InProgress", "Stopping")
    try:
        found = wait_while(account, describe, "TransformJobStatus", busy=busy, timeout_s=TIMEOUT_S)
    except (KeyboardInterrupt, AwsError):
        account.apply(Call("sagemaker", "stop_transform_job", {"TransformJobName": name}))
        raise
    if found["TransformJobStatus"] != "Completed":
        reason = found.get("FailureReason", NO_REASON)
        log = log_tail(account, TRANSFORM_LOGS, f"{name}/")
        raise CommandError(f"{name} is {found['TransformJobStatus']}: {reason}; {log}")
