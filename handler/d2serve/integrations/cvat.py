"""A function for CVAT's automatic annotation: `cvat-cli task auto-annotate`.

    cvat-cli --server-host https://cvat.example.com task auto-annotate 42 \\
        --function-module d2serve.integrations.cvat -p url=str:http://127.0.0.1:8080

The task's labels must have the names of the model's classes; `--allow-unmatched-labels` ignores
classes that the task does not have. Needs `cvat-sdk`, which `cvat-cli` installs.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from d2serve.detections import Detections
from d2serve.errors import CommandError
from d2serve.integrations.keypoints import MIN_KEYPOINT_SCORE, check_keypoint_count, keypoint_names
from d2serve.integrations.outlines import DEFAULT_TOLERANCE_PX, outlines
from d2serve.integrations.predictor import Predictor, open_predictor, split_names
from d2serve.masks.paste import MaskRegion

try:
    import cvat_sdk.auto_annotation as cvataa
    from cvat_sdk import models
    from cvat_sdk.masks import encode_mask
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"module {error.name!r} is not installed; install it with: pip install cvat-cli",
        name=error.name,
    ) from error

TOKEN_VARIABLE = "D2SERVE_TOKEN"  # noqa: S105
SHAPES = ("mask", "polygon", "rectangle", "skeleton")
# Older versions of CVAT store no scores of shapes.
HAS_SCORES = "score" in models.LabeledShapeRequest.attribute_map
BLANK = np.zeros((64, 64, 3), np.uint8)


def create(
    *,
    url: str | None = None,
    model: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    region: str | None = None,
    target_model: str | None = None,
    device: str = "cpu",
    shape: str | None = None,
    score_threshold: float | None = None,
    classes: str = "",
    keypoints: str = "",
    tolerance_px: float = DEFAULT_TOLERANCE_PX,
) -> "CvatFunction":
    """Create the function; `cvat-cli` passes its options `-p NAME=TYPE:VALUE`.

    Args:
        url: see `open_predictor`, as for `model` to `device`.
        model: an archive to run in this process, or the name of one of the server's models.
        endpoint: name of a SageMaker endpoint.
        token: bearer token of a server that requires one; by default the value of the environment
            variable D2SERVE_TOKEN.
        region: AWS region of the endpoint.
        target_model: `NAME.tar.gz` of a multi-model endpoint.
        device: torch device of a model in this process.
        shape: `mask`, `polygon`, `rectangle` or `skeleton`; by default skeletons of a model with
            keypoints, else masks, else rectangles.
        score_threshold: minimum score if `cvat-cli` has no `--conf-threshold`.
        classes: names of the classes to annotate, separated by commas; by default all.
        keypoints: names of the keypoints in the model's order, separated by commas; by default
            COCO's, if the model's only class is `person`.
        tolerance_px: maximum distance of polygons from the exact outline of the mask, in pixels.

    Raises:
        CommandError: an argument is not valid, or the model does not have what `shape` needs.
        D2ServeError: the model cannot be loaded or reached.
    """
    predictor = open_predictor(
        url=url,
        model=model,
        endpoint=endpoint,
        token=token or (os.environ.get(TOKEN_VARIABLE) if url else None),
        region=region,
        target_model=target_model,
        device=device,
    )
    return CvatFunction(
        predictor,
        shape=shape,
        score_threshold=score_threshold,
        classes=split_names(classes),
        keypoints=split_names(keypoints),
        tolerance_px=tolerance_px,
    )


class CvatFunction:
    """A detection function of CVAT's SDK.

    Args:
        predictor: the model.
        shape: a member of SHAPES, see `create`.
        score_threshold: minimum score unless CVAT demands one.
        classes: names of the classes to annotate; empty for all.
        keypoints: names of the keypoints; empty for COCO's.
        tolerance_px: of polygons, see `create`.

    Attributes:
        spec: the labels that CVAT matches with those of a task, by name; their ids are class
            indices.

    Raises:
        CommandError: see `create`.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        shape: str | None = None,
        score_threshold: float | None = None,
        classes: Sequence[str] = (),
        keypoints: Sequence[str] = (),
        tolerance_px: float = DEFAULT_TOLERANCE_PX,
    ) -> None:
        self._predictor = predictor
        self._tolerance_px = tolerance_px
        self._score_threshold = score_threshold
        self._classes = _checked_classes(classes, predictor.class_names)
        self._shape = _checked_shape(shape, predictor)
        self._keypoints: tuple[str, ...] = ()
        if self._shape == "skeleton":
            self._keypoints = keypoint_names(keypoints, predictor.class_names)
        self.spec = cvataa.DetectionFunctionSpec(labels=list(self._labels()))

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: Image.Image
    ) -> list[models.LabeledShapeRequest]:
        """Return CVAT's shapes for the instances in an image.

        A polygon has no holes, and a mask of several parts becomes a polygon for each of them.

        Raises:
            D2ServeError: the prediction failed.
            CommandError: the model has another number of keypoints than names.
        """
        threshold = context.conf_threshold
        [detections] = self._predictor.predict(
            [image],
            score_threshold=self._score_threshold if threshold is None else threshold,
            classes=self._classes or None,
        )
        is_polygon = self._shape == "mask" and context.conv_mask_to_poly
        return list(self._shapes(detections, "polygon" if is_polygon else self._shape))

    def _labels(self) -> Iterator[models.PatchedLabelRequest]:
        points = [cvataa.keypoint_spec(name, i) for i, name in enumerate(self._keypoints)]
        for index, name in enumerate(self._predictor.class_names):
            if self._classes and name not in self._classes:
                continue
            if points:
                yield cvataa.skeleton_label_spec(name, index, points)
            else:
                yield cvataa.label_spec(name, index, type=self._shape)

    def _shapes(self, detections: Detections, shape: str) -> Iterator[models.LabeledShapeRequest]:
        geometries: Iterable[Any] = detections.boxes_xyxy
        if shape == "skeleton":
            geometries = self._checked_keypoints(detections)
        elif shape in ("mask", "polygon"):
            geometries = detections.mask_regions()
        fields_of = self._fields_of(shape, detections.size_hw)
        for label, score, geometry in zip(
            detections.classes.tolist(), detections.scores.tolist(), geometries, strict=True
        ):
            common = {"score": score} if HAS_SCORES else {}
            for fields in fields_of(geometry):
                yield cvataa.shape(label, type=shape, **common, **fields)

    def _fields_of(
        self, shape: str, size_hw: tuple[int, int]
    ) -> Callable[[Any], Iterator[dict[str, Any]]]:
        """The function of an instance's geometry that yields the fields of its shapes."""
        functions: dict[str, Callable[[Any], Iterator[dict[str, Any]]]] = {
            "mask": partial(_mask, size_hw=size_hw),
            "polygon": partial(_polygons, tolerance_px=self._tolerance_px),
            "rectangle": _rectangle,
            "skeleton": _skeleton,
        }
        return functions[shape]

    def _checked_keypoints(self, detections: Detections) -> Any:
        # The number of keypoints is not known without instances.
        if detections.keypoints is None or not len(detections):
            return ()
        check_keypoint_count(self._keypoints, detections.keypoints.shape[1])
        return detections.keypoints


