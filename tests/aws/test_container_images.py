import json
import os
import subprocess
from pathlib import Path

import pytest

from d2serve.aws.containers import PYTHON, REGISTRIES, REPOSITORY, VERSION, family_of, image_uri
from d2serve.errors import CommandError

# Prints the SDK's URI for each region and instance type.
PRINT_URIS = """
import json, sys
from sagemaker import image_uris
from sagemaker.image_uris import config_for_framework
version, python, instances = json.loads(sys.argv[1])
config = config_for_framework("pytorch")["inference"]["versions"][version]
print(json.dumps({region: {instance: image_uris.retrieve(
    framework="pytorch", region=region, version=version, py_version=python,
    instance_type=instance, image_scope="inference") for instance in instances}
    for region in config["registries"]}))
"""
INSTANCES = ("ml.m5.xlarge", "ml.g5.xlarge")


def test_images_are_those_of_the_sagemaker_sdk(repo_root: Path) -> None:
    python = repo_root / ".venv-sagemaker" / "bin" / "python"
    if not python.exists():
        pytest.skip("no .venv-sagemaker; `make test` installs it")
    printed = subprocess.run(
        [python, "-W", "ignore", "-c", PRINT_URIS, json.dumps([VERSION, PYTHON, INSTANCES])],
        env=os.environ | {"SAGEMAKER_SUPPRESS_V2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = json.loads(printed.stdout.splitlines()[-1])
    ours = {region: {i: image_uri(region, i) for i in INSTANCES} for region in REGISTRIES}
    assert ours == expected


@pytest.mark.parametrize(
    ("region", "instance", "expected"),
    [
        ("us-east-1", None, f"763104351884.dkr.ecr.us-east-1.amazonaws.com/{REPOSITORY}:2.6.0-cpu"),
        ("me-south-1", "ml.g4dn.xlarge", "217643126080.dkr.ecr.me-south-1.amazonaws.com/"),
        ("cn-north-1", "ml.m5.large", "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/"),
        ("us-gov-west-1", "ml.m5.large", "442386744353.dkr.ecr.us-gov-west-1.amazonaws.com/"),
    ],
)
def test_image_uri(region: str, instance: str | None, expected: str) -> None:
    assert image_uri(region, instance).startswith(expected)


@pytest.mark.parametrize(
    ("instance", "processor"),
    [
        (None, "cpu"),
        ("ml.t2.medium", "cpu"),
        ("ml.c7i.large", "cpu"),
        ("ml.g6e.xlarge", "gpu"),
        ("ml.p4d.24xlarge", "gpu"),
        ("ml.p6-b200.48xlarge", "gpu"),
    ],
)
def test_instance_type_selects_cpu_or_gpu(instance: str | None, processor: str) -> None:
    assert image_uri("eu-west-1", instance).endswith(f":2.6.0-{processor}-py312")


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        ("", "use a type such as ml.m5.xlarge"),
        ("m5.xlarge", "use a type such as ml.m5.xlarge"),
        ("ml.m5", "use a type such as ml.m5.xlarge"),
        ("ml.inf2.xlarge", "x86 CPUs and NVIDIA GPUs"),
        ("ml.trn1.2xlarge", "x86 CPUs and NVIDIA GPUs"),
        ("ml.dl1.24xlarge", "x86 CPUs and NVIDIA GPUs"),
        ("ml.c7g.large", "x86 CPUs and NVIDIA GPUs"),
        ("ml.r7gd.medium", "x86 CPUs and NVIDIA GPUs"),
    ],
)
def test_unsupported_instance_types_are_rejected(instance: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        family_of(instance)


@pytest.mark.parametrize("region", ["", "us-iso-east-1", "moon-1"])
def test_region_without_the_image_is_rejected(region: str) -> None:
    with pytest.raises(CommandError, match=r"no PyTorch inference container.*eu-central-1"):
        image_uri(region, None)
