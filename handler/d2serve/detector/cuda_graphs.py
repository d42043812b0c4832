"""The backbone as CUDA graphs."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from d2serve.model.fpn import Backbone
from d2serve.model.network import Network

logger = logging.getLogger(__name__)
# Each graph keeps its input and its feature maps; all share what lies between.
MOST_GRAPHS = 32
# Before a recording, so that libraries have chosen their algorithms.
RUNS_AHEAD = 3
Features = dict[str, Tensor]
Replay = Callable[[Tensor], Features]


class Recording:
    """What a backbone launches for inputs of one shape.

    Args:
        backbone: on a GPU.
        batch: Float[N, 3, H, W] there.
        pool: memory that recordings share; so features hold until the next replay of any of them.
    """

    def __init__(self, backbone: nn.Module, batch: Tensor, pool: tuple[int, int]) -> None:
        self._input = batch.clone()
        side = torch.cuda.Stream(batch.device)
        side.wait_stream(torch.cuda.current_stream(batch.device))
        with torch.cuda.stream(side):
            for _ in range(RUNS_AHEAD):
                backbone(self._input)
        torch.cuda.current_stream(batch.device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads pin memory for the next pictures meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._features: Features = backbone(self._input)

    def __call__(self, batch: Tensor) -> Features:
        """The features of a batch of that shape."""
        self._input.copy_(batch)
        self._graph.replay()
        return self._features


class GraphedBackbone(nn.Module):
    """In the place of a backbone: records it for each shape that comes.

    Features are valid until the next call. Shapes beyond MOST_GRAPHS run as they would without.

    Args:
        backbone: whose weights stay where they are.
        record: makes a replay for the shape of a batch.

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
        """Feature maps by name from Float[N, 3, H, W]."""
        replay = self._replays.get(batch.shape)
        if replay is None:
            if len(self._replays) == MOST_GRAPHS:
                features: Features = self.backbone(batch)
                return features
            replay = self._replays[batch.shape] = self._record(self.backbone, batch)
        return replay(batch)


def take_graphs(model: Network, device: torch.device) -> None:
    """Replaces a network's backbone, in place; on a CPU it stays, as there is nothing to record."""
    if device.type != "cuda":
        logger.warning("cuda_graphs: there are none on the %s; the setting has no effect", device)
        return
    pool = torch.cuda.graph_pool_handle()
    graphed = GraphedBackbone(model.backbone, lambda net, batch: Recording(net, batch, pool))
    model.add_module("backbone", graphed)
