"""AWS's Ray image: URIs, environment, host, and the modes that it cannot serve."""

from pathlib import Path
from typing import Any

import pytest

from d2serve.aws import containers
from d2serve.aws.containers import MIB
from d2serve.aws.ray_image import MODES, REGIONS, container_environment, image_uri
from d2serve.errors import CommandError
from d2serve.servers.openmp import OPENMP_SETTINGS
from d2serve.serving.model_config import load_settings
from tests.aws.conftest import WritePackage
from tests.aws.fake_aws import BUCKET, FakeAws

LIMITS_MB = {"realtime": 6, "async": 1024, "transform": 100}
IMAGE = "763104351884.dkr.ecr.eu-central-1.amazonaws.com/ray:serve-ml-sagemaker"
OWN_IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/ray:mine"
S3 = ("--input", f"s3://{BUCKET}/in/", "--output", f"s3://{BUCKET}/out/")


@pytest.mark.parametrize(
    ("region", "instance", "expected"),
    [
        ("eu-central-1", "ml.m5.xlarge", f"{IMAGE}-cpu-v1.4"),
        ("eu-central-1", "ml.g5.xlarge", f"{IMAGE}-cuda-v1.4"),
        (
            "cn-north-1",
            "ml.p4d.24xlarge",
            "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/ray:serve-ml-sagemaker-cuda-v1.4",
        ),
    ],
)
def test_image_uri(region: str, instance: str, expected: str) -> None:
    assert image_uri(region, instance) == expected


def test_the_image_is_in_the_regions_of_the_other_images_except_govcloud() -> None:
    assert {*containers.REGISTRIES} - {*REGIONS} == {"us-gov-east-1", "us-gov-west-1"}
    with pytest.raises(CommandError, match=r"no Ray inference container; use one of.*--image"):
        image_uri("us-gov-west-1", "ml.m5.xlarge")


@pytest.mark.parametrize("mode", MODES)
def test_environment(mode: str) -> None:
    environment = container_environment(mode, {})
    settings = load_settings({}, environment)
    assert settings.max_request_bytes >= LIMITS_MB[mode] * MIB
    assert settings.max_queued_bytes >= settings.max_request_bytes
    assert settings.longest_wait_seconds == {"realtime": 60, "async": 900, "transform": 600}[mode]
    # The response of d2serve comes before that of the adapter.
    assert int(environment["RAYSERVE_BACKEND_TIMEOUT"]) > settings.longest_wait_seconds
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert OPENMP_SETTINGS.items() <= environment.items()


def test_given_variables_win() -> None:
    given = {"RAYSERVE_BACKEND_TIMEOUT": "30", "OMP_WAIT_POLICY": "ACTIVE"}
    environment = container_environment("realtime", given)
    assert given.items() <= environment.items()
    assert "GOMP_SPINCOUNT" not in environment


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("mme", r"no routes for several models.*d2serve package --multi-model"),
        ("serverless", r"cold start.*d2serve package --container pytorch"),
    ],
)
def test_modes_of_the_pytorch_container(mode: str, reason: str) -> None:
    with pytest.raises(CommandError, match=f"--mode {mode} is not possible.*{reason}"):
        container_environment(mode, {})


def parameters_of(fake_aws: FakeAws, call: str) -> Any:
    [parameters] = [each for name, each in fake_aws.requests if name == f"sagemaker.{call}"]
    return parameters


def deploy(fake_aws: FakeAws, package: Path, *more: str) -> tuple[str, Any, Any]:
    """Deploy, and return the output, the container and the variant."""
    arguments = ("--package", str(package), "--endpoint", "shop", "--role", "Serving", *more)
    output = fake_aws.run("deploy", *arguments)
    container = parameters_of(fake_aws, "CreateModel")["PrimaryContainer"]
    [variant] = parameters_of(fake_aws, "CreateEndpointConfig")["ProductionVariants"]
    return output, container, variant


def test_a_package_for_ray_is_deployed_to_its_image(
    fake_aws: FakeAws, package: WritePackage
) -> None:
    output, container, variant = deploy(fake_aws, package(for_ray=True), "--container", "ray")
    assert container["Image"] == f"{IMAGE}-cpu-v1.4"
    assert container["Environment"] == container_environment("realtime", {})
    assert "InferenceAmiVersion" not in variant
    assert "Warning" not in output


def test_gpus_need_a_recent_driver(fake_aws: FakeAws, package: WritePackage) -> None:
    more = ("--instance", "ml.g4dn.xlarge", "--mode", "async")
    _, container, variant = deploy(fake_aws, package(for_ray=True), *more)
    assert container["Image"] == f"{IMAGE}-cuda-v1.4"
    assert variant["InferenceAmiVersion"] == "al2-ami-sagemaker-inference-gpu-3-1"


def test_an_own_copy_of_the_image(fake_aws: FakeAws, package: WritePackage) -> None:
    _, container, _ = deploy(fake_aws, package(for_ray=True), "--image", OWN_IMAGE)
    assert container["Image"] == OWN_IMAGE


def test_the_pytorch_container_comes_with_a_warning(
    fake_aws: FakeAws, package: WritePackage
) -> None:
    output, container, variant = deploy(fake_aws, package(), "--instance", "ml.g4dn.xlarge")
    assert "/pytorch-inference:2.6.0-gpu" in container["Image"]
    assert "InferenceAmiVersion" not in variant
    assert "no security patches since 2026-06-30" in output
    assert "d2serve package --name shapes --container ray" in output


def test_no_warning_where_only_the_pytorch_container_serves(
    fake_aws: FakeAws, package: WritePackage
) -> None:
    output, _, _ = deploy(fake_aws, package(), "--mode", "serverless")
    assert "Warning" not in output


@pytest.mark.parametrize(
    ("for_ray", "more", "message"),
    [
        (True, ("--container", "pytorch"), r"'pytorch', but .*shapes\.tar\.gz is for 'ray'; build"),
        (False, ("--container", "ray"), r"'ray', but .* is for 'pytorch'; build .*--container ray"),
        (True, ("--mode", "serverless"), "--mode serverless is not possible with the Ray"),
        (True, ("--image", "no image"), "--image 'no image' is not the URI of an image"),
    ],
)
def test_what_is_rejected_before_any_call(
    fake_aws: FakeAws, package: WritePackage, for_ray: bool, more: tuple[str, ...], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        deploy(fake_aws, package(for_ray=for_ray), *more)
    assert not fake_aws.calls


def test_batch_transform(fake_aws: FakeAws, package: WritePackage) -> None:
    arguments = ("--package", str(package(for_ray=True)), "--role", "Serving", *S3)
    output = fake_aws.run("transform", *arguments, "--instance", "ml.g4dn.xlarge")
    container = parameters_of(fake_aws, "CreateModel")["PrimaryContainer"]
    assert container["Image"] == f"{IMAGE}-cuda-v1.4"
    assert container["Environment"] == container_environment("transform", {})
    resources = parameters_of(fake_aws, "CreateTransformJob")["TransformResources"]
    assert resources["TransformAmiVersion"] == "al2-ami-sagemaker-batch-gpu-535"
    assert "Warning" not in output
