"""Region proposals alone (`detectron2.modeling.meta_arch.rcnn.ProposalNetwork`)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from handler.rcnn.config.model import ModelConfig, ProposalNetworkConfig
from handler.rcnn.instances import Found, Instances, SizeHW, rescale
from handler.rcnn.network import Network
from handler.rcnn.rpn import RPN, Proposals


class ProposalNetwork(Network):
    """Boxes that may hold an object, all of one class; the score is their objectness."""

    def __init__(self, config: ModelConfig, family: ProposalNetworkConfig) -> None:
        super().__init__(config)
        self.proposal_generator = RPN(self.backbone, family.rpn)

    def find(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[Found]:
        """See `Network.find`."""
        proposals = self.proposal_generator(features, sizes_hw)
        scaled = rescale(_as_instances(proposals), sizes_hw, original_sizes_hw)
        return [Found(image) for image in scaled.by_image()]


def _as_instances(proposals: Proposals) -> Instances:
    classes = torch.zeros(len(proposals.boxes), dtype=torch.int64, device=proposals.boxes.device)
    return Instances(proposals.boxes, proposals.logits.sigmoid(), classes, proposals.counts)
