"""Requests that create a model, its configuration and its endpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from d2serve.aws.account import Account
from d2serve.aws.api import AwsError, Call, digest
from d2serve.aws.containers import container_environment, image_uri
from d2serve.aws.context import Site
from d2serve.aws.deployment import Deployment
from d2serve.aws.steps import Step
from d2serve.building.package import Package
from d2serve.errors import CommandError

VARIANT = "AllTraffic"
LONGEST_BASE = 50  # of SageMaker's 63 characters; the rest is a hyphen and the digest
ENDPOINT_TAG = "d2serve:endpoint"
MODE_TAG = "d2serve:mode"
DOWNLOAD_TIMEOUT_S = 600
STARTUP_TIMEOUT_S = 600
ASYNC_REQUESTS_AT_ONCE = 16  # one batch in the network, one waiting


def tags(endpoint: str, mode: str) -> list[dict[str, str]]:
    """What marks everything that d2serve makes."""
    pairs = {ENDPOINT_TAG: endpoint, MODE_TAG: mode, "created-by": "d2serve"}
    return [{"Key": key, "Value": value} for key, value in pairs.items()]


def base_name(endpoint: str) -> str:
    """What the names of an endpoint's models and configurations start with."""
    return f"{endpoint[:LONGEST_BASE].rstrip('-')}-"


def folder(deployment: Deployment) -> str:
    """The key under which all of an endpoint's packages lie, with a slash at its end."""
    return f"{deployment.prefix.strip('/')}/{deployment.endpoint}/"


def package_key(deployment: Deployment) -> str:
    """Where the package goes: a key of its own for each content, or the model's name for many."""
    package = deployment.package
    if deployment.is_multi_model:
        return f"{folder(deployment)}models/{package.name}.tar.gz"
    return f"{folder(deployment)}{package.name}-{package.sha256[:12]}.tar.gz"


def put_package(package: Package, bucket: str, key: str) -> Call:
    """The package's upload."""
    metadata = {"sha256": package.sha256}
    parameters = {"Bucket": bucket, "Key": key, "Body": str(package.path), "Metadata": metadata}
    return Call("s3", "put_object", parameters)


def create_bucket(site: Site) -> Call:
    """SageMaker's default bucket. us-east-1 takes no constraint with its own name."""
    parameters: dict[str, Any] = {"Bucket": site.bucket}
    if site.region != "us-east-1":
        parameters["CreateBucketConfiguration"] = {"LocationConstraint": site.region}
    return Call("s3", "create_bucket", parameters)


def network(
    subnets: Sequence[str], security_groups: Sequence[str], isolation: bool
) -> dict[str, Any]:
    """How a model's container reaches others, if at all."""
    parameters: dict[str, Any] = {"EnableNetworkIsolation": True} if isolation else {}
    if subnets:
        parameters["VpcConfig"] = {
            "SecurityGroupIds": list(security_groups),
            "Subnets": list(subnets),
        }
    return parameters


def create_model(deployment: Deployment, site: Site) -> Call:
    """The model; its name follows from all else, so that the same request has the same name."""
    key = package_key(deployment)
    container = {
        "Image": image_uri(site.region, deployment.instance_type),
        "Environment": container_environment(deployment.mode, deployment.environment),
    }
    if deployment.is_multi_model:
        container["Mode"] = "MultiModel"
        container["MultiModelConfig"] = {"ModelCacheSetting": "Enabled"}
        key = key.rpartition("/")[0] + "/"
    container["ModelDataUrl"] = f"s3://{site.bucket}/{key}"
    parameters = model_parameters(
        container,
        site.role_arn,
        network(deployment.subnets, deployment.security_groups, deployment.network_isolation),
        tags(deployment.endpoint, deployment.mode),
    )
    name = f"{base_name(deployment.endpoint)}{digest(parameters)}"
    return Call("sagemaker", "create_model", {"ModelName": name, **parameters})


def model_parameters(
    container: Mapping[str, Any],
    role_arn: str,
    network_parameters: Mapping[str, Any],
    model_tags: list[dict[str, str]],
) -> dict[str, Any]:
    """All of a model's request but its name."""
    return {
        "PrimaryContainer": container,
        "ExecutionRoleArn": role_arn,
        **network_parameters,
        "Tags": model_tags,
    }


def create_endpoint_config(deployment: Deployment, site: Site, model: Call) -> Call:
    """The configuration, named as the model is."""
    variant = {"VariantName": VARIANT, "ModelName": model.parameters["ModelName"]}
    parameters: dict[str, Any] = {
        "ProductionVariants": [variant | _capacity(deployment)],
        "Tags": tags(deployment.endpoint, deployment.mode),
    }
    key = {"KmsKeyId": deployment.kms_key} if deployment.kms_key else {}
    if not deployment.has_local_storage:
        parameters |= key
    if deployment.data_capture is not None:
        parameters["DataCaptureConfig"] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": deployment.data_capture,
            "DestinationS3Uri": _beside(deployment, site, "captured"),
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            **key,
        }
    if deployment.is_async:
        parameters["AsyncInferenceConfig"] = _async_config(deployment, site, key)
    name = f"{base_name(deployment.endpoint)}{digest(parameters)}"
    return Call("sagemaker", "create_endpoint_config", {"EndpointConfigName": name, **parameters})


