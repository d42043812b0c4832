"""Ray Serve beside the ASGI server: requests/s with bodies of 2 kB, 200 kB and 2 MB, and batches
beside `serve.batch`. Needs the environment .venv-ray, in which all implementations run."""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.arguments import add_target, parser_of, positive, whole
from bench.ray import batches, throughput
from bench.ray.bodies import IMAGE_WH, SIZES_BYTES, write_bodies
from bench.ray.throughput import Effort
from bench.report import describe_machine, write_report
from d2serve.client.images import find_images

WARM_UP_S, QUICK_WARM_UP_S = 1.0, 0.2
# Of the batches, relative to the seconds of a throughput: the queue needs time to grow.
LONGER = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write ray-throughput and ray-batches as .json, .md and .png."""
    parser = parser_of("ray", __doc__)
    add_target(parser, url=False)
    parts = list(PARTS)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="to measure")
    parser.add_argument("--clients", type=whole, default=16, help="of the closed loops")
    parser.add_argument("--seconds", type=positive, default=4, help="of a measurement")
    parser.add_argument("--rounds", type=whole, default=5, help="alternating")
    parser.add_argument("--quick", action="store_true", help="one short round: a trial")
    given = parser.parse_args(arguments)
    effort = Effort(given.clients, given.seconds, WARM_UP_S, given.rounds)
    if given.quick:
        effort = Effort(given.clients, 1.0, QUICK_WARM_UP_S, 1)
    with tempfile.TemporaryDirectory(prefix="d2serve-ray-") as temporary:
        for part in given.only:
            folder = Path(temporary, part)
            folder.mkdir()
            PARTS[part](given, folder, effort)
    return 0


def measure_throughput(given: argparse.Namespace, folder: Path, effort: Effort) -> None:
    """Write ray-throughput, after Ctrl-C too, with the complete cases."""
    machine, cases = describe_machine(), list[throughput.Case]()
    bodies = write_bodies(folder, find_images(given.images)[0], SIZES_BYTES)
    try:
        cases.extend(throughput.measure_all(given.model, folder, bodies, effort))
    finally:
        table, panel = throughput.report(cases)
        width, height = IMAGE_WH
        notes = [
            f"{effort.clients} clients in a closed loop; bodies are one JPEG of {width}x{height} "
            "pixels, lengthened by comments of random bytes",
            "one replica or process each, with all CPUs; all in .venv-ray",
        ]
        data = {"effort": effort._asdict(), "cases": [each.as_json() for each in cases]}
        path = given.output / "ray-throughput"
        write_report(path, [table], data, [panel] if cases else [], notes, machine)


def measure_batches(given: argparse.Namespace, folder: Path, effort: Effort) -> None:
    """Write ray-batches."""
    machine = describe_machine()
    longer = effort._replace(seconds=LONGER * effort.seconds)
    found = batches.compare(given.model, folder, find_images(given.images)[0], longer)
    table, notes = batches.report(found)
    data = {"effort": longer._asdict(), **found.as_json()}
    write_report(given.output / "ray-batches", [table], data, notes=notes, machine=machine)


PARTS: Mapping[str, Callable[[argparse.Namespace, Path, Effort], None]] = {
    "throughput": measure_throughput,
    "batches": measure_batches,
}
