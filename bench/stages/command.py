"""`make bench`: every stage of a request beside its baselines; writes out/bench/stages.*."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from bench import upstream
from bench.arguments import parser_of
from bench.comparison import Comparison, Result, run_comparison, write_results
from bench.report import progress
from bench.stages.images import decoding, encoding, masks, resizing
from bench.stages.network import forward, nms
from bench.stages.requests import overlap, requests, telemetry
from bench.stages.scaling import processes, scaling
from bench.workloads import Scale, native_precisions, quick_scale
from d2serve.errors import CommandError
from d2serve.settings import PRECISIONS

Stages = Mapping[str, Callable[[Scale], Iterator[Comparison]]]
# In the order of a request's path.
STAGES: Stages = {
    "decode": decoding,
    "resize": resizing,
    "forward": forward,
    "nms": nms,
    "masks": masks,
    "encode": encoding,
    "requests": requests,
}
# Run where --only names them.
OPTIONAL: Stages = {
    "overlap": overlap,
    "scaling": scaling,
    "processes": processes,
    "telemetry": telemetry,
}
ROUNDS, QUICK_ROUNDS = 15, 2
SECONDS = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the stages and write the report."""
    parser = parser_of("stages", __doc__)
    known = STAGES | OPTIONAL  # type: ignore[operator]
    only = f"default: all but {', '.join(OPTIONAL)}"
    parser.add_argument("--only", nargs="+", choices=known, help=only)
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    seconds = "of one comparison, unless three rounds take longer"
    parser.add_argument("--seconds", type=float, default=SECONDS, help=seconds)
    parser.add_argument("--threads", type=int, help="CPU threads of torch; default: torch's own")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the network")
    precisions = "default: fp32, and the half precision that is native to the device"
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS[:-1], help=precisions)
    parser.add_argument("--quick", action="store_true", help="few rounds, small sizes: a trial")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.device == "cuda" and not torch.cuda.is_available():
        raise CommandError("--device cuda: torch finds no CUDA device; use --device cpu")
    device = torch.device(given.device)
    chosen = tuple(given.precisions or native_precisions(device))
    scale = (quick_scale if given.quick else Scale)(device, chosen)
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    stages = [known[name] for name in given.only or STAGES]
    run_stages(stages, scale, rounds, given.seconds, given.output / "stages")
    return 0


def run_stages(
    stages: Sequence[Callable[[Scale], Iterator[Comparison | Result]]],
    scale: Scale,
    rounds: int,
    seconds: float,
    path: Path,
    notes: Sequence[str] = (),
) -> None:
    """Run the comparisons of the stages, `seconds` each, and write the report at `path`."""

    def run(each: Comparison | Result) -> Result:
        def show(done: int) -> None:
            progress(f"{each.stage}: {each.model} {each.case}: round {done} of {rounds}")

        return each if isinstance(each, Result) else run_comparison(each, rounds, seconds, show)

    results = (run(each) for stage in stages for each in stage(scale))
    missing = [] if upstream.installed() else ["detectron2 is not installed: no baseline"]
    write_results(path, results, [*notes, *missing], scale.device)
