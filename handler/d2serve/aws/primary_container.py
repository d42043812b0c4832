"""The container of a SageMaker model: image, environment and host, by the package's kind."""

from collections.abc import Mapping
from typing import Any

from d2serve.aws import containers, ray_image
from d2serve.aws.account import Account
from d2serve.building.package import Container, Package
from d2serve.errors import CommandError

# From docs/src/data/pytorch-inference of github.com/aws/deep-learning-containers.
PYTORCH_WARNING = (
    "Warning: AWS's PyTorch 2.6 image has had no security patches since 2026-06-30; the Ray image "
    "has: d2serve package --name {name} --container ray"
)
NEEDS_PYTORCH = ("serverless", "mme")


def primary_container(
    package: Package,
    mode: str,
    region: str,
    instance: str | None,
    environment: Mapping[str, str],
    image: str | None = None,
) -> dict[str, Any]:
    """Return the container's image and variables.

    Args:
        package: the package, which is for one of the containers.
        mode: realtime, serverless, async, mme or transform.
        region: AWS region.
        instance: instance type; None for serverless.
        environment: the user's variables, which take precedence.
        image: URI of another image with the same content.

    Raises:
        CommandError: AWS has no image for it, or the container cannot serve in this mode.
    """
    if package.container is Container.RAY:
        variables = ray_image.container_environment(mode, environment)
        uri = image or ray_image.image_uri(region, instance or "")
    else:
        variables = containers.container_environment(mode, environment)
        uri = image or containers.image_uri(region, instance)
    return {"Image": uri, "Environment": variables}


def host_image(package: Package, instance: str | None, ami: str) -> str | None:
    """Return the machine image that a host needs for the package; None for AWS's default.

    Args:
        package: the package.
        instance: instance type; None for serverless.
        ami: the machine image for GPUs, `ray_image.INFERENCE_AMI` or `TRANSFORM_AMI`.
    """
    is_ray = package.container is Container.RAY
    return ami if is_ray and instance and containers.is_gpu_instance(instance) else None


def check_package(package: Package, mode: str) -> None:
    """Raise CommandError if the package's container cannot serve in a mode."""
    if package.container is Container.RAY:
        ray_image.check_mode(mode)


def check_image(image: str | None) -> None:
    """Raise CommandError if the URI of an image has whitespace or no name."""
    if image is not None and (not image or len(image.split()) != 1 or "/" not in image):
        raise CommandError(
            f"--image {image!r} is not the URI of an image: use a URI such as "
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com/ray:v1.4"
        )


def warn_if_unpatched(account: Account, package: Package, mode: str) -> None:
    """Print a warning if another container could serve, whose image AWS patches."""
    if package.container is Container.PYTORCH and mode not in NEEDS_PYTORCH:
        account.console.print(PYTORCH_WARNING.format(name=package.name))