def create_endpoint(deployment: Deployment, config: Call) -> Call:
    """The endpoint itself."""
    parameters = {
        "EndpointName": deployment.endpoint,
        "EndpointConfigName": config.parameters["EndpointConfigName"],
        "Tags": tags(deployment.endpoint, deployment.mode),
    }
    return Call("sagemaker", "create_endpoint", parameters)


def delete_model(name: str) -> Call:
    """Removes a model; its package stays."""
    return Call("sagemaker", "delete_model", {"ModelName": name})


def delete_config(name: str) -> Call:
    """Removes an endpoint's configuration."""
    return Call("sagemaker", "delete_endpoint_config", {"EndpointConfigName": name})


def delete_endpoint(name: str) -> Call:
    """Removes an endpoint; what it was made of stays."""
    return Call("sagemaker", "delete_endpoint", {"EndpointName": name})


def _capacity(deployment: Deployment) -> dict[str, Any]:
    if deployment.is_serverless:
        serverless = {
            "MemorySizeInMB": deployment.memory_mb or 6144,
            "MaxConcurrency": deployment.max_concurrency or 5,
        }
        return {"ServerlessConfig": serverless}
    return {
        "InstanceType": deployment.instance_type,
        "InitialInstanceCount": deployment.instance_count,
        "ModelDataDownloadTimeoutInSeconds": DOWNLOAD_TIMEOUT_S,
        "ContainerStartupHealthCheckTimeoutInSeconds": STARTUP_TIMEOUT_S,
    }


def _async_config(deployment: Deployment, site: Site, key: Mapping[str, str]) -> dict[str, Any]:
    output = (deployment.output or _beside(deployment, site, "output")).rstrip("/")
    topics = {"SuccessTopic": deployment.success_topic, "ErrorTopic": deployment.error_topic}
    given_topics = {name: topic for name, topic in topics.items() if topic}
    destination: dict[str, Any] = {
        "S3OutputPath": output,
        "S3FailurePath": f"{output}/failed",
        **key,
    }
    if given_topics:
        destination["NotificationConfig"] = given_topics
    clients = {"MaxConcurrentInvocationsPerInstance": ASYNC_REQUESTS_AT_ONCE}
    return {"OutputConfig": destination, "ClientConfig": clients}


def _beside(deployment: Deployment, site: Site, what: str) -> str:
    """Apart from the packages, which undeploy removes."""
    return f"s3://{site.bucket}/{deployment.prefix.strip('/')}-{what}/{deployment.endpoint}"


def upload_steps(account: Account, package: Package, site: Site, key: str) -> list[Step]:
    """The steps that bring the package to s3://bucket/key; none where it is there already.

    Raises:
        CommandError: the bucket is missing or someone else's, or holds another package there.
    """
    if not _bucket_exists(account, site):
        return first_upload(package, site, key, in_new_bucket=True)
    found = account.find("s3", "head_object", Bucket=site.bucket, Key=key)
    if found is None:
        return first_upload(package, site, key, in_new_bucket=False)
    if found["Metadata"].get("sha256") != package.sha256:
        raise CommandError(
            f"s3://{site.bucket}/{key} holds another package, and containers that have loaded it "
            f"would go on serving it; give the new one another NAME"
        )
    return []


def first_upload(package: Package, site: Site, key: str, *, in_new_bucket: bool) -> list[Step]:
    """The steps where neither the package is there nor, perhaps, the bucket."""
    drop_bucket = Call("s3", "delete_bucket", {"Bucket": site.bucket})
    drop_object = Call("s3", "delete_object", {"Bucket": site.bucket, "Key": key})
    put = Step(put_package(package, site.bucket, key), drop_object)
    return [Step(create_bucket(site), drop_bucket), put] if in_new_bucket else [put]


def _bucket_exists(account: Account, site: Site) -> bool:
    # The default bucket's name is easy to guess: nobody else's must be used.
    owner = {"ExpectedBucketOwner": site.account_id} if site.is_default_bucket() else {}
    try:
        found = account.find("s3", "head_bucket", Bucket=site.bucket, **owner)
    except AwsError as error:
        raise CommandError(f"BUCKET {site.bucket}: {error}") from error
    if found is None and not site.is_default_bucket():
        raise CommandError(f"BUCKET {site.bucket}: there is no such bucket; make it first")
    return found is not None
