"""Automatic scaling of an endpoint's instances."""

from collections.abc import Mapping
from typing import Any

from d2serve.aws.api import Answer, Call
from d2serve.aws.deployment import Deployment
from d2serve.aws.resources import VARIANT, tags

FOLLOW = "d2serve-follow-load"
WAKE = "d2serve-wake"
INVOCATIONS_PER_MINUTE = 300.0
BACKLOG = 5.0
SCALE_IN_COOLDOWN_S = 600
SCALE_OUT_COOLDOWN_S = 300
ALARM_PERIOD_S = 60


def scalable_target(endpoint: str) -> dict[str, str]:
    """What Application Auto Scaling knows the endpoint's variant by."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def wake_alarm(endpoint: str) -> str:
    """The name of the alarm that wakes an endpoint from zero instances."""
    return f"{WAKE}-{endpoint}"


def scaling_calls(deployment: Deployment) -> list[Call]:
    """All that sets automatic scaling up; empty without it."""
    if deployment.capacity_range is None:
        return []
    calls = [_register(deployment, *deployment.capacity_range), _follow(deployment)]
    if deployment.is_async and deployment.capacity_range[0] == 0:
        calls += [_wake(deployment.endpoint), _alarm(deployment)]
    return calls


def undo_scaling(call: Call, endpoint: str) -> Call:
    """The call that takes one of `scaling_calls` back."""
    if call.operation == "register_scalable_target":
        return deregister(endpoint)
    if call.operation == "put_metric_alarm":
        return delete_alarm(endpoint)
    return delete_policy(endpoint, call.parameters["PolicyName"])


def deregister(endpoint: str) -> Call:
    """Ends automatic scaling."""
    target = scalable_target(endpoint)
    return Call("application-autoscaling", "deregister_scalable_target", target)


def delete_policy(endpoint: str, name: str) -> Call:
    """Removes a scaling policy."""
    parameters = scalable_target(endpoint) | {"PolicyName": name}
    return Call("application-autoscaling", "delete_scaling_policy", parameters)


def delete_alarm(endpoint: str) -> Call:
    """Removes the alarm that wakes the endpoint."""
    return Call("cloudwatch", "delete_alarms", {"AlarmNames": [wake_alarm(endpoint)]})


def _register(deployment: Deployment, fewest: int, most: int) -> Call:
    capacity = {"MinCapacity": fewest, "MaxCapacity": most}
    parameters = scalable_target(deployment.endpoint) | capacity
    return Call("application-autoscaling", "register_scalable_target", parameters)


def _follow(deployment: Deployment) -> Call:
    usual = BACKLOG if deployment.is_async else INVOCATIONS_PER_MINUTE
    configuration = {
        "TargetValue": float(deployment.target_invocations or usual),
        "ScaleInCooldown": SCALE_IN_COOLDOWN_S,
        "ScaleOutCooldown": SCALE_OUT_COOLDOWN_S,
        **_metric(deployment),
    }
    parameters = {
        **scalable_target(deployment.endpoint),
        "PolicyName": FOLLOW,
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


def _wake(endpoint: str) -> Call:
    configuration = {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "Cooldown": SCALE_OUT_COOLDOWN_S,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
    }
    parameters = {
        **scalable_target(endpoint),
        "PolicyName": WAKE,
        "PolicyType": "StepScaling",
        "StepScalingPolicyConfiguration": configuration,
    }
    return Call("application-autoscaling", "put_scaling_policy", parameters)


def _alarm(deployment: Deployment) -> Call:
    parameters = {
        "AlarmName": wake_alarm(deployment.endpoint),
        "AlarmActions": [Answer("PolicyARN")],
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
