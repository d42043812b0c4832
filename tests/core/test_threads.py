"""A worker's share of the cores."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from d2serve.serving.model_config import read_workers
from d2serve.serving.process import decode_threads, take_threads

CORES = 4


@pytest.fixture(autouse=True)
def _four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("workers", "share"), [(1, 4), (2, 2), (3, 1), (4, 1), (9, 1)])
def test_workers_share_the_cores(workers: int, share: int) -> None:
    take_threads(0, workers, {})
    assert torch.get_num_threads() == share


def test_a_number_that_is_set_stands() -> None:
    take_threads(3, 4, {"OMP_NUM_THREADS": "1"})
    assert torch.get_num_threads() == 3


def test_what_the_environment_decided_stands() -> None:
    take_threads(0, 4, {"OMP_NUM_THREADS": "4"})
    assert torch.get_num_threads() == CORES


@pytest.mark.parametrize(
    ("threads", "workers", "expected"),
    [(0, 1, 4), (0, 3, 1), (0, 9, 1), (1, 1, 1), (6, 2, 6)],
)
def test_decoding_takes_the_share_too_where_no_number_is_set(
    monkeypatch: pytest.MonkeyPatch, threads: int, workers: int, expected: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: CORES)
    assert decode_threads(threads, workers) == expected


@pytest.mark.parametrize(
    ("text", "workers"),
    [
        ("minWorkers: 1\nmaxWorkers: 3\n", 3),
        ("minWorkers: 2\n", 2),
        ("maxWorkers: many\n", 1),
        ("handler: {threads: 0}\n", 1),
        (None, 1),
    ],
)
def test_the_archive_says_how_many_workers_there_may_be(
    tmp_path: Path, text: str | None, workers: int
) -> None:
    file = tmp_path / "model-config.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert read_workers(file, {}) == workers


@pytest.mark.parametrize(
    ("text", "environment", "workers"),
    [
        ("", {"SAGEMAKER_TS_MAX_WORKERS": "3"}, 3),
        ("", {"SAGEMAKER_TS_MIN_WORKERS": "2", "SAGEMAKER_TS_MAX_WORKERS": "4"}, 4),
        ("", {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}, 2),
        ("", {"SAGEMAKER_TS_MAX_WORKERS": "3", "SAGEMAKER_MODEL_SERVER_WORKERS": "8"}, 3),
        ("maxWorkers: 2", {"SAGEMAKER_TS_MAX_WORKERS": "3"}, 2),
        ("", {"SAGEMAKER_TS_MAX_WORKERS": "many"}, 1),
        ("", {"SAGEMAKER_TS_MAX_WORKERS": "0"}, 1),
    ],
)
def test_sagemakers_variables_say_it_where_the_archive_does_not(
    tmp_path: Path, text: str, environment: dict[str, str], workers: int
) -> None:
    file = tmp_path / "model-config.yaml"
    file.write_text(f"batchSize: 8\n{text}\n", encoding="utf-8")
    assert read_workers(file, environment) == workers
