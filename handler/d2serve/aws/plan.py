"""Steps from the existing to the wanted deployment."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from d2serve.aws import resources, scaling
from d2serve.aws.account import Account
from d2serve.aws.api import Call
from d2serve.aws.context import Site
from d2serve.aws.deployment import Deployment
from d2serve.aws.existing import Existing, Scaling
from d2serve.aws.steps import IN_TRANSIT, Step, wait_until_serving, wait_until_updated
from d2serve.errors import CommandError

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


def deploy_plan(
    account: Account, deployment: Deployment, site: Site, existing: Existing, upload: Sequence[Step]
) -> list[Step]:
    """The steps of `make deploy`; none where all is as it is wanted.

    Raises:
        CommandError: AWS could not get from here to there.
    """
    _check_reachable(deployment, existing)
    model = resources.create_model(deployment, site)
    config = resources.create_endpoint_config(deployment, site, model)
    return [
        *upload,
        *_model_step(model, existing),
        *_config_step(config, existing),
        *_endpoint_step(account, deployment, config, existing),
        *_replaced(model, config, existing),
        *_scaling_steps(deployment, existing),
    ]


def _check_reachable(deployment: Deployment, existing: Existing) -> None:
    if existing.endpoint is None:
        return
    endpoint, status = deployment.endpoint, existing.endpoint["EndpointStatus"]
    if status in IN_TRANSIT:
        raise CommandError(f"{endpoint} is {status}; run this again when AWS is done with that")
    if status != "InService":
        reason = existing.endpoint.get("FailureReason", "AWS gives no reason")
        raise CommandError(
            f"{endpoint} is {status} ({reason}), which AWS lets nobody update; remove it first: "
            f"make undeploy ENDPOINT={endpoint}"
        )
    if existing.mode != deployment.mode:
        raise CommandError(
            f"{endpoint} is of MODE={existing.mode}, and an endpoint keeps its mode; take another "
            f"ENDPOINT, or remove it first: make undeploy ENDPOINT={endpoint}"
        )
    if existing.scaling.target and existing.instance_type != deployment.instance_type:
        raise CommandError(
            f"AWS changes no INSTANCE while {endpoint} scales automatically; deploy with "
            f"INSTANCE={existing.instance_type} and without MAX_INSTANCES first"
        )


def _model_step(model: Call, existing: Existing) -> list[Step]:
    name = model.parameters["ModelName"]
    if name in existing.models:
        return []
    return [Step(model, resources.delete_model(name))]


def _config_step(config: Call, existing: Existing) -> list[Step]:
    if config.parameters["EndpointConfigName"] in existing.configs:
        return []
    return [Step(config, resources.delete_config(config.parameters["EndpointConfigName"]))]


def _endpoint_step(
    account: Account, deployment: Deployment, config: Call, existing: Existing
) -> list[Step]:
    endpoint, name = deployment.endpoint, config.parameters["EndpointConfigName"]
    if existing.endpoint is None:
        create = resources.create_endpoint(deployment, config)
        settle = partial(wait_until_serving, account, endpoint, name)
        return [Step(create, resources.delete_endpoint(endpoint), settle)]
    if existing.endpoint["EndpointConfigName"] == name:
        return []
    keep_count = existing.scaling.target is not None and deployment.capacity_range is not None
    update = update_endpoint(deployment, config, keep_count=keep_count)
    settle = partial(wait_until_updated, account, endpoint, name)
    return [Step(update, settle=settle, is_final=True)]


def _replaced(model: Call, config: Call, existing: Existing) -> list[Step]:
    """What served before; its package stays in S3 until undeploy."""
    configs = [name for name in existing.configs if name != config.parameters["EndpointConfigName"]]
    models = [name for name in existing.models if name != model.parameters["ModelName"]]
    return [Step(resources.delete_config(name)) for name in configs] + [
        Step(resources.delete_model(name)) for name in models
    ]


def _scaling_steps(deployment: Deployment, existing: Existing) -> list[Step]:
    """Puts all of it where any of it differs; takes away what is ours and no longer wanted."""
    endpoint, present = deployment.endpoint, existing.scaling
    wanted = scaling.scaling_calls(deployment)
    put = [] if all(map(present.holds, wanted)) else wanted
    return [
        Step(call, None if present.has(call) else scaling.undo_scaling(call, endpoint))
        for call in put
    ] + [Step(call) for call in _unwanted_scaling(endpoint, present, wanted)]


def _unwanted_scaling(endpoint: str, present: Scaling, wanted: Sequence[Call]) -> list[Call]:
    own = present.own_policies
    keep = {call.parameters.get("PolicyName") for call in wanted}
    has_alarm = any(call.operation == "put_metric_alarm" for call in wanted)
    calls = [scaling.delete_alarm(endpoint)] if present.alarm and not has_alarm else []
    calls += [scaling.delete_policy(endpoint, name) for name in own if name not in keep]
    # A target without policies of ours is someone's own.
    return calls + ([scaling.deregister(endpoint)] if own and not wanted else [])
