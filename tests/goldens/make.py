"""Makes the goldens anew where `detectron2` is installed: python -m tests.goldens.make [MODEL]"""

import sys

import numpy as np
from PIL import Image

from tests.goldens.answers import write_answer
from tests.goldens.cases import MODELS
from tests.goldens.upstream import UpstreamModel


def main(names: list[str]) -> None:
    """Writes the answers of the named models, or of all."""
    for model in MODELS:
        if names and model.name not in names:
            continue
        upstream = UpstreamModel(model.config, model.checkpoint)
        for path in model.pictures:
            answer = upstream.predict(np.array(Image.open(path).convert("RGB")))
            write_answer(model.answer_path(path), answer)
            print(f"{model.name} {path.name}: {len(answer.scores)} detections")


if __name__ == "__main__":
    main(sys.argv[1:])
