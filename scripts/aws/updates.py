"""The request that has an endpoint serve something else."""

from typing import Any

from scripts.aws.calls import Call
from scripts.aws.deployment import Deployment

BAKE_S = 300  # how long alarms are watched before a new fleet stays


def update_endpoint(deployment: Deployment, config: Call, *, keep_count: bool) -> Call:
    """Another configuration for the endpoint, blue/green where it runs on instances.

    AWS's deployment guardrails are for real-time and asynchronous endpoints alone. `keep_count`
    leaves the number of instances as automatic scaling has set it.
    """
    parameters: dict[str, Any] = {
        "EndpointName": deployment.endpoint,
        "EndpointConfigName": config.parameters["EndpointConfigName"],
    }
    if keep_count:
        parameters["RetainAllVariantProperties"] = True
    if not deployment.is_serverless:
        parameters["DeploymentConfig"] = _blue_green(deployment)
    return Call("sagemaker", "update_endpoint", parameters)


def _blue_green(deployment: Deployment) -> dict[str, Any]:
    bake_s = BAKE_S if deployment.alarms else 0
    routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    if deployment.fewest_instances > 1:
        canary = {"Type": "INSTANCE_COUNT", "Value": 1}
        routing = {"Type": "CANARY", "CanarySize": canary, "WaitIntervalInSeconds": bake_s}
    policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": bake_s}
    if not deployment.alarms:
        return {"BlueGreenUpdatePolicy": policy}
    alarms = [{"AlarmName": name} for name in deployment.alarms]
    return {
        "BlueGreenUpdatePolicy": policy,
        "AutoRollbackConfiguration": {"Alarms": alarms},
    }
