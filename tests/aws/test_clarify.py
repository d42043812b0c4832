import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2serve.aws.clarify import class_names
from d2serve.building.package import Container, Package, read_package
from d2serve.cli.main import invoke
from d2serve.errors import CommandError
from d2serve.messages import HttpRequest, Part
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.stages import CUSTOM_ATTRIBUTES
from d2serve.settings import Settings
from tests.aws.conftest import WritePackage
from tests.bodies import image_bytes, noise, npy_bytes
from tests.fakes import FakeDetector, metadata_of

CHECK_BY_THE_SDK = """
import json, sys
from sagemaker.clarify import ANALYSIS_CONFIG_SCHEMA_V1_0 as schema
print(json.dumps([schema.is_valid(config) for config in json.loads(sys.argv[1])]))
"""


def write(tmp_path: Path, *options: str) -> Any:
    path = tmp_path / "new" / "analysis_config.json"
    assert invoke(["clarify", "--endpoint", "shop", "--output", str(path), *options]) == 0
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("options", "content_type", "fields"),
    [
        ([], "application/x-npy", {"custom_attributes": "format=clarify"}),
        (["--content-type", "image/jpeg"], "image/jpeg", {"label": "prediction"}),
        (["--content-type", "image/png"], "image/png", {"label": "prediction"}),
    ],
)
def test_predictor_selects_our_rows(
    options: list[str], content_type: str, fields: dict[str, str], tmp_path: Path
) -> None:
    config = write(tmp_path, *options)
    assert config["dataset_type"] == "application/x-image"
    assert config["predictor"] == {
        "endpoint_name": "shop",
        "content_type": content_type,
        "accept_type": "application/json",
        **fields,
    }
    image_config = config["methods"]["shap"]["image_config"]
    assert image_config["model_type"] == "OBJECT_DETECTION"


def test_options_are_written(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        *("--max-objects", "7", "--iou-threshold", "0.6", "--context", "0.25"),
        *("--num-segments", "30", "--segment-compactness", "4", "--num-samples", "50"),
        *("--content-type", "image/png", "--dataset", "s3://a/images/"),
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
    assert config["dataset_uri"] == "s3://a/images/"
    assert config["predictor"]["content_type"] == "image/png"


def test_labels_come_from_the_package(tmp_path: Path, package: WritePackage) -> None:
    config = write(tmp_path, "--package", str(package()))
    assert config["predictor"]["label_headers"] == ["circle", "star"]


def test_labels_are_the_thing_classes(tmp_path: Path, package: WritePackage) -> None:
    names = json.dumps({"things": ["cat"], "stuff": ["sky"]})
    config = write(tmp_path, "--package", str(package(classes=names)))
    assert config["predictor"]["label_headers"] == ["cat"]


def test_invalid_class_names(package: WritePackage) -> None:
    with pytest.raises(CommandError, match=r"classes\.json has the unknown key '0'"):
        class_names(read_package(package(classes='{"0": "cat"}')))


def test_config_matches_the_sdks_schema(
    tmp_path: Path, repo_root: Path, package: WritePackage
) -> None:
    python = repo_root / ".venv-sagemaker" / "bin" / "python"
    if not python.exists():
        pytest.skip("no .venv-sagemaker; `make test` installs it")
    named = ["--package", str(package())]
    valid = [write(tmp_path), write(tmp_path, *named, "--dataset", "s3://a/", "--context", "1")]
    wrong = write(tmp_path)
    wrong["methods"]["shap"]["image_config"]["iou_threshold"] = "much"
    command = [str(python), "-W", "ignore", "-c", CHECK_BY_THE_SDK, json.dumps([*valid, wrong])]
    checked = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(checked.stdout.splitlines()[-1]) == [True, True, False]


def test_package_without_class_names(tmp_path: Path, package: WritePackage) -> None:
    path = package()
    broken = read_package(path)
    path.write_bytes(b"no archive")
    with pytest.raises(CommandError, match="cannot be read"):
        class_names(broken)
    empty = tmp_path / "empty.tar.gz"
    empty.write_bytes(b"\0" * 10240)
    with pytest.raises(CommandError, match=r"contains no classes\.json"):
        class_names(Package(empty, "empty", "", 0, Container.PYTORCH))


def test_invalid_endpoint_name(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--endpoint 'a_b'"):
        invoke(["clarify", "--endpoint", "a_b", "--output", str(tmp_path / "x.json")])
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("content_type", "body", "count"),
    [
        ("application/x-npy", npy_bytes(np.stack([noise(40, 60, 3)] * 2)), 2),
        ("application/x-npy", npy_bytes(noise(40, 60, 3)[None]), 1),
        ("image/jpeg", image_bytes(noise(40, 60, 3), "JPEG"), None),
        ("image/png", image_bytes(noise(40, 60, 3), "PNG"), None),
    ],
    ids=["two images", "a batch of one", "jpeg", "png"],
)
def test_pipeline_returns_the_requested_rows(
    content_type: str, body: bytes, count: int | None, tmp_path: Path
) -> None:
    predictor = write(tmp_path, "--content-type", content_type)["predictor"]
    headers = {"accept": predictor["accept_type"]}
    if "custom_attributes" in predictor:
        headers[CUSTOM_ATTRIBUTES] = predictor["custom_attributes"]
    request = HttpRequest(headers, (Part(content_type, body),), {}, "request-1")
    [response] = Pipeline(FakeDetector(), metadata_of("ball", "cube"), Settings()).run([request])
    content = json.loads(response.body)
    rows = content[predictor["label"]] if "label" in predictor else content
    for image in [rows] if count is None else rows:
        assert image, "the test needs detections"
        assert all(len(row) == 6 for row in image)
        assert all(0 <= value <= 1 for row in image for value in row[1:])
    assert count in (None, len(rows))
