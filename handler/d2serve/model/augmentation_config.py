"""Configuration of test-time augmentation."""

from dataclasses import dataclass

from d2serve.model.preprocessing import shortest_edge_size


@dataclass(frozen=True)
class AugmentationConfig:
    """The versions of an image whose results are merged (TEST.AUG of Detectron2).

    Attributes:
        min_sizes: targets of the shorter side in pixels, one or more; 0 keeps the image's size.
        max_size: limit of the longer side in pixels.
        flip: whether each size is flipped horizontally too.
    """

    min_sizes: tuple[int, ...]
    max_size: int
    flip: bool

    @property
    def per_size(self) -> int:
        """Number of versions of each size."""
        return 2 if self.flip else 1

    def resized(self, size_hw: tuple[int, int]) -> list[tuple[int, int]]:
        """Heights and widths that an image of a height and width is resized to.

        Examples:
            >>> AugmentationConfig((400, 800), max_size=1000, flip=True).resized((480, 640))
            [(400, 533), (750, 1000)]
        """
        return [shortest_edge_size(size_hw, side, self.max_size) for side in self.min_sizes]
