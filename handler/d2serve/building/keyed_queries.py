"""Values that networks with queries share: MaskFormer, Mask2Former and Mask DINO."""

from d2serve.building.config_values import ConfigValues
from d2serve.building.thing_classes import things_of
from d2serve.model.backbone_config import BackboneConfig, ResNetConfig
from d2serve.model.mask_former_config import QueryInferenceConfig

# Of a Swin Transformer, whose last map has this stride; a ResNet accepts any size.
SWIN_DIVISIBILITY = 32
CLASSES = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"


def read_divisibility(values: ConfigValues, section: str, backbone: BackboneConfig) -> int:
    """At most 1 for any size; below 0 what the backbone requires."""
    given: int = values[f"{section}.SIZE_DIVISIBILITY"]
    if given < 0 and not isinstance(backbone.bottom_up, ResNetConfig):
        return SWIN_DIVISIBILITY
    return max(given, 1)


def by_stride(features: tuple[str, ...], backbone: BackboneConfig) -> tuple[str, ...]:
    """The names of feature maps, finest first."""
    return tuple(name for name in backbone.features if name in features)


def check_outputs(values: ConfigValues, section: str) -> None:
    """Require instances, pixel classes or a panoptic map."""
    outputs = [f"{section}.TEST.{kind}_ON" for kind in ("INSTANCE", "SEMANTIC", "PANOPTIC")]
    if not any(values[name] for name in outputs):
        values.add_conflict(outputs[0], f"one of {', '.join(outputs)} must be True")


def read_inference(
    values: ConfigValues,
    section: str,
    *,
    instance: bool,
    semantic: bool,
    confident_pixels_only: bool,
) -> QueryInferenceConfig:
    """Read the part of the section's TEST that all of them have; see `QueryInferenceConfig`."""
    test = f"{section}.TEST"
    panoptic = values[f"{test}.PANOPTIC_ON"]
    before = values[f"{test}.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE"]
    return QueryInferenceConfig(
        num_classes=values[CLASSES],
        things=read_things(values, section) if panoptic else (),
        instance=instance,
        semantic=semantic,
        panoptic=panoptic,
        object_mask_threshold=values[f"{test}.OBJECT_MASK_THRESHOLD"],
        overlap_threshold=values[f"{test}.OVERLAP_THRESHOLD"],
        max_detections=read_limit(values, section) if instance else 0,
        confident_pixels_only=confident_pixels_only,
        resize_first=before or panoptic or instance,
    )


def read_limit(values: ConfigValues, section: str) -> int:
    """The number of pairs of a query and a class that are instances."""
    name = "TEST.DETECTIONS_PER_IMAGE"
    limit: int = values[name]
    pairs = values[f"{section}.NUM_OBJECT_QUERIES"] * values[CLASSES]
    if not 0 <= limit <= pairs:
        values.add_conflict(name, f"must be 0 to {pairs}, the pairs of a query and a class")
    return limit


def read_things(values: ConfigValues, section: str) -> tuple[int, ...]:
    """The classes of countable objects: of the config, else of its datasets."""
    key, num_classes = f"{section}.TEST.THINGS", values[CLASSES]
    given = values[key]
    things = tuple(given) if given is not None else things_of(values.given, num_classes)
    if things is None:
        values.add_conflict(
            f"{section}.TEST.PANOPTIC_ON",
            f"requires the classes of countable objects, which are unknown for DATASETS.TRAIN "
            f"{values.given.get('DATASETS.TRAIN')!r} with {num_classes} classes; give their "
            f"indices, for example {key}: [0, 1, 2]",
        )
        return ()
    if any(index >= num_classes for index in things):
        values.add_conflict(key, f"must be below {num_classes}, {CLASSES}")
    return things
