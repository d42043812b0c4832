"""Options of a deployment, validated before any call."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from d2serve.aws.containers import family_of
from d2serve.building.package import Package
from d2serve.errors import CommandError

ENDPOINT_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
# EC2's families with NVMe instance store, those that SageMaker offers.
LOCAL_STORAGE = re.compile(r"[cmr]5d|g4dn|g5|g6e?|g7e?|p3dn|p4de?|p5(e|en)?|p6.*")
MEMORY_SIZES_MB = (1024, 2048, 3072, 4096, 5120, 6144)
CAPACITY = {"instance", "instances", "max_instances", "min_instances", "target_invocations"}
NETWORK = {"subnets", "security_groups", "network_isolation"}
ALL_MODES = {"package", "endpoint", "mode", "environment", "prefix"}
# The options that a mode takes beyond those of all modes. What serverless lacks is listed under
# "Feature exclusions" in docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html; data
# capture is for endpoints of one model, and what an asynchronous one reads and writes lies in S3.
OPTIONS: dict[str, set[str]] = {
    "realtime": CAPACITY | NETWORK | {"kms_key", "data_capture", "alarms"},
    "serverless": {"memory_mb", "max_concurrency"},
    "async": CAPACITY | NETWORK | {"kms_key", "alarms", "output", "success_topic", "error_topic"},
    "mme": CAPACITY | NETWORK | {"kms_key", "alarms"},
}


@dataclass(frozen=True)
class Deployment:
    """A package on an endpoint. What was not given is None or empty.

    Raises:
        CommandError: an option that the mode does not take, or a value out of its range.
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
    data_capture: int | None = None  # percent of the requests
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    network_isolation: bool = False
    alarms: tuple[str, ...] = ()  # CloudWatch's names
    output: str | None = None
    success_topic: str | None = None
    error_topic: str | None = None

    def __post_init__(self) -> None:
        check_endpoint_name(self.endpoint)
        self._check_mode()
        self._check_serverless()
        self._check_capacity()
        check_network(self.subnets, self.security_groups)
        _check_range("DATA_CAPTURE", self.data_capture, 1, 100)
        if self.kms_key and self.has_local_storage and not (self.data_capture or self.is_async):
            raise CommandError(
                f"KMS_KEY: {self.instance_type} has local disks, which its hardware encrypts; "
                "nothing would be left for the key"
            )

    @property
    def is_async(self) -> bool:
        """Whether answers go to S3."""
        return self.mode == "async"

    @property
    def is_serverless(self) -> bool:
        """Whether AWS runs it without instances of ours."""
        return self.mode == "serverless"

    @property
    def is_multi_model(self) -> bool:
        """Whether the endpoint serves all packages under one prefix."""
        return self.mode == "mme"

    @property
    def instance_type(self) -> str | None:
        """None where it is serverless."""
        return None if self.is_serverless else self.instance or "ml.m5.xlarge"

    @property
    def instance_count(self) -> int:
        """Of the start; automatic scaling may change it later."""
        return self.instances or 1

    @property
    def capacity_range(self) -> tuple[int, int] | None:
        """Fewest and most instances of automatic scaling, None without it."""
        if self.max_instances is None:
            return None
        usual_min = 0 if self.is_async else 1
        return (
            usual_min if self.min_instances is None else self.min_instances,
            self.max_instances,
        )

    @property
    def fewest_instances(self) -> int:
        """How many there are at least at any time."""
        return self.capacity_range[0] if self.capacity_range else self.instance_count

    @property
    def has_local_storage(self) -> bool:
        """Whether the instances come with disks that no KMS key applies to."""
        return bool(self.instance_type and LOCAL_STORAGE.fullmatch(family_of(self.instance_type)))

    def _check_mode(self) -> None:
        if self.mode not in OPTIONS:
            raise CommandError(f"MODE {self.mode!r}: use one of {', '.join(OPTIONS)}")
        given = {f.name for f in fields(self) if getattr(self, f.name) != f.default}
        unknown = sorted(given - ALL_MODES - OPTIONS[self.mode])
        if unknown:
            names = ", ".join(name.upper() for name in unknown)
            takers = [mode for mode, options in OPTIONS.items() if set(unknown) <= options]
            raise CommandError(
                f"MODE={self.mode} takes no {names}"
                + (f"; MODE={' or '.join(takers)} does" if takers else "")
            )
        if self.instance_type:
            family_of(self.instance_type)

    def _check_serverless(self) -> None:
        _check_range("MAX_CONCURRENCY", self.max_concurrency, 1, 200)
        if self.memory_mb is not None and self.memory_mb not in MEMORY_SIZES_MB:
            sizes = ", ".join(map(str, MEMORY_SIZES_MB))
            raise CommandError(f"MEMORY_MB {self.memory_mb}: use one of {sizes}")

    def _check_capacity(self) -> None:
        _check_range("INSTANCES", self.instances, 1, None)
        if self.capacity_range is None:
            if self.min_instances is not None or self.target_invocations is not None:
                raise CommandError("automatic scaling needs MAX_INSTANCES")
            return
        fewest, most = self.capacity_range
        if self.target_invocations is not None and self.target_invocations <= 0:
            raise CommandError("TARGET_INVOCATIONS must be above 0")
        if fewest == 0 and not self.is_async:
            raise CommandError("MIN_INSTANCES 0: only MODE=async scales to zero")
        if not 0 <= fewest <= self.instance_count <= most:
            raise CommandError(
                f"{self.instance_count} instances at the start do not lie within "
                f"MIN_INSTANCES {fewest} and MAX_INSTANCES {most}"
            )


def check_endpoint_name(name: str) -> None:
    """Raises CommandError for a name that SageMaker would not take."""
    if not ENDPOINT_NAME.fullmatch(name):
        raise CommandError(f"ENDPOINT {name!r}: use up to 63 letters, digits and -, such as shapes")


def check_network(subnets: tuple[str, ...], security_groups: tuple[str, ...]) -> None:
    """Raises CommandError unless both or neither are given."""
    if bool(subnets) != bool(security_groups):
        raise CommandError("a VPC needs both SUBNETS and SECURITY_GROUPS")


def _check_range(name: str, value: int | None, least: int, most: int | None) -> None:
    if value is not None and (value < least or (most is not None and value > most)):
        limits = f"from {least}" + ("" if most is None else f" to {most}")
        raise CommandError(f"{name} {value}: use a number {limits}")
