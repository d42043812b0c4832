"""Command lines of batch jobs, the times of their parts, and the check of their results."""

import json
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.batch.images import Images
from bench.ray_chaos.cluster import PREFIX
from d2serve.servers.ray.private_ray import short_folder
from tests.environment import clean_environment
from tests.serving.ray_server import RAY_PYTHON

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS, FAILED = "results.jsonl", "failed.jsonl"


def job_words(model: Path, source: Path, output: Path, *options: str) -> list[str]:
    """The command line of a job."""
    paths = ("--input", str(source), "--output", str(output))
    return [str(RAY_PYTHON), "-m", "d2serve.cli.main", "batch", str(model), *paths, *options]


def run_checked(words: Sequence[str], **variables: str) -> str:
    """Run a command to its end; returns its stdout.

    Raises:
        RuntimeError: it has failed.
    """
    done = subprocess.run(
        words,
        cwd=REPOSITORY,
        env={**clean_environment(), **variables},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stdout[-1000:], done.stderr[-3000:], file=sys.stderr)
        raise RuntimeError(f"{words[:5]}: exit code {done.returncode}")
    return done.stdout


def run_on_cluster(words: Sequence[str], nodes: int, cpus: int) -> dict[str, Any]:
    """Run a job on a cluster of this machine; returns the report of `cluster.py`."""
    with short_folder(PREFIX) as folder:
        home = folder / "ray"
        home.mkdir()
        driver = [str(RAY_PYTHON), "-m", f"{__package__}.cluster", str(home), str(nodes)]
        variables = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        output = run_checked([*driver, str(cpus), *words], **variables)
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report


def part_ends(output: Path) -> list[float]:
    """When the parts appeared, in seconds since 1970, in order."""
    return sorted(path.stat().st_mtime for path in (output / "parts").glob("*.parquet"))


def steady_rate(ends: Sequence[float], images: int, images_per_part: int) -> float:
    """Images/s from the end of the first part to that of the last, without any start."""
    return (images - images_per_part) / (ends[-1] - ends[0])


class Checked(NamedTuple):
    """Numbers of images by what is wrong with their rows; all but `rows` must be 0."""

    rows: int
    missing: int
    repeated: int
    wrong: int
    leftovers: int

    @property
    def passed(self) -> bool:
        """True if each image is in the result exactly once, with the right kind of row."""
        return not any(self[1:])


def check(output: Path, images: Images) -> Checked:
    """Compare the results of a finished job, in JSON Lines, with its images."""
    rows = lines_of(output / RESULTS)
    counts = Counter(row["path"] for row in rows)
    failed = {row["path"] for row in rows if row["error"]}
    listed = [row["path"] for row in lines_of(output / FAILED)]
    wrong = len(failed ^ images.bad) + len(set(listed) ^ images.bad) + len(listed) - len(failed)
    leftovers = [*output.rglob("*.partial"), *(output / "started").glob("*")]
    return Checked(
        rows=len(rows),
        missing=len((images.good | images.bad) - set(counts)),
        repeated=len(rows) - len(counts),
        wrong=wrong,
        leftovers=len(leftovers),
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a file in JSON Lines."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
