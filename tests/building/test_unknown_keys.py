"""Keys and values of other projects, and what is true of them."""

import copy
import pickle
from typing import Any

import pytest

from d2serve.building.config import parse_config
from d2serve.building.config_values import is_unknown
from d2serve.building.other_projects import OTHER_PROJECTS
from d2serve.building.projects import IN_PACKAGE, package_accepts
from d2serve.building.unknown_keys import find_owners
from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.errors import UnsupportedConfigError
from tests.goldens.cases import CONFIGS


def nested(keys: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, value in keys.items():
        node: Any = value
        for step in reversed(name.split(".")):
            node = {step: node}
        config = merge(config, node)
    return config


def refusal(**keys: Any) -> UnsupportedConfigError:
    base = read_yaml_config(CONFIGS / "mask_rcnn_r50.yaml")
    with pytest.raises(UnsupportedConfigError) as raised:
        parse_config(merge(base, nested(keys)))
    return raised.value


@pytest.mark.parametrize(
    ("keys", "project"),
    [
        ({"MODEL.TENSOR_MASK.NUM_CONVS": 4}, "TensorMask"),
        ({"MODEL.TRIDENT.NUM_BRANCH": 3}, "TridentNet"),
        ({"MODEL.DETR.NHEADS": 8}, "DETR"),
        ({"MODEL.CENTERNET.NUM_CLASSES": 80}, "CenterNet2"),
        ({"MODEL.CENTERNET.NUM_CLASSES": 80, "WITH_IMAGE_LABELS": True}, "Detic"),
        ({"MULTI_DATASET.ENABLED": True}, "UniDet"),
        ({"D2GO_DATA.AUG_OPS.TRAIN": []}, "D2Go"),
        ({"MODEL.MPVIT.NAME": "mpvit_tiny", "AUG.DETR": True}, "MPViT"),
        ({"MODEL.SWIN.SIZE": "B", "MODEL.DiffusionDet.NHEADS": 8}, "DiffusionDet"),
        ({"EXP_DIR": "end2end", "TRAIN.HAS_RPN": True}, "py-faster-rcnn"),
        ({"FPN.FPN_ON": True, "TRAIN.SCALES": [800]}, "Detectron (Caffe2)"),
        ({"MODEL.BUA.EXTRACT_FEATS": False}, "bottom-up-attention.pytorch"),
        ({"MODEL.SPARSE_INST.DECODER.NUM_MASKS": 100}, "SparseInst"),
    ],
)
def test_the_project_of_the_keys_is_named(keys: dict[str, Any], project: str) -> None:
    error = refusal(**keys)
    assert f"{project} (github.com/" in str(error)
    assert "part neither of d2serve nor of the detectron2 package" in str(error)
    assert str(error).count("has networks of its own") == 1
    assert not error.package_may_run


def test_many_keys_of_a_project_are_counted() -> None:
    keys = {f"MODEL.YOLO.KEY_{index}": index for index in range(40)}
    error = refusal(**keys, MINE=1)
    assert list(error.problems) == [
        "MINE: 1 (not a key of Detectron2's own config)",
        "MODEL.YOLO.KEY_0, MODEL.YOLO.KEY_1, MODEL.YOLO.KEY_2 and 37 more "
        "(not Detectron2's own, but keys of yolov7_d2)",
    ]


@pytest.mark.parametrize(
    ("keys", "project"),
    [
        ({"MODEL.RESNETS.RES4_DILATION": 1}, "DeepLab"),
        ({"MODEL.RESNETS.RES5_MULTI_GRID": [1, 2, 4]}, "DeepLab"),
        ({"MODEL.ROI_MASK_HEAD.FC_DIM": 1024, "MODEL.ROI_MASK_HEAD.NUM_FC": 2}, "PointRend"),
        ({"MODEL.SEM_SEG_HEAD.HEAD_CHANNELS": 256}, "Panoptic-DeepLab"),
        ({"INPUT.GAUSSIAN_SIGMA": 10, "MODEL.RESNETS.RES4_DILATION": 1}, "Panoptic-DeepLab"),
    ],
)
def test_keys_of_the_packages_projects_are_no_typos(keys: dict[str, Any], project: str) -> None:
    error = refusal(**keys)
    assert "did you mean" not in str(error)
    for name, value in keys.items():
        expected = f"{name}: {value!r} (not a key of Detectron2's own config, but of {project})"
        assert expected in error.problems
    assert error.package_may_run


@pytest.mark.parametrize(
    ("keys", "may_run"),
    [
        pytest.param({"MODEL.PROPOSAL_GENERATOR.NAME": "RRPN"}, True, id="rotated boxes"),
        pytest.param({"MODEL.RPN.BBOX_REG_WEIGHTS": [1.0] * 5}, True, id="rotated weights"),
        pytest.param({"MODEL.RPN.BBOX_REG_WEIGHTS": [1.0] * 3}, False, id="too few weights"),
        pytest.param({"MODEL.ROI_HEADS.NAME": "PointRendROIHeads"}, True, id="class of a project"),
        pytest.param({"MODEL.ROI_HEADS.NAME": "MyHeads"}, False, id="class of one's own"),
        pytest.param({"MODEL.RPN.CONV_DIMS": [-2]}, False, id="wrong value"),
        pytest.param({"MODEL.ROI_HEADS.NUM_CLASSES": "three"}, False, id="wrong type"),
        pytest.param({"MODEL.ROI_HEADS": None}, False, id="no section"),
        pytest.param({"MY_KEY": 1}, False, id="key of one's own"),
        pytest.param(
            {"MODEL.POINT_HEAD.FC_DIM": 1, "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS": 1},
            False,
            id="keys of two projects",
        ),
        pytest.param(
            {"MODEL.PROPOSAL_GENERATOR.NAME": "RRPN", "MODEL.DETR.NHEADS": 8},
            False,
            id="with another project",
        ),
    ],
)
def test_the_package_is_recommended_only_where_it_can_run_the_config(
    keys: dict[str, Any], may_run: bool
) -> None:
    assert refusal(**keys).package_may_run is may_run


def test_a_typo_stays_a_hint() -> None:
    assert "did you mean MODEL.MASK_ON?" in str(refusal(**{"MODEL.MASK_OM": True}))


def test_keys_of_ones_own_can_be_ignored() -> None:
    message = str(refusal(**{"INPUT.SLICE_SIZE": 512, "MINE.A": 1, "MINE.B": 2}))
    assert message.endswith(
        "--ignore-key 'INPUT.SLICE_SIZE' --ignore-key 'MINE' "
        "(with make: IGNORE_KEYS='INPUT.SLICE_SIZE MINE')"
    )
    wrong = refusal(**{"INPUT.SLICE_SIZE": 512, "MODEL.RPN.NMS_THRESH": "x"})
    assert "--ignore-key" not in str(wrong)


def test_many_patterns_are_shortened() -> None:
    message = str(refusal(**{f"INPUT.MINE_{index}": index for index in range(20)}))
    assert message.count("--ignore-key") == 8
    assert " and so on (with make: " in message


def test_a_key_of_ones_own_within_the_network_has_a_warning() -> None:
    message = str(refusal(**{"MODEL.RESNETS.MY_STEM": 2}))
    assert "--ignore-key 'MODEL.RESNETS.MY_STEM'" in message
    assert "MODEL.RESNETS.MY_STEM may change the network although the weights match" in message
    for off in ({"MODEL.MY_BRANCH": False}, {"INPUT.MINE": 1}, {"MODEL.RPN.MY_LOSS": "focal"}):
        assert "may change the network" not in str(refusal(**off))


@pytest.mark.parametrize(
    "keys",
    [
        {"MODEL.RESNETS.STEM_TYPE": "deeplab"},
        {"MODEL.RESNETS.RES5_MULTI_GRID": [1, 2, 4], "INPUT.SLICE_SIZE": 512},
        {"MODEL.POINT_HEAD.FC_DIM": 256},
        {"MODEL.ROI_MASK_HEAD.POINT_HEAD_ON": True},
        {"MODEL.RESNETS.AVD": True},
    ],
)
def test_keys_that_change_the_network_cannot_be_ignored(keys: dict[str, Any]) -> None:
    message = str(refusal(**keys))
    assert "--ignore-key" not in message
    assert "so it cannot be ignored: the weights may match and the results be wrong" in message


@pytest.mark.parametrize(
    "keys",
    [
        {"MODEL.ROI_MESH_HEAD.NAME": "MeshRCNNGraphConvHead"},
        {"MODEL.YOLO.NUM_CLASSES": 80},
    ],
)
def test_networks_of_other_projects_have_no_hint(keys: dict[str, Any]) -> None:
    assert "--ignore-key" not in str(refusal(**keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"INPUT.COLOR_AUG_SSD": True},
        {"MODEL.ZPRED_ON": False},
    ],
)
def test_training_keys_of_other_projects_have_a_hint(keys: dict[str, Any]) -> None:
    message = str(refusal(**keys))
    assert all(f"--ignore-key '{name}'" in message for name in keys if name.startswith("MODEL"))