def _mask(region: MaskRegion, size_hw: tuple[int, int]) -> Iterator[dict[str, Any]]:
    if region.pixels.any():
        rows, columns = region.window
        box = (columns.start, rows.start, columns.stop, rows.stop)
        yield {"points": encode_mask(region.full(size_hw), box)}


def _polygons(region: MaskRegion, tolerance_px: float) -> Iterator[dict[str, Any]]:
    for outline in outlines(region, tolerance_px):
        yield {"points": outline.ravel().tolist()}


def _rectangle(box_xyxy: Any) -> Iterator[dict[str, Any]]:
    yield {"points": box_xyxy.tolist()}


def _skeleton(keypoints: Any) -> Iterator[dict[str, Any]]:
    elements = [
        cvataa.keypoint(index, [x, y], occluded=score < MIN_KEYPOINT_SCORE)
        for index, (x, y, score) in enumerate(keypoints.tolist())
    ]
    yield {"elements": elements}


def _checked_classes(classes: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    for name in classes:
        if name not in known:
            raise CommandError(f"`classes` has {name!r}; expected names of {', '.join(known)}")
    return tuple(classes)


def _checked_shape(shape: str | None, predictor: Predictor) -> str:
    """The shape to return; finds out what the model has with a blank image."""
    if shape is not None and shape not in SHAPES:
        raise CommandError(f"`shape` is {shape!r}; expected {', '.join(SHAPES)}")
    [blank] = predictor.predict([BLANK])
    available = {
        "skeleton": blank.keypoints is not None,
        "mask": blank.has_masks,
        "polygon": blank.has_masks,
        "rectangle": True,
    }
    if shape is None:
        return next(name for name, is_available in available.items() if is_available)
    if not available[shape]:
        has = ", ".join(name for name, is_available in available.items() if is_available)
        raise CommandError(f"`shape` is {shape!r}, but the model only has {has}")
    return shape
