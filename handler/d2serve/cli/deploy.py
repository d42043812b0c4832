"""The commands `d2serve deploy` and `d2serve undeploy`."""

from enum import Enum
from typing import Annotated

import typer

from d2serve.cli.options import (
    CAPACITY,
    DEFAULT_INSTANCE,
    Bucket,
    DryRun,
    Environment,
    Image,
    KmsKey,
    NetworkIsolation,
    PackageContainer,
    PackageFile,
    PackageName,
    Prefix,
    Region,
    Role,
    SecurityGroups,
    Subnets,
    examples,
    find_package,
    parse_environment,
    requires_extra,
    split_list,
)

PANEL = "SageMaker"
EXTRAS = "Extras"

app = typer.Typer()


class Mode(str, Enum):
    """Choices of deploy's --mode."""

    REALTIME = "realtime"
    SERVERLESS = "serverless"
    ASYNC = "async"
    MULTI_MODEL = "mme"


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve deploy --name shapes --endpoint shapes --dry-run",
        "d2serve deploy --name shapes --endpoint shapes --instance ml.g5.xlarge --max-instances 4",
        "d2serve deploy --name shapes --endpoint shapes --mode serverless --memory-mb 4096",
    ),
)
def deploy(
    endpoint: Annotated[str, typer.Option(help="Name of the endpoint, such as shapes.")],
    name: PackageName = None,
    package: PackageFile = None,
    mode: Annotated[Mode, typer.Option(help="Kind of endpoint.")] = Mode.REALTIME,
    region: Region = None,
    dry_run: DryRun = False,
    role: Role = None,
    bucket: Bucket = None,
    prefix: Prefix = "d2serve",
    kms_key: KmsKey = None,
    subnets: Subnets = "",
    security_groups: SecurityGroups = "",
    network_isolation: NetworkIsolation = False,
    container: PackageContainer = None,
    image: Image = None,
    env: Environment = None,
    instance: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Instance type.",
            show_default=DEFAULT_INSTANCE,
            rich_help_panel=CAPACITY,
        ),
    ] = None,
    instances: Annotated[
        int | None,
        typer.Option(
            help="Number of instances at the start.", show_default="1", rich_help_panel=CAPACITY
        ),
    ] = None,
    max_instances: Annotated[
        int | None,
        typer.Option(
            help="Upper limit of automatic scaling; enables it.", rich_help_panel=CAPACITY
        ),
    ] = None,
    min_instances: Annotated[
        int | None,
        typer.Option(
            help="Lower limit of automatic scaling.",
            show_default="1; async: 0",
            rich_help_panel=CAPACITY,
        ),
    ] = None,
    target_invocations: Annotated[
        float | None,
        typer.Option(
            help="Target per instance: requests per minute; async: waiting requests.",
            show_default="300; async: 5",
            rich_help_panel=CAPACITY,
        ),
    ] = None,
    memory_mb: Annotated[
        int | None,
        typer.Option(
            help="Memory of a serverless endpoint.", show_default="6144", rich_help_panel=CAPACITY
        ),
    ] = None,
    max_concurrency: Annotated[
        int | None,
        typer.Option(
            help="Concurrent requests of a serverless endpoint.",
            show_default="5",
            rich_help_panel=CAPACITY,
        ),
    ] = None,
    data_capture: Annotated[
        int | None,
        typer.Option(
            metavar="PERCENT", help="realtime: requests to store in S3.", rich_help_panel=EXTRAS
        ),
    ] = None,
    alarm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="CloudWatch alarm that rolls an update back; repeatable.",
            rich_help_panel=EXTRAS,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="s3://...", help="async: URL for the responses.", rich_help_panel=EXTRAS
        ),
    ] = None,
    success_topic: Annotated[
        str | None, typer.Option(metavar="ARN", help="async: SNS topic.", rich_help_panel=EXTRAS)
    ] = None,
    error_topic: Annotated[
        str | None, typer.Option(metavar="ARN", help="async: SNS topic.", rich_help_panel=EXTRAS)
    ] = None,
) -> None:
    """Deploy a package to a SageMaker endpoint.

    Creates the endpoint, or updates it without downtime, and rolls back if that fails.
    """
    with requires_extra("aws"):
        from d2serve.aws import account, deploy
        from d2serve.aws.deployment import Deployment

    deployment = Deployment(
        package=find_package(
            name, package, multi_model=mode is Mode.MULTI_MODEL, container=container
        ),
        endpoint=endpoint,
        mode=mode.value,
        instance=instance,
        instances=instances,
        min_instances=min_instances,
        max_instances=max_instances,
        target_invocations=target_invocations,
        memory_mb=memory_mb,
        max_concurrency=max_concurrency,
        environment=parse_environment(env),
        prefix=prefix,
        kms_key=kms_key,
        data_capture=data_capture,
        subnets=split_list(subnets),
        security_groups=split_list(security_groups),
        network_isolation=network_isolation,
        alarms=tuple(alarm or ()),
        output=output,
        success_topic=success_topic,
        error_topic=error_topic,
        image=image,
    )
    connection = account.connect(region)
    deploy.deploy(connection, deployment, role=role, bucket=bucket, dry_run=dry_run)


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve undeploy --endpoint shapes --dry-run", "d2serve undeploy --endpoint shapes"
    ),
)
def undeploy(
    endpoint: Annotated[str, typer.Option(help="Name of the endpoint.")],
    region: Region = None,
    dry_run: DryRun = False,
) -> None:
    """Remove an endpoint and the resources that deploy created."""
    with requires_extra("aws"):
        from d2serve.aws import account, undeploy
    undeploy.undeploy(account.connect(region), endpoint, dry_run=dry_run)
