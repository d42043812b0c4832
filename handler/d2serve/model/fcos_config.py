"""Configuration of FCOS and of CondInst, which predicts a mask for each of its detections."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TowerConfig:
    """3x3 convolutions on every level, the last `num_deformable` of them deformable."""

    num_convs: int
    num_deformable: int = 0


@dataclass(frozen=True)
class FCOSConfig:
    """Dense detection without anchors.

    Attributes:
        share, classes, boxes: the towers: before both others, of class scores, and of boxes and
            their quality.
        norm: of all towers; batch norms have weights of each level.
        use_scale: whether the distances of each level have a factor of their own.
        score_threshold: lowest class score, 0..1, of a candidate.
        threshold_with_quality: whether the threshold is for the class score times the quality.
        topk_per_level: candidates of each level and image that compete with each other.
        max_detections: highest number of detections per image.
    """

    in_features: tuple[str, ...]
    num_classes: int
    share: TowerConfig
    classes: TowerConfig
    boxes: TowerConfig
    norm: str
    use_scale: bool
    score_threshold: float
    threshold_with_quality: bool
    topk_per_level: int
    nms_threshold: float
    max_detections: int

    @property
    def min_score(self) -> float:
        """The lowest possible score: the root of class score times quality."""
        threshold = min(max(self.score_threshold, 0.0), 1.0)
        return threshold**0.5 if self.threshold_with_quality else 0.0


@dataclass(frozen=True)
class MaskBranchConfig:
    """Features that the masks of all instances are computed from, of the finest level's stride."""

    in_features: tuple[str, ...]
    channels: int
    num_convs: int
    out_channels: int
    norm: str


@dataclass(frozen=True)
class CondInstConfig:
    """FCOS and a small network per instance, with weights of its own, that computes its mask.

    Attributes:
        num_layers, channels: 1x1 convolutions of an instance's network and their channels.
        position_scales: for each level, the pixels that positions relative to the instance are
            divided by; empty if the network does not see positions.
        mask_stride: input pixels per pixel of a mask's probabilities.
    """

    fcos: FCOSConfig
    branch: MaskBranchConfig
    num_layers: int
    channels: int
    position_scales: tuple[int, ...]
    mask_stride: int
