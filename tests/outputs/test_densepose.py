"""Surface maps in responses."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from d2serve.client.results import detections_of as read_detections
from d2serve.errors import PredictionError
from d2serve.masks.densepose import IUV, StoredSurfaces
from d2serve.outputs.arrays import npz_body
from d2serve.outputs.densepose import densepose_objects, draw_surfaces
from d2serve.outputs.formats import coco_results, default_object
from d2serve.outputs.result import filter_detections, json_bytes
from tests.outputs.results import ALL, SURFACES, TWO_OF_ALL, parsed, result_of

FIRST, SECOND = SURFACES.maps


def decoded(text: str) -> IUV:
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    return pixels.transpose(2, 0, 1)


def test_pngs_are_part_u_and_v_of_each_box() -> None:
    first, second = densepose_objects(TWO_OF_ALL)
    assert (first["box"], second["box"]) == ([16, 8, 64, 63], [0, 0, 160, 80])
    np.testing.assert_array_equal(decoded(first["png"]), FIRST.iuv)
    np.testing.assert_array_equal(decoded(second["png"]), SECOND.iuv)


def test_coco_results_have_the_fields_of_the_project() -> None:
    for row, surface in zip(coco_results(result_of(TWO_OF_ALL)), SURFACES.maps, strict=True):
        assert row["densepose"]["shape_chw"] == list(surface.iuv.shape)
        np.testing.assert_array_equal(decoded(row["densepose"]["labels_uv_str"]), surface.iuv)


def test_surfaces_are_left_out_on_request() -> None:
    chosen = filter_detections(TWO_OF_ALL, replace(ALL, densepose="none"))
    assert "densepose" not in default_object(result_of(chosen))
    assert "densepose" not in coco_results(result_of(chosen))[0]
    assert filter_detections(TWO_OF_ALL, ALL).surfaces is not None


def test_there_is_a_map_for_each_instance() -> None:
    with pytest.raises(ValueError, match="surfaces has 1 maps; expected 2"):
        replace(TWO_OF_ALL, surfaces=StoredSurfaces((FIRST,)))
    assert next(TWO_OF_ALL.select([1]).surface_maps()) is SECOND
    with pytest.raises(ValueError, match="surfaces is None"):
        next(replace(TWO_OF_ALL, surfaces=None).surface_maps())


def test_npz_has_the_best_instance_at_each_pixel() -> None:
    arrays = np.load(io.BytesIO(npz_body(result_of(TWO_OF_ALL), max_bytes=1 << 20)))
    expected = SECOND.iuv * (SECOND.iuv[0] > 0)
    owners = np.where(SECOND.iuv[0] > 0, 2, 0)
    is_first = FIRST.iuv[0] > 0
    expected[:, 8:71, 16:80][:, is_first] = FIRST.iuv[:, is_first]
    owners[8:71, 16:80][is_first] = 1
    np.testing.assert_array_equal(arrays["densepose"], expected)
    np.testing.assert_array_equal(arrays["densepose_instances"], owners)


def test_parts_are_tinted_and_the_background_is_not() -> None:
    canvas = np.zeros((80, 160, 3), np.uint8)
    draw_surfaces(canvas, [FIRST])
    window = canvas[FIRST.window]
    is_part = FIRST.iuv[0] > 0
    assert window[is_part].any(axis=1).all()
    assert not window[~is_part].any()
    colors = {tuple(window[FIRST.iuv[0] == part][0]) for part in range(1, 25)}
    assert len(colors) == 24
    window[:] = 0
    assert not canvas.any()


def test_a_client_reads_the_same_maps() -> None:
    content = parsed(_default_json())
    found = read_detections(content, class_count=3)
    for read, sent in zip(found.surface_maps(), SURFACES.maps, strict=True):
        assert read.box_xywh == sent.box_xywh
        np.testing.assert_array_equal(read.iuv, sent.iuv)


@pytest.mark.parametrize("box", [[97, 8, 64, 63], [-1, 8, 64, 63], [16, 18, 64, 63], [16, 8, 9, 9]])
def test_a_client_rejects_a_map_outside_the_image_or_of_another_size(box: list[int]) -> None:
    content = parsed(_default_json())
    content["densepose"][0]["box"] = box
    with pytest.raises(PredictionError, match=r"not inside the image|not a PNG"):
        read_detections(content, class_count=3)


def _default_json() -> bytes:
    return json_bytes(default_object(result_of(replace(TWO_OF_ALL, panoptic=None, semantic=None))))
