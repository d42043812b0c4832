"""Part labels and surface coordinates of instances (Güler et al. 2018, DensePose)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

# Part label 0..255 (0 is the background), then U and V in 0..255 of their range 0..1.
IUV: TypeAlias = npt.NDArray[np.uint8]
CHANNELS = 3


@dataclass(frozen=True, eq=False)
class SurfaceMap:
    """The part and the surface coordinates of each pixel of an instance's box.

    Attributes:
        x, y: left column and top row of the box in the image.
        iuv: UInt8[3, h, w] part label (0 is the background), U and V in 0..255 of their range 0..1,
            both 0 on the background.
    """

    x: int
    y: int
    iuv: IUV

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the box in the image."""
        _, height, width = self.iuv.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    @property
    def box_xywh(self) -> tuple[int, int, int, int]:
        """The left column, the top row, the width and the height of the box."""
        _, height, width = self.iuv.shape
        return self.x, self.y, width, height


class Surfaces(Protocol):
    """The surface maps of an image's instances, each computed when it is requested."""

    def __len__(self) -> int: ...

    def select(self, indices: npt.NDArray[np.intp]) -> "Surfaces":
        """The maps at these indices."""

    def surface_map(self, index: int, box_xyxy: npt.NDArray[np.float32]) -> SurfaceMap:
        """The map of one instance, whose box is Float32[4] in pixels."""


@dataclass(frozen=True, eq=False)
class StoredSurfaces:
    """Surface maps that are pixels already, as a client receives them."""

    maps: tuple[SurfaceMap, ...]

    def __len__(self) -> int:
        return len(self.maps)

    def select(self, indices: npt.NDArray[np.intp]) -> "StoredSurfaces":
        """See `Surfaces`."""
        return StoredSurfaces(tuple(self.maps[index] for index in indices))

    def surface_map(self, index: int, box_xyxy: npt.NDArray[np.float32]) -> SurfaceMap:
        """See `Surfaces`; the box does not matter."""
        del box_xyxy
        return self.maps[index]


@dataclass(frozen=True, eq=False)
class ChartOutputs:
    """A network's output relative to each box, whose size does not depend on the image's.

    Maps are computed as `densepose.converters` and `quantize_densepose_chart_result` do: logits and
    coordinates are scaled bilinearly by `upscale`, then to the pixels of the box; a pixel with a
    body belongs to the part with the highest logit, and U and V are those of its part's chart.

    Attributes:
        values: Float32[N, K + 3 * C, S, S], K logits of the coarse segmentation, the background
            first, then C logits of the parts, U and V of each part. Part 0 is the background. With
            `confidence_floor`, the confidences of the coarse and of the part logits follow as two
            more channels.
        coarse: K.
        upscale: factor of the first scaling.
        confidence_floor: lowest factor of confidences, with which logits are multiplied between
            both scalings; None without confidences.
    """

    values: npt.NDArray[np.float32]
    coarse: int
    upscale: int
    confidence_floor: float | None = None

    def __len__(self) -> int:
        return len(self.values)

    def select(self, indices: npt.NDArray[np.intp]) -> "ChartOutputs":
        """See `Surfaces`."""
        return ChartOutputs(self.values[indices], self.coarse, self.upscale, self.confidence_floor)

    def surface_map(self, index: int, box_xyxy: npt.NDArray[np.float32]) -> SurfaceMap:
        """See `Surfaces`; the pixels are those of the project's `make_int_box`."""
        x, y = (int(corner) for corner in box_xyxy[:2])
        width, height = (max(int(side), 1) for side in box_xyxy[2:] - box_xyxy[:2])
        values = self.values[index]
        parts = (len(values) - self.coarse) // CHANNELS
        ends = np.cumsum([self.coarse, parts, parts, parts])
        coarse, fine, u, v, confidences = np.split(values, ends)
        if self.confidence_floor is not None:
            coarse, fine = (
                self._scaled(logits) * (_softplus(self._scaled(one)) + self.confidence_floor)
                for logits, one in ((coarse, confidences[:1]), (fine, confidences[1:]))
            )
        else:
            coarse, fine = self._scaled(coarse), self._scaled(fine)
        size_wh = width, height
        labels = np.where(_highest(coarse, size_wh) > 0, _highest(fine, size_wh), np.uint8(0))
        coordinates = np.zeros((2, height, width), np.float32)
        for part in range(1, parts):
            pixels = labels == part
            if pixels.any():
                for coordinate, chart in zip(coordinates, (u[part], v[part]), strict=True):
                    [scaled] = self._scaled(chart[None])
                    np.copyto(coordinate, _resized(scaled, size_wh), where=pixels)
        return SurfaceMap(x, y, np.concatenate((labels[None], _quantized(coordinates))))

    def _scaled(self, charts: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        side = charts.shape[-1] * self.upscale
        return np.stack([_resized(chart, (side, side)) for chart in charts])


def _resized(chart: npt.NDArray[np.float32], size_wh: tuple[int, int]) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.resize(chart, size_wh, interpolation=cv2.INTER_LINEAR), np.float32)


def _highest(charts: npt.NDArray[np.float32], size_wh: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """UInt8[h, w]: the chart with the highest value in each pixel, the first of equal ones."""
    best = _resized(charts[0], size_wh)
    labels = np.zeros(best.shape, np.uint8)
    for index, chart in enumerate(charts[1:], start=1):
        values = _resized(chart, size_wh)
        labels[values > best] = index
        np.maximum(best, values, out=best)
    return labels


def _softplus(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.logaddexp(np.float32(0), values)


def _quantized(coordinates: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    # Unlike clip, they replace NaN.
    bounded = np.fmin(np.fmax(coordinates * np.float32(255), np.float32(0)), np.float32(255))
    return bounded.astype(np.uint8)


def surface_image(
    maps: Iterable[SurfaceMap], size_hw: tuple[int, int]
) -> tuple[IUV, npt.NDArray[np.int32]]:
    """Combine the maps of an image's instances; where several have a part, the first one counts.

    Returns:
        UInt8[3, H, W] part, U and V, and Int32[H, W] the position of each pixel's map, counted from
        1; 0 for the background.
    """
    iuv = np.zeros((CHANNELS, *size_hw), np.uint8)
    owners = np.zeros(size_hw, np.int32)
    for position, surface in enumerate(maps, start=1):
        rows, columns = surface.window
        window = owners[rows, columns]
        is_free = (window == 0) & (surface.iuv[0] > 0)
        np.copyto(window, np.int32(position), where=is_free)
        np.copyto(iuv[:, rows, columns], surface.iuv, where=is_free)
    return iuv, owners
