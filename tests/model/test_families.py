"""Behaviour of single families of networks that the goldens do not cover."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from d2serve.building.config import load_config, parse_config
from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.detections import Detections
from d2serve.detector.native import NativeDetector
from d2serve.errors import ConfigError
from d2serve.model import semantic_seg
from d2serve.model.backbone_config import ResNetConfig
from d2serve.model.config import OutputConfig
from d2serve.model.fpn import ConvolvedTop
from d2serve.model.keypoint_head import KeypointHead
from d2serve.model.layers import NO_NORM_NO_BIAS
from d2serve.model.meta_arch import build_network
from d2serve.model.optimize import optimize
from d2serve.model.packed_conv import pack
from d2serve.model.resnet import ResNet
from d2serve.model.semantic_seg import pixel_classes
from d2serve.settings import Settings
from tests.goldens.cases import CONFIGS, TINY

OUTPUTS = {
    "mask_rcnn_c4": OutputConfig(5, 0, 0.1, 30),
    "cascade_mask_rcnn_gn": OutputConfig(5, 0, 0.1, 30),
    "retinanet": OutputConfig(5, 0, 0.5, 30),
    "fcos": OutputConfig(5, 0, 0.0, 30),
    "condinst": OutputConfig(5, 0, 0.1**0.5, 12),
    "center_mask_vovnet": OutputConfig(5, 0, 0.0, 20),
    "sparse_rcnn": OutputConfig(5, 0, 0.0, 20),
    "rpn_fpn": OutputConfig(1, 0, 0.0, 40),
    "panoptic_fpn": OutputConfig(5, 7, 0.3, 30),
    "semantic_fpn": OutputConfig(0, 7, 0.0, 1),
    "mask_rcnn_vitdet": OutputConfig(5, 0, 0.1, 20),
    "cascade_mask_rcnn_vitdet": OutputConfig(5, 0, 0.1, 20),
}
# Families that pad every image to the same square.
SQUARE = ("mask_rcnn_vitdet", "cascade_mask_rcnn_vitdet", "cascade_mask_rcnn_swin")
BACKBONES = ("mask_rcnn_swint", "cascade_mask_rcnn_swin", "faster_rcnn_convnext")
FAMILIES = (*OUTPUTS, "mask_rcnn_dc5", "keypoint_rcnn", "faster_rcnn_dconv_v2", *BACKBONES)
# A tenth of the usual size, so that a batch of several sizes is quick.
SIZES_HW = [(120, 160), (160, 120), (120, 160)]


@pytest.mark.parametrize(("name", "output"), OUTPUTS.items(), ids=OUTPUTS)
def test_output_limits_of_each_family(name: str, output: OutputConfig) -> None:
    assert load_config(CONFIGS / f"{name}.yaml").output == output


@pytest.mark.parametrize(
    "golden", [g for g in TINY if g.name in FAMILIES], ids=lambda golden: golden.name
)
def test_results_of_a_batch_equal_those_of_each_image_alone(golden: Any) -> None:
    detector = NativeDetector(golden.build(), torch.device("cpu"), Settings())
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES_HW]
    together = detector.detect(images)
    batches = [3, 3, 3] if golden.name in SQUARE else [2, 1, 2]
    assert [result.batch for result in together] == batches
    for image, result in zip(images, together, strict=True):
        [alone] = detector.detect([image])
        assert isinstance(alone.output, Detections)
        assert isinstance(result.output, Detections)
        assert_close(alone.output, result.output)


def assert_close(alone: Detections, together: Detections) -> None:
    np.testing.assert_allclose(together.boxes_xyxy, alone.boxes_xyxy, atol=0.01)
    np.testing.assert_allclose(together.scores, alone.scores, atol=1e-4)
    for name in ("masks", "mask_scores", "keypoints"):
        one, other = getattr(alone, name), getattr(together, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(other, one, atol=0.01)
    if alone.mask_runs is not None:
        assert together.mask_runs is not None
        areas = alone.mask_runs.areas()
        assert areas.sum() > 0
        np.testing.assert_allclose(together.mask_runs.areas(), areas, atol=3)
    if alone.semantic is not None:
        assert together.semantic is not None
        assert (alone.semantic == together.semantic).mean() > 0.999


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (
            "mask_rcnn_c4",
            {"KEYPOINT_ON": True},
            r"MODEL\.KEYPOINT_ON: True \(must be False for Res5ROIHeads\)",
        ),
        (
            "mask_rcnn_c4",
            {"RESNETS": {"OUT_FEATURES": ["res3"]}, "RPN": {"IN_FEATURES": ["res3"]}},
            r"MODEL\.ROI_HEADS\.IN_FEATURES: \['res4'\]",
        ),
        (
            "mask_rcnn_c4",
            {"RESNETS": {"DEFORM_ON_PER_STAGE": [False, False, False, True]}},
            r"DEFORM_ON_PER_STAGE: .* \(must be False in the last stage for Res5ROIHeads\)",
        ),
        (
            "mask_rcnn_c4",
            {"RESNETS": {"DEPTH": 18, "RES2_OUT_CHANNELS": 64}},
            r"MODEL\.RESNETS\.DEPTH: 18 \(must be 50 or more for Res5ROIHeads\)",
        ),
        (
            "mask_rcnn_r50",
            {"ROI_HEADS": {"NAME": "CascadeROIHeads"}},
            r"CLS_AGNOSTIC_BBOX_REG: False \(must be True for CascadeROIHeads\)",
        ),
        (
            "cascade_mask_rcnn_gn",
            {"ROI_BOX_CASCADE_HEAD": {"IOUS": [0.5, 0.6]}},
            r"ROI_BOX_CASCADE_HEAD\.BBOX_REG_WEIGHTS: .* \(must have a list for each",
        ),
        (
            "mask_rcnn_r50",
            {"RESNETS": {"RES5_DILATION": 2}},
            r"RES5_DILATION: 2 \(must be 1 with an FPN\)",
        ),
        (
            "mask_rcnn_r50",
            {"RESNETS": {"OUT_FEATURES": ["res6"]}},
            r"OUT_FEATURES: \['res6'\] \(supported: res2, res3",
        ),
        (
            "mask_rcnn_r50",
            {"PROPOSAL_GENERATOR": {"NAME": "PrecomputedProposals"}},
            "Fast R-CNN needs the proposals",
        ),
        ("retinanet", {"RETINANET": {"NORM": "IN"}}, r"RETINANET\.NORM: 'IN'"),
        ("semantic_fpn", {"SEM_SEG_HEAD": {"NAME": "Mine"}}, r"SEM_SEG_HEAD\.NAME: 'Mine'"),
    ],
)
def test_inconsistent_configs_are_rejected(
    base: str, changes: dict[str, Any], message: str
) -> None:
    explicit = merge(read_yaml_config(CONFIGS / f"{base}.yaml"), {"MODEL": changes})
    with pytest.raises(ConfigError, match=message):
        parse_config(explicit)


def test_settings_of_heads_that_a_family_lacks_are_ignored() -> None:
    explicit = read_yaml_config(CONFIGS / "retinanet.yaml")
    unread = {"MODEL": {"ROI_HEADS": {"NAME": "Mine"}, "PROPOSAL_GENERATOR": {"NAME": "Mine"}}}
    assert parse_config(merge(explicit, unread)) == parse_config(explicit)


@pytest.mark.parametrize(("norm", "kind"), [("GN", "GroupNorm"), ("SyncBN", "FrozenBatchNorm2d")])
def test_every_part_has_the_configured_norm(norm: str, kind: str) -> None:
    explicit = merge(
        read_yaml_config(CONFIGS / "cascade_mask_rcnn_gn.yaml"),
        {
            "MODEL": {
                part: {"NORM": norm} for part in ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")
            }
        },
    )
    network = build_network(parse_config(explicit))
    norms = {
        name: type(module).__name__
        for name, module in network.named_modules()
        if name.endswith(".norm")
    }
    for part in ("stem.conv1", "res5.0.conv3", "fpn_lateral2", "box_head.0.conv1", "mask_fcn1"):
        assert [kind] == list({value for name, value in norms.items() if f"{part}.norm" in name})
    assert not [name for name in network.state_dict() if name.endswith("conv1.bias")]


@pytest.mark.parametrize("original_hw", [(90, 120), (31, 64), (7, 300), (200, 3)])
@pytest.mark.parametrize("max_pixels", [50, 1_000_000])
def test_pixel_classes_do_not_depend_on_the_strip_height(
    monkeypatch: pytest.MonkeyPatch, original_hw: tuple[int, int], max_pixels: int
) -> None:
    monkeypatch.setattr(semantic_seg, "MAX_PIXELS", max_pixels)
    torch.manual_seed(0)
    logits = torch.randn(5, 64, 96)
    cropped = logits[None, :, :60, :80]
    expected = F.interpolate(cropped, size=original_hw, mode="bilinear", align_corners=False)
    found = pixel_classes(logits, (60, 80), original_hw)
    assert found.dtype == torch.int32
    assert (found == expected[0].argmax(dim=0)).float().mean() > 0.999


def test_no_boxes_give_no_keypoints() -> None:
    family = load_config(CONFIGS / "keypoint_rcnn.yaml").family
    config = family.roi_heads.keypoint  # type: ignore[union-attr]
    assert config is not None
    head = KeypointHead(16, config).eval()
    with torch.inference_mode():
        found = head.predict(torch.zeros(0, 16, 14, 14), torch.zeros(0, 4))
    assert found.shape == (0, 5, 3)


def detector_of(name: str, **values: Any) -> NativeDetector:
    """The tiny model of that name with other config values."""
    [golden] = [golden for golden in TINY if golden.name == name]
    model = optimize(golden.build())
    explicit = merge(read_yaml_config(golden.config), values)
    changed = optimize(build_network(parse_config(explicit)).eval())
    changed.load_state_dict(model.state_dict())
    return NativeDetector(changed, torch.device("cpu"), Settings())


def test_retinanet_applies_the_score_threshold() -> None:
    image = np.random.default_rng(2).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    [plain] = detector_of("retinanet", TEST={"DETECTIONS_PER_IMAGE": 200}).detect([image])
    assert isinstance(plain.output, Detections)
    median = float(np.median(plain.output.scores))
    strict = detector_of(
        "retinanet",
        TEST={"DETECTIONS_PER_IMAGE": 200},
        MODEL={"RETINANET": {"SCORE_THRESH_TEST": median}},
    )
    [result] = strict.detect([image])
    assert isinstance(result.output, Detections)
    assert 0 < len(result.output) < len(plain.output)
    assert (result.output.scores > median).all()


def test_p7_is_convolved_from_p6_after_relu() -> None:
    top = ConvolvedTop(in_channels=4, out_channels=4)
    res5 = torch.randn(1, 4, 8, 8)
    with torch.inference_mode():
        p6, p7 = top(res5)
        assert (p6 < 0).any()
        assert top.p7 is not None
        torch.testing.assert_close(p7, top.p7(p6.clamp(min=0)))


def test_without_a_pyramid_only_equal_sizes_are_batched() -> None:
    images = [np.full((side, 150, 3), 90, dtype=np.uint8) for side in (120, 121, 120)]
    results = detector_of("mask_rcnn_c4", INPUT={"MIN_SIZE_TEST": 0}).detect(images)
    assert [result.batch for result in results] == [2, 1, 2]


def test_a_stage_does_not_overwrite_the_stem() -> None:
    deform = (None,) * 4
    config = ResNetConfig(18, 1, 64, True, 64, 64, NO_NORM_NO_BIAS, 1, deform, 2, stem_feature=True)
    torch.manual_seed(0)
    resnet = ResNet(config).requires_grad_(False)
    pack(resnet)  # packed convolutions add to the shortcut in place
    images = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(resnet(images)["stem"], resnet.stem(images), rtol=0, atol=0)


def test_a_retinanet_without_candidates_finds_nothing() -> None:
    base = read_yaml_config(CONFIGS / "retinanet.yaml")
    config = parse_config(merge(base, {"MODEL": {"RETINANET": {"TOPK_CANDIDATES_TEST": 0}}}))
    detector = NativeDetector(build_network(config).eval(), torch.device("cpu"), Settings())
    [result] = detector.detect([np.zeros((*SIZES_HW[0], 3), dtype=np.uint8)])
    assert isinstance(result.output, Detections)
    assert len(result.output) == 0
