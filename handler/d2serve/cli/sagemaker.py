"""The commands `d2serve transform` and `d2serve clarify`."""

import json
from enum import Enum
from pathlib import Path
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

app = typer.Typer()


class ClarifyType(str, Enum):
    """Choices of clarify's --content-type."""

    NPY = "application/x-npy"
    JPEG = "image/jpeg"
    PNG = "image/png"


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve transform --name shapes --input s3://bucket/images/ "
        "--output s3://bucket/responses/ --instance ml.g5.xlarge",
    ),
)
def transform(
    input_url: Annotated[
        str, typer.Option("--input", metavar="s3://...", help="Prefix of the images.")
    ],
    output: Annotated[str, typer.Option(metavar="s3://...", help="URL for the responses.")],
    name: PackageName = None,
    package: PackageFile = None,
    content_type: Annotated[str, typer.Option(help="Type of all images.")] = "application/x-image",
    accept: Annotated[str, typer.Option(help="Type of the responses.")] = "application/json",
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
        str, typer.Option(metavar="TYPE", help="Instance type.", rich_help_panel=CAPACITY)
    ] = DEFAULT_INSTANCE,
    instances: Annotated[
        int, typer.Option(help="Number of instances.", rich_help_panel=CAPACITY)
    ] = 1,
    requests_at_once: Annotated[
        int, typer.Option(help="Concurrent requests per instance.", rich_help_panel=CAPACITY)
    ] = 8,
    max_payload_mb: Annotated[
        int, typer.Option(help="Maximum size of one image.", rich_help_panel=CAPACITY)
    ] = 6,
) -> None:
    """Run a SageMaker batch transform job over images in S3.

    Waits for the job, then deletes its model and package.
    """
    with requires_extra("aws"):
        from d2serve.aws import account, transform

    job = transform.TransformJob(
        package=find_package(name, package, container=container),
        input=input_url,
        output=output,
        instance=instance,
        instances=instances,
        requests_at_once=requests_at_once,
        max_payload_mb=max_payload_mb,
        content_type=content_type,
        accept=accept,
        environment=parse_environment(env),
        prefix=prefix,
        kms_key=kms_key,
        subnets=split_list(subnets),
        security_groups=split_list(security_groups),
        network_isolation=network_isolation,
        image=image,
    )
    connection = account.connect(region)
    transform.transform(connection, job, role=role, bucket=bucket, dry_run=dry_run)


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve clarify --endpoint shapes --name shapes --dataset s3://bucket/images/"
    ),
)
def clarify(
    endpoint: Annotated[str, typer.Option(help="Name of a real-time endpoint.")],
    name: PackageName = None,
    package: PackageFile = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="s3://...", help="Prefix of the images to explain.")
    ] = None,
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("out/analysis_config.json"),
    content_type: Annotated[
        ClarifyType, typer.Option(help="Type of Clarify's requests.")
    ] = ClarifyType.NPY,
    num_samples: Annotated[int, typer.Option(help="Requests per object.")] = 500,
    max_objects: Annotated[int, typer.Option(help="Number of objects to explain, by score.")] = 5,
    iou_threshold: Annotated[
        float, typer.Option(help="Overlap from which a detection is the same object.")
    ] = 0.5,
    context: Annotated[
        float, typer.Option(help="0 hides an object's surroundings, 1 keeps them.")
    ] = 1.0,
    num_segments: Annotated[int, typer.Option(help="Superpixels per image.")] = 20,
    segment_compactness: Annotated[
        int, typer.Option(help="Higher values give squarer superpixels.")
    ] = 5,
) -> None:
    """Write the analysis_config.json of a SageMaker Clarify job.

    With --name or --package, the class names become the labels of the report.
    """
    from d2serve.aws.clarify import ImageAnalysis, analysis_config, class_names

    labels = class_names(find_package(name, package)) if name or package else None
    config = analysis_config(
        endpoint,
        content_type=content_type.value,
        image_analysis=ImageAnalysis(
            max_objects, iou_threshold, context, num_segments, segment_compactness
        ),
        num_samples=num_samples,
        labels=labels,
        dataset=dataset,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"{output}; upload it to S3 as the input `analysis_config` of a Clarify job")
