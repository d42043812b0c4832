"""Detections: the result type shared by all layers."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from d2serve.masks.densepose import IUV, SurfaceMap, Surfaces, surface_image
from d2serve.masks.outlines import encode_outlines
from d2serve.masks.panoptic import Panoptic
from d2serve.masks.paste import MaskRegion, regions
from d2serve.masks.rle import encode_rles
from d2serve.masks.runs import Runs, paste_runs

# UInt8[H, W, 3], RGB, upright, rows from the top.
RGBImage: TypeAlias = npt.NDArray[np.uint8]
# Decimals in JSON: thousandths of a pixel, millionths of a score or of a relative coordinate.
PIXEL_DECIMALS = 3
SCORE_DECIMALS = 6


@dataclass(frozen=True, eq=False)
class Detections:
    """The instances found in one image, best first, and its semantic or panoptic map.

    Attributes:
        size_hw: height and width of the image in pixels.
        boxes_xyxy: Float32[N, 4] x1, y1, x2, y2 in the image's pixels, (0, 0) its top left,
            0 <= x1 < x2 <= W and 0 <= y1 < y2 <= H.
        scores: Float32[N] in 0..1, descending.
        classes: Int64[N] class indices.
        masks: Float32[N, M, M], the probability in 0..1 that a point of the box belongs to the
            instance, over the box's whole extent; None if there are no masks or only `mask_runs`.
            `masks_rle`, `masks_polygons` and `masks_dense` return the masks in the image's pixels.
        mask_runs: the masks as pixels, in place of `masks`, of a network with masks of the whole
            image (Mask2Former, CondInst), or of a result that a server returned.
        mask_scores: Float32[N], the scores times the predicted IoU of each mask with its object,
            not limited to 0..1; None if the model does not predict it (CenterMask2 does).
        keypoints: Float32[N, K, 3] x, y in the image's pixels and score in 0..1; None if the
            model has no keypoints.
        surfaces: the part of the surface and its coordinates at each pixel of an instance's box
            (DensePose), which `surface_maps` and `surface_image` return; None if the model has
            none.
        semantic: Int32[H, W], each pixel's index among the model's stuff classes; None if the
            model has no semantic segmentation.
        panoptic: the panoptic map; None if the model does not combine instances and stuff.
        class_names: the class name of each instance; empty if the names are not known.

    Raises:
        ValueError: a field has another dtype or shape.

    Examples:
        >>> detections = Detections(
        ...     size_hw=(480, 640),
        ...     boxes_xyxy=np.array([[10, 20, 110, 220]], np.float32),
        ...     scores=np.array([0.75], np.float32),
        ...     classes=np.array([1]),
        ...     class_names=("dog",),
        ... )
        >>> len(detections)
        1
        >>> Detections((480, 640), detections.boxes_xyxy, np.zeros(2, np.float32), np.zeros(2, int))
        Traceback (most recent call last):
            ...
        ValueError: boxes_xyxy is float32[1, 4]; expected float32[2, 4]
    """

    size_hw: tuple[int, int]
    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    masks: npt.NDArray[np.float32] | None = None
    mask_runs: Runs | None = None
    mask_scores: npt.NDArray[np.float32] | None = None
    keypoints: npt.NDArray[np.float32] | None = None
    surfaces: Surfaces | None = None
    semantic: npt.NDArray[np.int32] | None = None
    panoptic: Panoptic | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.scores)
        _require("boxes_xyxy", self.boxes_xyxy, np.float32, (count, 4))
        _require("scores", self.scores, np.float32, (count,))
        _require("classes", self.classes, np.int64, (count,))
        if self.masks is not None:
            side = self.masks.shape[-1] if self.masks.ndim else 0
            _require("masks", self.masks, np.float32, (count, side, side))
        if self.mask_runs is not None:
            _require_runs(self.mask_runs, count, self.size_hw)
        if self.mask_scores is not None:
            _require("mask_scores", self.mask_scores, np.float32, (count,))
        if self.keypoints is not None:
            points = self.keypoints.shape[1] if self.keypoints.ndim > 1 else 0
            _require("keypoints", self.keypoints, np.float32, (count, points, 3))
        if self.semantic is not None:
            _require("semantic", self.semantic, np.int32, self.size_hw)
        if self.panoptic is not None:
            _require("panoptic.ids", self.panoptic.ids, np.int32, self.size_hw)
        _require_length("surfaces", "maps", self.surfaces, count)
        _require_length("class_names", "names", self.class_names or None, count)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def has_masks(self) -> bool:
        """True if each instance has a mask."""
        return self.masks is not None or self.mask_runs is not None

    def without_masks(self) -> "Detections":
        """The same instances without their masks."""
        return replace(self, masks=None, mask_runs=None)

    def select(self, indices: npt.ArrayLike) -> "Detections":
        """The instances at Int[K] ascending indices or of a Bool[N] mask; maps stay unchanged.

        Raises:
            ValueError: the indices are not ascending or out of range, or the mask has another
                length.

        Examples:
            >>> detections = Detections(
            ...     size_hw=(480, 640),
            ...     boxes_xyxy=np.array([[10, 20, 110, 220], [0, 0, 9, 9]], np.float32),
            ...     scores=np.array([0.75, 0.5], np.float32),
            ...     classes=np.array([1, 0]),
            ... )
            >>> detections.select(detections.classes == 0).scores.tolist()
            [0.5]
        """
        indices = _checked_indices(indices, len(self))
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[indices],
            scores=self.scores[indices],
            classes=self.classes[indices],
            masks=None if self.masks is None else self.masks[indices],
            mask_runs=None if self.mask_runs is None else self.mask_runs.select(indices),
            mask_scores=None if self.mask_scores is None else self.mask_scores[indices],
            keypoints=None if self.keypoints is None else self.keypoints[indices],
            surfaces=None if self.surfaces is None else self.surfaces.select(indices),
            class_names=tuple(self.class_names[i] for i in indices) if self.class_names else (),
        )

    def mask_regions(self, indices: Sequence[int] | None = None) -> Iterator[MaskRegion]:
        """Each mask, cropped to the rows and columns that it touches, one at a time.

        Args:
            indices: the instances, in any order; None for all.

        Raises:
            ValueError: there are no masks.
        """
        runs = self._pasted_runs()
        return regions(runs if indices is None else runs.select(indices))

    def surface_maps(self, indices: Iterable[int] | None = None) -> Iterator[SurfaceMap]:
        """The part, U and V at each pixel of the box of each instance, one at a time.

        Args:
            indices: the instances, in any order; None for all.

        Raises:
            ValueError: the model has no DensePose head.

        Examples:
            >>> found = model.predict("people.jpg")[0]  # doctest: +SKIP
            >>> [(each.box_xywh, each.iuv.shape) for each in found.surface_maps()]  # doctest: +SKIP
            [((10, 20, 100, 200), (3, 200, 100))]
        """
        if self.surfaces is None:
            raise ValueError("surfaces is None: the model has no DensePose head, or densepose=none")
        for index in range(len(self)) if indices is None else indices:
            yield self.surfaces.surface_map(index, self.boxes_xyxy[index])

    def surface_image(self) -> tuple[IUV, npt.NDArray[np.int32]]:
        """UInt8[3, H, W] part, U and V of the whole image, and Int32[H, W] instances.

        Where parts of several instances overlap, the pixel is the best one's. Its instance is the
        index + 1; 0 for the background.

        Raises:
            ValueError: see `surface_maps`.
        """
        return surface_image(self.surface_maps(), self.size_hw)

    def masks_dense(self) -> npt.NDArray[np.bool_]:
        """Bool[N, H, W]: the masks in the whole image; needs N x H x W bytes.

        Raises:
            ValueError: there are no masks.

        Examples:
            >>> square = Detections(
            ...     size_hw=(3, 4),
            ...     boxes_xyxy=np.array([[1, 1, 3, 3]], np.float32),
            ...     scores=np.array([0.75], np.float32),
            ...     classes=np.array([0]),
            ...     masks=np.ones((1, 28, 28), np.float32),
            ... )
            >>> square.masks_dense().astype(int)
            array([[[0, 0, 0, 0],
                    [0, 1, 1, 0],
                    [0, 1, 1, 0]]])
        """
        dense = np.zeros((len(self), *self.size_hw), dtype=np.bool_)
        for mask, region in zip(dense, self.mask_regions(), strict=True):
            mask[region.window] = region.pixels
        return dense

    def masks_rle(self) -> list[dict[str, object]]:
        """Each mask as COCO's compressed RLE, as `pycocotools.mask` reads it.

        Raises:
            ValueError: there are no masks.

        Examples:
            >>> square = Detections(
            ...     size_hw=(3, 4),
            ...     boxes_xyxy=np.array([[1, 1, 3, 3]], np.float32),
            ...     scores=np.array([0.75], np.float32),
            ...     classes=np.array([0]),
            ...     masks=np.ones((1, 28, 28), np.float32),
            ... )
            >>> square.masks_rle()
            [{'size': [3, 4], 'counts': '42102'}]
        """
        return encode_rles(self._pasted_runs())

    def masks_polygons(self) -> list[list[list[int]]]:
        """Each mask as COCO polygons [[x, y, x, y, ...], ...] in pixels, without holes.

        Raises:
            ValueError: there are no masks.

        Examples:
            >>> square = Detections(
            ...     size_hw=(3, 4),
            ...     boxes_xyxy=np.array([[1, 1, 3, 3]], np.float32),
            ...     scores=np.array([0.75], np.float32),
            ...     classes=np.array([0]),
            ...     masks=np.ones((1, 28, 28), np.float32),
            ... )
            >>> square.masks_polygons()
            [[[1, 1, 1, 3, 3, 3, 3, 1]]]
        """
        return encode_outlines(self._pasted_runs())

    def segmentations(self, mask_format: str) -> list[Any]:
        """`masks_rle` or `masks_polygons`.

        Args:
            mask_format: `rle` or `polygon`.

        Raises:
            ValueError: there are no masks, or the format is unknown.
        """
        if mask_format not in ("rle", "polygon"):
            raise ValueError(f"mask_format is {mask_format!r}; use rle or polygon")
        return self.masks_polygons() if mask_format == "polygon" else self.masks_rle()

    def to_coco(
        self,
        image_id: int | str = 0,
        category_ids: Sequence[int] | None = None,
        mask_format: str = "rle",
    ) -> list[dict[str, Any]]:
        """The instances as COCO results (https://cocodataset.org/#format-results).

        `bbox` is x, y, width, height in pixels; `segmentation`, `mask_score` and `keypoints` (x, y,
        score, ...) are present if the model has them.

        Args:
            image_id: the `image_id` of each result.
            category_ids: the dataset's category of each class index; None for the index itself.
            mask_format: `rle` or `polygon`.

        Raises:
            ValueError: the format is unknown.

        Examples:
            >>> detections = Detections(
            ...     size_hw=(480, 640),
            ...     boxes_xyxy=np.array([[10, 20, 110, 220]], np.float32),
            ...     scores=np.array([0.75], np.float32),
            ...     classes=np.array([1]),
            ... )
            >>> detections.to_coco(image_id=42, category_ids=[17, 18])
            [{'image_id': 42, 'category_id': 18, 'bbox': [10.0, 20.0, 100.0, 200.0], 'score': 0.75}]
        """
        classes: list[int] = self.classes.tolist()
        fields: dict[str, list[Any]] = {
            "category_id": classes if category_ids is None else [category_ids[i] for i in classes],
            "bbox": round_pixels(_xywh(self.boxes_xyxy)),
            "score": round_scores(self.scores),
        }
        if self.has_masks:
            fields["segmentation"] = self.segmentations(mask_format)
        if self.mask_scores is not None:
            fields["mask_score"] = round_scores(self.mask_scores)
        if self.keypoints is not None:
            fields["keypoints"] = _coco_keypoints(self.keypoints)
        return [
            {"image_id": image_id, **dict(zip(fields, values, strict=True))}
            for values in zip(*fields.values(), strict=True)
        ]

    def _pasted_runs(self) -> Runs:
        if self.mask_runs is not None:
            return self.mask_runs
        if self.masks is None:
            raise ValueError("masks is None: the model has no masks, or they were not requested")
        return paste_runs(self.masks, self.boxes_xyxy, self.size_hw)


def round_pixels(values: npt.NDArray[np.floating]) -> list[Any]:
    """Nested lists of the array's shape, rounded to a thousandth of a pixel."""
    return _round(values, PIXEL_DECIMALS)


def round_scores(values: npt.NDArray[np.floating]) -> list[Any]:
    """Nested lists of scores, or of coordinates in 0..1, rounded to a millionth."""
    return _round(values, SCORE_DECIMALS)


def round_keypoints(keypoints: npt.NDArray[np.floating]) -> list[Any]:
    """Nested lists of the shape [..., 3]: x and y rounded as pixels, the score as a score."""
    values = keypoints.astype(np.float64)
    values[..., :2] = values[..., :2].round(PIXEL_DECIMALS)
    values[..., 2] = values[..., 2].round(SCORE_DECIMALS)
    rows: list[Any] = values.tolist()
    return rows


def _round(values: npt.NDArray[np.floating], decimals: int) -> list[Any]:
    # In double precision: a rounded float32 prints with all its digits.
    rows: list[Any] = values.astype(np.float64).round(decimals).tolist()
    return rows


def _xywh(boxes_xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    corners = boxes_xyxy.astype(np.float64)
    return np.hstack((corners[:, :2], corners[:, 2:] - corners[:, :2]))


def _coco_keypoints(keypoints: npt.NDArray[np.float32]) -> list[list[float]]:
    """COCO's keypoints are pixel indices; the center of a pixel is half a pixel further."""
    indices = keypoints.astype(np.float64) - (0.5, 0.5, 0.0)
    return [list(chain.from_iterable(points)) for points in round_keypoints(indices)]


def _checked_indices(given: npt.ArrayLike, count: int) -> npt.NDArray[np.intp]:
    indices = np.asarray(given)
    if indices.dtype == np.bool_:
        if indices.shape != (count,):
            raise ValueError(f"the mask is bool{list(indices.shape)}; expected bool[{count}]")
        return np.flatnonzero(indices)
    if indices.size == 0:
        return np.zeros(0, np.intp)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        received = f"{indices.dtype}{list(indices.shape)}"
        raise ValueError(f"indices is {received}; expected integers[K] or bool[{count}]")
    if indices[0] < 0 or indices[-1] >= count or np.any(np.diff(indices.astype(np.int64)) <= 0):
        raise ValueError(f"indices is {indices.tolist()}; expected ascending, 0 to {count - 1}")
    return indices.astype(np.intp)


def _require_runs(runs: Runs, count: int, size_hw: tuple[int, int]) -> None:
    if len(runs) != count or runs.size_hw != size_hw:
        received = f"{len(runs)} masks of {runs.size_hw[1]}x{runs.size_hw[0]} pixels"
        raise ValueError(f"mask_runs has {received}; expected {count} of {size_hw[1]}x{size_hw[0]}")


def _require_length(name: str, entries: str, values: Sized | None, count: int) -> None:
    if values is not None and len(values) != count:
        raise ValueError(f"{name} has {len(values)} {entries}; expected {count}")


def _require(
    name: str, array: npt.NDArray[np.generic], dtype: type[np.generic], shape: tuple[int, ...]
) -> None:
    expected = f"expected {np.dtype(dtype)}{list(shape)}"
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is a {type(array).__name__}; {expected}")
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype}{list(array.shape)}; {expected}")
