"""Batch jobs without Ray: listing of images, actors, lock, crashes and COCO files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from d2serve.errors import CommandError
from d2serve.outputs.formats import coco_results, default_object
from d2serve.servers.ray.batch import export
from d2serve.servers.ray.batch.actors import Actors, plan_actors
from d2serve.servers.ray.batch.attempts import Attempts
from d2serve.servers.ray.batch.inputs import list_images
from d2serve.servers.ray.batch.job import Job
from d2serve.servers.ray.batch.lock import LOCK_FILE, locked
from d2serve.servers.ray.batch.rows import response_row
from d2serve.servers.ray.batch.run import cause_of
from tests.outputs.results import TWO_OF_ALL, result_of


def touch(*paths: Path) -> None:
    """Create empty files with their folders."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(paths: tuple[str, ...], folder: Path) -> list[str]:
    """The paths relative to a folder."""
    return [str(Path(path).relative_to(folder)) for path in paths]


def test_a_folder_is_listed_in_order_without_results(tmp_path: Path) -> None:
    wanted = ("b.JPG", "größe/2.png", "größe/日本.webp")
    touch(*(tmp_path / name for name in (*wanted, "readme.txt", "out/drawn.png")))
    (tmp_path / "größe" / "up").symlink_to(tmp_path)
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    listing = list_images(str(tmp_path), (str(tmp_path / "out"),))
    assert names(listing.paths, tmp_path) == ["b.JPG", "broken.jpg", *wanted[1:]]
    assert listing.skipped == 1


def test_a_manifest_is_relative_to_its_folder_and_repeats_nothing(tmp_path: Path) -> None:
    manifest = tmp_path / "lists" / "all.txt"
    touch(manifest)
    text = "\ufeff../b.jpg\r\na b.jpg\n\n./a b.jpg\n/data/é.png\ns3://bucket/x//y.jpg\n"
    manifest.write_text(text, encoding="utf-8")
    listing = list_images(str(manifest))
    assert listing.paths == (
        str(tmp_path / "b.jpg"),
        str(tmp_path / "lists" / "a b.jpg"),
        "/data/é.png",
        "s3://bucket/x//y.jpg",
    )
    assert listing.repeated == 1


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "has no image; looked for"),
        (lambda path: path.write_text("\n \n"), "contains no path"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is not text in UTF-8"),
    ],
)
def test_an_input_without_images_is_an_error(create: Any, message: str, tmp_path: Path) -> None:
    create(tmp_path / "in")
    with pytest.raises(CommandError, match=message):
        list_images(str(tmp_path / "in"))


def test_one_actor_per_node_or_gpu_unless_given() -> None:
    cpu, gpu = {"CPU": 8.0}, {"CPU": 8.0, "GPU": 2.0}
    assert plan_actors([cpu, cpu]) == Actors(2, 8, 0)
    assert plan_actors([cpu, cpu], 4) == Actors(4, 4, 0)
    assert plan_actors([gpu, cpu]) == Actors(2, 4, 1)
    assert plan_actors([gpu], gpus=0.5) == Actors(4, 2, 0.5)
    assert plan_actors([gpu], gpus=0) == Actors(1, 8, 0)


