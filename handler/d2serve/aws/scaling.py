"""Automatic scaling of an endpoint's instances."""

from collections.abc import Mapping
from typing import Any

from d2serve.aws.api import Call, ResponseField
from d2serve.aws.deployment import Deployment
from d2serve.aws.resources import VARIANT, tags

TRACKING_POLICY = "d2serve-follow-load"
WAKE_POLICY = "d2serve-wake"
TARGET_INVOCATIONS_PER_MINUTE = 300.0
TARGET_BACKLOG = 5.0
SCALE_IN_COOLDOWN_S = 600
SCALE_OUT_COOLDOWN_S = 300
ALARM_PERIOD_S = 60


def scalable_target(endpoint: str) -> dict[str, str]:
    """Return the identifiers of the endpoint's variant in Application Auto Scaling."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def wake_alarm(endpoint: str) -> str:
    """Return the name of the alarm that scales an endpoint out from zero instances."""
    return f"{WAKE_POLICY}-{endpoint}"


def scaling_calls(deployment: Deployment) -> list[Call]:
    """Return the calls that set automatic scaling up; empty without it."""
    if deployment.capacity_range is None:
        return []
    calls = [_register(deployment, *deployment.capacity_range), _tracking_policy(deployment)]
    if deployment.is_async and deployment.capacity_range[0] == 0:
        calls += [_wake_policy(deployment.endpoint), _wake_alarm(deployment)]
    return calls


def undo_scaling(call: Call, endpoint: str) -> Call:
    """Return the call that reverts one of `scaling_calls`."""
    if call.operation == "register_scalable_target":
        return deregister(endpoint)
    if call.operation == "put_metric_alarm":
        return delete_alarm(endpoint)
    return delete_policy(endpoint, call.parameters["PolicyName"])


def deregister(endpoint: str) -> Call:
    """Return the call that ends automatic scaling."""
    target = scalable_target(endpoint)
    return Call("application-autoscaling", "deregister_scalable_target", target)


def delete_policy(endpoint: str, name: str) -> Call:
    """Return the call that removes a scaling policy."""
    parameters = scalable_target(endpoint) | {"PolicyName": name}
    return Call("application-autoscaling", "delete_scaling_policy", parameters)


def delete_alarm(endpoint: str) -> Call:
    """Return the call that removes the alarm of `wake_alarm`."""
    return Call("cloudwatch", "delete_alarms", {"AlarmNames": [wake_alarm(endpoint)]})


def _register(deployment: Deployment, fewest: int, most: int) -> Call:
    capacity = {"MinCapacity": fewest, "MaxCapacity": most}
    parameters = scalable_target(deployment.endpoint) | capacity
    return Call("application-autoscaling", "register_scalable_target", parameters)


def _tracking_policy(deployment: Deployment) -> Call:
    default = TARGET_BACKLOG if deployment.is_async else TARGET_INVOCATIONS_PER_MINUTE
    configuration = {
        "TargetValue": float(deployment.target_invocations or default),
        "ScaleInCooldown": SCALE_IN_COOLDOWN_S,
        "ScaleOutCooldown": SCALE_OUT_COOLDOWN_S,
        **_metric(deployment),
    }
    parameters = {
        **scalable_target(deployment.endpoint),
        "PolicyName": TRACKING_POLICY,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": configuration,
    }
    return Call("application-autoscaling", "put_scaling_policy", parameters)


def _metric(deployment: Deployment) -> Mapping[str, Any]:
    if not deployment.is_async:
        metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
        return {"PredefinedMetricSpecification": metric}
    backlog = {
        "MetricName": "ApproximateBacklogSizePerInstance",
        "Namespace": "AWS/SageMaker",
        "Dimensions": _dimensions(deployment.endpoint),
        "Statistic": "Average",
    }
    return {"CustomizedMetricSpecification": backlog}


def _wake_policy(endpoint: str) -> Call:
    configuration = {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "Cooldown": SCALE_OUT_COOLDOWN_S,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
    }
    parameters = {
        **scalable_target(endpoint),
        "PolicyName": WAKE_POLICY,
        "PolicyType": "StepScaling",
        "StepScalingPolicyConfiguration": configuration,
    }
    return Call("application-autoscaling", "put_scaling_policy", parameters)


def _wake_alarm(deployment: Deployment) -> Call:
    parameters = {
        "AlarmName": wake_alarm(deployment.endpoint),
        "AlarmActions": [ResponseField("PolicyARN")],
        "MetricName": "HasBacklogWithoutCapacity",
        "Namespace": "AWS/SageMaker",
        "Dimensions": _dimensions(deployment.endpoint),
        "Statistic": "Average",
        "Period": ALARM_PERIOD_S,
        "EvaluationPeriods": 2,
        "DatapointsToAlarm": 2,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
        "Tags": tags(deployment.endpoint, deployment.mode),
    }
    return Call("cloudwatch", "put_metric_alarm", parameters)


def _dimensions(endpoint: str) -> list[dict[str, str]]:
    return [{"Name": "EndpointName", "Value": endpoint}]
