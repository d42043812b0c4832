"""COCO's run-length encoding of masks (the format of `pycocotools.mask`)."""

import numpy as np
import numpy.typing as npt

from handler.masks.paste import MaskRegion

BITS_PER_CHARACTER = 5
MORE_FOLLOWS = 0x20
FIRST_CHARACTER = 48


def encode_rle(region: MaskRegion, size_hw: tuple[int, int]) -> dict[str, object]:
    """A compressed RLE: {"size": [H, W], "counts": text}, without the picture's full mask."""
    counts = run_lengths(region, size_hw)
    return {"size": list(size_hw), "counts": compress(counts)}


def run_lengths(region: MaskRegion, size_hw: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Int64[R]: lengths of unset and set runs in turn, down the columns, from the top left."""
    height, width = size_hw
    rows, columns = region.pixels.shape
    framed = np.zeros((columns, rows + 2), dtype=np.int8)
    framed[:, 1:-1] = region.pixels.T
    steps = np.diff(framed, axis=1)
    starts, ends = (_positions(steps == step, region, height) for step in (1, -1))
    # A run down to the last row goes on in the next column where that is set from the first row.
    apart = starts[1:] != ends[:-1]
    starts = starts[np.concatenate(([True], apart))] if len(starts) else starts
    ends = ends[np.concatenate((apart, [True]))] if len(ends) else ends
    edges = np.stack((starts, ends), axis=1).ravel()
    counts = np.diff(np.concatenate(([0], edges, [height * width])))
    return counts[:-1] if len(edges) and counts[-1] == 0 else counts


def _positions(
    changes: npt.NDArray[np.bool_], region: MaskRegion, height: int
) -> npt.NDArray[np.int64]:
    columns, rows = np.nonzero(changes)
    return (columns + region.x) * height + rows + region.y


def compress(counts: npt.NDArray[np.int64]) -> str:
    """COCO's text form: differences to the count before last, five bits a character."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    alive = np.ones(len(values), dtype=np.bool_)
    columns = []
    while alive.any():
        bits = values & 0x1F
        values = values >> BITS_PER_CHARACTER
        more = alive & (values != np.where(bits & 0x10, -1, 0))
        columns.append(np.where(alive, bits + FIRST_CHARACTER + MORE_FOLLOWS * more, 0))
        alive = more
    characters = np.stack(columns, axis=1).ravel()
    return characters[characters > 0].astype(np.uint8).tobytes().decode("ascii")
