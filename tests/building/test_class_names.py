"""The sources of class names."""

import json
from pathlib import Path
from typing import Any

import pytest

from d2serve.building.class_names import choose_class_names
from d2serve.errors import ClassNamesError


def datasets(test: Any = (), train: Any = ()) -> dict[str, Any]:
    return {"DATASETS": {"TEST": test, "TRAIN": train}}


@pytest.mark.parametrize(
    ("dataset", "count", "names"),
    [
        ("coco_2017_val", 80, {0: "person", 79: "toothbrush"}),
        ("coco_2014_minival", 80, {16: "dog"}),
        ("keypoints_coco_2017_val", 1, {0: "person"}),
        ("lvis_v0.5_val", 1230, {0: "acorn", 1229: "zucchini"}),
        ("lvis_v1_val", 1203, {0: "aerosol_can", 1202: "zucchini"}),
        ("lvis_v0.5_val_cocofied", 80, {0: "person"}),
        ("cityscapes_fine_instance_seg_val", 8, {0: "person", 7: "bicycle"}),
        ("voc_2007_test", 20, {0: "aeroplane", 19: "tvmonitor"}),
        ("coco_2017_val_panoptic_separated", 80, {0: "person"}),
        ("coco_2017_val_panoptic", 133, {80: "banner"}),
    ],
)
def test_things_have_the_names_of_detectron2(
    dataset: str, count: int, names: dict[int, str]
) -> None:
    chosen = choose_class_names(None, datasets(test=(dataset,)), count)
    assert len(chosen.names.things) == count
    assert {index: chosen.names.things[index] for index in names} == names
    assert chosen.names.stuff == ()
    assert chosen.sources == (f"class names: from Detectron2's {dataset} (DATASETS.TEST)",)


@pytest.mark.parametrize(
    ("dataset", "things", "stuff", "names"),
    [
        ("coco_2017_val_panoptic_separated", 80, 54, {0: "things", 1: "banner", 53: "rug"}),
        ("coco_2017_val_panoptic_stuffonly", 0, 54, {0: "things", 40: "sky"}),
        ("cityscapes_fine_sem_seg_val", 0, 19, {0: "road", 18: "bicycle"}),
        ("ade20k_sem_seg_val", 0, 150, {0: "wall"}),
    ],
)
def test_stuff_has_the_names_of_detectron2(
    dataset: str, things: int, stuff: int, names: dict[int, str]
) -> None:
    chosen = choose_class_names(None, datasets(test=(dataset,)), things, stuff)
    assert (len(chosen.names.things), len(chosen.names.stuff)) == (things, stuff)
    assert {index: chosen.names.stuff[index] for index in names} == names
    assert chosen.sources[-1] == f"stuff names: from Detectron2's {dataset} (DATASETS.TEST)"


def test_the_test_set_takes_precedence_over_the_training_set() -> None:
    config = datasets(test=["lvis_v0.5_val_cocofied"], train=["coco_2017_train"])
    assert "lvis" in choose_class_names(None, config, 80).sources[0]


def test_a_dataset_with_another_number_of_classes_is_skipped() -> None:
    config = datasets(test=["voc_2007_test", "my_val"], train=("my_train", "coco_2017_train"))
    chosen = choose_class_names(None, config, 80)
    assert chosen.names.things[0] == "person"
    assert chosen.sources == ("class names: from Detectron2's coco_2017_train (DATASETS.TRAIN)",)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="no-datasets"),
        pytest.param({"DATASETS": None}, id="nothing"),
        pytest.param({"DATASETS": "coco_2017_val"}, id="a-text"),
        pytest.param(datasets(test=None, train=3), id="no-names"),
        pytest.param(datasets(test=[["coco_2017_val"]]), id="lists-of-lists"),
        pytest.param(datasets(test=("my_dataset",)), id="an-own-dataset"),
        pytest.param(datasets(test=("coco_2017_val",)), id="another-count"),
    ],
)
def test_classes_without_names_are_numbered(config: dict[str, Any]) -> None:
    chosen = choose_class_names(None, config, 3, 2)
    assert chosen.names.things == ("class_0", "class_1", "class_2")
    assert chosen.names.stuff == ("stuff_0", "stuff_1")
    assert "--classes" in chosen.sources[0]
    assert "--classes" in chosen.sources[1]


def test_one_dataset_may_be_a_text() -> None:
    assert choose_class_names(None, datasets(test="coco_2017_val"), 80).names.things[0] == "person"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.json"


def test_the_users_file_takes_precedence(file: Path) -> None:
    file.write_text('["someone"]')
    chosen = choose_class_names(file, datasets(test=("keypoints_coco_2017_val",)), 1)
    assert chosen.names.things == ("someone",)
    assert chosen.sources == ("class names: from mine.json",)


def test_stuff_missing_in_the_file_is_read_from_the_dataset(file: Path) -> None:
    file.write_text('["someone"]')
    config = datasets(test=("coco_2017_val_panoptic_separated",))
    chosen = choose_class_names(file, config, 1, 54)
    assert chosen.names.things == ("someone",)
    assert chosen.names.stuff[0] == "things"


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        ("RetinaNet", r"MODEL\.RETINANET\.NUM_CLASSES is 2"),
        ("GeneralizedRCNN", r"MODEL\.ROI_HEADS\.NUM_CLASSES is 2"),
        ("PanopticFPN", r"MODEL\.ROI_HEADS\.NUM_CLASSES is 2"),
    ],
)
def test_the_key_of_the_architecture_is_named_for_a_file_of_another_length(
    file: Path, architecture: str, key: str
) -> None:
    file.write_text('["someone"]')
    with pytest.raises(ClassNamesError, match=rf"mine\.json: `things` has length 1.*{key}"):
        choose_class_names(file, {"MODEL": {"META_ARCHITECTURE": architecture}}, 2)


def test_every_file_of_names_can_be_read(repo_root: Path) -> None:
    folder = repo_root / "handler" / "d2serve" / "building" / "dataset_names"
    named = set(json.loads((folder / "datasets.json").read_text()).values())
    assert named == {path.name for path in folder.iterdir()} - {"datasets.json"}
