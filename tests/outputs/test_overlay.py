"""Detections drawn on their image."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from d2serve.building.label_font import write_labels
from d2serve.detections import Detections
from d2serve.errors import RequestError
from d2serve.masks.panoptic import Panoptic, Segment
from d2serve.metadata import ClassNames, Labels
from d2serve.outputs.drawing import instance_color, stuff_color
from d2serve.outputs.labels import drawn_name, read_labels
from d2serve.outputs.overlay import draw_detections, drawn_segments, overlay_body
from tests.bodies import noise
from tests.fakes import detections_of, metadata_of
from tests.outputs.results import TWO, TWO_OF_ALL

MODEL = replace(metadata_of("ball"), stuff_names=("things", "grass"))
SIZE_HW = (120, 200)
NO_DETECTIONS = detections_of(SIZE_HW, [], mask_side=None)
BOX = (60.0, 50.0, 120.0, 100.0)


def full_masks(size_hw: tuple[int, int], boxes: Sequence[Sequence[float]]) -> Detections:
    """Detections whose masks fill their boxes."""
    found = detections_of(size_hw, boxes, mask_side=None)
    return Detections(
        size_hw=size_hw,
        boxes_xyxy=found.boxes_xyxy,
        scores=found.scores,
        classes=found.classes,
        masks=np.ones((len(boxes), 28, 28), dtype=np.float32),
    )


def decoded(body: bytes) -> npt.NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(body)))


@pytest.mark.parametrize(
    ("media_type", "file_format"), [("image/jpeg", "JPEG"), ("image/png", "PNG")]
)
@pytest.mark.parametrize("count", [0, 1], ids=["no-detections", "one-detection"])
def test_overlay_has_the_images_size_and_the_requested_format(
    media_type: str, file_format: str, count: int
) -> None:
    found = full_masks(SIZE_HW, [BOX] * count)
    body = overlay_body(noise(*SIZE_HW, 3), found, MODEL, media_type)
    image = Image.open(io.BytesIO(body))
    assert image.format == file_format
    assert (image.mode, image.size) == ("RGB", (200, 120))


def test_png_without_detections_equals_the_image() -> None:
    image = noise(*SIZE_HW, 3)
    body = overlay_body(image, full_masks(SIZE_HW, []), MODEL, "image/png")
    np.testing.assert_array_equal(decoded(body), image)


def test_jpeg_without_detections_approximates_the_image() -> None:
    image = np.full((*SIZE_HW, 3), (10, 120, 240), dtype=np.uint8)
    body = overlay_body(image, full_masks(SIZE_HW, []), MODEL, "image/jpeg")
    assert np.abs(decoded(body).astype(int) - image).max() <= 6


def test_only_the_mask_and_its_surroundings_change() -> None:
    image = np.full((*SIZE_HW, 3), 127, dtype=np.uint8)
    drawn = decoded(overlay_body(image, full_masks(SIZE_HW, [BOX]), MODEL, "image/png"))
    changed = (drawn != image).any(axis=2)
    assert changed[50:100, 60:120].all()
    label_and_outline = np.zeros(SIZE_HW, dtype=np.bool_)
    label_and_outline[30:102, 58:122] = True
    assert not changed[~label_and_outline].any()


def test_tint_blends_image_and_instance_color() -> None:
    image = np.full((*SIZE_HW, 3), 100, dtype=np.uint8)
    drawn = draw_detections(image, full_masks(SIZE_HW, [BOX]), MODEL)
    expected = 100 * 0.55 + np.array(instance_color(0)) * 0.45
    assert np.abs(drawn[80, 90] - expected).max() <= 1


def test_only_mask_pixels_are_tinted() -> None:
    masks = np.zeros((1, 28, 28), dtype=np.float32)
    masks[:, :14] = 1
    upper_half = Detections(
        size_hw=SIZE_HW,
        boxes_xyxy=np.array([BOX], dtype=np.float32),
        scores=np.ones(1, dtype=np.float32),
        classes=np.zeros(1, dtype=np.int64),
        masks=masks,
    )
    image = noise(*SIZE_HW, 3)
    changed = (draw_detections(image, upper_half, MODEL) != image).any(axis=2)
    assert changed[55:70, 65:115].mean() > 0.95
    assert not changed[80:95, 65:115].any()


def test_without_masks_only_box_and_label_are_drawn() -> None:
    image = np.full((*SIZE_HW, 3), 127, dtype=np.uint8)
    found = detections_of(SIZE_HW, [BOX], mask_side=None)
    drawn = draw_detections(image, found, MODEL)
    np.testing.assert_array_equal(drawn[51:99, 61:119], image[51:99, 61:119])
    edges = [drawn[50:100, 60], drawn[50:100, 119], drawn[50, 60:120], drawn[99, 60:120]]
    for edge in edges:
        assert (edge == instance_color(0)).all()


def test_input_image_is_not_modified() -> None:
    image = noise(*SIZE_HW, 3)
    before = image.copy()
    draw_detections(image, full_masks(SIZE_HW, [BOX, (0, 0, 200, 120)]), MODEL)
    np.testing.assert_array_equal(image, before)


def test_read_only_image_is_accepted() -> None:
    image = noise(*SIZE_HW, 3)
    image.flags.writeable = False
    drawn = draw_detections(image, full_masks(SIZE_HW, [BOX]), MODEL)
    assert (drawn != image).any()


def test_best_detection_is_on_top() -> None:
    same_place = full_masks(SIZE_HW, [BOX, BOX])
    drawn = draw_detections(np.zeros((*SIZE_HW, 3), np.uint8), same_place, MODEL)
    assert (drawn[99, 62:118] == instance_color(0)).all()


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((60, 0, 120, 60), id="at-the-top"),
        pytest.param((150, 0, 200, 60), id="in-the-top-right-corner"),
        pytest.param((0, 60, 40, 120), id="at-the-left"),
        pytest.param((199, 60, 200, 120), id="thin-at-the-right"),
        pytest.param((60, 118, 120, 120), id="flat-at-the-bottom"),
    ],
)
def test_label_is_inside_the_image(box: tuple[int, int, int, int]) -> None:
    black = np.zeros((*SIZE_HW, 3), dtype=np.uint8)
    at_the_edge = draw_detections(black, detections_of(SIZE_HW, [box], mask_side=None), MODEL)
    inside = draw_detections(
        black, detections_of(SIZE_HW, [(60, 60, 120, 110)], mask_side=None), MODEL
    )
    assert count_text_pixels(at_the_edge) == count_text_pixels(inside) > 0


def test_labels_of_the_same_box_do_not_cover_each_other() -> None:
    black = np.zeros((*SIZE_HW, 3), dtype=np.uint8)
    twice = detections_of(SIZE_HW, [BOX, BOX], mask_side=None)
    drawn = draw_detections(black, twice, MODEL)
    areas = [int((drawn == instance_color(index)).all(axis=2).sum()) for index in (0, 1)]
    assert min(areas) > 400


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("圆", id="Chinese"),
        pytest.param("треугольник", id="Cyrillic"),
        pytest.param("مثلث", id="Arabic"),
        pytest.param("🐶", id="emoji"),
        pytest.param("a\nb\x00", id="control-characters"),
        pytest.param("\ud800", id="half-a-surrogate-pair"),
        pytest.param("long " * 1_000_000, id="five-million-characters"),
    ],
)
@pytest.mark.parametrize("is_stuff", [False, True], ids=["thing", "stuff"])
def test_names_without_labels_are_drawn_in_ascii(name: str, is_stuff: bool) -> None:
    """The same pixels as those of the index, or of what is left in ASCII."""
    image = np.full((*SIZE_HW, 3), 100, dtype=np.uint8)
    found = panoptic_halves() if is_stuff else detections_of(SIZE_HW, [BOX], mask_side=None)
    shown = drawn_name(name, 1 if is_stuff else 0, Labels())
    given, expected = (
        draw_detections(
            image, found, replace(MODEL, class_names=(each,), stuff_names=("things", each))
        )
        for each in (name, shown)
    )
    assert shown.isascii()
    np.testing.assert_array_equal(given, expected)


def test_labels_of_the_archive_are_drawn_with_its_font(tmp_path: Path) -> None:
    image = np.full((*SIZE_HW, 3), 100, dtype=np.uint8)
    found = detections_of(SIZE_HW, [(60, 50, 120, 100)], mask_side=None)
    write_labels(tmp_path, ClassNames(("圆", "三")))
    labels = read_labels(tmp_path)
    drawings = [
        draw_detections(image, found, replace(MODEL, class_names=(name,), labels=labels)).tobytes()
        for name in ("圆", "三", "class 0")
    ]
    assert len(set(drawings)) == 3


def count_text_pixels(drawn: npt.NDArray[np.uint8]) -> int:
    """Label pixels of one box on black: neither black nor in the box's color."""
    is_box = (drawn == instance_color(0)).all(axis=2)
    return int((drawn.any(axis=2) & ~is_box).sum())


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((40.2, 5, 40.7, 100), id="thinner-than-a-pixel"),
        pytest.param((5, 30.45, 150, 30.55), id="flatter-than-a-pixel"),
        pytest.param((199.9, 119.9, 200, 120), id="single-pixel-in-the-last-corner"),
        pytest.param((0, 0, 0.1, 0.1), id="single-pixel-in-the-first-corner"),
        pytest.param((10, 10, 11, 11), id="one-pixel"),
        pytest.param((0, 0, 200, 120), id="the-whole-image"),
    ],
)
def test_boxes_of_extreme_sizes_are_drawn(box: tuple[float, float, float, float]) -> None:
    image = noise(*SIZE_HW, 3)
    drawn = decoded(overlay_body(image, full_masks(SIZE_HW, [box]), MODEL, "image/png"))
    assert drawn.shape == image.shape
    assert (drawn != image).any()


