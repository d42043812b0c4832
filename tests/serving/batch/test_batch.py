"""`d2serve batch`: killed and resumed, with images that cannot be processed."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from tests.environment import clean_environment
from tests.serving.ray_server import RAY_PYTHON

# More than 100 images: the first kill comes when some parts are finished.
COUNT = int(os.environ.get("D2SERVE_BATCH_IMAGES", "120"))
KILLS = int(os.environ.get("D2SERVE_BATCH_KILLS", "1"))
BAD = max(2, COUNT // 100)
TIMEOUT_S = 120 + COUNT


def command(model: Path, source: Path, output: Path, *options: str) -> Sequence[str]:
    """The command line of a job."""
    paths = ("--input", str(source), "--output", str(output))
    return (str(RAY_PYTHON), "-m", "d2serve.cli.main", "batch", str(model), *paths, *options)


def run(*arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a job to its end."""
    [words] = arguments
    return subprocess.run(
        words, env=clean_environment(), capture_output=True, text=True, timeout=TIMEOUT_S
    )


def kill_after_parts(words: Sequence[str], output: Path, more: int) -> None:
    """Start a job, and kill it when it has finished some parts.

    tests/cli/test_run.py has the other signals, which all commands share.
    """
    parts = output / "parts"
    goal = len(list(parts.glob("*.parquet"))) + more
    process = subprocess.Popen(words, env=clean_environment(), stdout=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + TIMEOUT_S
        while len(list(parts.glob("*.parquet"))) < goal:
            assert process.poll() is None, "the job ended before it was killed"
            assert time.monotonic() < limit, "the job finished no parts"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def images(samples: list[Path], tmp_path: Path) -> Path:
    """A folder with COUNT good images and BAD ones, in two folders with the same names."""
    folder = tmp_path / "in"
    for place in range(COUNT):
        sample = samples[place % len(samples)]
        target = folder / ("a", "größe")[place % 2] / f"{place // 2}{sample.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample, target)
    for place in range(BAD - 1):
        (folder / f"bad{place}.jpg").write_bytes(b"not an image")
    (folder / "missing.png").symlink_to("nowhere")
    (folder / "readme.txt").write_text("not an image")
    return folder


def test_killed_job_resumes_without_loss_or_duplicates(shapes_mar: Path, images: Path) -> None:
    output = images / "out"
    words = command(shapes_mar, images, output, "--format", "coco")
    for _ in range(KILLS):
        kill_after_parts(words, output, 1)
    resumed = run(words)

    assert resumed.returncode == 0, resumed.stderr
    assert "resuming: " in resumed.stderr
    assert f"done: {COUNT} images" in resumed.stdout
    coco = COCO(output / "coco.json")
    paths = [image["path"] for image in coco.imgs.values()]
    good = {str(path) for path in images.glob("*/*") if path.parent != output}
    assert len(paths) == COUNT
    assert set(paths) == good
    failed = [json.loads(line) for line in (output / "failed.jsonl").read_text().splitlines()]
    assert len(failed) == BAD
    assert {row["error"]["code"] for row in failed} == {
        "not_found",
        "unsupported_media_type",
    }
    first = next(iter(coco.anns.values()))
    assert coco.annToMask(first).sum() == first["area"]

    other = run(command(shapes_mar, images, output, "--masks", "none"))
    assert other.returncode == 1
    assert "masks is 'none', but the job in --output began with 'rle'" in other.stderr
