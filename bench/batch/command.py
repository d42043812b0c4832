"""The batch job beside a bare loop over the same images, in alternation; Ray's object store."""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.arguments import add_target, parser_of, whole
from bench.batch.images import write_images
from bench.batch.jobs import (
    RESULTS,
    job_words,
    lines_of,
    part_ends,
    run_checked,
    run_on_cluster,
    steady_rate,
)
from bench.report import Table, progress, write_report
from d2serve.serving.cpu import available_cpus
from tests.serving.ray_server import RAY_PYTHON

COLUMNS = ("", "images/s", "of the loop", "images/s with the start", "seconds")


def measure_loop(source: Path, output: Path, images: int, per_part: int) -> dict[str, float]:
    """Run the loop."""
    output.mkdir()
    module = [str(RAY_PYTHON), "-m", f"{__package__}.loop"]
    started = time.monotonic()
    text = run_checked([*module, str(source), str(output), str(per_part), str(available_cpus())])
    seconds = time.monotonic() - started
    ends = json.loads(text.splitlines()[-1])["ends"]
    rate = steady_rate(ends, images, per_part)
    return {"rate": rate, "rate_with_start": images / seconds, "seconds": seconds}


def measure_job(model: Path, source: Path, output: Path, images: int) -> dict[str, float]:
    """Run the job on a Ray of its own."""
    started = time.monotonic()
    run_checked(job_words(model, source, output, "--format", "jsonl"))
    seconds = time.monotonic() - started
    rate = steady_rate(part_ends(output), images, images_per_part(output))
    return {"rate": rate, "rate_with_start": images / seconds, "seconds": seconds}


def images_per_part(output: Path) -> int:
    """Number of images of a full part of a job."""
    number: int = json.loads((output / "job.json").read_text())["images_per_part"]
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; writes batch.json and .md."""
    parser = parser_of("batch", __doc__)
    add_target(parser, url=False)
    parser.add_argument("--count", type=whole, default=480, help="number of images")
    parser.add_argument("--rounds", type=whole, default=2, help="of the loop and the job")
    parser.add_argument("--nodes", type=whole, default=1, help="of the cluster, for the store")
    given = parser.parse_args(arguments)
    model, count = given.model.resolve(), given.count
    loops: list[dict[str, float]] = []
    jobs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="d2b-bench-") as name:
        folder = Path(name)
        write_images(folder / "in", given.images, count)
        for number in range(given.rounds):
            progress(f"round {number + 1}: job")
            job = folder / f"job{number}"
            jobs.append(measure_job(model, folder / "in", job, count))
            progress(f"round {number + 1}: loop")
            per_part = images_per_part(job)
            loop = folder / f"loop{number}"
            loops.append(measure_loop(folder / "in", loop, count, per_part))
        progress(f"object store, {given.nodes} nodes")
        words = job_words(model, folder / "in", folder / "cluster", "--format", "jsonl")
        cpus = max(1, available_cpus() // given.nodes)
        store = run_on_cluster(words, given.nodes, cpus)
        same = compared(folder / "cluster", folder / "job0")
        parts = sorted((folder / "cluster" / "parts").glob("*.parquet"))
        result_bytes = sum(path.stat().st_size for path in parts)
        image_bytes = sum(path.stat().st_size for path in (folder / "in").rglob("*.*"))
    loop_rate = statistics.median(each["rate"] for each in loops)
    rows = [_row("bare loop", loops, loop_rate), _row("job", jobs, loop_rate)]
    notes = [
        f"{count} images of {image_bytes / count:.0f} bytes, results of "
        f"{result_bytes / count:.0f} bytes an image; images/s without the start are from the end "
        "of the first part to the end of the last",
        store_note(store),
        f"on {given.nodes} nodes of a cluster, of {count} images: {same}",
    ]
    data = {"count": count, "loops": loops, "jobs": jobs, "store": store, "compared": same}
    sizes = {"image_bytes": image_bytes, "result_bytes": result_bytes}
    write_report(
        given.output / "batch",
        [Table("Batch job", COLUMNS, rows)],
        {**data, **sizes},
        notes=notes,
    )
    return 0


def compared(output: Path, reference: Path) -> str:
    """Count the equal rows of two finished jobs."""
    one, other = (
        {row["path"]: row for row in lines_of(each / RESULTS)} for each in (output, reference)
    )
    counts = sum(
        len(row["detections"]) == len(other[path]["detections"])
        for path, row in one.items()
        if path in other
    )
    equal = sum(other.get(path) == row for path, row in one.items())
    both_have = len(set(one) & set(other))
    return f"{both_have} in both results, {counts} with as many detections, {equal} equal"


def store_note(store: dict[str, Any]) -> str:
    """The use of the object store in one line."""
    samples = store["samples"]
    most, last = max(each["bytes"] for each in samples), samples[-1]
    [line] = [each for each in store["summary"].splitlines() if "Plasma memory usage" in each]
    return (
        f"object store: at most {most / 1e3:.1f} kB in {len(samples)} samples, "
        f"{last['created_bytes'] / 1e3:.1f} kB created in total; at the end: {line.strip()}"
    )


def _row(name: str, runs: Sequence[dict[str, float]], loop_rate: float) -> tuple[str, ...]:
    rate, start, seconds = (
        statistics.median(run[key] for run in runs)
        for key in ("rate", "rate_with_start", "seconds")
    )
    return (name, f"{rate:.1f}", f"{rate / loop_rate:.2f}", f"{start:.1f}", f"{seconds:.1f}")
