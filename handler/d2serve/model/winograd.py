"""3x3 convolutions by Winograd's minimal filtering along the columns (Lavin and Gray 2016).

F(4, 3) computes four rows of the output from six rows of the input with six products instead of
twelve. A product is a 1x3 convolution, which oneDNN computes at the speed of other convolutions;
before and after it, rows are added. Filtering along both axes would save half of the products
again, but small matrix products and the arrangement of the tiles take as long.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.layers import apply_norm, norm_and_relu

# Bytes of a component in a step; the components of a step stay in the CPU's caches.
STEP_BYTES = 1 << 20
# Height and width of a component in a typical step.
STEP_HW = (4, 100)
# With fewer channels, adding the rows takes longer than the multiplications saved.
MIN_CHANNELS = {torch.float32: 64, torch.bfloat16: 256}
# The component that the output transform adds to each row with weight 1; it takes the bias.
BIAS_COMPONENT = 1


@dataclass(frozen=True)
class Filtering:
    """Winograd's algorithm for a number of output rows, `tile`.

    Attributes:
        tile: rows of the output that are computed together.
        kernel: [tile + 2, 3], from the rows of a kernel to its components.
        split: from tile + 2 rows of the input to as many components.
        join: writes the rows of the output, from components that it overwrites.
    """

    tile: int
    kernel: tuple[tuple[float, float, float], ...]
    split: Callable[[Sequence[Tensor]], Sequence[Tensor]]
    join: Callable[[Sequence[Tensor], Sequence[Tensor]], None]


def _split_4(rows: Sequence[Tensor]) -> Sequence[Tensor]:
    """For the points 0, 1, -1, 2, -2 and infinity; 4 d0 - 5 d2 + d4 for 0, of rows d0 to d5."""
    even, odd = rows[4] - rows[2], rows[3] - rows[1]
    zero, last = rows[0] - rows[2], rows[5] - rows[3]
    one, inner = torch.sub(rows[4], rows[2], alpha=4), torch.sub(rows[3], rows[1], alpha=4)
    return (
        torch.add(even, zero, alpha=4, out=zero),
        one + inner,
        one.sub_(inner),
        torch.add(even, odd, alpha=2),
        even.sub_(odd, alpha=2),
        last.sub_(odd, alpha=4),
    )


def _join_4(rows: Sequence[Tensor], components: Sequence[Tensor]) -> None:
    zero, one, minus_one, two, minus_two, last = components
    one_sum, two_sum = one + minus_one, two + minus_two
    one_difference, two_difference = one.sub_(minus_one), two.sub_(minus_two)
    _add(rows[0], zero.add_(one_sum), two_sum)
    _add(rows[1], one_difference, two_difference, 2)
    _add(rows[2], one_sum, two_sum, 4)
    _add(rows[3], one_difference.add_(last), two_difference, 8)


def _split_2(rows: Sequence[Tensor]) -> Sequence[Tensor]:
    """For the points 0, 1, -1 and infinity."""
    return rows[0] - rows[2], rows[1] + rows[2], rows[2] - rows[1], rows[1] - rows[3]


def _join_2(rows: Sequence[Tensor], components: Sequence[Tensor]) -> None:
    zero, one, minus_one, last = components
    _add(rows[0], zero.add_(one), minus_one)
    _add(rows[1], one.sub_(minus_one), last, -1)


def _add(output: Tensor, first: Tensor, second: Tensor, factor: int = 1) -> None:
    """Write first + factor * second, without the rows below the image."""
    count = output.shape[1]
    torch.add(first[:, :count], second[:, :count], alpha=factor, out=output)


FOUR_ROWS = Filtering(
    4,
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    _split_4,
    _join_4,
)
TWO_ROWS = Filtering(
    2, ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)), _split_2, _join_2
)
# The factors of FOUR_ROWS would amplify the rounding of bfloat16.
FILTERINGS = {torch.float32: FOUR_ROWS, torch.bfloat16: TWO_ROWS}


def is_eligible(convolution: nn.Conv2d) -> bool:
    """Return whether Winograd's algorithm applies to a convolution and is faster."""
    dtype = convolution.weight.dtype
    return (
        convolution.kernel_size == (3, 3)
        and convolution.stride == (1, 1)
        and convolution.padding == (1, 1)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
        and dtype in FILTERINGS
        and min(convolution.in_channels, convolution.out_channels) >= MIN_CHANNELS[dtype]
        and not (dtype is torch.bfloat16 and has_matrix_unit())
    )


def has_matrix_unit() -> bool:
    """Return whether this CPU has AMX, whose products in bfloat16 take less time than additions."""
    # Private: other versions may lack it.
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return probe is None or bool(probe())


