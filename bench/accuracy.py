"""Box and mask AP of the bundled model in each precision, on its held-out images."""

from collections.abc import Sequence

import torch

from bench.arguments import parser_of
from bench.report import Table, progress, write_report
from d2serve.settings import PRECISIONS
from models.shapes.accuracy import average_precision, detector_in, heldout_scenes


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each precision, and write accuracy.json and .md."""
    parser = parser_of("accuracy", __doc__)
    parser.add_argument("--images", "--pictures", type=int, default=400, help="held-out images")
    precisions = ["fp32", "bf16", "int8"]
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=precisions, help=" ")
    parser.add_argument("--threads", type=int, default=2, help="of the network")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    scenes, found = heldout_scenes(given.images), {}
    for precision in given.precisions:
        progress(f"{precision}: {given.images} images")
        found[precision] = average_precision(detector_in(precision), scenes)
    rows = [(name, f"{box_ap:.2f}", f"{mask_ap:.2f}") for name, (box_ap, mask_ap) in found.items()]
    table = Table(f"AP of {given.images} images", ("precision", "box AP", "mask AP"), rows)
    write_report(given.output / "accuracy", [table], {"images": given.images, "ap": found})
    return 0
