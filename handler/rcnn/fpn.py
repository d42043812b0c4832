"""Feature pyramid network (Lin et al. 2017; `detectron2.modeling.backbone.fpn`)."""

import torch.nn.functional as F
from torch import Tensor, nn

from handler.rcnn.config import FPNConfig
from handler.rcnn.layers import Conv2d
from handler.rcnn.resnet import ResNet

STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
SIZE_DIVISIBILITY = 32


class FPN(nn.Module):
    """Levels p2 to p5 from the stages res2 to res5, and p6 as every second pixel of p5."""

    def __init__(self, bottom_up: ResNet, config: FPNConfig) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        self.stages = [int(name.removeprefix("res")) for name in config.in_features]
        self.average = config.fuse_type == "avg"
        for stage in self.stages:
            in_channels = bottom_up.out_channels[f"res{stage}"]
            self.add_module(f"fpn_lateral{stage}", Conv2d(in_channels, config.out_channels, 1))
            self.add_module(
                f"fpn_output{stage}",
                Conv2d(config.out_channels, config.out_channels, 3, padding=1),
            )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float[N, 3, H, W], H and W multiples of 32 -> Float[N, C, H/s, W/s] for each level."""
        stages = self.bottom_up(images)
        levels: dict[str, Tensor] = {}
        above: Tensor | None = None
        for stage in reversed(self.stages):
            fused = self.get_submodule(f"fpn_lateral{stage}")(stages[f"res{stage}"])
            if above is not None:
                fused = fused + F.interpolate(above, scale_factor=2.0, mode="nearest")
                fused = fused / 2 if self.average else fused
            levels[f"p{stage}"] = self.get_submodule(f"fpn_output{stage}")(fused)
            above = fused
        levels["p6"] = F.max_pool2d(levels["p5"], kernel_size=1, stride=2)
        return levels
