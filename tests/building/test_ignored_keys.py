"""Keys that a user declares irrelevant for inference."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from d2serve.building.archive import build_archive
from d2serve.building.ignored_keys import IGNORED_KEYS_FILE, split_ignored
from d2serve.building.runtimes import choose_runtime
from d2serve.cli.main import invoke
from d2serve.errors import CheckpointError, ConfigError
from tests.goldens.cases import CONFIGS, GoldenModel

BASE = CONFIGS / "mask_rcnn_r50.yaml"
OWN_KEYS = "INPUT: {SLICE_SIZE: 512, SLICE_OVERLAP: 0.2}\nWANDB: {PROJECT: mine, TAGS: [a]}\n"
PATTERNS = ["INPUT.SLICE_*", "WANDB"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"_BASE_: {BASE}\n{OWN_KEYS}")
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model_final.pth"
    torch.save(GoldenModel("mask_rcnn_r50", BASE, None, ()).build().state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("patterns", "ignored"),
    [
        (["A.B"], {"A.B": 1}),
        (["A.*"], {"A.B": 1, "A.C.D": 2}),
        (["A"], {"A.B": 1, "A.C.D": 2}),
        (["*.D", "INPUT.?INE"], {"A.C.D": 2, "INPUT.MINE": 3}),
        (["*"], {"A.B": 1, "A.C.D": 2, "INPUT.MINE": 3}),
        ([], {}),
    ],
)
def test_names_sections_and_patterns(patterns: list[str], ignored: dict[str, object]) -> None:
    config: dict[str, Any] = {
        "A": {"B": 1, "C": {"D": 2}},
        "INPUT": {"MINE": 3, "FORMAT": "RGB"},
        "SOLVER": {"MAX_ITER": 9},
    }
    kept, found = split_ignored(config, patterns)
    assert found == ignored
    assert kept["INPUT"]["FORMAT"] == "RGB"
    assert kept["SOLVER"] == {"MAX_ITER": 9}
    assert ("A" in kept) == ("A.B" not in ignored or "A.C.D" not in ignored)
    assert config["A"] == {"B": 1, "C": {"D": 2}}


@pytest.mark.parametrize("pattern", ["MODEL.MASK_ON", "MODEL.RPN", "MODEL.*", "INPUT.FORMAT"])
def test_keys_of_detectron2_are_never_ignored(pattern: str) -> None:
    config = {"MODEL": {"MASK_ON": True, "RPN": {"NMS_THRESH": 0.5}}, "INPUT": {"FORMAT": "RGB"}}
    with pytest.raises(ConfigError, match="matches only keys that Detectron2 defines, such as"):
        split_ignored(config, [pattern])


@pytest.mark.parametrize("pattern", ["INPUT.SLICE", "input.slice_*", "", "SLICE_SIZE"])
def test_a_pattern_without_a_match_is_an_error(pattern: str) -> None:
    with pytest.raises(ConfigError, match="matches no key of the config"):
        split_ignored({"INPUT": {"SLICE_SIZE": 1}}, [pattern])


@pytest.mark.parametrize("pattern", ["MODEL.RESNETS.STEM_TYPE", "MODEL.*", "*", "MODEL.RESNETS"])
def test_keys_that_change_the_network_are_never_ignored(pattern: str) -> None:
    config = {"MODEL": {"RESNETS": {"STEM_TYPE": "deeplab", "DEPTH": 50}}, "MINE": 1}
    with pytest.raises(ConfigError) as raised:
        split_ignored(config, ["MINE", pattern])
    assert str(raised.value) == (
        f"--ignore-key 'MINE' {pattern!r}: MODEL.RESNETS.STEM_TYPE: 'deeplab' is a key of DeepLab "
        "that changes the network, so it cannot be ignored: the weights may match and the results "
        "be wrong"
    )


@pytest.mark.parametrize(
    ("config", "ignored"),
    [
        ({"MODEL": {"RESNETS": {"AVD": True}}}, None),
        ({"MODEL": {"POINT_HEAD": {"NUM_FC": 3}}}, None),
        ({"MODEL": {"TYPE": "generalized_rcnn"}}, None),
        ({"MODEL": {"RESNETS": {"AVD": False}}}, {"MODEL.RESNETS.AVD": False}),
        ({"MODEL": {"YOLO": {"TOP_LEVELS": 2}}}, {"MODEL.YOLO.TOP_LEVELS": 2}),
        ({"SEMISUPNET": {"BBOX_THRESHOLD": 0.7}}, {"SEMISUPNET.BBOX_THRESHOLD": 0.7}),
        ({"MODEL": {"RPN": {"FREEZE": True}}}, {"MODEL.RPN.FREEZE": True}),
        ({"INPUT": {"COLOR_AUG_SSD": True}}, {"INPUT.COLOR_AUG_SSD": True}),
        ({"MODEL": {"RESNETS": {"MINE": 2}}}, {"MODEL.RESNETS.MINE": 2}),
    ],
)
def test_other_keys_of_projects_can_be_ignored(
    config: dict[str, Any], ignored: dict[str, Any] | None
) -> None:
    if ignored is None:
        with pytest.raises(ConfigError, match="so it cannot be ignored"):
            split_ignored(config, ["*"])
    else:
        assert split_ignored(config, ["*"])[1] == ignored


def test_keys_of_projects_that_d2serve_reads_are_never_ignored() -> None:
    heads = {"OUTPUT_LAYER": "CosineSimOutputLayers", "COSINE_SCALE": 20.0}
    with pytest.raises(ConfigError, match=r"such as MODEL\.ROI_HEADS\.OUTPUT_LAYER: they change"):
        split_ignored({"MODEL": {"ROI_HEADS": heads}}, ["*.OUTPUT_LAYER"])


def test_own_keys_are_rejected_by_default(config: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        choose_runtime("native", config)
    for name in ("INPUT.SLICE_SIZE: 512", "INPUT.SLICE_OVERLAP: 0.2", "WANDB.PROJECT: 'mine'"):
        assert name in str(raised.value)
    with pytest.raises(ConfigError, match=r"WANDB.PROJECT") as raised:
        choose_runtime("native", config, ["INPUT.SLICE_*"])
    assert "SLICE" not in str(raised.value)
    assert choose_runtime("native", config, PATTERNS).runtime == "native"


def test_the_archive_records_what_was_ignored(
    config: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--config", str(config), "--weights", str(checkpoint), "--name", "own"]
    ignore = [part for pattern in PATTERNS for part in ("--ignore-key", pattern)]
    invoke(["archive", *files, *ignore, "--model-store", str(tmp_path)])
    names = "INPUT.SLICE_SIZE, INPUT.SLICE_OVERLAP, WANDB.PROJECT, WANDB.TAGS"
    assert f"ignored keys: {names}" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "own.mar") as packed:
        recorded = yaml.safe_load(packed.read(f"model/{IGNORED_KEYS_FILE}"))
        model = packed.read("model/model.json")
    assert recorded == {
        "INPUT.SLICE_SIZE": 512,
        "INPUT.SLICE_OVERLAP": 0.2,
        "WANDB.PROJECT": "mine",
        "WANDB.TAGS": ["a"],
    }
    plain = build_archive(BASE, checkpoint, tmp_path / "plain.mar")
    with zipfile.ZipFile(plain) as packed:
        assert packed.read("model/model.json") == model
        assert f"model/{IGNORED_KEYS_FILE}" not in packed.namelist()


def test_weights_must_still_match(config: Path, checkpoint: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    changed = tmp_path / "changed.pth"
    torch.save(state | {"roi_heads.extra.weight": torch.zeros(1)}, changed)
    with pytest.raises(CheckpointError, match=r"roi_heads\.extra\.weight"):
        build_archive(config, changed, tmp_path / "own.mar", ignore_keys=PATTERNS)


@pytest.mark.parametrize("runtime", ["auto", "native"])
def test_lazy_configs_have_no_keys_to_ignore(runtime: str) -> None:
    with pytest.raises(ConfigError, match="is a lazy config"):
        choose_runtime(runtime, CONFIGS / "mask_rcnn_vitdet.yaml", ["MINE"])
