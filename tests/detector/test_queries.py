"""Instances, pixel classes and panoptic maps from queries, compared with dense computation."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from d2serve.detections import Detections
from d2serve.detector.queries import query_detections
from d2serve.masks import tiles
from d2serve.masks.panoptic import Panoptic
from d2serve.model.mask_former_config import QueryInferenceConfig
from d2serve.model.structures import QueryOutput

NUM_CLASSES, THINGS = 5, (0, 2, 4)
NODES_HW, PADDED_HW, SIZE_HW = (16, 24), (64, 96), (61, 90)
ORIGINALS_HW = [(40, 57), (61, 90), (123, 181)]
ALL = QueryInferenceConfig(
    num_classes=NUM_CLASSES,
    things=THINGS,
    instance=True,
    semantic=True,
    panoptic=True,
    object_mask_threshold=0.8,
    overlap_threshold=0.5,
    max_detections=12,
    confident_pixels_only=True,
    resize_first=True,
)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "MOST_VALUES", 20 * 7 * 50)
    monkeypatch.setattr(tiles, "MOST_COLUMNS", 50)


def sample_queries(original_hw: tuple[int, int]) -> QueryOutput:
    """Twenty queries with blobs as masks, five of them alike, and two without a pixel."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn((1, 20, *NODES_HW), generator=generator)
    masks = F.avg_pool2d(noise, 7, 1, 3)[0] * 60 - 8
    masks[6:9] = masks[5] + 0.3 * masks[6:9]
    masks[3:5] = -4.0
    classes = torch.randn((20, NUM_CLASSES + 1), generator=generator) * 3
    classes[12:16, 1] = 6.0  # one stuff class
    return QueryOutput(classes, masks, PADDED_HW, SIZE_HW, original_hw)


def scale(values: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return F.interpolate(values[None], size_hw, mode="bilinear", align_corners=False)[0]


def crop(values: Tensor) -> Tensor:
    return values[:, : SIZE_HW[0], : SIZE_HW[1]]


def dense_masks(queries: QueryOutput) -> Tensor:
    return scale(crop(scale(queries.mask_logits.float(), PADDED_HW)), queries.original_hw)


def expected_instances(
    queries: QueryOutput, config: QueryInferenceConfig
) -> list[tuple[float, int, npt.NDArray[np.bool_]]]:
    """Score, class and mask of each instance, the best first."""
    masks = dense_masks(queries)
    probabilities = queries.class_logits.float().softmax(-1)
    pairs = [
        (float(probabilities[query, index]), index, masks[query])
        for query in range(len(masks))
        for index in range(NUM_CLASSES)
    ]
    best = sorted(pairs, key=lambda pair: -pair[0])[: config.max_detections]
    found = [
        (score * float(mask[mask > 0].sigmoid().mean()), index, (mask > 0).numpy())
        for score, index, mask in best
        if (index in THINGS or not config.panoptic) and (mask > 0).any()
    ]
    return sorted(found, key=lambda instance: -instance[0])


def expected_classes(queries: QueryOutput, resize_first: bool) -> npt.NDArray[np.int64]:
    weights = queries.class_logits.float().softmax(-1)[:, :-1]
    if resize_first:
        sums = torch.einsum("qc,qhw->chw", weights, dense_masks(queries).sigmoid())
    else:
        padded = scale(queries.mask_logits.float(), PADDED_HW).sigmoid()
        sums = scale(crop(torch.einsum("qc,qhw->chw", weights, padded)), queries.original_hw)
    classes: npt.NDArray[np.int64] = sums.argmax(0).numpy()
    return classes


def expected_panoptic(
    queries: QueryOutput, config: QueryInferenceConfig
) -> tuple[npt.NDArray[np.int32], list[tuple[int, int, bool]]]:
    """The ids of all pixels, and id, class and kind of each segment."""
    ids = np.zeros(queries.original_hw, np.int32)
    segments: list[tuple[int, int, bool]] = []
    scores, labels = queries.class_logits.float().softmax(-1).max(-1)
    kept = [
        query
        for query in range(len(scores))
        if labels[query] != NUM_CLASSES and scores[query] > config.object_mask_threshold
    ]
    if not kept:
        return ids, segments
    masks = dense_masks(queries)[kept].sigmoid().numpy()
    winners = (masks * scores[kept].numpy()[:, None, None]).argmax(0)
    stuff: dict[int, int] = {}
    for place, query in enumerate(kept):
        label, is_set = int(labels[query]), masks[place] >= 0.5
        won = winners == place
        pixels = won & is_set if config.confident_pixels_only else won
        if not (is_set.any() and pixels.any()):
            continue
        if won.sum() / is_set.sum() < config.overlap_threshold:
            continue
        if label in stuff:
            ids[pixels] = stuff[label]
            continue
        segments.append((len(segments) + 1, label, label in THINGS))
        ids[pixels] = len(segments)
        if label not in THINGS:
            stuff[label] = len(segments)
    return ids, segments


def rows(panoptic: Panoptic) -> list[tuple[int, int, bool]]:
    return [(each.id, each.class_index, each.is_thing) for each in panoptic.segments]


def assert_instances(found: Detections, queries: QueryOutput, config: QueryInferenceConfig) -> None:
    expected = expected_instances(queries, config)
    assert found.classes.tolist() == [index for _, index, _ in expected]
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], atol=1e-6)
    np.testing.assert_array_equal(found.masks_dense(), [mask for *_, mask in expected])
    for box, (*_, mask) in zip(found.boxes_xyxy, expected, strict=True):
        y, x = np.nonzero(mask)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


