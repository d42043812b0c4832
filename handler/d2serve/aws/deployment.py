"""Options of a deployment, validated before any AWS call."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from d2serve.aws.containers import family_of
from d2serve.aws.primary_container import check_image, check_package
from d2serve.building.package import Package
from d2serve.errors import CommandError

ENDPOINT_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
# EC2's families with NVMe instance store that SageMaker offers.
LOCAL_STORAGE = re.compile(r"[cmr]5d|g4dn|g5|g6e?|g7e?|p3dn|p4de?|p5(e|en)?|p6.*")
DEFAULT_INSTANCE = "ml.m5.xlarge"
MEMORY_SIZES_MB = (1024, 2048, 3072, 4096, 5120, 6144)
CAPACITY = {"instance", "instances", "max_instances", "min_instances", "target_invocations"}
NETWORK = {"subnets", "security_groups", "network_isolation"}
ALL_MODES = {"package", "endpoint", "mode", "environment", "prefix", "image"}
# Options of each mode beyond those of all modes. The limits of serverless are listed under
# "Feature exclusions" in docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html. Data
# capture needs an endpoint of one model; asynchronous requests and responses are in S3 anyway.
OPTIONS: dict[str, set[str]] = {
    "realtime": CAPACITY | NETWORK | {"kms_key", "data_capture", "alarms"},
    "serverless": {"memory_mb", "max_concurrency"},
    "async": CAPACITY | NETWORK | {"kms_key", "alarms", "output", "success_topic", "error_topic"},
    "mme": CAPACITY | NETWORK | {"kms_key", "alarms"},
}


@dataclass(frozen=True)
class Deployment:
    """A package on an endpoint; options that were not given are None or empty.

    Attributes:
        package: the package to serve.
        endpoint: name of the endpoint.
        mode: a key of OPTIONS.
        instance: instance type such as ml.g5.xlarge.
        instances: number of instances at the start.
        min_instances: lower limit of automatic scaling.
        max_instances: upper limit of automatic scaling; None turns it off.
        target_invocations: invocations per instance and minute that scaling aims at, or waiting
            requests per instance of an asynchronous endpoint.
        memory_mb: memory of a serverless endpoint.
        max_concurrency: concurrent requests of a serverless endpoint.
        environment: variables of the container.
        prefix: start of the S3 keys.
        kms_key: encrypts volumes and objects in S3.
        data_capture: percentage of requests to store in S3.
        subnets: subnets of a VPC.
        security_groups: security groups of a VPC.
        network_isolation: whether the container has no network access.
        alarms: names of CloudWatch alarms that roll an update back.
        output: s3:// URL for asynchronous responses.
        success_topic: ARN of an SNS topic.
        error_topic: ARN of an SNS topic.
        image: URI of the container's image; None for AWS's own.

    Raises:
        CommandError: an option does not apply to the mode, or a value is out of range.
    """

    package: Package
    endpoint: str
    mode: str = "realtime"
    instance: str | None = None
    instances: int | None = None
    min_instances: int | None = None
    max_instances: int | None = None
    target_invocations: float | None = None
    memory_mb: int | None = None
    max_concurrency: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: str = "d2serve"
    kms_key: str | None = None
    data_capture: int | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    network_isolation: bool = False
    alarms: tuple[str, ...] = ()
    output: str | None = None
    success_topic: str | None = None
    error_topic: str | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        check_endpoint_name(self.endpoint)
        self._check_mode()
        check_package(self.package, self.mode)
        check_image(self.image)
        self._check_serverless()
        self._check_capacity()
        check_network(self.subnets, self.security_groups)
        _check_range("--data-capture", self.data_capture, 1, 100)
        if self.kms_key and self.has_local_storage and not (self.data_capture or self.is_async):
            raise CommandError(
                f"--kms-key has no effect: {self.instance_type} has local disks, which its "
                "hardware encrypts; omit the key"
            )

    @property
    def is_async(self) -> bool:
        """True for an asynchronous endpoint, which writes responses to S3."""
        return self.mode == "async"

    @property
    def is_serverless(self) -> bool:
        """True for an endpoint without dedicated instances."""
        return self.mode == "serverless"

    @property
    def is_multi_model(self) -> bool:
        """True for an endpoint that serves every package under an S3 prefix."""
        return self.mode == "mme"

    @property
    def instance_type(self) -> str | None:
        """Instance type; None for a serverless endpoint."""
        return None if self.is_serverless else self.instance or DEFAULT_INSTANCE

    @property
    def instance_count(self) -> int:
        """Number of instances at the start; automatic scaling may change it later."""
        return self.instances or 1

    @property
    def capacity_range(self) -> tuple[int, int] | None:
        """Minimum and maximum of automatic scaling; None without it."""
        if self.max_instances is None:
            return None
        default_min = 0 if self.is_async else 1
        return (
            default_min if self.min_instances is None else self.min_instances,
            self.max_instances,
        )

    @property
    def fewest_instances(self) -> int:
        """Minimum number of instances at any time."""
        return self.capacity_range[0] if self.capacity_range else self.instance_count

    @property
    def has_local_storage(self) -> bool:
        """True for instances with local disks, which KMS keys do not apply to."""
        return bool(self.instance_type and LOCAL_STORAGE.fullmatch(family_of(self.instance_type)))

    def _check_mode(self) -> None:
        if self.mode not in OPTIONS:
            raise CommandError(f"--mode {self.mode!r} is not valid: use {', '.join(OPTIONS)}")
        given = {f.name for f in fields(self) if getattr(self, f.name) != f.default}
        rejected = sorted(given - ALL_MODES - OPTIONS[self.mode])
        if rejected:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in rejected)
            modes = [mode for mode, options in OPTIONS.items() if set(rejected) <= options]
            raise CommandError(
                f"--mode {self.mode} does not accept {names}"
                + (f"; use --mode {' or '.join(modes)}" if modes else "")
            )
        if self.instance_type:
            family_of(self.instance_type)

    def _check_serverless(self) -> None:
        _check_range("--max-concurrency", self.max_concurrency, 1, 200)
        if self.memory_mb is not None and self.memory_mb not in MEMORY_SIZES_MB:
            sizes = ", ".join(map(str, MEMORY_SIZES_MB))
            raise CommandError(f"--memory-mb {self.memory_mb} is not valid: use {sizes}")

    def _check_capacity(self) -> None:
        _check_range("--instances", self.instances, 1, None)
        if self.capacity_range is None:
            for name in ("min_instances", "target_invocations"):
                if getattr(self, name) is not None:
                    raise CommandError(f"--{name.replace('_', '-')} requires --max-instances")
            return
        fewest, most = self.capacity_range
        if self.target_invocations is not None and self.target_invocations <= 0:
            raise CommandError(
                f"--target-invocations {self.target_invocations:g} is out of range: use a number "
                "above 0"
            )
        if fewest == 0 and not self.is_async:
            raise CommandError("--min-instances 0 requires --mode async")
        if not 0 <= fewest <= self.instance_count <= most:
            raise CommandError(
                f"--instances {self.instance_count} is out of range: use a number from "
                f"--min-instances {fewest} to --max-instances {most}"
            )


def check_endpoint_name(name: str) -> None:
    """Raise CommandError for a name that SageMaker rejects."""
    if not ENDPOINT_NAME.fullmatch(name):
        raise CommandError(
            f"--endpoint {name!r} is not valid: use up to 63 letters, digits and hyphens, such as "
            "shapes"
        )


def check_network(subnets: tuple[str, ...], security_groups: tuple[str, ...]) -> None:
    """Raise CommandError if only one of them is given."""
    if bool(subnets) != bool(security_groups):
        raise CommandError("a VPC requires both --subnets and --security-groups")


def _check_range(option: str, value: int | None, least: int, most: int | None) -> None:
    if value is not None and (value < least or (most is not None and value > most)):
        limits = f"from {least}" + ("" if most is None else f" to {most}")
        raise CommandError(f"{option} {value} is out of range: use a number {limits}")
