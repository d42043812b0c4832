"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.layers import epilogue, normalised

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


# With fewer, moving the patches takes longer than the multiplications saved.
LEAST_CHANNELS = 256
# The transforms for the points 0, 1, -1, 2, -2 and infinity: of input, kernel and output.
INPUT_TRANSFORM = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
KERNEL_TRANSFORM = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
OUTPUT_TRANSFORM = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)
# The output transform adds this component to each pixel as it is.
CONSTANT = PATCH + 1


def pays(convolution: nn.Conv2d) -> bool:
    """Whether a convolution can be computed so, and faster."""
    return (
        convolution.kernel_size == (3, 3)
        and convolution.stride == (1, 1)
        and convolution.padding == (1, 1)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.weight.dtype == torch.float32
        and min(convolution.in_channels, convolution.out_channels) >= LEAST_CHANNELS
    )


class WinogradConv2d(nn.Module):
    """In the place of a 3x3 convolution on a CPU; without parameters, as the kernel is transformed.

    The transformed kernel takes four times the memory of the kernel.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.norm, self.relu = epilogue(convolution)
        # Plain attributes, as nothing saves, moves or converts what was made for a CPU.
        self.kernel = transform_kernel(convolution.weight.detach())
        self.bias = None if convolution.bias is None else convolution.bias.detach()
        self.patches_to_components = squared(INPUT_TRANSFORM)
        self.components_to_tiles = squared(OUTPUT_TRANSFORM)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float32[N, in_channels, H, W] -> Float32[N, out_channels, H, W], channels last."""
        rectify = self.relu and self.norm is None
        output = self._convolve(input.permute(0, 2, 3, 1), rectify).permute(0, 3, 1, 2)
        return output if self.norm is None else normalised(output, self.norm, self.relu)

    def add_relu(self, input: Tensor, other: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `Conv2d.add_relu`."""
        return F.relu_(self(input).add_(other))

    def _convolve(self, images: Tensor, rectify: bool) -> Tensor:
        """Float32[N, H, W, in_channels] -> contiguous Float32[N, H, W, out_channels]."""
        count, height, width, _ = images.shape
        output = images.new_empty(count, height, width, self.kernel.shape[2])
        for some, top, bottom in strips(count, height, width):
            tiles = self._filter(patches(images[some], top, bottom))
            if rectify:
                F.relu_(tiles)
            put_tiles(tiles, output[some, top:bottom])
        return output

    def _filter(self, inputs: Tensor) -> Tensor:
        """Float32[6, 6, N, rows, columns, in_channels] -> Float32[4, 4, N, rows, columns, out]."""
        *_, count, rows, columns, channels = inputs.shape
        components = self.patches_to_components @ inputs.reshape(PATCH * PATCH, -1)
        products = torch.bmm(components.view(PATCH * PATCH, -1, channels), self.kernel)
        if self.bias is not None:
            products[CONSTANT] += self.bias
        tiles = self.components_to_tiles @ products.view(PATCH * PATCH, -1)
        return tiles.view(TILE, TILE, count, rows, columns, -1)


def transform_kernel(weight: Tensor) -> Tensor:
    """Float32[out, in, 3, 3] -> Float32[36, in, out]."""
    transform = torch.tensor(KERNEL_TRANSFORM, dtype=torch.float64)
    components = torch.einsum("ai,ocij,bj->abco", transform, weight.double(), transform)
    return components.flatten(0, 1).float().contiguous()


def squared(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    """A transform of rows as one of rows and columns: [m, n] -> Float32[m * m, n * n]."""
    matrix = torch.tensor(transform)
    return torch.kron(matrix, matrix).contiguous()
