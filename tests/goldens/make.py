"""Regenerate the goldens with `detectron2`: python -m tests.goldens.make [MODEL ...]"""

import sys

from tests.goldens.cases import AUGMENTED, MODELS, VARIANTS
from tests.goldens.results import write_result
from tests.goldens.upstream import UpstreamModel


def main(names: list[str]) -> None:
    """Write the results of the named models, or of all."""
    for model in (*MODELS, *VARIANTS, *AUGMENTED):
        if names and model.name not in names:
            continue
        if not model.is_in_package:
            print(f"{model.name}: skipped, made with the project that defines its network")
            continue
        upstream = UpstreamModel(model.config, model.checkpoint, augment=model.augment)
        for path in model.images:
            result = upstream.predict(model.pixels(path))
            write_result(model.result_path(path), result)
            print(f"{model.name} {path.name}: {len(result.scores)} detections")


if __name__ == "__main__":
    main(sys.argv[1:])