@pytest.mark.parametrize(
    ("nodes", "count", "gpus", "message"),
    [
        ([{"CPU": 2.0}], 3, None, "--actors 3 is more than the CPUs"),
        ([{"CPU": 2.0}], 0, 1.0, "needs more GPUs than the cluster has, 0"),
        ([{"CPU": 2.0, "GPU": 1.0}], 2, 1.0, "needs more GPUs than the cluster has, 1"),
        ([{"memory": 1.0}], 0, None, "has no CPUs"),
    ],
)
def test_a_cluster_that_is_too_small(
    nodes: list[dict[str, float]], count: int, gpus: float | None, message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        plan_actors(nodes, count, gpus)


def test_a_second_job_in_the_same_output_is_an_error(tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    with locked(folder), pytest.raises(CommandError, match=r"in use by process \d+ on "):  # noqa: SIM117
        with locked(folder):
            pytest.fail("two jobs hold the lock")
    with locked(folder):
        assert Path(folder, LOCK_FILE).read_text()


class MemoryFiles(dict[str, bytes]):
    """Files in memory."""

    def read(self, name: str) -> bytes:
        if name not in self:
            raise FileNotFoundError(name)
        return self[name]

    def write(self, name: str, content: bytes) -> None:
        self[name] = content

    def remove(self, name: str) -> None:
        self.pop(name, None)


def test_parts_that_crash_are_processed_alone_and_their_images_are_found() -> None:
    files = MemoryFiles()
    attempts = Attempts(files, "first")
    assert [attempts.start("p").is_alone for _ in range(3)] == [False, False, True]
    attempts.process_alone("p", attempts.start("p"), 4)
    found = attempts.start("p")
    assert found.crashed == [4]
    attempts.process_alone("p", found, 7)
    assert attempts.start("p").crashed == [4, 7]
    # Starts of an interrupted run do not count.
    assert not Attempts(files, "second").start("p").is_alone
    attempts.end("p")
    assert not files


def test_the_cause_of_rays_error() -> None:
    text = "The actor died\n  File 'x', line 1\nOSError: [Errno 28] No space left on device\n"
    assert cause_of(text) == "[Errno 28] No space left on device"
    assert cause_of("The node is gone\n\nmore") == "The node is gone"


def detection(**masks: Any) -> dict[str, Any]:
    """A detection of a row."""
    about = {"class_index": 1, "score": 0.5, "box": [1.0, 2.0, 4.0, 7.0]}
    return {**about, "rle": None, "polygons": None, "keypoints": None, **masks}


def coco_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *rows: dict[str, Any]
) -> dict[str, Any]:
    """The content of the COCO file of these rows."""

    class Folder:
        def upload(self, name: str, source: Path) -> None:
            (folder / name).write_bytes(source.read_bytes())

    monkeypatch.setattr(export, "read_rows", lambda *_: iter(rows))
    job = Job("sum", "/in", "rle", None, "", ("a", "b"))
    name = export.export(Folder(), job, "coco")  # type: ignore[arg-type]
    content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return content


def test_a_coco_file_of_masks_polygons_and_boxes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mask = np.zeros((9, 8), np.uint8, order="F")
    mask[2:7, 1:4] = 1
    rle = coco_mask.encode(mask)["counts"].decode()
    square = [1, 2, 4, 2, 4, 7, 1, 7]
    found = [detection(rle=rle), detection(polygons=[square]), detection()]
    row = {"path": "/in/größe/1.jpg", "width": 8, "height": 9, "error": None, "detections": found}
    bad = {"path": "/in/2.jpg", "error": {"code": "internal"}}

    content = coco_file(tmp_path, monkeypatch, bad, row)
    assert content["categories"] == [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]
    [image] = content["images"]
    assert image["file_name"] == "größe/1.jpg"
    assert [each["area"] for each in content["annotations"]] == [15, 15, 15]
    assert {tuple(each["bbox"]) for each in content["annotations"]} == {(1.0, 2.0, 3.0, 5.0)}
    first, second, third = (each.get("segmentation") for each in content["annotations"])
    assert np.array_equal(coco_mask.decode(first), mask)
    assert second == [square]
    assert third is None


def test_rows_and_the_coco_file_have_every_output_of_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = default_object(result_of(TWO_OF_ALL))
    row = response_row("/in/1.jpg", 200, json.dumps(content).encode())
    columns = {"mask_score": "mask_scores", "class_index": "classes", "score": "scores"}
    for column, field in {**columns, "keypoints": "keypoints", "densepose": "densepose"}.items():
        assert [found[column] for found in row["detections"]] == content[field]
    assert [found["rle"] for found in row["detections"]] == [m["counts"] for m in content["masks"]]
    assert set(json.loads(row["maps"])) == {"panoptic", "semantic"}

    annotations = coco_file(tmp_path, monkeypatch, {**row, "error": None})["annotations"]
    for annotation, expected in zip(annotations, coco_results(result_of(TWO_OF_ALL)), strict=True):
        assert {**annotation, **expected, "image_id": 1} == annotation