@pytest.mark.parametrize(
    "keys",
    [
        {"MODEL.RPN.POST_NMS_TOP_N_TEST": 1000, "MODEL.BACKBONE.CONV_BODY": "R-50-FPN"},
        {"MODEL.KEYPOINTS_ON": True, "MODEL.TYPE": "generalized_rcnn"},
        {"MODEL.PIXEL_MEANS": [0.0], "MODEL.YOLO.NUM_CLASSES": 3},
    ],
)
def test_keys_of_another_project_are_no_typos(keys: dict[str, Any]) -> None:
    assert "did you mean" not in str(refusal(**keys))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL.META_ARCHITECTURE", "MyRCNN"),
        ("MODEL.BACKBONE.NAME", "build_my_backbone"),
        ("MODEL.RPN.HEAD_NAME", "MyRPNHead"),
    ],
)
def test_an_unknown_class_is_explained(name: str, value: str) -> None:
    expected = f"{name}: {value!r}: neither d2serve nor the detectron2 package has this class"
    assert expected in str(refusal(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL.ROI_HEADS.NAME", "PointRendROIHeads"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"),
        ("MODEL.META_ARCHITECTURE", "TensorMask"),
        ("MODEL.META_ARCHITECTURE", 3),
    ],
)
def test_a_known_class_is_not(name: str, value: object) -> None:
    assert "has this class" not in str(refusal(**{name: value}))


