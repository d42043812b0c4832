"""Tiny networks of all families as archives, their requests, and the comparison of responses."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from d2serve.building.checkpoint import open_checkpoint
from d2serve.building.class_names import choose_class_names
from d2serve.building.packing import write_yaml
from d2serve.building.runtimes import NATIVE, write_model_folder
from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.client.results import detections_of
from d2serve.detections import Detections
from d2serve.metadata import CLASSES_FILE, class_names_text
from d2serve.model.weights import Weights
from d2serve.serving.loading import MODEL_FOLDER
from tests.building.test_project_configs import PSEUDO_LABELS
from tests.building.test_unknown_keys import nested
from tests.goldens.cases import DENSEPOSE, RESULTS, TINY, GoldenModel
from tests.goldens.comparison import BOX_TOLERANCE_PX, MIN_AGREEMENT, compare
from tests.goldens.results import read_result
from tests.goldens.surfaces import assert_surfaces_equal, read_surfaces
from tests.goldens.upstream import UpstreamResult
from tests.serving.archives import alter
from tests.serving.traffic import Body

# Detectron2's own families with outputs or backbones that no other one here has.
OF_DETECTRON2 = ("cascade_mask_rcnn_swin", "keypoint_rcnn", "panoptic_fpn")
GOLDENS = {golden.name: golden for golden in TINY}


@dataclass(frozen=True)
class Family:
    """A network whose results are stored.

    Attributes:
        golden: the network and its images.
        name: of the model on a server.
        keys: those that a project of training adds to the config.
        teacher: whether the checkpoint has the weights of a teacher and of an untrained student.
    """

    golden: GoldenModel
    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    teacher: bool = False

    def write_folder(self, folder: Path, checkpoint: Path) -> None:
        """Write what an archive has except its code, which the ASGI server does not run.

        Args:
            folder: a new one.
            checkpoint: a file for the weights that the folder is made from.
        """
        torch.save({"model": self._checkpoint_weights()}, checkpoint)
        config = checkpoint.with_suffix(".yaml") if self.keys else self.golden.config
        if self.keys:
            write_yaml(config, merge(read_yaml_config(self.golden.config), nested({**self.keys})))
        model = folder / MODEL_FOLDER
        model.mkdir(parents=True)
        written = write_model_folder(model, config, open_checkpoint(checkpoint).weights, NATIVE)
        counts = written.num_classes, written.num_stuff_classes
        names = choose_class_names(None, written.explicit, *counts).names
        (model / CLASSES_FILE).write_text(class_names_text(names))
        alter(folder, {})

    def _checkpoint_weights(self) -> Weights:
        weights = self.golden.weights()
        if not self.teacher:
            return weights
        untrained = {f"modelStudent.{name}": 0 * each for name, each in weights.items()}
        return {**untrained, **{f"modelTeacher.{name}": each for name, each in weights.items()}}

    @cached_property
    def expected(self) -> list[UpstreamResult]:
        """The stored result of each image."""
        return [read_result(self._result_path(image)) for image in self.golden.images]

    def assert_as_stored(self, found: Detections, image: int) -> None:
        """Compare a result with that of the project's own code."""
        expected = self.expected[image]
        if self.golden in DENSEPOSE:
            stored = read_surfaces(self._result_path(self.golden.images[image]))
            assert_surfaces_equal(found, expected, stored)
        # DensePose's results are stored without masks, and JSON has as many as detections.
        if expected.masks is None and (self.golden in DENSEPOSE or not len(found)):
            found = found.without_masks()
        comparison = compare(expected, found)
        assert comparison.within_tolerance, (self.name, comparison)

    def _result_path(self, image: Path) -> Path:
        if self.golden in DENSEPOSE:
            return RESULTS / f"{self.golden.name}.json"
        return self.golden.result_path(image)


def assert_same(found: Detections, alone: Detections) -> None:
    """Compare the results of an image in a batch and alone."""
    if alone.surfaces is not None:
        assert_surfaces_equal(found, alone, [each.iuv for each in alone.surface_maps()])
    comparison = compare(
        UpstreamResult(
            alone.boxes_xyxy,
            alone.scores,
            alone.classes,
            masks=alone.masks_dense() if alone.has_masks else None,
            keypoints=alone.keypoints,
            semantic=alone.semantic,
            panoptic=None if alone.panoptic is None else alone.panoptic.ids,
            mask_scores=alone.mask_scores,
        ),
        found,
    )
    assert comparison.within_tolerance, comparison


