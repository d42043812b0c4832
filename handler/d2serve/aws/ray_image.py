"""AWS's Ray Serve inference container: image URIs and environment."""

from collections.abc import Mapping

from d2serve.aws.containers import (
    MAX_BODY_BYTES,
    REGISTRIES,
    RESPONSE_TIMEOUT_S,
    is_gpu_instance,
    registry_host,
)
from d2serve.errors import CommandError
from d2serve.servers.openmp import openmp_settings

REPOSITORY = "ray"
# From docs/ray/changelog of github.com/aws/deep-learning-containers: published on 2026-08-12, with
# Ray 2.57.0. AWS patches the image behind the tag.
VERSION = "v1.4"
# The accounts are those of AWS's other images, in all regions of docs/reference/region_availability
# in the same repository, which has no GovCloud.
REGIONS = tuple(region for region in REGISTRIES if not region.startswith("us-gov-"))
MODES = ("realtime", "async", "transform")
# Requests that may wait in all replicas; asynchronous ones and batch jobs have no client waiting.
QUEUE_SIZE = {"realtime": 32, "async": 100, "transform": 100}
# So that the response of d2serve, which names the reason, comes before that of AWS's adapter.
ADAPTER_MARGIN_S = 10
# The default host has a driver that is too old for the image's CUDA 12.9, according to AWS's guide
# of the image. AWS has no newer one for batch transform.
INFERENCE_AMI = "al2-ami-sagemaker-inference-gpu-3-1"
TRANSFORM_AMI = "al2-ami-sagemaker-batch-gpu-535"


def image_uri(region: str, instance: str) -> str:
    """Return the image for an instance type such as ml.g5.xlarge.

    Raises:
        CommandError: AWS publishes no such image for the region or the instance type.
    """
    if region not in REGIONS:
        raise CommandError(
            f"--region {region!r} has no Ray inference container; use one of "
            f"{', '.join(sorted(REGIONS))}, or name a copy of the image with --image"
        )
    processor = "cuda" if is_gpu_instance(instance) else "cpu"
    return f"{registry_host(region)}/{REPOSITORY}:serve-ml-sagemaker-{processor}-{VERSION}"


def container_environment(mode: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return the container's variables.

    Args:
        mode: one of MODES.
        given: the user's variables, which take precedence.

    Raises:
        CommandError: the container cannot serve in this mode.
    """
    check_mode(mode)
    seconds, body = RESPONSE_TIMEOUT_S[mode], str(MAX_BODY_BYTES[mode])
    environment = {
        "RAYSERVE_BACKEND_TIMEOUT": str(seconds + ADAPTER_MARGIN_S),
        "RAY_USAGE_STATS_ENABLED": "0",
        "D2SERVE_LONGEST_WAIT_SECONDS": str(seconds),
        "D2SERVE_MAX_REQUEST_BYTES": body,
        "D2SERVE_MAX_RESPONSE_BYTES": body,
        "D2SERVE_MAX_QUEUED_REQUESTS": str(QUEUE_SIZE[mode]),
        "D2SERVE_MAX_QUEUED_BYTES": str(max(1_000_000_000, 2 * MAX_BODY_BYTES[mode])),
    }
    return {**environment, **openmp_settings(given), **given}


def check_mode(mode: str) -> None:
    """Raise CommandError for a mode in which the container cannot serve."""
    reasons = {
        "mme": "AWS's adapter has no routes for several models",
        "serverless": (
            "Ray's own processes need 1 GB and at least 30 s at each cold start, and AWS does not "
            "document that the image runs there"
        ),
    }
    if mode in reasons:
        raise CommandError(
            f"--mode {mode} is not possible with the Ray container: {reasons[mode]}; build a "
            f"package for the PyTorch one: d2serve package "
            f"{'--multi-model' if mode == 'mme' else '--container pytorch'} --name NAME"
        )
