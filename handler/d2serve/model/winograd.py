"""3x3 convolutions by Winograd's minimal filtering along the columns (Lavin and Gray 2016).

F(4, 3) computes four rows of the output from six rows of the input with six products instead of
twelve. A product is a 1x3 convolution, which oneDNN computes at the speed of other convolutions;
before and after it, rows are added. Filtering along both axes would save half of the products
again, but small matrix products and the arrangement of the tiles take as long.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.layers import apply_norm, norm_and_relu

# Rows of the output that are computed together.
TILE = 4
# From the rows of a kernel to its components, for the points 0, 1, -1, 2, -2 and infinity.
KERNEL_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
# The component that the output transform adds to each row with weight 1; it takes the bias.
BIAS_COMPONENT = 1
# Bytes of a component in a step; the components of a step stay in the CPU's caches.
STEP_BYTES = 1 << 20
# Height and width of a component in a typical step.
STEP_HW = (4, 100)
# With fewer channels, adding the rows takes longer than the multiplications saved.
MIN_CHANNELS = {torch.float32: 64, torch.bfloat16: 256}


def is_eligible(convolution: nn.Conv2d) -> bool:
    """Return whether Winograd's algorithm applies to a convolution and is faster."""
    dtype = convolution.weight.dtype
    return (
        convolution.kernel_size == (3, 3)
        and convolution.stride == (1, 1)
        and convolution.padding == (1, 1)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
        and dtype in MIN_CHANNELS
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

    It holds the transformed kernel, which is twice the size of the kernel, and no parameters.

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
        # A tuple, so that they are not saved, moved or converted.
        self.products = tuple(pack(each) for each in make_components(convolution))

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
        row_bytes = width * max(channels, self.out_channels) * images.element_size()
        for chosen, top, bottom in split_into_strips(count, height, row_bytes):
            components = transform_input(extract_rows(images[chosen], top, bottom))
            strip = output[chosen, top:bottom]
            products = self._multiply(components)
            write_output([strip[:, row::TILE] for row in range(TILE)], products)
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


def make_components(convolution: nn.Conv2d) -> Iterator[nn.Conv2d]:
    """The 1x3 convolutions of the components of a kernel."""
    weight = convolution.weight.detach()
    transform = torch.tensor(KERNEL_TRANSFORM, dtype=torch.float64)
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


def transform_input(rows: Sequence[Tensor]) -> Sequence[Tensor]:
    """Compute the components of TILE + 2 rows of the input, such as 4 d0 - 5 d2 + d4 for the point
    0, of rows d0 to d5."""
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


def write_output(rows: Sequence[Tensor], components: Sequence[Tensor]) -> None:
    """Write the rows of the output, from components that it overwrites."""
    zero, one, minus_one, two, minus_two, last = components
    one_sum, two_sum = one + minus_one, two + minus_two
    one_difference, two_difference = one.sub_(minus_one), two.sub_(minus_two)
    _add(rows[0], zero.add_(one_sum), two_sum)
    _add(rows[1], one_difference, two_difference, 2)
    _add(rows[2], one_sum, two_sum, 4)
    _add(rows[3], one_difference.add_(last), two_difference, 8)


def _add(output: Tensor, first: Tensor, second: Tensor, factor: int = 1) -> None:
    """Write first + factor * second, without the rows below the image."""
    count = output.shape[1]
    torch.add(first[:, :count], second[:, :count], alpha=factor, out=output)


def split_into_strips(count: int, height: int, row_bytes: int) -> Iterator[tuple[slice, int, int]]:
    """Divide a batch into steps of about STEP_BYTES: whole images, or rows of one image.

    Args:
        count: number of images.
        height: of each image, in pixels.
        row_bytes: bytes of a row of pixels.

    Yields:
        A slice of the images, the first row of pixels, and the row after the last one.
    """
    rows = -(-height // TILE)
    rows_per_step = max(1, STEP_BYTES // row_bytes)
    images_per_step = max(1, rows_per_step // rows)
    # Strips of an image are about equally high.
    rows_per_step = -(-rows // -(-rows // rows_per_step))
    for first in range(0, count, images_per_step):
        for row in range(0, rows, rows_per_step):
            bottom = min(height, (row + rows_per_step) * TILE)
            yield slice(first, first + images_per_step), row * TILE, bottom


def extract_rows(images: Tensor, top: int, bottom: int) -> list[Tensor]:
    """The input rows of the tiles in rows `top`..`bottom`, with zeros above and below the images.

    Args:
        images: Float[N, H, W, C].
        top: a multiple of TILE.
        bottom: a multiple of TILE, or H.

    Returns:
        For each of the TILE + 2 input rows of a tile, that row of all tiles: Float[N, tiles, W, C].
    """
    height, last = images.shape[1], top + (-(-(bottom - top) // TILE)) * TILE + 1
    strip = images[:, max(top - 1, 0) : last]
    padding = (max(1 - top, 0), max(last - height, 0))
    if any(padding):
        strip = F.pad(strip, (0, 0, 0, 0, *padding))
    return [strip[:, row : row + strip.shape[1] - TILE - 1 : TILE] for row in range(TILE + 2)]