def mirrored(image: Path) -> Body:
    """The image as a PNG, left and right exchanged: other pixels in the same size."""
    file = io.BytesIO()
    ImageOps.mirror(Image.open(image).convert("RGB")).save(file, "PNG")
    return Body(file.getvalue(), "image/png")


def found_in(response: httpx.Response) -> Detections:
    """The result of a response in JSON."""
    assert response.status_code == 200, response.text
    return detections_of(response.json())


def assert_arrays(arrays: Mapping[str, npt.NDArray[Any]], found: Detections) -> None:
    """Compare the arrays of an NPZ file with a result."""
    panoptic = None if found.panoptic is None else found.panoptic.ids
    iuv, instances = (None, None) if found.surfaces is None else found.surface_image()
    expected: dict[str, npt.NDArray[Any] | None] = {
        "boxes": found.boxes_xyxy,
        "scores": found.scores,
        "classes": found.classes,
        "masks": found.masks_dense() if found.has_masks else np.zeros((0, *found.size_hw)),
        "mask_scores": found.mask_scores,
        "keypoints": found.keypoints,
        "semantic": found.semantic,
        "panoptic": panoptic,
        "densepose": iuv,
        "densepose_instances": instances,
    }
    present = {name: value for name, value in expected.items() if value is not None}
    assert {*arrays} - {"panoptic_segments"} == {*present}
    for name, value in present.items():
        # JSON has fewer digits, and the image may have run in another batch.
        if value.dtype.kind == "f" and name != "masks":
            np.testing.assert_allclose(arrays[name], value, atol=BOX_TOLERANCE_PX)
        else:
            assert arrays[name].shape == value.shape
            assert (arrays[name] != value).sum() <= (1 - MIN_AGREEMENT) * value.size


def assert_tensors(tensors: Sequence[Mapping[str, Any]], in_json: Mapping[str, Any]) -> None:
    """Compare the tensors of a v2 response with the response in JSON."""
    count = len(in_json["scores"])
    fields = ("boxes", "scores", "classes", "masks", "keypoints", "panoptic", "semantic")
    present = [name for name in (*fields, "densepose", "mask_scores") if in_json.get(name)]
    assert [tensor["name"] for tensor in tensors] == present
    for tensor in tensors:
        is_map = tensor["name"] in ("panoptic", "semantic")
        assert tensor["shape"][0] == (1 if is_map else count)


def _families() -> list[Family]:
    others = [golden for golden in TINY if not golden.is_in_package]
    own = [GOLDENS[name] for name in OF_DETECTRON2]
    named = {golden.name.replace("/", "-"): golden for golden in (*own, *others, *DENSEPOSE)}
    return [*(Family(golden, name) for name, golden in named.items()), *TRAINING]


ARCHITECTURE, HEADS = "MODEL.META_ARCHITECTURE", "MODEL.ROI_HEADS.NAME"
# Projects whose networks differ from others in training only.
TRAINING = (
    Family(
        GOLDENS["mask_rcnn_r50"],
        "unbiased_teacher",
        {ARCHITECTURE: "TwoStagePseudoLabGeneralizedRCNN", **PSEUDO_LABELS},
        teacher=True,
    ),
    Family(
        GOLDENS["mask_rcnn_r50"],
        "adaptive_teacher",
        {ARCHITECTURE: "DAobjTwoStagePseudoLabGeneralizedRCNN", **PSEUDO_LABELS},
        teacher=True,
    ),
    Family(
        GOLDENS["mask_rcnn_r50"],
        "active_teacher",
        {ARCHITECTURE: "TwoStageTeacherStudentGeneralizedRCNN", **PSEUDO_LABELS},
        teacher=True,
    ),
    Family(GOLDENS["mask_rcnn_r50"], "aldi", {"DOMAIN_ADAPT.TEACHER.ENABLED": True}),
    Family(
        GOLDENS["cascade_mask_rcnn_gn"],
        "cutler",
        {HEADS: "CustomCascadeROIHeads", "MODEL.ROI_HEADS.USE_DROPLOSS": True},
    ),
    Family(
        GOLDENS["faster_rcnn_cosine"],
        "fsce",
        {
            HEADS: "ContrastiveROIHeads",
            "MODEL.ROI_BOX_HEAD.CONTRASTIVE_BRANCH.MLP_FEATURE_DIM": 128,
        },
    ),
    Family(GOLDENS["condinst"], "boxinst", {"MODEL.BOXINST.ENABLED": True}),
)
FAMILIES = _families()
