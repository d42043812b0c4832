"""Run the backbone as CUDA graphs."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from d2serve.model.fpn import Backbone
from d2serve.model.network import Network

logger = logging.getLogger(__name__)
# Each graph keeps its input and its feature maps; all graphs share the memory in between.
MAX_GRAPHS = 32
# Runs before a recording, in which libraries choose their algorithms.
RUNS_BEFORE_RECORDING = 3
Features = dict[str, Tensor]
Replay = Callable[[Tensor], Features]


def enable_cuda_graphs(model: Network, device: torch.device) -> None:
    """Replace a network's backbone in place with a `GraphedBackbone`; no effect on a CPU."""
    if device.type != "cuda":
        logger.warning("the setting cuda_graphs has no effect: the device is the %s", device)
        return
    pool = torch.cuda.graph_pool_handle()
    graphed = GraphedBackbone(model.backbone, lambda net, batch: Recording(net, batch, pool))
    model.add_module("backbone", graphed)


class GraphedBackbone(nn.Module):
    """A backbone that is recorded once for each input shape, and replayed.

    Features are valid until the next call. Shapes beyond MAX_GRAPHS run without a graph.

    Args:
        backbone: the backbone; its weights stay in place.
        record: records the backbone for the shape of a batch.

    Attributes:
        size_divisibility, square_size: the backbone's.
    """

    def __init__(self, backbone: Backbone, record: Callable[[nn.Module, Tensor], Replay]) -> None:
        super().__init__()
        self.backbone = backbone
        self.size_divisibility = backbone.size_divisibility
        self.square_size = backbone.square_size
        self._record = record
        self._replays: dict[torch.Size, Replay] = {}

    def forward(self, batch: Tensor) -> Features:
        """Compute feature maps by name from Float[N, 3, H, W]."""
        replay = self._replays.get(batch.shape)
        if replay is None:
            if len(self._replays) == MAX_GRAPHS:
                features: Features = self.backbone(batch)
                return features
            replay = self._replays[batch.shape] = self._record(self.backbone, batch)
        return replay(batch)


class Recording:
    """The CUDA graph of a backbone for one input shape.

    Args:
        backbone: on a GPU.
        batch: Float[N, 3, H, W] on the same GPU.
        pool: memory that all recordings share: features are valid until the next replay of any of
            them.
    """

    def __init__(self, backbone: nn.Module, batch: Tensor, pool: tuple[int, int]) -> None:
        self._input = batch.clone()
        side = torch.cuda.Stream(batch.device)
        side.wait_stream(torch.cuda.current_stream(batch.device))
        with torch.cuda.stream(side):
            for _ in range(RUNS_BEFORE_RECORDING):
                backbone(self._input)
        torch.cuda.current_stream(batch.device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads pin memory for the next images at the same time.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._features: Features = backbone(self._input)

    def __call__(self, batch: Tensor) -> Features:
        """Compute the features of a batch of the recorded shape."""
        self._input.copy_(batch)
        self._graph.replay()
        return self._features
