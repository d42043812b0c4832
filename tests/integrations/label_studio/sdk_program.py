"""Read predictions with label-studio-sdk: its validator, its brush decoder and its converters.

Arguments: a JSON file with `config` and `prediction` by name, and a folder for the outputs.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface

# The converter requires the attribute `model_index` of keypoints, and has no brush among others.
CONVERTED = ("brush", "polygon", "rectangle", "indexed")


def errors(config: str, prediction: dict[str, Any]) -> list[str]:
    """The messages of the validator."""
    found: list[str] = LabelInterface(config).validate_prediction(prediction, return_errors=True)
    return found


def decoded(prediction: dict[str, Any]) -> "np.ndarray[Any, Any]":
    """UInt8[N, H, W, 4]: the brush masks."""
    return np.array(
        [
            decode_rle(region["value"]["rle"]).reshape(
                region["original_height"], region["original_width"], 4
            )
            for region in prediction["result"]
        ]
    )


def coco(name: str, folder: Path, config: str, prediction: dict[str, Any]) -> dict[str, Any]:
    """The COCO file of a task whose annotation is the prediction."""
    annotation = {"id": 1, "completed_by": 1, "result": prediction["result"]}
    task = {"id": 7, "data": {"image": "a.png"}, "annotations": [annotation]}
    tasks, output = folder / f"{name}.json", folder / name
    tasks.write_text(json.dumps([task]), encoding="utf-8")
    converter = Converter(config, str(folder), download_resources=False)
    kind = "BRUSH_TO_COCO" if name == "brush" else "COCO"
    converter.convert(str(tasks), str(output), kind, is_dir=False)
    [file] = output.glob("*.json")
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def main(cases_file: Path, folder: Path) -> None:
    cases = json.loads(cases_file.read_text(encoding="utf-8"))
    np.save(folder / "brush.npy", decoded(cases["brush"]["prediction"]))
    outcomes = {
        name: {
            "errors": errors(**case),
            "coco": coco(name, folder=folder, **case) if name in CONVERTED else None,
        }
        for name, case in cases.items()
    }
    wrong = json.loads(json.dumps(cases["brush"]["prediction"]))
    wrong["result"][0]["value"]["brushlabels"] = ["unknown"]
    outcomes["wrong"] = {"errors": errors(cases["brush"]["config"], wrong)}
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