def test_image_of_one_pixel_is_drawn() -> None:
    drawn = draw_detections(noise(1, 1, 3), full_masks((1, 1), [(0, 0, 1, 1)]), MODEL)
    assert drawn.shape == (1, 1, 3)


def test_things_of_a_panoptic_map_are_drawn_as_instances() -> None:
    image = np.full((*SIZE_HW, 3), 100, dtype=np.uint8)
    drawn = draw_detections(image, panoptic_halves(), MODEL)
    expected = 100 * 0.55 + np.array(stuff_color(1)) * 0.45
    assert np.abs(drawn[100, 30] - expected).max() <= 1
    assert (drawn[100, 93:] == 100).all()


def test_things_of_a_model_without_instances_are_drawn_from_its_map() -> None:
    image = np.full((*SIZE_HW, 3), 100, dtype=np.uint8)
    found = replace(panoptic_halves(), masks=None)
    drawn = draw_detections(image, found, MODEL)
    expected = 100 * 0.55 + np.array(instance_color(3)) * 0.45
    assert np.abs(drawn[100, 150] - expected).max() <= 1
    without_score = Segment(3, 0, is_thing=True)
    assert found.panoptic is not None
    segments = (without_score, *found.panoptic.segments[1:])
    unscored = replace(found, panoptic=replace(found.panoptic, segments=segments))
    assert (draw_detections(image, unscored, MODEL) != drawn).any()


