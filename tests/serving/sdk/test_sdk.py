"""The serializers and deserializers of the sagemaker SDK against the real server."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.serving.traffic import assert_same_prediction, pixels

CONVERSATION = Path(__file__).with_name("conversation.py")
ENVIRONMENT = ".venv-sagemaker"
SERIALIZERS = (
    "numpy",
    "numpy-float",
    "json-array",
    "json-document",
    "json-lines",
    "json-lines-of-lists",
    "identity",
)


@pytest.fixture(scope="module")
def image(png: Path) -> "np.ndarray[Any, Any]":
    """UInt8[H, W, 3] RGB, small enough for nested lists."""
    return np.ascontiguousarray(pixels(png)[::2, ::2])


@pytest.fixture(scope="module")
def results(
    repo_root: Path,
    url: str,
    image: "np.ndarray[Any, Any]",
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, Any]]:
    """The results for each serializer, by its name."""
    python = repo_root / ENVIRONMENT / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no {ENVIRONMENT}; `make test` installs the sagemaker SDK there")
    folder = tmp_path_factory.mktemp("sdk")
    Image.fromarray(image).save(folder / "image.png")
    np.save(folder / "image.npy", image)
    done = subprocess.run(
        [python, CONVERSATION, url, folder / "image.png", folder / "image.npy"],
        env={**os.environ, "SAGEMAKER_SUPPRESS_V2_WARNING": "1", "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    return {line["serializer"]: line for line in lines}


@pytest.fixture(scope="module")
def expected(
    prediction_of: Callable[["np.ndarray[Any, Any]"], dict[str, Any]], image: "np.ndarray[Any, Any]"
) -> dict[str, Any]:
    return prediction_of(image)


def test_the_image_contains_instances(expected: dict[str, Any]) -> None:
    assert expected["names"]


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_the_json_deserializer_gets_the_object(
    results: dict[str, dict[str, Any]], expected: dict[str, Any], serializer: str
) -> None:
    assert_same_prediction(results[serializer]["json"], expected)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_the_json_lines_deserializer_gets_an_object_per_line(
    results: dict[str, dict[str, Any]], expected: dict[str, Any], serializer: str
) -> None:
    [line] = results[serializer]["json-lines"]
    assert_same_prediction(line, expected)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_the_numpy_deserializer_gets_rows(
    results: dict[str, dict[str, Any]], expected: dict[str, Any], serializer: str
) -> None:
    np.testing.assert_allclose(results[serializer]["numpy"], expected["prediction"], atol=1e-4)