@pytest.mark.parametrize("original_hw", ORIGINALS_HW, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_all_outputs_equal_dense_computation(
    original_hw: tuple[int, int], dtype: torch.dtype
) -> None:
    queries = sample_queries(original_hw)
    queries = replace(
        queries,
        class_logits=queries.class_logits.to(dtype),
        mask_logits=queries.mask_logits.to(dtype),
    )
    found = query_detections(queries, ALL)
    assert_instances(found, queries, ALL)
    assert found.semantic is not None
    assert found.panoptic is not None
    assert (found.semantic == expected_classes(queries, resize_first=True)).mean() > 0.9995
    ids, segments = expected_panoptic(queries, ALL)
    assert rows(found.panoptic) == segments
    assert (found.panoptic.ids == ids).mean() > 0.9995
    for segment in found.panoptic.segments:
        assert (segment.score is not None) == segment.is_thing


def test_things_alone_are_instances_of_a_panoptic_model() -> None:
    queries = sample_queries(ORIGINALS_HW[0])
    config = replace(ALL, panoptic=False, semantic=False)
    found, things = query_detections(queries, config), query_detections(queries, ALL)
    assert (found.semantic, found.panoptic) == (None, None)
    assert_instances(found, queries, config)
    assert {*things.classes.tolist()} <= {*THINGS} < {*found.classes.tolist()}


@pytest.mark.parametrize("original_hw", ORIGINALS_HW, ids=str)
def test_class_scores_are_resized_after_their_computation(original_hw: tuple[int, int]) -> None:
    queries = sample_queries(original_hw)
    config = replace(ALL, instance=False, panoptic=False, resize_first=False)
    found = query_detections(queries, config)
    assert (len(found), found.has_masks) == (0, False)
    assert found.semantic is not None
    assert (found.semantic == expected_classes(queries, resize_first=False)).mean() > 0.9995
    if original_hw != SIZE_HW:
        assert (found.semantic != expected_classes(queries, resize_first=True)).any()


@pytest.mark.parametrize("confident", [True, False])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_panoptic_segments_follow_the_rules(confident: bool, overlap: float) -> None:
    queries = sample_queries(ORIGINALS_HW[0])
    config = replace(
        ALL,
        instance=False,
        semantic=False,
        overlap_threshold=overlap,
        confident_pixels_only=confident,
    )
    found = query_detections(queries, config)
    assert found.panoptic is not None
    ids, segments = expected_panoptic(queries, config)
    assert rows(found.panoptic) == segments
    assert (found.panoptic.ids == ids).mean() > 0.9995
    assert len(segments) == {0.0: 7, 0.5: 5, 0.8: 1}[overlap]


def test_a_query_that_wins_uncertain_pixels_only_is_a_segment_of_mask_former() -> None:
    """The first one is certain where the other one is more so, and wins where both are not."""
    masks = torch.full((2, *NODES_HW), -1.0)
    masks[0, :8], masks[1, :8], masks[1, 8:] = 1.0, 5.0, -3.0
    classes = torch.tensor([[9.0, 0, 0, 0, 0, 0], [0, 9.0, 0, 0, 0, 0]])
    queries = QueryOutput(classes, masks, PADDED_HW, SIZE_HW, SIZE_HW)
    for confident, expected in ((True, [1]), (False, [0, 1])):
        config = replace(ALL, overlap_threshold=0.0, confident_pixels_only=confident)
        found = query_detections(queries, config).panoptic
        assert found is not None
        assert [segment.class_index for segment in found.segments] == expected
        assert rows(found) == expected_panoptic(queries, config)[1]


def test_no_query_above_the_thresholds() -> None:
    queries = sample_queries(ORIGINALS_HW[0])
    nothing = replace(queries, mask_logits=torch.full_like(queries.mask_logits, -3.0))
    found = query_detections(nothing, replace(ALL, object_mask_threshold=1.0, max_detections=500))
    assert (len(found), found.masks_rle()) == (0, [])
    assert found.panoptic is not None
    assert found.panoptic.segments == ()
    assert not found.panoptic.ids.any()


DINO = replace(ALL, has_no_object=False, temperature=0.06, object_mask_threshold=0.97)


def boxed_queries(original_hw: tuple[int, int]) -> QueryOutput:
    """The sample queries as those of Mask DINO; some boxes are outside of the image."""
    queries = sample_queries(original_hw)
    boxes = torch.rand((20, 4), generator=torch.Generator().manual_seed(5))
    boxes[6] = torch.tensor([0.99, 0.5, 0.01, 0.2])  # in the padding
    return replace(queries, class_logits=queries.class_logits[:, :NUM_CLASSES], boxes=boxes)


def expected_boxed(
    queries: QueryOutput, config: QueryInferenceConfig
) -> list[tuple[float, int, list[float], bool]]:
    """Score, class, box and whether there is a pixel, of each instance, the best first."""
    assert queries.boxes is not None
    masks, (height, width) = dense_masks(queries), queries.original_hw
    factors = [
        padded / size * original
        for padded, size, original in zip(PADDED_HW, SIZE_HW, queries.original_hw, strict=True)
    ][::-1]
    scores, found = queries.class_logits.sigmoid(), []
    for pair in scores.flatten().argsort(descending=True)[: config.max_detections].tolist():
        query, index = divmod(pair, NUM_CLASSES)
        inside = masks[query] > 0
        mean = float(masks[query][inside].sigmoid().sum() / (inside.sum() + 1e-6))
        x, y, w, h = queries.boxes[query].tolist()
        corners = [(x - w / 2), (y - h / 2), (x + w / 2), (y + h / 2)]
        box = [
            min(max(corner * factors[side % 2], 0), (width, height)[side % 2])
            for side, corner in enumerate(corners)
        ]
        score = float(scores[query, index]) * (mean if config.rate_masks else 1)
        is_kept = box[2] > box[0] and box[3] > box[1] and (score > 0)
        if is_kept and (index in THINGS or not config.panoptic):
            found.append((score, index, box, bool(inside.any())))
    return sorted(found, key=lambda instance: -instance[0])


@pytest.mark.parametrize("original_hw", ORIGINALS_HW, ids=str)
@pytest.mark.parametrize("rate_masks", [True, False])
def test_instances_have_the_boxes_and_scores_of_mask_dino(
    original_hw: tuple[int, int], rate_masks: bool
) -> None:
    queries = boxed_queries(original_hw)
    config = replace(DINO, panoptic=False, max_detections=60, rate_masks=rate_masks)
    found, expected = query_detections(queries, config), expected_boxed(queries, config)
    assert len(expected) < 60
    assert found.classes.tolist() == [index for _, index, *_ in expected]
    np.testing.assert_allclose(found.scores, [score for score, *_ in expected], atol=1e-6)
    np.testing.assert_allclose(found.boxes_xyxy, [box for *_, box, _ in expected], atol=1e-3)
    has_pixels = found.masks_dense().any(axis=(1, 2)).tolist()
    assert has_pixels == [has_pixel for *_, has_pixel in expected]
    assert all(has_pixels) == rate_masks


def test_pixel_classes_and_segments_of_sharpened_scores() -> None:
    queries = boxed_queries(ORIGINALS_HW[2])
    sigmoid = queries.class_logits.sigmoid()
    # The same scores as those of a softmax with "no object", which no pixel has.
    sharp = torch.cat(((sigmoid / DINO.temperature), torch.full((20, 1), -99.0)), dim=1)
    is_kept = sigmoid.amax(1) > DINO.object_mask_threshold
    equal = replace(queries, class_logits=sharp, boxes=None)
    segments = replace(equal, class_logits=sharp[is_kept], mask_logits=queries.mask_logits[is_kept])
    config = replace(DINO, instance=False)
    softmax = replace(config, has_no_object=True, temperature=0.0, object_mask_threshold=0.0)
    found = query_detections(queries, config)
    assert 0 < int(is_kept.sum()) < 20
    assert found.semantic is not None
    assert found.panoptic is not None
    assert (found.semantic == expected_classes(equal, resize_first=True)).mean() > 0.9995
    ids, rows_of_segments = expected_panoptic(segments, softmax)
    assert rows(found.panoptic) == rows_of_segments
    assert len(rows_of_segments) > 2
    assert (found.panoptic.ids == ids).mean() > 0.9995
    plain = query_detections(queries, replace(config, temperature=0.0))
    assert plain.semantic is not None
    assert (plain.semantic != found.semantic).any()
