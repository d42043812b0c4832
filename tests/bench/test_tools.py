"""GPU, memory, overload, cold start and the command itself."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as entry
from bench import gpu
from bench.baselines import command
from bench.comparison import Result, Series
from bench.loadgen.generator import Record
from bench.memory import bare_peak, rows_of
from bench.overload import recovery_s
from bench.worker_process import results_of, run_worker, unpack
from tests.bench.fake_server import Capture, Patch
from tests.goldens.cases import SAMPLES, TINY

JPEG = next(each for each in SAMPLES if each.suffix == ".jpg")


def test_an_interrupted_run_leaves_its_results(tmp_path: Path, monkeypatch: Patch) -> None:
    def interrupted(*_: object) -> Iterator[Result]:
        series = (Series("d2serve", (40.0,)), Series("naive", (4.0,)))
        yield Result("http", "naive", "shapes fp32", 1, "a note", series, "requests/s", True)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.main(["--output", str(tmp_path)])
    assert "10 (10..10)" in (tmp_path / "baselines.md").read_text()


def test_a_worker_starts_from_an_archive_and_runs_batches(
    shapes_mar: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    folder = unpack(shapes_mar, tmp_path)
    monkeypatch.setenv("D2SERVE_WARM_UP_SIZES", "64x48")
    run = run_worker(folder, [JPEG], 2, seconds=0.001)
    assert (run.batch, len(run.seconds)) == (2, 1)
    assert run.images_per_s == 2 / run.seconds[0]
    assert run.private_mb < run.resident_mb <= run.peak_mb
    assert [each.unit for each in results_of({"a": [run]})] == ["s"] * 3 + ["MB"] * 3
    with pytest.raises(RuntimeError, match=r"(?s)the worker of .* failed:.*unsupported"):
        run_worker(folder, [folder / "MAR-INF" / "MANIFEST.json"])


def test_without_a_gpu_the_command_ends(monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert entry.main(["gpu"]) == 2
    assert capsys.readouterr().err == "bench gpu needs a CUDA GPU, and torch finds none\n"
    assert entry.main(["no-such"]) == 2
    assert "received 'no-such', expected one of stages, gpu" in capsys.readouterr().err


# Detectron2's own habits, where it is installed.
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
def test_the_gpu_benchmark_runs_on_the_cpu(tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--quick", "--without-http", "--output", str(tmp_path)]
    assert gpu.main(arguments) == 0
    results = json.loads((tmp_path / "gpu.json").read_text())["results"]
    cases = [each["case"] for each in results if each["stage"] == "forward"]
    assert cases == [f"{name}, batch {batch}" for name in ("fp32", "bf16") for batch in (1, 2)]
    names = [series["name"] for series in results[0]["series"]]
    assert names == ["d2serve", "d2serve, from pixels", "torchvision eager"]
    assert {"decode", "requests"} < {each["stage"] for each in results}
    page = (tmp_path / "gpu.md").read_text()
    assert "TF32 in fp32, for all implementations: off in matrix" in page


def test_memory_of_the_worker_beside_the_bare_model() -> None:
    samples = [(done, (200 if done < 10 else 300 + done) * 10**6) for done in range(101)]
    assert dict(rows_of(250 * 10**6, samples, 100)) == {
        "bare model, peak": "250",
        "worker, ready": "200",
        "worker, after a tenth of the requests": "314",
        "worker, at the end": "396",
        "worker, peak": "400",
        "worker's peak / bare": "1.60",
        "growth per 1,000 requests, after a tenth": "+1000.00",
    }
    [tiny] = [model for model in TINY if model.name == "mask_rcnn_r50"]
    assert 100e6 < bare_peak(tiny, 2, 1) < 3000e6


def test_recovery_is_a_response_as_fast_as_on_an_idle_server() -> None:
    for probes, recovered in (
        ([(99, 99.1, 200), (101, 103, 200), (103, 103.15, 200)], 3.15),
        ([(101, 101.01, 503), (102, 102.1, 200)], 2.1),
        ([(101, 103, 200)], None),
    ):
        records = [Record(due, done, status, True) for due, done, status in probes]
        assert recovery_s(records, 0.1, ended=100) == (recovered and pytest.approx(recovered))
