"""Existing AWS resources of an endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from d2serve.aws.account import Account
from d2serve.aws.api import Call
from d2serve.aws.resources import ENDPOINT_TAG, MODE_TAG, base_name
from d2serve.aws.scaling import TRACKING_POLICY, WAKE_POLICY, scalable_target, wake_alarm
from d2serve.errors import CommandError


@dataclass(frozen=True)
class ExistingScaling:
    """AWS's descriptions of an endpoint's automatic scaling."""

    target: Mapping[str, Any] | None = None
    policies: tuple[Mapping[str, Any], ...] = ()
    alarm: Mapping[str, Any] | None = None

    @property
    def own_policies(self) -> list[str]:
        """Names of the policies that d2serve created."""
        names = {policy["PolicyName"] for policy in self.policies}
        return sorted(names & {TRACKING_POLICY, WAKE_POLICY})

    def has(self, call: Call) -> bool:
        """Return whether the resource that one of `scaling_calls` creates exists in any form."""
        if call.operation == "register_scalable_target":
            return self.target is not None
        if call.operation == "put_metric_alarm":
            return self.alarm is not None
        return call.parameters["PolicyName"] in {policy["PolicyName"] for policy in self.policies}

    def matches(self, call: Call) -> bool:
        """Return whether one of `scaling_calls` would change nothing."""
        requested = {key: value for key, value in call.parameters.items() if key != "Tags"}
        if call.operation == "register_scalable_target":
            return self.target is not None and _contains(self.target, requested)
        if call.operation == "put_metric_alarm":
            requested.pop("AlarmActions")
            return self.alarm is not None and _contains(self.alarm, requested)
        return any(_contains(policy, requested) for policy in self.policies)


@dataclass(frozen=True)
class Existing:
    """AWS's descriptions of an endpoint and of the resources with its tag.

    Attributes:
        endpoint: the endpoint; None if it does not exist.
        mode: its mode, a key of `deployment.OPTIONS`.
        config: the configuration in use.
        configs: names of all configurations.
        models: s3:// URL of the package by the model's name.
        scaling: automatic scaling.
    """

    endpoint: Mapping[str, Any] | None = None
    mode: str | None = None
    config: Mapping[str, Any] | None = None
    configs: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    scaling: ExistingScaling = field(default_factory=ExistingScaling)

    @property
    def instance_type(self) -> str | None:
        """Type of the instances in use."""
        variants = self.config["ProductionVariants"] if self.config else [{}]
        return variants[0].get("InstanceType")


def find_existing(account: Account, endpoint: str) -> Existing:
    """Read an endpoint and its resources.

    Raises:
        CommandError: d2serve did not create the endpoint of this name.
    """
    found = account.find("sagemaker", "describe_endpoint", EndpointName=endpoint)
    mode = config = None
    if found:
        mode = _mode_of(account, endpoint, found)
        config = account.find(
            "sagemaker", "describe_endpoint_config", EndpointConfigName=found["EndpointConfigName"]
        )
    configs = _tagged(account, endpoint, "list_endpoint_configs", "EndpointConfig")
    return Existing(
        found,
        mode,
        config,
        tuple(each["EndpointConfigName"] for each in configs),
        _find_models(account, endpoint),
        _find_scaling(account, endpoint),
    )


def _mode_of(account: Account, endpoint: str, found: Mapping[str, Any]) -> str | None:
    tags = _tags(account, found["EndpointArn"])
    if tags.get(ENDPOINT_TAG) != endpoint:
        raise CommandError(
            f"endpoint {endpoint} was not created by d2serve (it has no tag {ENDPOINT_TAG}) and "
            "stays unchanged; use another --endpoint"
        )
    return tags.get(MODE_TAG)


def _find_models(account: Account, endpoint: str) -> dict[str, str]:
    names = [model["ModelName"] for model in _tagged(account, endpoint, "list_models", "Model")]
    described = [account.read("sagemaker", "describe_model", ModelName=name) for name in names]
    return {model["ModelName"]: model["PrimaryContainer"]["ModelDataUrl"] for model in described}


def _tagged(account: Account, endpoint: str, operation: str, kind: str) -> list[dict[str, Any]]:
    """List the resources of a kind that have the endpoint's tag."""
    base = base_name(endpoint)
    listed = account.list_all("sagemaker", operation, f"{kind}s", NameContains=base)
    return [
        item
        for item in listed
        if item[f"{kind}Name"].startswith(base)
        and _tags(account, item[f"{kind}Arn"]).get(ENDPOINT_TAG) == endpoint
    ]


def _tags(account: Account, arn: str) -> dict[str, str]:
    tags = account.list_all("sagemaker", "list_tags", "Tags", ResourceArn=arn)
    return {tag["Key"]: tag["Value"] for tag in tags}


def _find_scaling(account: Account, endpoint: str) -> ExistingScaling:
    target = scalable_target(endpoint)
    service = "application-autoscaling"
    targets = account.list_all(
        service,
        "describe_scalable_targets",
        "ScalableTargets",
        ServiceNamespace=target["ServiceNamespace"],
        ScalableDimension=target["ScalableDimension"],
        ResourceIds=[target["ResourceId"]],
    )
    policies = account.list_all(service, "describe_scaling_policies", "ScalingPolicies", **target)
    alarms = account.list_all(
        "cloudwatch", "describe_alarms", "MetricAlarms", AlarmNames=[wake_alarm(endpoint)]
    )
    return ExistingScaling(next(iter(targets), None), tuple(policies), next(iter(alarms), None))


def _contains(described: Any, requested: Any) -> bool:
    """Return whether a description contains all fields of a request; AWS adds fields of its own."""
    if isinstance(requested, Mapping) and isinstance(described, Mapping):
        return all(
            key in described and _contains(described[key], value)
            for key, value in requested.items()
        )
    if isinstance(requested, list) and isinstance(described, list):
        return len(requested) == len(described) and all(map(_contains, described, requested))
    return bool(described == requested)
