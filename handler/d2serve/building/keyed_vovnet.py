"""VoVNet backbone of a keyed config as typed configuration."""

from dataclasses import dataclass

from d2serve.building.config_values import ConfigValues
from d2serve.building.keyed_fpn import Top, read_pyramid
from d2serve.model.backbone_config import (
    POOLED_TOP,
    VOVNET_STAGES,
    BackboneConfig,
    DeformConfig,
    VoVNetConfig,
)
from d2serve.model.layers import GROUP_NORM_GROUPS

OUT_FEATURES = "MODEL.VOVNET.OUT_FEATURES"
GROUPS = "MODEL.VOVNET.DEFORMABLE_GROUPS"
WITHOUT_FPN = "build_vovnet_backbone"


@dataclass(frozen=True)
class _Body:
    """The sizes of a network, see `VoVNetConfig`."""

    stem_channels: tuple[int, ...]
    widths: tuple[int, ...]
    out_channels: tuple[int, ...]
    layers_per_block: int
    blocks_per_stage: tuple[int, ...]
    depthwise: bool = False


STEM, NARROW_STEM = (64, 64, 128), (64, 64, 64)
FULL = ((128, 160, 192, 224), (256, 512, 768, 1024))
SLIM = ((64, 80, 96, 112), (112, 256, 384, 512))
ONE_EACH = (1, 1, 1, 1)
BODIES = {
    "V-19-slim-dw-eSE": _Body(NARROW_STEM, *SLIM, 3, ONE_EACH, depthwise=True),
    "V-19-dw-eSE": _Body(NARROW_STEM, *FULL, 3, ONE_EACH, depthwise=True),
    "V-19-slim-eSE": _Body(STEM, *SLIM, 3, ONE_EACH),
    "V-19-eSE": _Body(STEM, *FULL, 3, ONE_EACH),
    "V-39-eSE": _Body(STEM, *FULL, 5, (1, 1, 2, 2)),
    "V-57-eSE": _Body(STEM, *FULL, 5, (1, 1, 4, 3)),
    "V-99-eSE": _Body(STEM, *FULL, 5, (1, 3, 9, 3)),
}


def read_vovnet_backbone(values: ConfigValues, top: Top | None = None) -> BackboneConfig:
    """Read MODEL.VOVNET and MODEL.FPN.

    Args:
        values: of the config.
        top: of the pyramid, if it is not that of vovnet-detectron2.
    """
    vovnet = _read_vovnet(values)
    if values["MODEL.BACKBONE.NAME"] == WITHOUT_FPN:
        return BackboneConfig(vovnet, fpn=None)
    return read_pyramid(values, vovnet, OUT_FEATURES, top or Top(POOLED_TOP))


def _read_vovnet(values: ConfigValues) -> VoVNetConfig:
    given = values[OUT_FEATURES]
    if not set(given) <= {*VOVNET_STAGES}:
        values.add_conflict(OUT_FEATURES, f"supported: {', '.join(VOVNET_STAGES)}")
        given = VOVNET_STAGES
    body = BODIES[values["MODEL.VOVNET.CONV_BODY"]]
    config = VoVNetConfig(
        **vars(body),
        norm=values["MODEL.VOVNET.NORM"],
        deform=(None,) * len(VOVNET_STAGES) if body.depthwise else _read_deform(values),
        features=tuple(name for name in VOVNET_STAGES if name in given),
    )
    channels = (*config.stem_channels, *config.widths, *config.out_channels)
    if config.norm == "GN" and any(number % GROUP_NORM_GROUPS for number in channels):
        values.add_conflict(
            "MODEL.VOVNET.NORM",
            f"{values['MODEL.VOVNET.CONV_BODY']} has other than multiples of "
            f"{GROUP_NORM_GROUPS} channels",
        )
    if any(config.deform) and any(number % values[GROUPS] for number in channels):
        values.add_conflict(GROUPS, "must divide the numbers of channels of all stages")
    return config


def _read_deform(values: ConfigValues) -> tuple[DeformConfig | None, ...]:
    deform = DeformConfig(values["MODEL.VOVNET.WITH_MODULATED_DCN"], values[GROUPS])
    per_stage = values["MODEL.VOVNET.STAGE_WITH_DCN"][: len(VOVNET_STAGES)]
    return tuple(deform if deforms else None for deforms in per_stage)
