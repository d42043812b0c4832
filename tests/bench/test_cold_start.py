"""A worker's start as the benchmark sees it."""

import os
import zipfile
from pathlib import Path

from bench.cold_start import COLUMNS, start


def test_a_worker_starts_from_an_unpacked_archive_and_answers(
    shapes_mar: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(shapes_mar) as archive:
        archive.extractall(tmp_path)
    figures = start(tmp_path, {**os.environ, "D2SERVE_WARM_UP_SIZES": "64x48"})
    assert tuple(figures) == COLUMNS
    assert all(value > 0 for value in figures.values())
    assert figures["own MB"] < figures["RSS MB"] <= figures["peak MB"]
