"""Feature pyramid of a keyed config as typed configuration."""

from dataclasses import dataclass

from d2serve.building.config_values import ConfigValues
from d2serve.model.backbone_config import BackboneConfig, BottomUpConfig, FPNConfig
from d2serve.model.layers import NO_NORM_NO_BIAS

IN_FEATURES = "MODEL.FPN.IN_FEATURES"
# Of the coarsest feature map, which the levels above the pyramid are made of.
LAST_LEVEL = 5


@dataclass(frozen=True)
class Top:
    """Levels above a pyramid: the fields `top_block` and `top_of_pyramid` of `FPNConfig`."""

    block: str
    of_pyramid: bool = False


def read_pyramid(
    values: ConfigValues, bottom_up: BottomUpConfig, out_features: str, top: Top
) -> BackboneConfig:
    """Read MODEL.FPN for a bottom-up network.

    Args:
        values: of the config.
        bottom_up: with all feature maps that its backbone returns.
        out_features: name of the key of these feature maps.
        top: of the backbone.
    """
    features = tuple(map(str, values[IN_FEATURES]))
    if not are_pyramid(features, bottom_up):
        available = f"{out_features}, here {list(values[out_features])!r}"
        values.add_conflict(
            IN_FEATURES, f"must be the last of {available}, up to that of stride {2**LAST_LEVEL}"
        )
        features = bottom_up.features
    return BackboneConfig(bottom_up, read_fpn(values, features, top))


def are_pyramid(features: tuple[str, ...], bottom_up: BottomUpConfig) -> bool:
    """Return whether feature maps are of consecutive strides up to 32."""
    levels = dict(zip(bottom_up.features, bottom_up.levels, strict=True))
    if not set(features) <= levels.keys():
        return False
    return [levels[name] for name in features] == [*range(LAST_LEVEL + 1)][-len(features) :]


def read_fpn(values: ConfigValues, features: tuple[str, ...], top: Top) -> FPNConfig:
    """Read the keys of MODEL.FPN other than IN_FEATURES."""
    # In Detectron2 only the norm "" has a bias in its place.
    norm = values["MODEL.FPN.NORM"]
    return FPNConfig(
        in_features=features,
        out_channels=values["MODEL.FPN.OUT_CHANNELS"],
        fuse_type=values["MODEL.FPN.FUSE_TYPE"],
        norm=NO_NORM_NO_BIAS if norm is None else norm,
        top_block=top.block,
        top_of_pyramid=top.of_pyramid,
    )
