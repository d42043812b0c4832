import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.aws import clarify
from scripts.aws.clarify import class_names
from scripts.errors import CommandError
from scripts.package import Package, read_package
from tests.aws.conftest import WritePackage

CHECK_BY_THE_SDK = """
import json, sys
from sagemaker.clarify import ANALYSIS_CONFIG_SCHEMA_V1_0 as schema
print(json.dumps([schema.is_valid(config) for config in json.loads(sys.argv[1])]))
"""


def write(tmp_path: Path, *options: str) -> Any:
    path = tmp_path / "new" / "analysis_config.json"
    assert clarify.main(["--endpoint", "shop", "--output", str(path), *options]) == 0
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_asks_for_our_rows(tmp_path: Path) -> None:
    config = write(tmp_path)
    assert config["dataset_type"] == "application/x-image"
    assert config["predictor"] == {
        "endpoint_name": "shop",
        "content_type": "image/jpeg",
        "accept_type": "application/json",
        "label": "prediction",
    }
    image_config = config["methods"]["shap"]["image_config"]
    assert image_config["model_type"] == "OBJECT_DETECTION"


def test_options_arrive(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        *("--max-objects", "7", "--iou-threshold", "0.6", "--context", "0.25"),
        *("--num-segments", "30", "--segment-compactness", "4", "--num-samples", "50"),
        *("--content-type", "application/x-npy", "--dataset", "s3://a/pictures/"),
    )
    assert config["methods"]["shap"] == {
        "num_samples": 50,
        "image_config": {
            "model_type": "OBJECT_DETECTION",
            "max_objects": 7,
            "iou_threshold": 0.6,
            "context": 0.25,
            "num_segments": 30,
            "segment_compactness": 4,
        },
    }
    assert config["dataset_uri"] == "s3://a/pictures/"
    assert config["predictor"]["content_type"] == "application/x-npy"


def test_the_package_names_the_labels(tmp_path: Path, package: WritePackage) -> None:
    config = write(tmp_path, "--package", str(package()))
    assert config["predictor"]["label_headers"] == ["circle", "star"]


def test_the_sagemaker_sdk_takes_it(tmp_path: Path, repo_root: Path, package: WritePackage) -> None:
    python = repo_root / ".venv-sagemaker" / "bin" / "python"
    if not python.exists():
        pytest.skip("no .venv-sagemaker; `make test` makes it")
    named = ["--package", str(package())]
    valid = [write(tmp_path), write(tmp_path, *named, "--dataset", "s3://a/", "--context", "1")]
    wrong = write(tmp_path)
    wrong["methods"]["shap"]["image_config"]["iou_threshold"] = "much"
    command = [str(python), "-W", "ignore", "-c", CHECK_BY_THE_SDK, json.dumps([*valid, wrong])]
    checked = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(checked.stdout.splitlines()[-1]) == [True, True, False]


def test_a_package_without_names(tmp_path: Path, package: WritePackage) -> None:
    path = package()
    broken = read_package(path)
    path.write_bytes(b"no archive")
    with pytest.raises(CommandError, match="cannot be read"):
        class_names(broken)
    empty = tmp_path / "empty.tar.gz"
    empty.write_bytes(b"\0" * 10240)
    with pytest.raises(CommandError, match=r"holds no classes\.json"):
        class_names(Package(empty, "empty", "", 0))


def test_an_endpoint_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="ENDPOINT 'a_b'"):
        clarify.main(["--endpoint", "a_b", "--output", str(tmp_path / "x.json")])
    assert not (tmp_path / "x.json").exists()
