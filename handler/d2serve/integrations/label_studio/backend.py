"""Predict the labels of Label Studio's tasks."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2serve.errors import D2ServeError
from d2serve.integrations.keypoints import COCO_KEYPOINTS
from d2serve.integrations.label_studio.images import ImageSource
from d2serve.integrations.label_studio.labeling_config import (
    CONTROL_TAGS,
    LabelingConfig,
    parse_labeling_config,
)
from d2serve.integrations.label_studio.regions import RegionWriter
from d2serve.integrations.outlines import DEFAULT_TOLERANCE_PX
from d2serve.integrations.predictor import Predictor

logger = logging.getLogger(__name__)
TASKS_AT_ONCE = 4


@dataclass(frozen=True)
class Backend:
    """Predicts the labels of tasks.

    Attributes:
        predictor: the model.
        images: reads the tasks' images.
        model_version: Label Studio stores it with predictions, and requests predictions again when
            it changes.
        score_threshold: minimum score; None for the model's default.
        keypoints: see `RegionWriter`.
        tolerance_px: of polygons, see `outlines`.
    """

    predictor: Predictor
    images: ImageSource
    model_version: str
    score_threshold: float | None = None
    keypoints: tuple[str, ...] = COCO_KEYPOINTS
    tolerance_px: float = DEFAULT_TOLERANCE_PX

    def close(self) -> None:
        """Free the model's memory and close all connections."""
        self.images.close()
        self.predictor.close()

    def check(self, label_config: str) -> None:
        """Log what a project's labeling config does not have for the model.

        Raises:
            CommandError: the config is not valid.
        """
        config = parse_labeling_config(label_config)
        controls = list(config.controls_of(*CONTROL_TAGS))
        if not controls:
            logger.warning(
                "the labeling config has no %s tag for an Image tag with a value such as $image; "
                "predictions will be empty",
                " or ".join(CONTROL_TAGS),
            )
        names = [
            name
            for name in self.predictor.class_names
            if not any(control.label_of(name) for control in controls)
        ]
        if controls and names:
            logger.warning(
                "the labeling config has no label for %s; add labels of these names, or the "
                "attribute predicted_values to others",
                ", ".join(names),
            )

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], label_config: str
    ) -> list[list[dict[str, Any]]]:
        """Return the predictions of each task: one, or none if its image cannot be used.

        Label Studio requests a prediction again for tasks without any.

        Raises:
            CommandError: the config is not valid.
        """
        config = parse_labeling_config(label_config)
        with ThreadPoolExecutor(TASKS_AT_ONCE) as pool:
            return list(pool.map(lambda task: self._predictions(task, config), tasks))

    def _predictions(self, task: Mapping[str, Any], config: LabelingConfig) -> list[dict[str, Any]]:
        try:
            return self._predicted(task, config)
        # An error of one task leaves the others unaffected, whatever its cause.
        except (D2ServeError, OSError, ValueError) as error:
            logger.warning("task %s has no prediction: %s", task.get("id"), error)
        except Exception:
            logger.exception("task %s has no prediction", task.get("id"))
        return []

    def _predicted(self, task: Mapping[str, Any], config: LabelingConfig) -> list[dict[str, Any]]:
        """The prediction for all images of a task; its score is the instances' mean.

        Raises:
            D2ServeError: an image cannot be read or predicted.
            ValueError: the task contains no image.
        """
        regions: list[dict[str, Any]] = []
        scores: list[float] = []
        for image_name in dict.fromkeys(control.image_name for control in config.controls):
            writer = RegionWriter(config.of_image(image_name), self.keypoints, self.tolerance_px)
            key = config.image_keys[image_name]
            reference = task["data"].get(key)
            if not isinstance(reference, str):
                raise ValueError(f"data.{key} is {reference!r}; expected the URL of an image")
            content = self.images.read(reference, task.get("id"))
            [detections] = self.predictor.predict([content], score_threshold=self.score_threshold)
            regions += writer.write(detections)
            scores += detections.scores.tolist()
        if not config.controls:
            return []
        score = float(np.mean(scores)) if scores else 0.0
        return [{"result": regions, "score": score, "model_version": self.model_version}]