def test_stuff_has_an_outline_and_a_name() -> None:
    image = np.full((*SIZE_HW, 3), 100, dtype=np.uint8)
    found = panoptic_halves()
    wide = draw_detections(image, found, MODEL)
    assert (wide[20:80, 0] == stuff_color(1)).all()
    assert (wide == 255).all(axis=2).any()
    assert found.panoptic is not None
    found.panoptic.ids[:, 10:] = 0
    narrow = draw_detections(image, found, MODEL)
    assert (narrow[20:80, 0] == stuff_color(1)).all()
    assert not (narrow == 255).all(axis=2).any()


def test_semantic_map_is_tinted_completely() -> None:
    image = np.full((*SIZE_HW, 3), 100, dtype=np.uint8)
    semantic = np.zeros(SIZE_HW, dtype=np.int32)
    semantic[:, 100:] = 1
    drawn = draw_detections(image, replace(NO_DETECTIONS, semantic=semantic), MODEL)
    for column, class_index in ((30, 0), (170, 1)):
        expected = 100 * 0.55 + np.array(stuff_color(class_index)) * 0.45
        assert np.abs(drawn[100, column] - expected).max() <= 1


def test_stuff_is_below_instances() -> None:
    image = np.full((*SIZE_HW, 3), 100, dtype=np.uint8)
    found = replace(full_masks(SIZE_HW, [BOX]), panoptic=panoptic_halves().panoptic)
    drawn = draw_detections(image, found, MODEL)
    assert (drawn[99, 62:118] == instance_color(0)).all()
    under = draw_detections(image, panoptic_halves(), MODEL)
    over = under[80, 62] * 0.55 + np.array(instance_color(0)) * 0.45
    assert np.abs(drawn[80, 62] - over).max() <= 1


