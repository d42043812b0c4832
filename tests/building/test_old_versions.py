"""Configs of older versions; the expected keys are those that Detectron2 0.6 upgrades them to."""

from pathlib import Path
from typing import Any

import pytest

from d2serve.building.config import load_config
from d2serve.building.old_versions import upgrade
from d2serve.building.yaml_config import read_yaml_config
from d2serve.errors import ConfigError


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            {
                "VERSION": 1,
                "MODEL": {
                    "WEIGHT": "x.pkl",
                    "RPN": {"ANCHOR_SIZES": [[32], [64]], "ANCHOR_ASPECT_RATIOS": [[1.0]]},
                    "ROI_HEADS": {"SCORE_THRESH": 0.3, "NMS": 0.4},
                    "RETINANET": {"ANCHOR_SIZES": [[9]], "ANCHOR_STRIDES": [8]},
                },
                "TEST": {"DETECTIONS_PER_IMG": 7},
            },
            {
                "VERSION": 2,
                "MODEL": {
                    "WEIGHTS": "x.pkl",
                    "ANCHOR_GENERATOR": {"SIZES": [[32], [64]], "ASPECT_RATIOS": [[1.0]]},
                    "ROI_HEADS": {"SCORE_THRESH_TEST": 0.3, "NMS_THRESH_TEST": 0.4},
                },
                "TEST": {"DETECTIONS_PER_IMAGE": 7},
            },
            id="Faster R-CNN",
        ),
        pytest.param(
            {
                "MODEL": {
                    "WEIGHT": "x.pkl",
                    "META_ARCHITECTURE": "RetinaNet",
                    "RETINANET": {"ANCHOR_SIZES": [[1]], "INFERENCE_NMS_THRESHOLD": 0.3},
                    "RPN": {"ANCHOR_SIZES": [[9]]},
                },
            },
            {
                "VERSION": 2,
                "MODEL": {
                    "WEIGHTS": "x.pkl",
                    "META_ARCHITECTURE": "RetinaNet",
                    "RETINANET": {"NMS_THRESH_TEST": 0.3},
                    "ANCHOR_GENERATOR": {"SIZES": [[1]]},
                },
            },
            id="RetinaNet without a version",
        ),
        pytest.param(
            {"VERSION": 0, "MODEL": {"RPN_HEAD": {"NAME": "Mine"}}},
            {"VERSION": 2, "MODEL": {"RPN": {"HEAD_NAME": "Mine"}}},
            id="version 0",
        ),
        pytest.param(
            {"TEST": {"AUG_ON": True, "AUG_FLIP": False}},
            {"VERSION": 2, "TEST": {"AUG": {"ENABLED": True, "FLIP": False}}},
            id="test-time augmentation without a version",
        ),
        pytest.param(
            {
                "VERSION": 1,
                "MODEL": {"PANOPTIC_FPN": {"COMBINE_ON": False, "COMBINE_OVERLAP_THRESHOLD": 0.7}},
            },
            {
                "VERSION": 2,
                "MODEL": {"PANOPTIC_FPN": {"COMBINE": {"ENABLED": False, "OVERLAP_THRESH": 0.7}}},
            },
            id="Panoptic FPN",
        ),
        pytest.param({"VERSION": 1, "MODEL": {"WEIGHT": "x"}}, None, id="a single key"),
    ],
)
def test_keys_get_their_current_names(old: dict[str, Any], new: dict[str, Any] | None) -> None:
    before = str(old)
    assert upgrade(old) == (new or {"VERSION": 2, "MODEL": {"WEIGHTS": "x"}})
    assert str(old) == before


@pytest.mark.parametrize(
    "config",
    [
        {"VERSION": 2, "MODEL": {"WEIGHT": "x"}},
        {"VERSION": 3},
        {"VERSION": -1},
        {"VERSION": "1"},
        {"VERSION": 1.0},
        {"VERSION": True},
        {"VERSION": None},
        {"MODEL": None},
        {"MODEL": 1},
        {},
    ],
)
def test_other_versions_are_left_to_the_reader(config: dict[str, Any]) -> None:
    assert upgrade(config) is config


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("MODEL", "WEIGHTS", "x"),
        ("MODEL", "ANCHOR_GENERATOR", {"SIZES": [[32]]}),
        ("MODEL", "ROI_HEADS", {"SCORE_THRESH_TEST": 0.1}),
    ],
)
def test_current_names_in_an_old_config_are_rejected_as_by_detectron2(
    section: str, key: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=rf"keys of version 2: {section}\.{key}.*VERSION to 2"):
        upgrade({"VERSION": 1, section: {key: value}})


def test_the_merged_config_is_upgraded(tmp_path: Path) -> None:
    """As in Detectron2, the version of the file counts for its bases."""
    old = tmp_path / "old.yaml"
    (tmp_path / "base.yaml").write_text("MODEL: {RPN: {ANCHOR_SIZES: [[8]]}, MASK_ON: true}\n")
    old.write_text("_BASE_: base.yaml\nVERSION: 1\nTEST: {DETECTIONS_PER_IMG: 9}\n")
    assert read_yaml_config(old) == {
        "VERSION": 2,
        "MODEL": {"ANCHOR_GENERATOR": {"SIZES": [[8]]}, "MASK_ON": True},
        "TEST": {"DETECTIONS_PER_IMAGE": 9},
    }


def test_a_published_old_config_is_served(tmp_path: Path) -> None:
    """Mask R-CNN C4 with the names of version 1."""
    old = tmp_path / "old.yaml"
    old.write_text(
        "MODEL:\n  WEIGHT: detectron2://ImageNetPretrained/MSRA/R-50.pkl\n  MASK_ON: true\n"
        "  RPN: {PRE_NMS_TOPK_TEST: 6000, POST_NMS_TOPK_TEST: 1000}\n"
        "  ROI_HEADS: {SCORE_THRESH: 0.25}\nTEST: {DETECTIONS_PER_IMG: 50}\nVERSION: 1\n"
    )
    family = load_config(old).family
    selection = family.roi_heads.selection  # type: ignore[union-attr]
    assert (selection.score_threshold, selection.max_detections) == (0.25, 50)