def test_current_point_rend_configs_are_for_the_package() -> None:
    keys = {"MODEL.ROI_MASK_HEAD.NAME": "PointRendMaskHead", "MODEL.ROI_MASK_HEAD.POOLER_TYPE": ""}
    assert refusal(**keys).package_may_run
    assert not refusal(**{"MODEL.ROI_MASK_HEAD.POOLER_TYPE": "Mine"}).package_may_run


def test_no_project_claims_keys_of_detectron2() -> None:
    for project in (*IN_PACKAGE, *OTHER_PROJECTS):
        names = [pattern for pattern in project.all_patterns if "=" not in pattern]
        crops = {"INPUT.CROP.SINGLE_CATEGORY_MAX_AREA"}  # training reads it, if at all
        assert [name for name in names if not is_unknown(name) and name not in crops] == []


@pytest.mark.parametrize("section", ["MODEL", "INPUT", "TEST", "MODEL.RPN", "MODEL.ROI_HEADS"])
@pytest.mark.parametrize("value", [None, 1, [1], "text"])
def test_a_value_in_place_of_a_section_is_named(section: str, value: object) -> None:
    error = refusal(**{section: value})
    assert f"{section}: {value!r} (supported: a mapping of its keys)" in error.problems


def test_owners_are_found_by_value_too() -> None:
    assert find_owners({"MODEL.META_ARCHITECTURE": "TensorMask"})
    assert not find_owners({"MODEL.META_ARCHITECTURE": "GeneralizedRCNN"})
    assert package_accepts({})


def test_the_error_survives_a_copy() -> None:
    error = refusal(MY_KEY=1)
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert str(other) == str(error)
        assert other.package_may_run == error.package_may_run


def test_projects_have_distinct_names_and_sources() -> None:
    projects = (*IN_PACKAGE, *OTHER_PROJECTS)
    assert len({project.name for project in projects}) == len(projects)
    assert len({project.source for project in projects}) == len(projects)
    for project in projects:
        owner_and_name = project.source.removeprefix("github.com/").split("/")
        assert project.source.startswith("github.com/")
        assert len(owner_and_name) == 2 or "/detectron2/tree/main/projects/" in project.source
