"""AWS calls that create and delete a model, its configuration and its endpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from d2serve.aws.account import Account
from d2serve.aws.api import Call, digest
from d2serve.aws.context import AccountContext
from d2serve.aws.deployment import Deployment
from d2serve.aws.primary_container import host_image, primary_container
from d2serve.aws.ray_image import INFERENCE_AMI
from d2serve.aws.steps import Step
from d2serve.building.package import Package
from d2serve.errors import AwsError, CommandError

VARIANT = "AllTraffic"
MAX_BASE_CHARACTERS = 50  # SageMaker allows 63: a hyphen and the digest follow
ENDPOINT_TAG = "d2serve:endpoint"
MODE_TAG = "d2serve:mode"
DOWNLOAD_TIMEOUT_S = 600
STARTUP_TIMEOUT_S = 600
ASYNC_CONCURRENCY = 16  # one batch in the network, one waiting


def tags(endpoint: str, mode: str) -> list[dict[str, str]]:
    """Return the tags of every resource that d2serve creates."""
    pairs = {ENDPOINT_TAG: endpoint, MODE_TAG: mode, "created-by": "d2serve"}
    return [{"Key": key, "Value": value} for key, value in pairs.items()]


def base_name(endpoint: str) -> str:
    """Return the start of the names of an endpoint's models and configurations."""
    return f"{endpoint[:MAX_BASE_CHARACTERS].rstrip('-')}-"


def folder(deployment: Deployment) -> str:
    """Return the S3 prefix of an endpoint's packages, with a trailing slash."""
    return f"{deployment.prefix.strip('/')}/{deployment.endpoint}/"


def package_key(deployment: Deployment) -> str:
    """Return the package's S3 key.

    It contains the package's digest, except in multi-model mode, where clients name the file.
    """
    package = deployment.package
    if deployment.is_multi_model:
        return f"{folder(deployment)}models/{package.name}.tar.gz"
    return f"{folder(deployment)}{package.name}-{package.sha256[:12]}.tar.gz"


def put_package(package: Package, bucket: str, key: str) -> Call:
    """Return the call that uploads the package."""
    metadata = {"sha256": package.sha256}
    parameters = {"Bucket": bucket, "Key": key, "Body": str(package.path), "Metadata": metadata}
    return Call("s3", "put_object", parameters)


def create_bucket(context: AccountContext) -> Call:
    """Return the call that creates SageMaker's default bucket.

    us-east-1 rejects a location constraint with its own name.
    """
    parameters: dict[str, Any] = {"Bucket": context.bucket}
    if context.region != "us-east-1":
        parameters["CreateBucketConfiguration"] = {"LocationConstraint": context.region}
    return Call("s3", "create_bucket", parameters)


def network(
    subnets: Sequence[str], security_groups: Sequence[str], isolation: bool
) -> dict[str, Any]:
    """Return the parameters of the container's network."""
    parameters: dict[str, Any] = {"EnableNetworkIsolation": True} if isolation else {}
    if subnets:
        parameters["VpcConfig"] = {
            "SecurityGroupIds": list(security_groups),
            "Subnets": list(subnets),
        }
    return parameters


def create_model(deployment: Deployment, context: AccountContext) -> Call:
    """Return the call that creates the model; equal requests have equal names."""
    key = package_key(deployment)
    container = primary_container(
        deployment.package,
        deployment.mode,
        context.region,
        deployment.instance_type,
        deployment.environment,
        deployment.image,
    )
    if deployment.is_multi_model:
        container["Mode"] = "MultiModel"
        container["MultiModelConfig"] = {"ModelCacheSetting": "Enabled"}
        key = key.rpartition("/")[0] + "/"
    container["ModelDataUrl"] = f"s3://{context.bucket}/{key}"
    parameters = model_parameters(
        container,
        context.role_arn,
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
    """Return the parameters of a model except its name."""
    return {
        "PrimaryContainer": container,
        "ExecutionRoleArn": role_arn,
        **network_parameters,
        "Tags": model_tags,
    }


def create_endpoint_config(deployment: Deployment, context: AccountContext, model: Call) -> Call:
    """Return the call that creates the configuration; equal requests have equal names."""
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
            "DestinationS3Uri": _sibling_url(deployment, context, "captured"),
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            **key,
        }
    if deployment.is_async:
        parameters["AsyncInferenceConfig"] = _async_config(deployment, context, key)
    name = f"{base_name(deployment.endpoint)}{digest(parameters)}"
    return Call("sagemaker", "create_endpoint_config", {"EndpointConfigName": name, **parameters})


