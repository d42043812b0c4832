"""Create or update a SageMaker endpoint."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from d2serve.aws import resources, scaling
from d2serve.aws.account import Account
from d2serve.aws.api import Call
from d2serve.aws.context import AccountContext, example_context, find_context
from d2serve.aws.deployment import Deployment
from d2serve.aws.existing import Existing, ExistingScaling, find_existing
from d2serve.aws.primary_container import warn_if_unpatched
from d2serve.aws.steps import Step, apply_steps, show_steps
from d2serve.aws.waiting import IN_TRANSIT, NO_REASON, wait_until_serving, wait_until_updated
from d2serve.errors import CommandError

BAKE_S = 300  # time in which an alarm can roll a new fleet back


def deploy(
    account: Account,
    deployment: Deployment,
    *,
    role: str | None = None,
    bucket: str | None = None,
    dry_run: bool = False,
) -> None:
    """Create or update the endpoint; roll back if that fails.

    Args:
        account: the account.
        deployment: the endpoint to have.
        role: name or ARN of the execution role; None for the role that runs this.
        bucket: bucket for the package; None for SageMaker's default bucket.
        dry_run: print the calls instead of making them; works without credentials.

    Raises:
        CommandError: AWS cannot change the endpoint as requested, or a call failed.
    """
    warn_if_unpatched(account, deployment.package, deployment.mode)
    if dry_run and not account.has_credentials():
        show_steps(account, _example_plan(account, deployment, role, bucket))
        return
    context = find_context(account, role, bucket)
    steps = _plan(account, deployment, context)
    if dry_run:
        show_steps(account, steps)
    elif steps:
        apply_steps(account, steps)
        account.console.print(f"{deployment.endpoint} is in service in {context.region}.")
    else:
        account.console.print(f"{deployment.endpoint} is up to date; nothing to change.")


def _plan(account: Account, deployment: Deployment, context: AccountContext) -> list[Step]:
    existing = find_existing(account, deployment.endpoint)
    key = resources.package_key(deployment)
    upload = resources.upload_steps(account, deployment.package, context, key)
    return deploy_plan(account, deployment, context, existing, upload)


def _example_plan(
    account: Account, deployment: Deployment, role: str | None, bucket: str | None
) -> list[Step]:
    context = example_context(account, role, bucket)
    upload = resources.first_upload(
        deployment.package,
        context,
        resources.package_key(deployment),
        in_new_bucket=context.is_default_bucket(),
    )
    return deploy_plan(account, deployment, context, Existing(), upload)


def deploy_plan(
    account: Account,
    deployment: Deployment,
    context: AccountContext,
    existing: Existing,
    upload: Sequence[Step],
) -> list[Step]:
    """Return the steps from the existing to the requested endpoint; empty if they are equal.

    Raises:
        CommandError: AWS does not support this change.
    """
    _check_change(deployment, existing)
    model = resources.create_model(deployment, context)
    config = resources.create_endpoint_config(deployment, context, model)
    return [
        *upload,
        *_model_step(model, existing),
        *_config_step(config, existing),
        *_endpoint_step(account, deployment, config, existing),
        *_remove_replaced(model, config, existing),
        *_scaling_steps(deployment, existing),
    ]


def _check_change(deployment: Deployment, existing: Existing) -> None:
    if existing.endpoint is None:
        return
    endpoint, status = deployment.endpoint, existing.endpoint["EndpointStatus"]
    undeploy = f"d2serve undeploy --endpoint {endpoint}"
    if status in IN_TRANSIT:
        raise CommandError(f"{endpoint} is {status}; run this again when AWS has completed that")
    if status != "InService":
        reason = existing.endpoint.get("FailureReason", NO_REASON)
        raise CommandError(
            f"{endpoint} is {status} ({reason}) and cannot be updated; remove it first: {undeploy}"
        )
    if existing.mode != deployment.mode:
        raise CommandError(
            f"{endpoint} has --mode {existing.mode}, and an endpoint's mode cannot change; use "
            f"another --endpoint, or remove it first: {undeploy}"
        )
    if existing.scaling.target and existing.instance_type != deployment.instance_type:
        raise CommandError(
            f"AWS cannot change the instance type while {endpoint} scales automatically; first "
            f"deploy with --instance {existing.instance_type} and without --max-instances"
        )


def _model_step(model: Call, existing: Existing) -> list[Step]:
    name = model.parameters["ModelName"]
    return [] if name in existing.models else [Step(model, resources.delete_model(name))]


def _config_step(config: Call, existing: Existing) -> list[Step]:
    name = config.parameters["EndpointConfigName"]
    return [] if name in existing.configs else [Step(config, resources.delete_config(name))]


def _endpoint_step(
    account: Account, deployment: Deployment, config: Call, existing: Existing
) -> list[Step]:
    endpoint, name = deployment.endpoint, config.parameters["EndpointConfigName"]
    if existing.endpoint is None:
        create = resources.create_endpoint(deployment, config)
        wait = partial(wait_until_serving, account, endpoint, name)
        return [Step(create, resources.delete_endpoint(endpoint), wait)]
    if existing.endpoint["EndpointConfigName"] == name:
        return []
    keep_count = existing.scaling.target is not None and deployment.capacity_range is not None
    update = update_endpoint(deployment, config, keep_count=keep_count)
    wait = partial(wait_until_updated, account, endpoint, name)
    return [Step(update, wait=wait, is_final=True)]


def update_endpoint(deployment: Deployment, config: Call, *, keep_count: bool) -> Call:
    """Return the call that switches the endpoint to a configuration, blue/green on instances.

    AWS's deployment guardrails cover real-time and asynchronous endpoints only.

    Args:
        deployment: the requested endpoint.
        config: the call that creates the configuration.
        keep_count: keep the number of instances that automatic scaling has set.
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


def _remove_replaced(model: Call, config: Call, existing: Existing) -> list[Step]:
    """Remove earlier configurations and models; their packages stay in S3 until undeploy."""
    configs = [name for name in existing.configs if name != config.parameters["EndpointConfigName"]]
    models = [name for name in existing.models if name != model.parameters["ModelName"]]
    return [Step(resources.delete_config(name)) for name in configs] + [
        Step(resources.delete_model(name)) for name in models
    ]


def _scaling_steps(deployment: Deployment, existing: Existing) -> list[Step]:
    """Set all of the scaling up if any part differs; remove our parts that are not requested."""
    endpoint, current = deployment.endpoint, existing.scaling
    requested = scaling.scaling_calls(deployment)
    setup = [] if all(map(current.matches, requested)) else requested
    return [
        Step(call, None if current.has(call) else scaling.undo_scaling(call, endpoint))
        for call in setup
    ] + [Step(call) for call in _obsolete_scaling(endpoint, current, requested)]


def _obsolete_scaling(
    endpoint: str, current: ExistingScaling, requested: Sequence[Call]
) -> list[Call]:
    own = current.own_policies
    keep = {call.parameters.get("PolicyName") for call in requested}
    has_alarm = any(call.operation == "put_metric_alarm" for call in requested)
    calls = [scaling.delete_alarm(endpoint)] if current.alarm and not has_alarm else []
    calls += [scaling.delete_policy(endpoint, name) for name in own if name not in keep]
    # A target without policies of d2serve belongs to the user.
    return calls + ([scaling.deregister(endpoint)] if own and not requested else [])
