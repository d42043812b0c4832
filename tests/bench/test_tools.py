"""GPU, memory, overload, cold start and the command itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as entry
from bench import overload
from bench.gpu import command as gpu
from bench.loadgen.generator import ClosedLoop, OpenLoop, Record, Traffic
from bench.loadgen.load import Load, measure
from bench.memory import bare_peak, large_peaks_mb, rows_of
from bench.overload import recovery_s
from bench.worker_process import results_of, running_worker, unpack
from tests.bench.fake_server import Capture, FakeServer, Patch, running
from tests.goldens.cases import SAMPLES, TINY

# /proc counts a process's pages with an error of a few per thread.
PAGES_MB = 1.0
JPEG = next(each for each in SAMPLES if each.suffix == ".jpg")


def test_a_worker_starts_from_an_archive_and_serves_its_own_clients(
    shapes_mar: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    folder = unpack(shapes_mar, tmp_path)
    monkeypatch.setenv("D2SERVE_WARM_UP_SIZES", "64x48")
    with running_worker(folder, [JPEG]) as worker:
        start = worker.start
        once = worker.run(clients=3, seconds=0)
        run = worker.run(clients=2, seconds=1.0, warm_up_s=0.2)
    assert start.private_mb < start.resident_mb <= start.peak_mb < once.peak_mb + PAGES_MB
    assert len(once.seconds) == 3
    # Each of two clients may have a request in progress at the start and at the end of the second.
    assert run.images_per_s == pytest.approx(len(run.seconds), abs=2)
    assert [each.unit for each in results_of({"a": [start]})] == ["s"] * 3 + ["MB"] * 3
    no_image = folder / "MAR-INF" / "MANIFEST.json"
    with (
        pytest.raises(RuntimeError, match=r"(?s)the worker failed:.*an image received 400"),
        running_worker(folder, [no_image]),
    ):
        pass


def test_without_a_gpu_the_command_ends(monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert entry.main(["gpu"]) == 2
    assert capsys.readouterr().err == "bench gpu needs a CUDA GPU, and torch finds none\n"
    assert entry.main(["no-such"]) == 2
    assert "received 'no-such', expected one of stages, gpu" in capsys.readouterr().err


# Detectron2's own habits, where it is installed.
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
def test_the_gpu_benchmark_runs_on_the_cpu(tmp_path: Path) -> None:
    arguments = [
        "--device",
        "cpu",
        "--quick",
        "--only",
        "forward",
        "profile",
        "--precisions",
        "bf16",
    ]
    assert gpu.main([*arguments, "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "gpu-forward.json").read_text())["results"]
    assert [each["case"] for each in results] == [f"bf16, batch {batch}" for batch in (1, 2)]
    names = [series["name"] for series in results[0]["series"]]
    assert names[:3] == ["d2serve", "d2serve, from pixels", "torchvision eager"]
    page = (tmp_path / "gpu-forward.md").read_text()
    assert "TF32 in fp32, for all implementations: off in matrix" in page
    assert (
        "bf16, batch 2, 3 runs, by self_cpu_time_total"
        in (tmp_path / "gpu-profile.txt").read_text()
    )


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


def test_peak_memory_of_large_images(shapes_mar: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("D2SERVE_WARM_UP_SIZES", "64x48")
    small, once, again = large_peaks_mb(shapes_mar, tmp_path, (1600, 1200)).values()
    # Two threads decode at least one image each.
    assert small + 1600 * 1200 * 3 / 1e6 < once < again + PAGES_MB


def test_recovery_is_the_first_request_as_fast_as_on_an_idle_server() -> None:
    for probes, recovered in (
        ([(99, 99.1, 200), (101, 103, 200), (103, 103.15, 200)], 3.0),
        ([(101, 101.01, 503), (102, 102.1, 200)], 2.0),
        ([(101, 103, 200)], None),
    ):
        records = [Record(due, done, status, True) for due, done, status in probes]
        assert recovery_s(records, 0.2, ended=100) == (recovered and pytest.approx(recovered))


def test_an_overload_is_compared_with_the_capacity(monkeypatch: Patch, tmp_path: Path) -> None:
    """Two requests at a time take 0.1 s each, and the server rejects the rest."""
    fake, sent = FakeServer(lag_s=0.1, most=2), list[Traffic]()
    for name, value in (("CLIENTS_AT_CAPACITY", 2), ("WATCHED_S", 0.5), ("WARM_UP_S", 0.2)):
        monkeypatch.setattr(overload, name, value)

    def record(url: str, requests: Any, traffic: Traffic, *args: float, **options: float) -> Load:
        sent.append(traffic)
        return measure(url, requests, traffic, *args, **options)

    monkeypatch.setattr(overload, "measure", record)
    with running(fake):
        arguments = ["--url", fake.url, "--images", str(JPEG), "--seconds", "1"]
        assert overload.main([*arguments, "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "overload.json").read_text())
    rates = [found[name]["requests_per_s"] for name in ("before", "after")]
    assert found["capacity"] == sum(rates) / 2 > 0
    assert sent == [ClosedLoop(2), OpenLoop(4 * rates[0]), ClosedLoop(2)]
    assert set(found["overload"]["statuses"]) == {"200", "503"}
    assert found["goodput"] == found["overload"]["requests_per_s"] / found["capacity"] > 0
    assert found["overload"]["rejected_latency_ms"]
    assert found["probes"]
    page = (tmp_path / "overload.md").read_text()
    for row in ("goodput", "time to a 503, p50", "time to a 503, p99", "recovered after"):
        assert f"| {row} " in page