def create_endpoint(deployment: Deployment, config: Call) -> Call:
    """Return the call that creates the endpoint."""
    parameters = {
        "EndpointName": deployment.endpoint,
        "EndpointConfigName": config.parameters["EndpointConfigName"],
        "Tags": tags(deployment.endpoint, deployment.mode),
    }
    return Call("sagemaker", "create_endpoint", parameters)


def delete_model(name: str) -> Call:
    """Return the call that deletes a model; its package stays in S3."""
    return Call("sagemaker", "delete_model", {"ModelName": name})


def delete_config(name: str) -> Call:
    """Return the call that deletes an endpoint's configuration."""
    return Call("sagemaker", "delete_endpoint_config", {"EndpointConfigName": name})


def delete_endpoint(name: str) -> Call:
    """Return the call that deletes an endpoint; its configuration and model stay."""
    return Call("sagemaker", "delete_endpoint", {"EndpointName": name})


def _capacity(deployment: Deployment) -> dict[str, Any]:
    if deployment.is_serverless:
        serverless = {
            "MemorySizeInMB": deployment.memory_mb or 6144,
            "MaxConcurrency": deployment.max_concurrency or 5,
        }
        return {"ServerlessConfig": serverless}
    ami = host_image(deployment.package, deployment.instance_type, INFERENCE_AMI)
    return {
        "InstanceType": deployment.instance_type,
        "InitialInstanceCount": deployment.instance_count,
        "ModelDataDownloadTimeoutInSeconds": DOWNLOAD_TIMEOUT_S,
        "ContainerStartupHealthCheckTimeoutInSeconds": STARTUP_TIMEOUT_S,
        **({"InferenceAmiVersion": ami} if ami else {}),
    }


def _async_config(
    deployment: Deployment, context: AccountContext, key: Mapping[str, str]
) -> dict[str, Any]:
    output = (deployment.output or _sibling_url(deployment, context, "output")).rstrip("/")
    topics = {"SuccessTopic": deployment.success_topic, "ErrorTopic": deployment.error_topic}
    given_topics = {name: topic for name, topic in topics.items() if topic}
    destination: dict[str, Any] = {
        "S3OutputPath": output,
        "S3FailurePath": f"{output}/failed",
        **key,
    }
    if given_topics:
        destination["NotificationConfig"] = given_topics
    clients = {"MaxConcurrentInvocationsPerInstance": ASYNC_CONCURRENCY}
    return {"OutputConfig": destination, "ClientConfig": clients}


def _sibling_url(deployment: Deployment, context: AccountContext, what: str) -> str:
    """Return an s3:// URL outside the folder of the packages, which undeploy removes."""
    return f"s3://{context.bucket}/{deployment.prefix.strip('/')}-{what}/{deployment.endpoint}"


def upload_steps(
    account: Account, package: Package, context: AccountContext, key: str
) -> list[Step]:
    """Return the steps that upload the package to s3://bucket/key; empty if it is there.

    Raises:
        CommandError: the bucket does not exist, belongs to another account, or has a different
            package at the key.
    """
    if not _bucket_exists(account, context):
        return first_upload(package, context, key, in_new_bucket=True)
    found = account.find("s3", "head_object", Bucket=context.bucket, Key=key)
    if found is None:
        return first_upload(package, context, key, in_new_bucket=False)
    if found["Metadata"].get("sha256") != package.sha256:
        raise CommandError(
            f"s3://{context.bucket}/{key} contains a different package, and containers that have "
            "loaded it would continue to serve it; build the new one with another --name"
        )
    return []


def first_upload(
    package: Package, context: AccountContext, key: str, *, in_new_bucket: bool
) -> list[Step]:
    """Return the steps that upload a package, into a bucket to create if `in_new_bucket`."""
    drop_bucket = Call("s3", "delete_bucket", {"Bucket": context.bucket})
    drop_object = Call("s3", "delete_object", {"Bucket": context.bucket, "Key": key})
    put = Step(put_package(package, context.bucket, key), drop_object)
    return [Step(create_bucket(context), drop_bucket), put] if in_new_bucket else [put]


def _bucket_exists(account: Account, context: AccountContext) -> bool:
    # The default bucket's name is easy to guess: reject a bucket of another account.
    owner = {"ExpectedBucketOwner": context.account_id} if context.is_default_bucket() else {}
    try:
        found = account.find("s3", "head_bucket", Bucket=context.bucket, **owner)
    except AwsError as error:
        raise CommandError(f"--bucket {context.bucket}: {error}") from error
    if found is None and not context.is_default_bucket():
        raise CommandError(f"--bucket {context.bucket} does not exist; create it first")
    return found is not None
