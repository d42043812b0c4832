"""Networks with queries: a class and a mask, and with some a box, for each of a fixed number."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from d2serve.model.config import ModelConfig
from d2serve.model.fpn import Backbone
from d2serve.model.network import Network
from d2serve.model.preprocessing import padded_size
from d2serve.model.structures import ModelOutput, QueryOutput, SizeHW, no_instances


class QueryNetwork(Network):
    """Queries only; instances and maps are selected from them later, see `QueryOutput`.

    Args:
        config: of the network.
        size_divisibility: sides of padded images are multiples of it.
        build_head: builds a module that predicts from feature maps Float[N, C, H/s, W/s] by name
            class logits Float[N, Q, K], mask logits Float[N, Q, h, w], and boxes Float32[N, Q, 4]
            or None.
    """

    def __init__(
        self,
        config: ModelConfig,
        size_divisibility: int,
        build_head: Callable[[Backbone], nn.Module],
    ) -> None:
        super().__init__(config)
        self.backbone.size_divisibility = size_divisibility
        self.sem_seg_head = build_head(self.backbone)

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        class_logits, masks, boxes = self.sem_seg_head(features)
        heights, widths = zip(*sizes_hw, strict=True)
        padded_hw = padded_size((max(heights), max(widths)), self.backbone.size_divisibility)
        none = no_instances(masks.device)
        boxes = [None] * len(masks) if boxes is None else boxes
        rows = zip(class_logits, masks, sizes_hw, original_sizes_hw, boxes, strict=True)
        return [
            ModelOutput(none, queries=QueryOutput(logits, image, padded_hw, size, original, own))
            for logits, image, size, original, own in rows
        ]
