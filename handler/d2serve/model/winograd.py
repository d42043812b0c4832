"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016).

An image is divided into output tiles of 4x4 pixels; each depends on an input patch of 6x6. Both are
transformed so that a convolution becomes a product per component.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.layers import apply_norm, norm_and_relu

# Sides in pixels of an output tile and of its input patch.
TILE, PATCH = 4, 6
# Tiles in a step; their data stay in the CPU's caches.
MAX_TILES = 256
# With fewer channels, moving the patches takes longer than the multiplications saved.
MIN_CHANNELS = 256
# The transforms of input, kernel and output, for the points 0, 1, -1, 2, -2 and infinity.
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
# The component that the output transform adds to each pixel with weight 1; it takes the bias.
BIAS_COMPONENT = PATCH + 1


def is_eligible(convolution: nn.Conv2d) -> bool:
    """Return whether Winograd's algorithm applies to a convolution and is faster."""
    return (
        convolution.kernel_size == (3, 3)
        and convolution.stride == (1, 1)
        and convolution.padding == (1, 1)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.weight.dtype == torch.float32
        and min(convolution.in_channels, convolution.out_channels) >= MIN_CHANNELS
    )


class WinogradConv2d(nn.Module):
    """Replaces a 3x3 convolution on a CPU.

    It holds the transformed kernel, four times the size of the kernel, and no parameters.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.norm, self.relu = norm_and_relu(convolution)
        # Plain attributes: they are neither saved nor moved nor converted.
        self.kernel = transform_kernel(convolution.weight.detach())
        self.bias = None if convolution.bias is None else convolution.bias.detach()
        self.input_transform = transform_2d(INPUT_TRANSFORM)
        self.output_transform = transform_2d(OUTPUT_TRANSFORM)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float32[N, in_channels, H, W] -> Float32[N, out_channels, H, W], channels last."""
        relu = self.relu and self.norm is None
        output = self._convolve(input.permute(0, 2, 3, 1), relu).permute(0, 3, 1, 2)
        return output if self.norm is None else apply_norm(output, self.norm, self.relu)

    def add_relu(self, input: Tensor, other: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `Conv2d.add_relu`."""
        return F.relu_(self(input).add_(other))

    def _convolve(self, images: Tensor, relu: bool) -> Tensor:
        """Float32[N, H, W, in_channels] -> contiguous Float32[N, H, W, out_channels]."""
        count, height, width, _ = images.shape
        output = images.new_empty(count, height, width, self.kernel.shape[2])
        for chosen, top, bottom in split_into_strips(count, height, width):
            tiles = self._filter(extract_patches(images[chosen], top, bottom))
            if relu:
                F.relu_(tiles)
            write_tiles(tiles, output[chosen, top:bottom])
        return output

    def _filter(self, patches: Tensor) -> Tensor:
        """Float32[6, 6, N, rows, columns, in_channels] -> Float32[4, 4, N, rows, columns, out]."""
        *_, count, rows, columns, channels = patches.shape
        components = self.input_transform @ patches.reshape(PATCH * PATCH, -1)
        products = torch.bmm(components.view(PATCH * PATCH, -1, channels), self.kernel)
        if self.bias is not None:
            products[BIAS_COMPONENT] += self.bias
        tiles = self.output_transform @ products.view(PATCH * PATCH, -1)
        return tiles.view(TILE, TILE, count, rows, columns, -1)


def transform_kernel(weight: Tensor) -> Tensor:
    """Float32[out, in, 3, 3] -> Float32[36, in, out]."""
    transform = torch.tensor(KERNEL_TRANSFORM, dtype=torch.float64)
    components = torch.einsum("ai,ocij,bj->abco", transform, weight.double(), transform)
    return components.flatten(0, 1).float().contiguous()


def transform_2d(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    """Extend a transform of rows to rows and columns: [m, n] -> Float32[m * m, n * n]."""
    matrix = torch.tensor(transform)
    return torch.kron(matrix, matrix).contiguous()


def split_into_strips(count: int, height: int, width: int) -> Iterator[tuple[slice, int, int]]:
    """Divide a batch into steps of at most MAX_TILES tiles: whole images, or rows of one image.

    Args:
        count: number of images.
        height, width: size of each image, in pixels.

    Yields:
        A slice of the images, the first row of pixels, and the row after the last one.
    """
    rows, columns = -(-height // TILE), -(-width // TILE)
    images_per_step = max(1, MAX_TILES // (rows * columns))
    rows_per_step = max(1, min(rows, MAX_TILES // columns))
    for first in range(0, count, images_per_step):
        for row in range(0, rows, rows_per_step):
            bottom = min(height, (row + rows_per_step) * TILE)
            yield slice(first, first + images_per_step), row * TILE, bottom


def extract_patches(images: Tensor, top: int, bottom: int) -> Tensor:
    """The input patches of the tiles in rows `top`..`bottom`, with zeros around the images.

    Args:
        images: Float32[N, H, W, C].
        top: a multiple of TILE.
        bottom: a multiple of TILE, or H.

    Returns:
        Float32[6, 6, N, tile rows, tile columns, C], a view with overlapping patches.
    """
    _, height, width, channels = images.shape
    rows, columns = -(-(bottom - top) // TILE), -(-width // TILE)
    first, last = top - 1, top + rows * TILE + 1
    inside = images[:, max(first, 0) : min(last, height)]
    padding = (1, columns * TILE + 1 - width, max(-first, 0), max(last - height, 0))
    padded = F.pad(inside, (0, 0, *padding))
    image, row, column, _ = padded.stride()
    return padded.as_strided(
        (PATCH, PATCH, padded.shape[0], rows, columns, channels),
        (row, column, image, TILE * row, TILE * column, 1),
    )


def write_tiles(tiles: Tensor, output: Tensor) -> None:
    """Write Float32[4, 4, N, rows, columns, C] to [N, H, W, C], cropped at right and bottom."""
    pixels = tiles.permute(2, 3, 0, 4, 1, 5)
    for rows, tall in _full_and_partial(output.shape[1]):
        for columns, wide in _full_and_partial(output.shape[2]):
            part = pixels[:, rows, :tall, columns, :wide]
            target = output[:, rows.start * TILE :, columns.start * TILE :]
            target = target[:, : part.shape[1] * tall, : part.shape[3] * wide]
            target.unflatten(1, (-1, tall)).unflatten(3, (-1, wide)).copy_(part)


def _full_and_partial(side: int) -> Iterator[tuple[slice, int]]:
    """Full, then partial tiles along `side` pixels, with the pixels that are used of each."""
    full, rest = divmod(side, TILE)
    if full:
        yield slice(0, full), TILE
    if rest:
        yield slice(full, full + 1), rest
