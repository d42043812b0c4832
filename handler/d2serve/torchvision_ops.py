"""torchvision's compiled operators without its Python package.

Importing the package takes seconds, so only the shared library with the operators is loaded, at
their first use. The names and arguments of these operators are private to torchvision: each is
checked with an example, and replaced by the package's public function if it does not pass.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

Function: TypeAlias = Callable[..., Any]
logger = logging.getLogger(__name__)
# Missing libraries, packages and operators, other arguments and results.
FAILURES = (ImportError, OSError, AttributeError, RuntimeError, TypeError, ValueError)
# Serializes loading of libraries and imports of the package.
_LOADING = threading.Lock()


class Operator:
    """An operator of torchvision, loaded at the first call. Thread-safe.

    Attributes:
        name: in messages.
        sources: return the function, the preferred one first; they may fail.
        check: returns whether a function behaves as the operator; any other may raise FAILURES.
    """

    def __init__(
        self,
        name: str,
        sources: Sequence[Callable[[], Function]],
        check: Callable[[Function], bool],
    ) -> None:
        self.name = name
        self.sources = tuple(sources)
        self.check = check
        self._function: Function | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the operator.

        Raises:
            ImportError: see `load`.
        """
        return self.load()(*arguments)

    def load(self) -> Function:
        """Load the operator unless it is loaded already.

        Raises:
            ImportError: torchvision is not installed, does not match the version of torch, or has
                no such operator.
        """
        if self._function is None:
            with _LOADING:
                if self._function is None:
                    self._function = self._find()
        return self._function

    def _find(self) -> Function:
        problems: list[str] = []
        for source in self.sources:
            function, problem = self._usable(source)
            if function is not None:
                return function
            problems.append(problem)
            logger.warning("torchvision: operator %s is not usable: %s", self.name, problem)
        raise ImportError(
            f"torchvision has no usable operator {self.name} ({'; '.join(problems)}); install the "
            f"torchvision release for torch {torch.__version__}"
        )

    def _usable(self, source: Callable[[], Function]) -> tuple[Function | None, str]:
        try:
            function = source()
            if self.check(function):
                return function, ""
        except FAILURES as error:
            return None, f"{type(error).__name__}: {error}"
        return None, "its result for an example is wrong"


def library_operator(library: str, namespace: str, name: str) -> Callable[[], Function]:
    """A source of an operator: torchvision's shared library, without the package.

    Args:
        library: the file name up to its first dot, such as `_C`.
        namespace: of `torch.ops`.
        name: of the operator.
    """

    def load() -> Function:
        torch.ops.load_library(_path(library))
        function: Function = getattr(getattr(torch.ops, namespace), name)
        return function

    return load


def _path(library: str) -> Path:
    spec = find_spec("torchvision")
    folders = (spec and spec.submodule_search_locations) or ()
    paths = (
        Path(folder) / f"{library}{suffix}" for folder in folders for suffix in EXTENSION_SUFFIXES
    )
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"torchvision is not installed, or contains no library {library}")
    return path


def _public_nms() -> Function:
    from torchvision.ops import nms

    function: Function = nms
    return function


def _suppresses(nms: Function) -> bool:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    kept: list[int] = nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist()
    return kept == [1, 2]


def _public_roi_align() -> Function:
    from torchvision.ops import roi_align

    def pool(
        features: Tensor,
        rois: Tensor,
        scale: float,
        height: int,
        width: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        return roi_align(features, rois, (height, width), scale, sampling_ratio, aligned)

    return pool


def _pools(roi_align: Function) -> bool:
    # With one sample per bin, each bin is the mean of four neighbors.
    features = torch.arange(16.0).view(1, 1, 4, 4)
    rois = torch.tensor([[0.0, 0.0, 0.0, 8.0, 8.0]])
    pooled: list[float] = roi_align(features, rois, 0.5, 2, 2, 1, True).flatten().tolist()
    return pooled == [2.5, 4.5, 10.5, 12.5]


def _public_roi_pool() -> Function:
    from torchvision.ops import roi_pool

    def pool(features: Tensor, rois: Tensor, scale: float, height: int, width: int) -> Any:
        return roi_pool(features, rois, (height, width), scale)

    return pool


def _private_roi_pool() -> Function:
    with_positions = library_operator("_C", "torchvision", "roi_pool")()

    def pool(*arguments: Any) -> Any:
        return with_positions(*arguments)[0]

    return pool


def _takes_maxima(roi_pool: Function) -> bool:
    features = torch.arange(16.0).view(1, 1, 4, 4)
    rois = torch.tensor([[0.0, 0.0, 0.0, 6.0, 6.0]])
    pooled: list[float] = roi_pool(features, rois, 0.5, 2, 2).flatten().tolist()
    return pooled == [5.0, 7.0, 13.0, 15.0]


# Boxes Float[N, 4] xyxy, scores Float[N], maximum IoU -> Int64[K] indices, best first.
NMS = Operator("nms", [library_operator("_C", "torchvision", "nms"), _public_nms], _suppresses)
# Features Float[N, C, H, W], regions Float[R, 5], scale, bins per column and row, samples per bin,
# whether aligned -> Float[R, C, bins, bins].
ROI_ALIGN = Operator(
    "roi_align", [library_operator("_C", "torchvision", "roi_align"), _public_roi_align], _pools
)
# Features Float[N, C, H, W], regions Float[R, 5], scale, bins per column and row ->
# Float[R, C, bins, bins].
ROI_POOL = Operator("roi_pool", [_private_roi_pool, _public_roi_pool], _takes_maxima)
