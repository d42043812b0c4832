"""Upgrade keyed configs of older versions to the current names of their keys."""

from typing import Any

from d2serve.errors import ConfigError

CURRENT = 2
# The new names, by version and old name (`detectron2.config.compat`).
RENAMED: dict[int, dict[str, str]] = {
    1: {"MODEL.RPN_HEAD.NAME": "MODEL.RPN.HEAD_NAME"},
    2: {
        "MODEL.WEIGHT": "MODEL.WEIGHTS",
        "MODEL.PANOPTIC_FPN.SEMANTIC_LOSS_SCALE": "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT",
        "MODEL.PANOPTIC_FPN.RPN_LOSS_SCALE": "MODEL.RPN.LOSS_WEIGHT",
        "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_SCALE": "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT",
        "MODEL.PANOPTIC_FPN.COMBINE_ON": "MODEL.PANOPTIC_FPN.COMBINE.ENABLED",
        "MODEL.PANOPTIC_FPN.COMBINE_OVERLAP_THRESHOLD": (
            "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH"
        ),
        "MODEL.PANOPTIC_FPN.COMBINE_STUFF_AREA_LIMIT": (
            "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT"
        ),
        "MODEL.PANOPTIC_FPN.COMBINE_INSTANCES_CONFIDENCE_THRESHOLD": (
            "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH"
        ),
        "MODEL.ROI_HEADS.SCORE_THRESH": "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
        "MODEL.ROI_HEADS.NMS": "MODEL.ROI_HEADS.NMS_THRESH_TEST",
        "MODEL.RETINANET.INFERENCE_SCORE_THRESHOLD": "MODEL.RETINANET.SCORE_THRESH_TEST",
        "MODEL.RETINANET.INFERENCE_TOPK_CANDIDATES": "MODEL.RETINANET.TOPK_CANDIDATES_TEST",
        "MODEL.RETINANET.INFERENCE_NMS_THRESHOLD": "MODEL.RETINANET.NMS_THRESH_TEST",
        "TEST.DETECTIONS_PER_IMG": "TEST.DETECTIONS_PER_IMAGE",
        "TEST.AUG_ON": "TEST.AUG.ENABLED",
        "TEST.AUG_MIN_SIZES": "TEST.AUG.MIN_SIZES",
        "TEST.AUG_MAX_SIZE": "TEST.AUG.MAX_SIZE",
        "TEST.AUG_FLIP": "TEST.AUG.FLIP",
    },
}
# Keys of version 1 that configs without a version have.
SIGNS_OF_VERSION_1 = ("MODEL.WEIGHT", "TEST.AUG_ON")
# In version 1 RetinaNet and RPN had anchors of their own.
ANCHORS = ("SIZES", "ASPECT_RATIOS")
UNUSED = (
    "MODEL.RETINANET.ANCHOR_STRIDES",
    *(f"MODEL.{section}.ANCHOR_{name}" for section in ("RETINANET", "RPN") for name in ANCHORS),
)


def upgrade(explicit: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a config under their current names; a current config as it is.

    Raises:
        ConfigError: a config of an older version has keys of a newer one.

    Examples:
        >>> upgrade({"VERSION": 1, "MODEL": {"RPN": {"ANCHOR_SIZES": [[32]]}}})
        {'VERSION': 2, 'MODEL': {'ANCHOR_GENERATOR': {'SIZES': [[32]]}}}
    """
    version = explicit.get("VERSION", _guess(explicit))
    if type(version) is not int or version not in range(CURRENT):
        return explicit
    renamed = {
        old: new for newer in range(version + 1, CURRENT + 1) for old, new in RENAMED[newer].items()
    } | _anchor_names(explicit)
    too_new = [new for new in renamed.values() if _find(explicit, new) is not None]
    if too_new:
        raise ConfigError(
            f"VERSION is {version}, but the config has keys of version {CURRENT}: "
            f"{', '.join(too_new)}; set VERSION to {CURRENT} and use its names for all keys"
        )
    upgraded = {**_copy(explicit), "VERSION": CURRENT}
    for old, new in renamed.items():
        _rename(upgraded, old, new)
    for unused in UNUSED:
        _remove(upgraded, unused)
    return upgraded


def _guess(explicit: dict[str, Any]) -> int:
    is_old = any(_find(explicit, name) is not None for name in SIGNS_OF_VERSION_1)
    return 1 if is_old else CURRENT


def _anchor_names(config: dict[str, Any]) -> dict[str, str]:
    """The new names of the anchors that the architecture uses."""
    model = config.get("MODEL")
    is_retinanet = isinstance(model, dict) and model.get("META_ARCHITECTURE") == "RetinaNet"
    section = "MODEL.RETINANET" if is_retinanet else "MODEL.RPN"
    return {f"{section}.ANCHOR_{name}": f"MODEL.ANCHOR_GENERATOR.{name}" for name in ANCHORS}


def _rename(config: dict[str, Any], old: str, new: str) -> None:
    found = _find(config, old)
    if found is None:
        return
    *sections, last = new.split(".")
    section = config
    for step in sections:
        section = section.setdefault(step, {})
        if not isinstance(section, dict):  # wrong, and reported as such under its own name
            return
    section[last] = found[old.rpartition(".")[2]]
    _remove(config, old)


def _find(config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The section that contains a key, if there is one."""
    *sections, last = name.split(".")
    section: Any = config
    for step in sections:
        section = section.get(step) if isinstance(section, dict) else None
    return section if isinstance(section, dict) and last in section else None


def _remove(config: dict[str, Any], name: str) -> None:
    """Remove a key and the sections that are empty without it."""
    section = _find(config, name)
    if section is None:
        return
    above, _, last = name.rpartition(".")
    del section[last]
    if above and not section:
        _remove(config, above)


def _copy(node: Any) -> Any:
    return {key: _copy(value) for key, value in node.items()} if isinstance(node, dict) else node
