import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from d2serve.detections import Panoptic, Segment
from d2serve.outputs.segment_maps import segment_maps
from tests.outputs.results import MODEL, NOTHING, SIZE_HW, TWO, TWO_OF_ALL, result_of


def ids_of(content: dict[str, Any]) -> npt.NDArray[np.int_]:
    png = base64.b64decode(content["png"], validate=True)
    pixels = np.asarray(Image.open(io.BytesIO(png))).astype(int)
    return np.asarray(pixels @ np.array((1, 256, 256 * 256)))


def test_a_model_without_maps_gives_none() -> None:
    assert segment_maps(result_of(TWO)) == {}


@pytest.mark.parametrize("name", ["panoptic", "semantic"])
def test_a_model_gives_the_map_that_it_has(name: str) -> None:
    found = replace(TWO, **{name: getattr(TWO_OF_ALL, name)})
    assert list(segment_maps(result_of(found))) == [name]


def test_things_and_stuff_of_a_panoptic_map_have_ids_that_do_not_clash() -> None:
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


def test_the_api_page_says_how_to_read_a_map(repo_root: Path) -> None:
    page = (repo_root / "docs" / "api.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n([^`]*segments_info[^`]*)^```", page, re.MULTILINE)
    names: dict[str, Any] = {"answer": segment_maps(result_of(TWO_OF_ALL))}
    exec(code, names)
    assert TWO_OF_ALL.panoptic is not None
    np.testing.assert_array_equal(names["ids"], TWO_OF_ALL.panoptic.ids)
    np.testing.assert_array_equal(names["sky"], TWO_OF_ALL.panoptic.ids == 2)


def test_a_semantic_map_has_a_segment_for_each_class_that_is_there() -> None:
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


def test_a_map_of_no_segments_is_a_png_of_zeros() -> None:
    found = replace(NOTHING, panoptic=Panoptic(np.zeros((40, 30), dtype=np.int32), ()))
    content = segment_maps(result_of(found))["panoptic"]
    assert content["segments_info"] == []
    np.testing.assert_array_equal(ids_of(content), np.zeros((40, 30)))


def test_a_segment_without_pixels_is_none_of_the_map() -> None:
    ids = np.full(SIZE_HW, 2, dtype=np.int32)
    segments = (Segment(1, 0, is_thing=True, score=0.5), Segment(2, 3, is_thing=False))
    content = segment_maps(result_of(replace(TWO, panoptic=Panoptic(ids, segments))))["panoptic"]
    assert [info["id"] for info in content["segments_info"]] == [2]


def test_a_model_of_stuff_alone_has_class_indices_as_category_ids() -> None:
    model = replace(MODEL, class_names=())
    found = replace(NOTHING, size_hw=SIZE_HW, semantic=TWO_OF_ALL.semantic)
    content = segment_maps(result_of(found, model=model))["semantic"]
    assert [info["category_id"] for info in content["segments_info"]] == [0, 1, 3]


def test_a_map_of_more_classes_than_names_is_not_answered_wrongly() -> None:
    semantic = np.full(SIZE_HW, len(MODEL.stuff_names), dtype=np.int32)
    with pytest.raises(IndexError):
        segment_maps(result_of(replace(TWO, semantic=semantic)))
