"""Images cut into tiles, and the patches of input that a 3x3 convolution makes them from.

Images are [N, H, W, C] here: the channels of a pixel lie together.
"""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

# Sides in pixels: a tile's, and that of the input that it depends on.
TILE, PATCH = 4, 6
# As much as stays in the caches while it is worked on.
TILES_AT_ONCE = 256


def strips(count: int, height: int, width: int) -> Iterator[tuple[slice, int, int]]:
    """What to work on at once: some images, and from which row to which; all of an image or one's.

    Args:
        count: of the images.
        height, width: of each, in pixels.
    """
    rows, columns = -(-height // TILE), -(-width // TILE)
    images_at_once = max(1, TILES_AT_ONCE // (rows * columns))
    rows_at_once = max(1, min(rows, TILES_AT_ONCE // columns))
    for first in range(0, count, images_at_once):
        for row in range(0, rows, rows_at_once):
            bottom = min(height, (row + rows_at_once) * TILE)
            yield slice(first, first + images_at_once), row * TILE, bottom


def patches(images: Tensor, top: int, bottom: int) -> Tensor:
    """The inputs of the tiles from row `top` to row `bottom`, with zeros around the images.

    Args:
        images: Float32[N, H, W, C].
        top: a multiple of the tile's side.
        bottom: likewise, or H.

    Returns:
        Float32[6, 6, N, rows of tiles, columns of tiles, C], a view in which patches overlap.
    """
    _, height, width, channels = images.shape
    rows, columns = -(-(bottom - top) // TILE), -(-width // TILE)
    first, last = top - 1, top + rows * TILE + 1
    inside = images[:, max(first, 0) : min(last, height)]
    around = (1, columns * TILE + 1 - width, max(-first, 0), max(last - height, 0))
    padded = F.pad(inside, (0, 0, *around))
    image, row, column, _ = padded.stride()
    return padded.as_strided(
        (PATCH, PATCH, padded.shape[0], rows, columns, channels),
        (row, column, image, TILE * row, TILE * column, 1),
    )


def put_tiles(tiles: Tensor, output: Tensor) -> None:
    """Float32[4, 4, N, rows, columns, C] into [N, H, W, C], without what lies beyond the edges."""
    pixels = tiles.permute(2, 3, 0, 4, 1, 5)
    for rows, tall in spans(output.shape[1]):
        for columns, wide in spans(output.shape[2]):
            part = pixels[:, rows, :tall, columns, :wide]
            place = output[:, rows.start * TILE :, columns.start * TILE :]
            place = place[:, : part.shape[1] * tall, : part.shape[3] * wide]
            place.unflatten(1, (-1, tall)).unflatten(3, (-1, wide)).copy_(part)


def spans(side: int) -> Iterator[tuple[slice, int]]:
    """The tiles along a side of so many pixels, each with what of it counts: all, then the rest."""
    whole, rest = divmod(side, TILE)
    if whole:
        yield slice(0, whole), TILE
    if rest:
        yield slice(whole, whole + 1), rest
