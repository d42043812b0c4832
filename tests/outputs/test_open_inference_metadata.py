"""Documents of the GET routes of the Open Inference Protocol."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from d2serve.messages import OUTPUT_NAMES
from d2serve.outputs import open_inference_metadata as metadata


def test_server_metadata_has_the_version_of_the_package() -> None:
    content = metadata.server_metadata()
    assert content["name"] == "d2serve"
    assert content["version"] == version("d2serve")
    assert "binary_tensor_data" in content["extensions"]


def test_model_metadata_describes_all_tensors() -> None:
    content = metadata.model_metadata("animals", ("1", "2"))
    assert (content["name"], content["versions"]) == ("animals", ["1", "2"])
    assert content["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert [tensor["name"] for tensor in content["outputs"]] == list(OUTPUT_NAMES)
    assert content["outputs"][0] == {"name": "boxes", "datatype": "FP32", "shape": [-1, 4]}


def test_tensors_keep_their_positions() -> None:
    """Clients may read tensors by position."""
    assert OUTPUT_NAMES[:4] == ("boxes", "scores", "classes", "masks")
    assert OUTPUT_NAMES[4:8] == ("keypoints", "panoptic", "semantic", "image_ids")


def test_model_config_describes_the_tensors_in_tritons_terms() -> None:
    content = metadata.model_config("animals")
    assert content["name"] == "animals"
    assert content["input"] == [{"name": "image", "data_type": "TYPE_STRING", "dims": [-1]}]
    assert content["output"][2] == {"name": "classes", "data_type": "TYPE_INT64", "dims": [-1]}


@pytest.mark.parametrize("is_ready", [True, False])
def test_states(is_ready: bool) -> None:
    assert metadata.live(is_ready) == {"live": is_ready}
    assert metadata.ready(is_ready) == {"ready": is_ready}
    assert metadata.model_ready("animals", is_ready) == {"name": "animals", "ready": is_ready}
    assert metadata.v1_model_status("animals", is_ready) == {"name": "animals", "ready": is_ready}


def test_import_loads_neither_numpy_nor_torch() -> None:
    code = (
        "import sys, d2serve.outputs.open_inference_metadata;"
        "sys.exit(bool({'numpy', 'torch'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
