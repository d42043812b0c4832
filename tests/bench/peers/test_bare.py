import time
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from bench.peers.bare import Bare, measure_bare, run_bare
from d2serve.errors import CommandError
from d2serve.serving.loading import load_pipeline


def test_figures_are_those_of_all_batches() -> None:
    bare = Bare(8, (1.0, 3.0, 2.0))
    assert bare.images_per_s == 4
    assert bare.percentile_ms(50) == 2000
    assert bare.percentile_ms(100) == 3000


def test_a_process_of_its_own_runs_an_archive(shapes_mar: Path, shapes: Path) -> None:
    pictures = sorted((shapes / "samples").glob("*.jpg"))
    bare = measure_bare(shapes_mar, pictures, batch=2, seconds=0.001)
    assert bare.batch == 2
    assert len(bare.seconds) == 1
    assert bare.images_per_s > 0


def test_a_rest_before_each_batch_is_not_counted(
    shapes_mar: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    with ZipFile(shapes_mar) as packed:
        packed.extractall(tmp_path)
    pipeline = load_pipeline(tmp_path, torch.device("cpu"), "bare")
    body = (shapes / "samples" / "shapes_01.jpg").read_bytes()
    measured = run_bare(pipeline, [body], batch=1, seconds=0.1, rest_ms=3_600_000)
    assert rests == [3600] * len(measured.seconds)
    assert sum(measured.seconds) < 3600


def test_a_refused_picture_is_no_timing(shapes_mar: Path, tmp_path: Path) -> None:
    with ZipFile(shapes_mar) as packed:
        packed.extractall(tmp_path)
    with pytest.raises(CommandError, match=r"the bare loop refused a picture: .*unsupported"):
        run_bare(
            load_pipeline(tmp_path, torch.device("cpu"), "bare"),
            [b"no picture"],
            batch=2,
            seconds=0.001,
        )


def test_what_a_process_says_of_its_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"the bare loop failed:\n(.*\n)*.*missing\.mar"):
        measure_bare(tmp_path / "missing.mar", [tmp_path / "missing.jpg"], batch=1, seconds=0.001)
