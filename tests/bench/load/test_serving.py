import os
import zipfile
from pathlib import Path

import pytest
import yaml

from bench.load.serving import (
    ServingSettings,
    check_environment,
    configure,
    grid,
    unpacked,
)
from d2serve.errors import CommandError
from d2serve.serving.model_config import read_settings, read_workers

SETTINGS = ServingSettings(batch_size=4, max_delay_ms=5, workers=2, threads=3)


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


@pytest.mark.usefixtures("four_cores")
def test_a_grid_has_all_combinations_but_delays_of_a_batch_of_one() -> None:
    assert grid([4, 1], [20, 5], [2]) == [
        ServingSettings(1, 5, 2, 2),
        ServingSettings(4, 5, 2, 2),
        ServingSettings(4, 20, 2, 2),
    ]


@pytest.mark.usefixtures("four_cores")
def test_workers_share_the_cores_and_are_no_more_than_them() -> None:
    shares = [(each.workers, each.threads) for each in grid([8], [5], [1, 2, 3, 4, 8])]
    assert shares == [(1, 4), (2, 2), (3, 1), (4, 1)]
    assert [each.threads for each in grid([8], [5], [1, 2], threads=1)] == [1, 1]
    assert [each.workers for each in grid([8], [5], [8])] == [8]


def test_a_copy_of_the_archive_takes_the_settings_and_keeps_its_others(tmp_path: Path) -> None:
    archive = tmp_path / "model.mar"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", "{}")
        packed.writestr(
            "model-config.yaml", "responseTimeout: 9\nhandler: {precision: auto, threads: 7}"
        )
    before = archive.read_bytes()
    with unpacked(archive) as folder:
        assert folder.name == "model"
        assert (folder / "MAR-INF" / "MANIFEST.json").exists()
        configure(folder, SETTINGS)
        written = yaml.safe_load((folder / "model-config.yaml").read_text())
        settings = read_settings(folder / "model-config.yaml")
        assert read_workers(folder / "model-config.yaml") == 2
    assert (written["responseTimeout"], written["batchSize"], written["maxBatchDelay"]) == (9, 4, 5)
    assert (settings.precision, settings.threads) == ("auto", 3)
    assert archive.read_bytes() == before
    assert not folder.exists()


def test_the_block_to_paste_is_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "model-config.yaml"
    file.write_text(SETTINGS.as_yaml())
    assert yaml.safe_load(file.read_text()) == SETTINGS.as_config()
    assert (read_settings(file).threads, read_workers(file)) == (3, 2)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.mar").write_text("no")
    with (
        pytest.raises(CommandError, match=r"model\.mar is not an archive; `make archive`"),
        unpacked(tmp_path / "model.mar"),
    ):
        pass


def test_a_variable_that_would_win_over_the_sweep_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_environment()
    monkeypatch.setenv("D2SERVE_THREADS", "1")
    with pytest.raises(CommandError, match="D2SERVE_THREADS is set and wins"):
        check_environment()