def test_keypoints_are_above_masks_with_the_best_on_top() -> None:
    same_place = full_masks(SIZE_HW, [BOX, BOX])
    people = np.zeros((2, 17, 3), dtype=np.float32)
    people[:, 5], people[:, 7] = (70, 75, 0.9), (110, 95, 0.9)
    drawn = draw_detections(
        np.zeros((*SIZE_HW, 3), np.uint8), replace(same_place, keypoints=people), MODEL
    )
    assert (drawn[75, 70] > 250).all()
    assert (drawn[85, 90] == instance_color(0)).all()


def test_stuff_without_a_name_is_an_error() -> None:
    semantic = np.full(SIZE_HW, len(MODEL.stuff_names), dtype=np.int32)
    with pytest.raises(IndexError):
        draw_detections(noise(*SIZE_HW, 3), replace(NO_DETECTIONS, semantic=semantic), MODEL)


def panoptic_halves() -> Detections:
    """No instances; stuff 1 in the left half of the map, a thing in the right half."""
    ids = np.full(SIZE_HW, 7, dtype=np.int32)
    ids[:, 90:] = 3
    segments = (Segment(3, 0, is_thing=True, score=0.9), Segment(7, 1, is_thing=False))
    return replace(full_masks(SIZE_HW, []), panoptic=Panoptic(ids, segments))


def test_image_too_long_for_a_jpeg_is_a_406() -> None:
    size_hw = (1, 65_501)
    image = np.zeros((*size_hw, 3), dtype=np.uint8)
    nothing = detections_of(size_hw, [])
    with pytest.raises(RequestError, match="65500") as raised:
        overlay_body(image, nothing, MODEL, "image/jpeg")
    assert (raised.value.status, "image/png" in raised.value.hint) == (406, True)
    assert overlay_body(image, nothing, MODEL, "image/png")


def classes_of(found: Detections) -> list[int]:
    return [segment.class_index for segment, _ in drawn_segments(found)]


def test_instances_have_no_stuff() -> None:
    assert classes_of(TWO) == []


def test_stuff_of_a_panoptic_map_excludes_things() -> None:
    [(segment, region)] = drawn_segments(TWO_OF_ALL)
    assert segment.class_index == 1
    assert TWO_OF_ALL.panoptic is not None
    expected = TWO_OF_ALL.panoptic.ids == 2
    np.testing.assert_array_equal(region.full(TWO_OF_ALL.size_hw), expected)


def test_semantic_map_has_all_classes() -> None:
    found = replace(TWO_OF_ALL, panoptic=None)
    assert classes_of(found) == [0, 1, 3]
    assert found.semantic is not None
    for segment, region in drawn_segments(found):
        expected = found.semantic == segment.class_index
        np.testing.assert_array_equal(region.full(found.size_hw), expected)
