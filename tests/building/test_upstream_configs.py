"""Configs as the installed detectron2 package dumps, upgrades and extends them."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from d2serve.building.config import load_config
from d2serve.building.config_values import flatten, is_training_only
from d2serve.building.old_versions import upgrade
from d2serve.building.projects import DEEP_LAB, POINT_REND, Project
from tests.detector.upstream_models import upstream_marks
from tests.goldens.cases import CONFIGS

pytestmark = upstream_marks
OLD: dict[str, dict[str, Any]] = {
    "Mask R-CNN": {
        "VERSION": 1,
        "MODEL": {
            "WEIGHT": "x.pkl",
            "MASK_ON": True,
            "RPN": {"ANCHOR_SIZES": [[32], [64]]},
            "ROI_HEADS": {"SCORE_THRESH": 0.3, "NMS": 0.4},
        },
        "TEST": {"DETECTIONS_PER_IMG": 7},
    },
    "RetinaNet": {
        "MODEL": {
            "WEIGHT": "x.pkl",
            "META_ARCHITECTURE": "RetinaNet",
            "RETINANET": {
                "ANCHOR_SIZES": [[1], [2]],
                "ANCHOR_STRIDES": [8],
                "INFERENCE_NMS_THRESHOLD": 0.3,
            },
            "RPN": {"ANCHOR_SIZES": [[9]]},
        },
    },
    "version 0": {"VERSION": 0, "MODEL": {"RPN_HEAD": {"NAME": "Mine"}}},
    "augmentation": {"TEST": {"AUG_ON": True, "AUG_FLIP": False}},
    "Panoptic FPN": {
        "VERSION": 1,
        "MODEL": {"PANOPTIC_FPN": {"COMBINE_ON": False, "COMBINE_OVERLAP_THRESHOLD": 0.7}},
    },
}


def upstream_cfg(content: dict[str, Any], folder: Path) -> Any:
    from detectron2.config import get_cfg

    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(content))
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    return cfg


@pytest.mark.parametrize("old", OLD)
def test_old_versions_are_upgraded_as_by_the_package(old: str, tmp_path: Path) -> None:
    upgraded = upgrade(OLD[old])
    assert upgraded["VERSION"] == 2
    assert upstream_cfg(upgraded, tmp_path) == upstream_cfg(OLD[old], tmp_path)


@pytest.mark.parametrize("model", ["mask_rcnn_r50", "retinanet", "panoptic_fpn", "mask_rcnn_c4"])
def test_a_config_that_python_dumped_is_the_config(model: str, tmp_path: Path) -> None:
    config = CONFIGS / f"{model}.yaml"
    dumped = tmp_path / "dumped.yaml"
    dumped.write_text(yaml.dump(upstream_cfg({"_BASE_": str(config)}, tmp_path)))
    assert "!!python/object/new:detectron2.config.config.CfgNode" in dumped.read_text()
    assert load_config(dumped) == load_config(config)


@pytest.mark.parametrize(
    ("module", "function", "project"),
    [
        ("point_rend", "add_pointrend_config", POINT_REND),
        ("deeplab", "add_deeplab_config", DEEP_LAB),
    ],
)
def test_the_keys_of_a_project_are_those_that_it_adds(
    module: str, function: str, project: Project
) -> None:
    from detectron2.config import get_cfg

    cfg, plain = get_cfg(), dict(flatten(get_cfg()))
    getattr(import_module(f"detectron2.projects.{module}"), function)(cfg)
    added = {name for name, _ in flatten(cfg) if name not in plain}
    listed = {pattern for pattern in project.patterns if "=" not in pattern}
    assert {name for name in added if not is_training_only(name)} <= listed <= added