class WinogradConv2d(nn.Module):
    """Replaces a 3x3 convolution on a CPU.

    It holds the transformed kernel, which is twice the size of the kernel in float32 and 4/3 of it
    in bfloat16, and no parameters.

    Args:
        convolution: in float32 or bfloat16.
        pack: replaces the 1x3 convolution of a component.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        pack: Callable[[nn.Conv2d], nn.Module] = lambda component: component,
    ) -> None:
        super().__init__()
        self.norm, self.relu = norm_and_relu(convolution)
        self.out_channels = convolution.out_channels
        self.filtering = FILTERINGS[convolution.weight.dtype]
        # A tuple, so that they are not saved, moved or converted.
        self.products = tuple(pack(each) for each in make_components(convolution, self.filtering))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """Float[N, in_channels, H, W] -> Float[N, out_channels, H, W], channels last."""
        relu = self.relu and self.norm is None
        output = self._convolve(input.permute(0, 2, 3, 1), relu).permute(0, 3, 1, 2)
        return output if self.norm is None else apply_norm(output, self.norm, self.relu)

    def add_relu(self, input: Tensor, other: Tensor) -> Tensor:  # noqa: A002, torch names it so
        """See `Conv2d.add_relu`."""
        return F.relu_(self(input).add_(other))

    def _convolve(self, images: Tensor, relu: bool) -> Tensor:
        """Float[N, H, W, in_channels] -> contiguous Float[N, H, W, out_channels]."""
        count, height, width, channels = images.shape
        output = images.new_empty(count, height, width, self.out_channels)
        tile = self.filtering.tile
        row_bytes = width * max(channels, self.out_channels) * images.element_size()
        for chosen, top, bottom in split_into_strips(count, height, tile, row_bytes):
            components = self.filtering.split(extract_rows(images[chosen], top, bottom, tile))
            strip = output[chosen, top:bottom]
            products = self._multiply(components)
            self.filtering.join([strip[:, row::tile] for row in range(tile)], products)
            if relu:
                F.relu_(strip)
        return output

    def _multiply(self, components: Sequence[Tensor]) -> list[Tensor]:
        """Float[N, rows, W, in_channels] each -> Float[N, rows, W, out_channels] each."""
        pairs = zip(self.products, components, strict=True)
        return [
            product(component.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            for product, component in pairs
        ]


def make_components(convolution: nn.Conv2d, filtering: Filtering) -> Iterator[nn.Conv2d]:
    """The 1x3 convolutions of the components of a kernel."""
    weight = convolution.weight.detach()
    transform = torch.tensor(filtering.kernel, dtype=torch.float64)
    kernels = torch.einsum("ai,ocij->aocj", transform, weight.double()).to(weight.dtype)
    for index, kernel in enumerate(kernels):
        with torch.device("meta"):  # avoids random initialization
            component = nn.Conv2d(
                convolution.in_channels, len(kernel), (1, 3), padding=(0, 1), bias=False
            )
        component.weight = nn.Parameter(
            kernel[:, :, None].contiguous(memory_format=torch.channels_last), requires_grad=False
        )
        if index == BIAS_COMPONENT:
            component.bias = convolution.bias
        yield component


def split_into_strips(
    count: int, height: int, tile: int, row_bytes: int
) -> Iterator[tuple[slice, int, int]]:
    """Divide a batch into steps of about STEP_BYTES: whole images, or rows of one image.

    Args:
        count: number of images.
        height: of each image, in pixels.
        tile: rows of pixels that are computed together.
        row_bytes: bytes of a row of pixels.

    Yields:
        A slice of the images, the first row of pixels, and the row after the last one.
    """
    rows = -(-height // tile)
    rows_per_step = max(1, STEP_BYTES // row_bytes)
    images_per_step = max(1, rows_per_step // rows)
    # Strips of an image are about equally high.
    rows_per_step = -(-rows // -(-rows // rows_per_step))
    for first in range(0, count, images_per_step):
        for row in range(0, rows, rows_per_step):
            bottom = min(height, (row + rows_per_step) * tile)
            yield slice(first, first + images_per_step), row * tile, bottom


def extract_rows(images: Tensor, top: int, bottom: int, tile: int) -> list[Tensor]:
    """The input rows of the tiles in rows `top`..`bottom`, with zeros above and below the images.

    Args:
        images: Float[N, H, W, C].
        top: a multiple of `tile`.
        bottom: a multiple of `tile`, or H.
        tile: rows of an output tile.

    Returns:
        For each of the tile + 2 input rows of a tile, that row of all tiles: Float[N, tiles, W, C].
    """
    height, last = images.shape[1], top + (-(-(bottom - top) // tile)) * tile + 1
    strip = images[:, max(top - 1, 0) : last]
    padding = (max(1 - top, 0), max(last - height, 0))
    if any(padding):
        strip = F.pad(strip, (0, 0, 0, 0, *padding))
    return [strip[:, row : row + strip.shape[1] - tile - 1 : tile] for row in range(tile + 2)]
