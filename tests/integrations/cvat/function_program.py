"""Load the function as cvat-cli does, and annotate a task as cvat-sdk does, without a server.

Arguments: the URL of a d2serve server, an image file, and a file for the decoded masks.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cvat_cli._internal.common import FunctionLoader
from cvat_cli._internal.parsers import parse_function_parameter
from cvat_sdk import masks, models
from cvat_sdk.auto_annotation import annotate_task, driver
from PIL import Image

from d2serve.errors import CommandError
from d2serve.integrations import cvat
from tests.integrations.samples import CLASS_NAMES, KEYPOINTS, FakePredictor, sample

# Ids in the task differ from those of the function.
FIRST_ID = 100


def load(*parameters: str, **options: Any) -> Any:
    """Load the function with values of the option -p."""
    loader = {"function_module": "d2serve.integrations.cvat", "function_file": None} | options
    parsed = dict(map(parse_function_parameter, parameters))
    return FunctionLoader(function_parameters=parsed, **loader).load()


def annotate(
    function: Any, size: tuple[int, int] | Path, labels: Sequence[str], **options: Any
) -> list[dict[str, Any]]:
    """Annotate a task of one image whose labels have these names, and return its shapes."""
    image = Image.open(size) if isinstance(size, Path) else Image.new("RGB", size)
    specs = {label.name: label for label in function.spec.labels}
    dataset = SimpleNamespace(
        labels=[task_label(i, name, specs.get(name)) for i, name in enumerate(labels, FIRST_ID)],
        samples=[
            SimpleNamespace(
                frame_name="a.png", frame_index=7, media=SimpleNamespace(load_image=lambda: image)
            )
        ],
    )
    driver.TaskDataset = lambda *_, **__: dataset
    uploads: list[Any] = []
    api = SimpleNamespace(
        partial_update_annotations=lambda *_, patched_labeled_data_request: uploads.append(
            patched_labeled_data_request
        )
    )
    client = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
    annotate_task(client, 1, function, **options)
    [upload] = uploads
    return [plain(shape, labels) for shape in upload.shapes]


def task_label(number: int, name: str, spec: Any) -> Any:
    """A label of the task, of any type, or a skeleton with the function's sublabels."""
    points = getattr(spec, "sublabels", [])
    return SimpleNamespace(
        id=number,
        name=name,
        type="skeleton" if points else "any",
        attributes=[],
        sublabels=[
            SimpleNamespace(id=1000 + i, name=point.name, attributes=[])
            for i, point in enumerate(points)
        ],
    )


def plain(shape: models.LabeledShapeRequest, labels: Sequence[str]) -> dict[str, Any]:
    content: Mapping[str, Any] = shape.to_dict()
    return {**content, "type": str(shape.type), "label": labels[shape.label_id - FIRST_ID]}


def refused(*parameters: str) -> str:
    try:
        load(*parameters)
    except CommandError as error:
        return str(error)
    return "accepted"


def decoded(shapes: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Any:
    return np.array(
        [
            masks.decode_mask(shape["points"], image_width=size[0], image_height=size[1])
            for shape in shapes
        ]
    )


def main(url: str, image: Path, output: Path) -> None:
    source = f"url=str:{url}"
    function = load(source)
    names = [label.name for label in function.spec.labels]
    with Image.open(image) as opened:
        size = opened.size
    served = annotate(function, image, names)
    from_file = load(
        source, "shape=str:rectangle", function_module=None, function_file=Path(cvat.__file__)
    )
    some = load(source, f"classes=str:{names[0]},{names[1]}", "score_threshold=float:0.9")
    blank = (64, 48)
    fake = cvat.CvatFunction(FakePredictor(sample()))
    exact = cvat.CvatFunction(FakePredictor(sample()), shape="polygon", tolerance_px=0)
    keyed = FakePredictor(sample(with_keypoints=True))
    skeletons = cvat.CvatFunction(keyed, keypoints=KEYPOINTS)
    fake_shapes = annotate(fake, blank, CLASS_NAMES)
    np.savez(output, served=decoded(served, size), fake=decoded(fake_shapes, blank))
    result = {
        "names": names,
        "served": served,
        "confident": annotate(function, image, names, conf_threshold=0.9),
        "as_polygons": annotate(function, image, names, conv_mask_to_poly=True),
        "rectangles": annotate(from_file, image, names),
        "some_names": [label.name for label in some.spec.labels],
        "some": annotate(some, image, names),
        "fake": fake_shapes,
        "polygons": annotate(exact, blank, CLASS_NAMES),
        "skeletons": annotate(skeletons, blank, CLASS_NAMES),
        "unmatched": annotate(fake, blank, ["dog"], allow_unmatched_labels=True),
        "refused": {
            "nothing": refused(),
            "shape": refused(source, "shape=str:cube"),
            "skeleton": refused(source, "shape=str:skeleton"),
            "classes": refused(source, "classes=str:cat"),
        },
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
