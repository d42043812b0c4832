"""Panoptic and semantic maps in COCO panoptic format."""

import base64
import io
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from d2serve.errors import RequestError
from d2serve.masks.panoptic import Panoptic, Segment
from d2serve.outputs.segment_maps import id_png, segment_maps
from tests.outputs.results import MODEL, NO_DETECTIONS, SIZE_HW, TWO, TWO_OF_ALL, result_of


def ids_of(content: dict[str, Any]) -> npt.NDArray[np.int_]:
    png = base64.b64decode(content["png"], validate=True)
    pixels = np.asarray(Image.open(io.BytesIO(png))).astype(int)
    return np.asarray(pixels @ np.array((1, 256, 256 * 256)))


def test_model_without_maps_gives_no_maps() -> None:
    assert segment_maps(result_of(TWO)) == {}


@pytest.mark.parametrize("name", ["panoptic", "semantic"])
def test_model_gives_its_maps(name: str) -> None:
    found = replace(TWO, **{name: getattr(TWO_OF_ALL, name)})
    assert list(segment_maps(result_of(found))) == [name]


def test_thing_and_stuff_category_ids_are_distinct() -> None:
    content = segment_maps(result_of(TWO_OF_ALL))["panoptic"]
    assert list(content) == ["png", "segments_info"]
    assert TWO_OF_ALL.panoptic is not None
    np.testing.assert_array_equal(ids_of(content), TWO_OF_ALL.panoptic.ids)
    assert content["segments_info"] == [
        {
            "id": 1,
            "category_id": 2,
            "name": "horse",
            "isthing": True,
            "area": 1000,
            "bbox": [0, 10, 100, 10],
            "score": 0.998,
        },
        {
            "id": 2,
            "category_id": 4,
            "name": "sky",
            "isthing": False,
            "area": 3000,
            "bbox": [0, 20, 100, 30],
        },
    ]


def test_example_of_the_api_page_reads_a_map(repo_root: Path) -> None:
    page = (repo_root / "docs" / "api.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n([^`]*segments_info[^`]*)^```", page, re.MULTILINE)
    names: dict[str, Any] = {"response": segment_maps(result_of(TWO_OF_ALL))}
    exec(code, names)
    assert TWO_OF_ALL.panoptic is not None
    np.testing.assert_array_equal(names["ids"], TWO_OF_ALL.panoptic.ids)
    np.testing.assert_array_equal(names["sky"], TWO_OF_ALL.panoptic.ids == 2)


def test_semantic_map_has_a_segment_per_present_class() -> None:
    content = segment_maps(result_of(TWO_OF_ALL))["semantic"]
    assert TWO_OF_ALL.semantic is not None
    np.testing.assert_array_equal(ids_of(content), TWO_OF_ALL.semantic + 1)
    assert content["segments_info"] == [
        {
            "id": 1,
            "category_id": 3,
            "name": "things",
            "isthing": False,
            "area": 5800,
            "bbox": [0, 0, 160, 80],
        },
        {
            "id": 2,
            "category_id": 4,
            "name": "sky",
            "isthing": False,
            "area": 3000,
            "bbox": [0, 0, 100, 30],
        },
        {
            "id": 4,
            "category_id": 6,
            "name": "sand",
            "isthing": False,
            "area": 4000,
            "bbox": [0, 30, 100, 40],
        },
    ]


def test_map_without_segments_is_a_png_of_zeros() -> None:
    found = replace(NO_DETECTIONS, panoptic=Panoptic(np.zeros((40, 30), dtype=np.int32), ()))
    content = segment_maps(result_of(found))["panoptic"]
    assert content["segments_info"] == []
    np.testing.assert_array_equal(ids_of(content), np.zeros((40, 30)))


def test_segment_without_pixels_is_omitted() -> None:
    ids = np.full(SIZE_HW, 2, dtype=np.int32)
    segments = (Segment(1, 0, is_thing=True, score=0.5), Segment(2, 3, is_thing=False))
    content = segment_maps(result_of(replace(TWO, panoptic=Panoptic(ids, segments))))["panoptic"]
    assert [info["id"] for info in content["segments_info"]] == [2]


def test_model_with_only_stuff_has_class_indices_as_category_ids() -> None:
    model = replace(MODEL, class_names=())
    found = replace(NO_DETECTIONS, size_hw=SIZE_HW, semantic=TWO_OF_ALL.semantic)
    content = segment_maps(result_of(found, model=model))["semantic"]
    assert [info["category_id"] for info in content["segments_info"]] == [0, 1, 3]


def test_segment_without_a_name_is_an_error() -> None:
    semantic = np.full(SIZE_HW, len(MODEL.stuff_names), dtype=np.int32)
    with pytest.raises(IndexError):
        segment_maps(result_of(replace(TWO, semantic=semantic)))


COLUMNS = np.repeat(np.arange(1000, dtype=np.int32), 2)


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param([[0]], id="one-unlabelled-pixel"),
        pytest.param([[1, 255, 256, 65_535, 65_536, 256**3 - 1]], id="all-three-bytes"),
        pytest.param(COLUMNS.reshape(40, 50).T, id="not-contiguous"),
        pytest.param(COLUMNS.reshape(40, 50).astype(">i4"), id="of-other-machines"),
        pytest.param(COLUMNS[:, None], id="a-column"),
    ],
)
def test_panopticapi_reads_the_ids_back(ids: object) -> None:
    given = np.array(ids, dtype=None if isinstance(ids, np.ndarray) else np.int32)
    image = Image.open(io.BytesIO(id_png(given)))
    assert (image.format, image.mode) == ("PNG", "RGB")
    red, green, blue = np.asarray(image).astype(int).transpose(2, 0, 1)
    np.testing.assert_array_equal(red + 256 * green + 256 * 256 * blue, given)


def test_encoding_a_map_uses_little_memory() -> None:
    ids = np.zeros((1000, 1000), dtype=np.int32)
    tracemalloc.start()
    id_png(ids)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < ids.nbytes


def test_map_too_long_for_a_png_is_a_406() -> None:
    assert id_png(np.ones((1, 1_000_000), dtype=np.int32))
    with pytest.raises(RequestError, match="1000000 pixels") as raised:
        id_png(np.ones((1_000_001, 1), dtype=np.int32))
    assert (raised.value.status, "x-npz" in raised.value.hint) == (406, True)
