"""Finds the way to a SageMaker endpoint."""

import boto3

from scripts.aws.errors import readable_errors
from scripts.client.async_endpoint import AsyncEndpointTransport
from scripts.client.endpoint import EndpointTransport
from scripts.client.messages import Transport


def endpoint_transport(
    name: str,
    session: boto3.Session,
    *,
    target_model: str | None = None,
    timeout_s: float = 900,
) -> Transport:
    """The way to an endpoint: an asynchronous one takes its pictures from S3.

    Args:
        name: the endpoint's name.
        session: credentials and region.
        target_model: NAME.tar.gz of a multi-model endpoint.
        timeout_s: how long to wait for an asynchronous answer.

    Raises:
        AwsError: there is no such endpoint, or AWS cannot be asked.
    """
    with readable_errors("sagemaker.describe_endpoint"):
        sagemaker = session.client("sagemaker")
        config = sagemaker.describe_endpoint_config(
            EndpointConfigName=sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
        )
    if asynchronous := config.get("AsyncInferenceConfig"):
        output = asynchronous["OutputConfig"]["S3OutputPath"]
        return AsyncEndpointTransport(name, session, near=output, timeout_s=timeout_s)
    return EndpointTransport(name, session, target_model=target_model)
