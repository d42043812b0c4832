"""CondInst: a small network per instance computes its mask (Tian et al. 2020).

BoxInst (Tian et al. 2021) trains the same network without masks.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.config import ModelConfig
from d2serve.model.fcos import FCOS, Detected, positions
from d2serve.model.fcos_config import CondInstConfig, MaskBranchConfig
from d2serve.model.fpn import Backbone
from d2serve.model.layers import Conv2d
from d2serve.model.network import Network
from d2serve.model.preprocessing import to_device
from d2serve.model.structures import (
    ImageMaskOutput,
    ModelOutput,
    SizeHW,
    image_indices,
    rescale,
)

# Instances whose masks are computed at a time, to bound the memory of their hidden layers.
INSTANCES_AT_ONCE = 16


class MaskBranch(nn.Module):
    """Features for all masks: the sum of several levels, then convolutions."""

    def __init__(self, backbone: Backbone, config: MaskBranchConfig) -> None:
        super().__init__()
        self.in_features = config.in_features
        channels, norm = config.channels, config.norm
        self.refine = nn.ModuleList(
            Conv2d(backbone.channels[name], channels, 3, norm=norm, relu=True)
            for name in config.in_features
        )
        self.tower = nn.Sequential(
            *(Conv2d(channels, channels, 3, norm=norm, relu=True) for _ in range(config.num_convs)),
            nn.Conv2d(channels, config.out_channels, 1),
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """By name Float[N, C, H/s, W/s] -> Float32[N, out_channels, H/s, W/s], finest s."""
        finest, *coarser = (
            layer(features[name]) for layer, name in zip(self.refine, self.in_features, strict=True)
        )
        for level in coarser:
            finest = finest + upsample_aligned(level, finest.shape[-1] // level.shape[-1])
        output: Tensor = self.tower(finest)
        return output.float()


class Controller(nn.Conv2d):
    """A 3x3 convolution that is evaluated at single pixels only."""

    def at(self, maps: Sequence[Tensor], levels: Tensor, images: Tensor, pixels: Tensor) -> Tensor:
        """Evaluate at N pixels.

        Args:
            maps: for each level Float[B, C, H, W].
            levels, images, pixels: Int64[N] index of the level, image and pixel in its map.

        Returns:
            Float32[N, out_channels].
        """
        # At every level, because a selection of rows would wait for a GPU.
        patches = self.weight.new_zeros((len(levels), self.in_channels, 3, 3))
        for level, features in enumerate(maps):
            own = _patches(features, images, pixels).to(patches.dtype)
            patches = own.where((levels == level)[:, None, None, None], patches)
        return F.linear(patches.flatten(1), self.weight.flatten(1), self.bias)


def _patches(features: Tensor, images: Tensor, pixels: Tensor) -> Tensor:
    """Float[M, C, 3, 3]: the neighbours of M pixels of Float[B, C, H, W], 0 outside of the map.

    Pixels outside give any values.
    """
    height, width = features.shape[-2:]
    steps = torch.arange(-1, 2, device=pixels.device)
    rows, columns = (pixels // width)[:, None] + steps, (pixels % width)[:, None] + steps
    exists_down = (rows >= 0) & (rows < height)
    exists = exists_down[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    found = features.permute(0, 2, 3, 1)[images[:, None, None], rows[:, :, None], columns[:, None]]
    return found.where(exists[..., None], 0.0).permute(0, 3, 1, 2)


class CondInst(Network):
    """FCOS, and for each of its detections a mask of the whole image."""

    def __init__(self, config: ModelConfig, family: CondInstConfig) -> None:
        super().__init__(config)
        self.family = family
        self.proposal_generator = FCOS(self.backbone, family.fcos)
        self.mask_branch = MaskBranch(self.backbone, family.branch)
        stride = self.backbone.strides[family.branch.in_features[0]]
        self.mask_head = DynamicMaskHead(family, stride)
        channels = self.backbone.channels[family.fcos.in_features[0]]
        self.controller = Controller(channels, self.mask_head.num_parameters, 3, padding=1)

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        detected = self.proposal_generator(features)
        instances = detected.instances
        images = image_indices(instances.counts, instances.boxes.device)
        parameters = self.controller.at(detected.hidden, detected.levels, images, detected.pixels)
        branch = self.mask_branch(features)
        centres = self._centres(detected)
        scaled = rescale(instances, sizes_hw, original_sizes_hw).by_image()
        counts = list(instances.counts)
        columns = (each.split(counts) for each in (parameters, centres, detected.levels))
        masks = [self.mask_head(image, *own) for image, *own in zip(branch, *columns, strict=True)]
        stride = self.family.mask_stride
        return [
            ModelOutput(
                image,
                image_masks=ImageMaskOutput(
                    probabilities,
                    (probabilities.shape[1] * stride, probabilities.shape[2] * stride),
                    size_hw,
                    original_hw,
                ),
            )
            for image, probabilities, size_hw, original_hw in zip(
                scaled, masks, sizes_hw, original_sizes_hw, strict=True
            )
        ]

    def _centres(self, detected: Detected) -> Tensor:
        """Float32[N, 2]: x and y of the pixels that predicted the instances, in input pixels."""
        strides = self.proposal_generator.strides
        shapes = [
            (hidden.shape[-1], stride)
            for hidden, stride in zip(detected.hidden, strides, strict=True)
        ]
        table = to_device(torch.tensor(shapes), detected.levels.device)
        width, stride = table[detected.levels].unbind(dim=1)
        return torch.stack(positions(detected.pixels, width, stride), dim=1)


class DynamicMaskHead(nn.Module):
    """1x1 convolutions whose weights are different for each instance."""

    def __init__(self, config: CondInstConfig, branch_stride: int) -> None:
        super().__init__()
        self.scales = config.position_scales
        self.branch_stride = branch_stride
        self.upsampling = branch_stride // config.mask_stride
        inputs = config.branch.out_channels + (2 if self.scales else 0)
        hidden = [config.channels] * (config.num_layers - 1)
        self.shapes = list(zip([*hidden, 1], [inputs, *hidden], strict=True))
        # All weights precede all biases.
        self.sizes = [rows * columns for rows, columns in self.shapes]
        self.sizes += [rows for rows, _ in self.shapes]
        self.num_parameters = sum(self.sizes)

    def forward(
        self, branch: Tensor, parameters: Tensor, centres: Tensor, levels: Tensor
    ) -> Tensor:
        """Predict the masks of one image.

        Args:
            branch: Float32[C, h, w] of the mask branch.
            parameters: Float32[N, num_parameters] of the controller.
            centres: Float32[N, 2] x, y of the instances in input pixels.
            levels: Int64[N] indices of their levels.

        Returns:
            Float32[N, H, W], probabilities in 0..1 at every pixel of `mask_stride`.
        """
        height, width = branch.shape[1:]
        empty = branch.new_zeros((0, height * self.upsampling, width * self.upsampling))
        masks = [empty]
        rows = (parameters, centres, levels)
        for own in zip(*(each.split(INSTANCES_AT_ONCE) for each in rows), strict=True):
            inputs = self._inputs(branch, *own[1:])
            logits = self._layers(inputs, own[0]).view(-1, 1, height, width)
            masks.append(upsample_aligned(logits, self.upsampling)[:, 0].sigmoid())
        return torch.cat(masks)

    def _inputs(self, branch: Tensor, centres: Tensor, levels: Tensor) -> Tensor:
        """Float32[M, C, h * w]: positions relative to each instance, if any, and the branch."""
        shared = branch.flatten(1).expand(len(levels), -1, -1)
        if not self.scales:
            return shared
        width, pixels = branch.shape[2], torch.arange(shared.shape[2], device=branch.device)
        grid = torch.stack(positions(pixels, width, self.branch_stride))
        scales = to_device(torch.tensor(self.scales, dtype=torch.float32), branch.device)
        relative = (centres[:, :, None] - grid) / scales[levels][:, None, None]
        return torch.cat((relative, shared), dim=1)

    def _layers(self, inputs: Tensor, parameters: Tensor) -> Tensor:
        """Float32[M, C, P] -> Float32[M, 1, P]."""
        parts = parameters.split(self.sizes, dim=1)
        count = len(self.shapes)
        hidden = inputs
        for index, (weights, biases) in enumerate(zip(parts[:count], parts[count:], strict=True)):
            hidden = F.relu_(hidden) if index else hidden
            matrices = weights.unflatten(1, self.shapes[index])
            hidden = torch.baddbmm(biases[:, :, None], matrices, hidden)
        return hidden


def upsample_aligned(values: Tensor, factor: int) -> Tensor:
    """Interpolate so that each pixel becomes pixel `factor // 2` of its square of pixels.

    Args:
        values: Float[N, C, H, W].
        factor: pixels per pixel.

    Returns:
        Float[N, C, factor * H, factor * W]; values at the border extend outwards.
    """
    if factor == 1:
        return values
    height, width = (factor * side for side in values.shape[-2:])
    framed = F.pad(values, (0, 1, 0, 1), mode="replicate")
    sides = (height + 1, width + 1)
    fine = F.interpolate(framed, sides, mode="bilinear", align_corners=True)
    shift = factor // 2
    return F.pad(fine, (shift, 0, shift, 0), mode="replicate")[..., :height, :width]
