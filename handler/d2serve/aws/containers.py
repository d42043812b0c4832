"""AWS's PyTorch inference container, and what it shares with other images: accounts and limits."""

import re
from collections.abc import Mapping

from d2serve.errors import CommandError
from d2serve.servers.openmp import openmp_settings
from d2serve.servers.torchserve.proxy.proxy import PUBLIC_ADDRESS, SERVER_ADDRESS

REPOSITORY = "pytorch-inference"
VERSION = "2.6.0"
PYTHON = "py312"
# The accounts of AWS's Deep Learning Containers, from inference.versions["2.6.0"].registries of
# the sagemaker SDK's image_uri_config/pytorch.json (version 2). A test compares the two.
USUAL_REGISTRY = "763104351884"
USUAL_REGIONS = (
    *("ap-northeast-1", "ap-northeast-2", "ap-south-1", "ap-southeast-1", "ap-southeast-2"),
    *("ca-central-1", "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3"),
    *("sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2"),
)
REGISTRIES = dict.fromkeys(USUAL_REGIONS, USUAL_REGISTRY) | {
    "af-south-1": "626614931356",
    "ap-east-1": "871362719292",
    "ap-east-2": "975050140332",
    "ap-northeast-3": "364406365360",
    "ap-south-2": "772153158452",
    "ap-southeast-3": "907027046896",
    "ap-southeast-4": "457447274322",
    "ap-southeast-5": "550225433462",
    "ap-southeast-6": "633930458069",
    "ap-southeast-7": "590183813437",
    "ca-west-1": "204538143572",
    "cn-north-1": "727897471807",
    "cn-northwest-1": "727897471807",
    "eu-central-2": "380420809688",
    "eu-south-1": "692866216735",
    "eu-south-2": "503227376785",
    "il-central-1": "780543022126",
    "me-central-1": "914824155844",
    "me-south-1": "217643126080",
    "mx-central-1": "637423239942",
    "us-gov-east-1": "446045086412",
    "us-gov-west-1": "442386744353",
}
GPU_FAMILY = re.compile(r"[gp]\d")
ARM_FAMILY = re.compile(r"[a-z]\d+g")
INSTANCE_TYPE = re.compile(r"ml\.([a-z]+\d[a-z0-9-]*)\.[a-z0-9]+")
MIB = 1024 * 1024
# AWS's toolkit turns these into the settings of its single model.
SINGLE_MODEL = {
    "SAGEMAKER_TS_BATCH_SIZE": "8",
    "SAGEMAKER_TS_MAX_BATCH_DELAY": "10",  # milliseconds
    "SAGEMAKER_TS_MIN_WORKERS": "2",
    "SAGEMAKER_TS_MAX_WORKERS": "2",
    "TS_DEFAULT_STARTUP_TIMEOUT": "300",  # seconds
    # SageMaker sends requests as soon as /ping succeeds, which TorchServe's own does while the
    # model still loads. So the worker opens SageMaker's port, after it has loaded the model.
    PUBLIC_ADDRESS: "0.0.0.0:8080",
    SERVER_ADDRESS: "http://127.0.0.1:8081",
    "TS_MANAGEMENT_ADDRESS": "http://127.0.0.1:8081",
}
# For little memory.
SINGLE_WORKER = {"SAGEMAKER_TS_MIN_WORKERS": "1", "SAGEMAKER_TS_MAX_WORKERS": "1"}
# The toolkit's properties for multiple models lack a newline before the switch of the management
# API, and without it every load request of SageMaker fails with 405.
MULTI_MODEL = {"TS_ENABLE_MODEL_API": "true"}
SETTINGS: dict[str, dict[str, str]] = {
    "realtime": SINGLE_MODEL,
    "serverless": SINGLE_MODEL | SINGLE_WORKER,
    "async": SINGLE_MODEL,
    "mme": MULTI_MODEL,
    "transform": SINGLE_MODEL,
}
# Seconds that a request may take: SageMaker's own limits.
RESPONSE_TIMEOUT_S = {"realtime": 60, "serverless": 60, "async": 900, "transform": 600}
# Requests that may wait; asynchronous ones and batch jobs have no client waiting.
QUEUE_SIZE = {"realtime": 32, "serverless": 32, "async": 100, "transform": 100}
# SageMaker's limits of 6, 4, 1024, 6 and 100 MB, with room for headers.
MAX_BODY_BYTES = {
    "realtime": 8 * MIB,
    "serverless": 8 * MIB,
    "async": 1024 * MIB,
    "mme": 8 * MIB,
    "transform": 104 * MIB,
}


def image_uri(region: str, instance: str | None) -> str:
    """Return the image for an instance type such as ml.g5.xlarge, or for serverless if None.

    Raises:
        CommandError: AWS publishes no such image for the region or the instance type.
    """
    if region not in REGISTRIES:
        raise CommandError(
            f"--region {region!r} has no PyTorch inference container; "
            f"use one of {', '.join(sorted(REGISTRIES))}, or name a copy of the image with --image"
        )
    processor = "gpu" if instance and is_gpu_instance(instance) else "cpu"
    return f"{registry_host(region)}/{REPOSITORY}:{VERSION}-{processor}-{PYTHON}"


def registry_host(region: str) -> str:
    """Return the host of AWS's images in a region of REGISTRIES."""
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"{REGISTRIES[region]}.dkr.ecr.{region}.{suffix}"


def is_gpu_instance(instance: str) -> bool:
    """Return whether an instance type has NVIDIA GPUs.

    Raises:
        CommandError: invalid instance type, or one whose processor the containers cannot use.
    """
    return GPU_FAMILY.match(family_of(instance)) is not None


def family_of(instance: str) -> str:
    """Return the family of an instance type, such as g5 of ml.g5.xlarge.

    Raises:
        CommandError: invalid instance type, or one whose processor the container cannot use.
    """
    matched = INSTANCE_TYPE.fullmatch(instance)
    if not matched:
        raise CommandError(
            f"--instance {instance!r} is not valid: use a type such as ml.m5.xlarge or ml.g5.xlarge"
        )
    family = matched[1]
    if family.startswith(("inf", "trn", "dl")) or ARM_FAMILY.match(family):
        raise CommandError(
            f"--instance {instance!r} is not supported: the container runs on x86 CPUs and NVIDIA "
            "GPUs; use a type such as ml.m5.xlarge or ml.g5.xlarge"
        )
    return family


def container_environment(mode: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return the container's variables.

    Args:
        mode: realtime, serverless, async, mme or transform.
        given: the user's variables, which take precedence.
    """
    body = str(MAX_BODY_BYTES[mode])
    sizes = {"TS_MAX_REQUEST_SIZE": body, "TS_MAX_RESPONSE_SIZE": body}
    environment = SETTINGS[mode] | openmp_settings(given) | sizes
    if mode in RESPONSE_TIMEOUT_S:
        seconds = str(RESPONSE_TIMEOUT_S[mode])
        environment["SAGEMAKER_TS_RESPONSE_TIMEOUT"] = seconds
        environment["D2SERVE_LONGEST_WAIT_SECONDS"] = seconds
        environment["TS_JOB_QUEUE_SIZE"] = str(QUEUE_SIZE[mode])
    return {**environment, **given}
