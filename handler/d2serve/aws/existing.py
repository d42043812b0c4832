"""Existing resources of an endpoint's name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from d2serve.aws.account import Account
from d2serve.aws.api import Call
from d2serve.aws.resources import ENDPOINT_TAG, MODE_TAG, base_name
from d2serve.aws.scaling import FOLLOW, WAKE, scalable_target, wake_alarm
from d2serve.errors import CommandError


@dataclass(frozen=True)
class Scaling:
    """AWS's descriptions of what scales the endpoint."""

    target: Mapping[str, Any] | None = None
    policies: tuple[Mapping[str, Any], ...] = ()
    alarm: Mapping[str, Any] | None = None

    @property
    def own_policies(self) -> list[str]:
        """The names of those that d2serve has put."""
        names = {policy["PolicyName"] for policy in self.policies}
        return sorted(names & {FOLLOW, WAKE})

    def has(self, call: Call) -> bool:
        """Whether what a call of `scaling_calls` makes is there, as it wants it or otherwise."""
        if call.operation == "register_scalable_target":
            return self.target is not None
        if call.operation == "put_metric_alarm":
            return self.alarm is not None
        return call.parameters["PolicyName"] in {policy["PolicyName"] for policy in self.policies}

    def holds(self, call: Call) -> bool:
        """Whether a call of `scaling_calls` would change nothing."""
        wanted = {key: value for key, value in call.parameters.items() if key != "Tags"}
        if call.operation == "register_scalable_target":
            return self.target is not None and _contains(self.target, wanted)
        if call.operation == "put_metric_alarm":
            wanted.pop("AlarmActions")
            return self.alarm is not None and _contains(self.alarm, wanted)
        return any(_contains(policy, wanted) for policy in self.policies)


@dataclass(frozen=True)
class Existing:
    """AWS's descriptions; of models and configurations only those that carry the endpoint's tag."""

    endpoint: Mapping[str, Any] | None = None
    mode: str | None = None
    config: Mapping[str, Any] | None = None  # the one in use
    configs: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)  # ModelDataUrl by name
    scaling: Scaling = field(default_factory=Scaling)

    @property
    def instance_type(self) -> str | None:
        """Of the instances that serve now."""
        variants = self.config["ProductionVariants"] if self.config else [{}]
        return variants[0].get("InstanceType")


def find_existing(account: Account, endpoint: str) -> Existing:
    """Asks AWS.

    Raises:
        CommandError: an endpoint of this name that d2serve did not make.
    """
    found = account.find("sagemaker", "describe_endpoint", EndpointName=endpoint)
    mode = _mode_of(account, endpoint, found) if found else None
    return Existing(
        found,
        mode,
        _config_of(account, found) if found else None,
        _own_configs(account, endpoint),
        _own_models(account, endpoint),
        _scaling(account, endpoint),
    )


def _mode_of(account: Account, endpoint: str, found: Mapping[str, Any]) -> str | None:
    own = _tags(account, found["EndpointArn"])
    if own.get(ENDPOINT_TAG) != endpoint:
        raise CommandError(
            f"the endpoint {endpoint} was not made by d2serve (it has no tag {ENDPOINT_TAG}), "
            "so it is left alone; take another ENDPOINT"
        )
    return own.get(MODE_TAG)


def _config_of(account: Account, found: Mapping[str, Any]) -> dict[str, Any] | None:
    name = found["EndpointConfigName"]
    return account.find("sagemaker", "describe_endpoint_config", EndpointConfigName=name)


def _own_configs(account: Account, endpoint: str) -> tuple[str, ...]:
    configs = _own(account, endpoint, "list_endpoint_configs", "EndpointConfig")
    return tuple(config["EndpointConfigName"] for config in configs)


def _own_models(account: Account, endpoint: str) -> dict[str, str]:
    names = [model["ModelName"] for model in _own(account, endpoint, "list_models", "Model")]
    described = [account.ask("sagemaker", "describe_model", ModelName=name) for name in names]
    return {model["ModelName"]: model["PrimaryContainer"]["ModelDataUrl"] for model in described}


def _own(account: Account, endpoint: str, operation: str, kind: str) -> list[dict[str, Any]]:
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


def _scaling(account: Account, endpoint: str) -> Scaling:
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
    return Scaling(next(iter(targets), None), tuple(policies), next(iter(alarms), None))


def _contains(described: Any, wanted: Any) -> bool:
    """Whether a description says all that a request did; AWS adds fields of its own."""
    if isinstance(wanted, Mapping) and isinstance(described, Mapping):
        return all(
            key in described and _contains(described[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list) and isinstance(described, list):
        return len(wanted) == len(described) and all(map(_contains, described, wanted))
    return bool(described == wanted)
