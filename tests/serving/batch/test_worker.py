"""The worker of batch jobs without Ray: overlays, polygons, JSON Lines, and a deadly image."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from d2serve.outputs.formats import default_object
from d2serve.servers.ray.batch.rows import response_row
from tests.environment import clean_environment
from tests.outputs.results import TWO_OF_ALL, result_of
from tests.serving.ray_server import RAY_PYTHON

SCRIPT = Path(__file__).with_name("worker_process.py")
TIMEOUT_S = 300


def run_worker(
    options: dict[str, str], run: str = "a", deadly: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the worker over all parts."""
    words = (str(RAY_PYTHON), str(SCRIPT), json.dumps(options), run, deadly)
    return subprocess.run(
        words, env=clean_environment(), capture_output=True, text=True, timeout=TIMEOUT_S
    )


def finish(options: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command, which has nothing left to process."""
    named = [f"--{name}={value}" for name, value in options.items() if name != "model"]
    words = (str(RAY_PYTHON), "-m", "d2serve.cli.main", "batch", options["model"], *named, *more)
    return subprocess.run(
        words, env=clean_environment(), capture_output=True, text=True, timeout=TIMEOUT_S
    )


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file in JSON Lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_polygons_overlays_and_json_lines(
    shapes_mar: Path, jpeg: Path, png: Path, tmp_path: Path
) -> None:
    source, output, drawn = (tmp_path / name for name in ("in", "out", "in/drawn"))
    (source / "größe").mkdir(parents=True)
    shutil.copy(jpeg, source / "größe" / "1.jpg")
    shutil.copy(png, source / "2.png")
    Image.open(png).save(source / "3.webp")
    (source / "4.jpg").write_bytes(b"not an image")
    paths = {"model": shapes_mar, "input": source, "output": output, "overlays": drawn}
    options = {name: str(value) for name, value in paths.items()} | {"masks": "polygon"}

    worked = run_worker(options)
    assert worked.returncode == 0, worked.stderr
    assert json.loads(worked.stdout) == {"images": [4], "failed": [1], "failure": [""]}
    finished = finish(options, "--format", "jsonl")
    assert finished.returncode == 0, finished.stderr
    assert "done: 3 images" in finished.stdout
    rows = lines(output / "results.jsonl")
    assert [Path(row["path"]).name for row in rows] == ["2.png", "3.webp", "4.jpg", "1.jpg"]
    [bad] = [row for row in rows if row["error"]]
    assert Path(bad["path"]).name == "4.jpg"
    first = rows[0]["detections"][0]
    assert first["rle"] is None
    assert all(len(ring) >= 6 and len(ring) % 2 == 0 for ring in first["polygons"])

    overlays = {str(path.relative_to(drawn)) for path in drawn.rglob("*") if path.is_file()}
    assert overlays == {"größe/1.jpg", "2.png", "3.webp.jpg"}
    with Image.open(drawn / "2.png") as overlay, Image.open(png) as original:
        assert overlay.format == "PNG"
        assert np.any(np.asarray(overlay) != np.asarray(original.convert("RGB")))
    leftovers = {path.name for path in output.rglob("*") if path.suffix in (".partial", ".json")}
    assert leftovers == {"job.json"}


def test_parts_have_every_output_of_the_model() -> None:
    content = default_object(result_of(TWO_OF_ALL))
    row = response_row("/in/1.jpg", 200, json.dumps(content).encode())
    code = (
        "import json, sys, pyarrow; from d2serve.servers.ray.batch.rows import schema;"
        "table = pyarrow.Table.from_pylist([json.load(sys.stdin)], schema());"
        "print(json.dumps(table.to_pylist()))"
    )
    stored = subprocess.run(
        [str(RAY_PYTHON), "-c", code], input=json.dumps(row), capture_output=True, text=True
    )
    assert stored.returncode == 0, stored.stderr
    assert json.loads(stored.stdout) == [{**row, "error": None}]


def test_an_image_that_ends_the_process_becomes_a_row(
    shapes_mar: Path, jpeg: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        shutil.copy(jpeg, source / name)
    options = {"model": str(shapes_mar), "input": str(source), "output": str(output)}

    codes = [run_worker(options, deadly="2.jpg").returncode for _ in range(2)]
    assert codes == [9, 9]
    ended = run_worker(options, deadly="2.jpg")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"images": [3], "failed": [1], "failure": [""]}
    finished = finish(options)
    assert "done: 2 images" in finished.stdout, finished.stderr
    [failed] = lines(output / "failed.jsonl")
    assert Path(failed["path"]).name == "2.jpg"
    assert failed["error"]["code"] == "internal"
