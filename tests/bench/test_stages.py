"""`make bench` as a whole and its stages, on sizes that take a moment."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.comparison import OURS
from bench.stages import images, requests, scaling
from bench.stages.command import STAGES, main
from bench.upstream import installed
from bench.workloads import quick_scale
from d2serve.errors import CommandError
from d2serve.servers.asgi.metrics import ServerMetrics
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.reporter import Reporter
from d2serve.settings import Settings
from tests.bench.fake_server import Capture, Patch
from tests.bodies import image_bytes, noise
from tests.environment import clean_environment
from tests.fakes import FakeDetector, metadata_of


# Detectron2's own habits, where it is installed.
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
def test_every_stage_is_timed_and_reported(tmp_path: Path, capsys: Capture) -> None:
    assert main(["--quick", "--rounds", "1", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert ("detectron2 is not installed" in printed) is not installed()
    content = json.loads((tmp_path / "stages.json").read_text())
    assert list(dict.fromkeys(each["stage"] for each in content["results"])) == list(STAGES)
    for each in content["results"]:
        assert all(series["values"][0] > 0 for series in each["series"])
        assert each["series"][0]["name"] == OURS
        assert each["case"] in printed
    whole = [each for each in content["results"] if each["stage"] == "requests"]
    models = {(name, batch) for name in ("shapes", "mask_rcnn_r50") for batch in (1, 2)}
    assert {(each["model"], each["images"]) for each in whole} == models
    assert (tmp_path / "stages.png").stat().st_size > 10_000


def test_optional_stages_run_where_they_are_named(tmp_path: Path) -> None:
    main(["--quick", "--rounds", "1", "--only", "telemetry", "overlap", "--output", str(tmp_path)])
    content = json.loads((tmp_path / "stages.json").read_text())
    assert [each["stage"] for each in content["results"]] == ["telemetry", "telemetry", "overlap"]


def test_scaling_is_timed_on_several_threads(tmp_path: Path) -> None:
    main(["--quick", "--rounds", "1", "--only", "scaling", "--output", str(tmp_path)])
    results = json.loads((tmp_path / "stages.json").read_text())["results"]
    names = [[series["name"] for series in each["series"]] for each in results]
    ours = [f"{OURS}, 1 thread", f"{OURS}, 2 threads", f"{OURS}, 4 threads"]
    assert [each[:3] for each in names] == [ours] * 4
    assert [len(each) for each in names] == [6 if installed() else 3, 3, 3, 3]
    assert [each["images"] for each in results] == [4, 4, 4, 8]


def test_masks_are_encoded_in_processes(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(scaling, "PROCESSES", (1,))
    main(["--quick", "--rounds", "1", "--only", "processes", "--output", str(tmp_path)])
    [result] = json.loads((tmp_path / "stages.json").read_text())["results"]
    names = [series["name"] for series in result["series"]]
    assert names == [f"{OURS}, processes: 1"]
    assert result["images"] == 4


def test_make_passes_the_options_on(repo_root: Path) -> None:
    command = ["make", "-o", ".venv/.installed", "bench", "BENCH=--quick --no-such"]
    how: dict[str, Any] = {"env": clean_environment(), "capture_output": True, "text": True}
    refused = subprocess.run(command, cwd=repo_root, check=False, **how)
    assert refused.returncode != 0
    assert "unrecognized arguments: --no-such" in refused.stderr


def test_a_device_that_is_missing_is_an_error(monkeypatch: Patch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(CommandError, match="--device cuda: torch finds no CUDA device"):
        main(["--device", "cuda"])


def test_another_rle_than_the_baselines_is_an_error(monkeypatch: Patch) -> None:
    monkeypatch.setattr("bench.upstream.installed", lambda: True)
    monkeypatch.setattr("bench.upstream.paste_to_rle", lambda _: [])
    with pytest.raises(RuntimeError, match="160x120: the RLE of d2serve and detectron2"):
        next(images.masks(quick_scale(torch.device("cpu"), ("fp32",))))


def test_all_requests_of_a_run_go_together_and_none_is_refused() -> None:
    detector = FakeDetector()
    pipeline = Pipeline(detector, metadata_of("thing"), Settings(), server_forms_batches=True)
    requests.batch_of(pipeline, [image_bytes(noise(20, 30, 3), "JPEG")] * 3)()
    assert detector.images_per_call == [3]
    with pytest.raises(RuntimeError, match="a request failed with 415"):
        requests.batch_of(pipeline, [b"no image"])()
    requests.close([pipeline])


def test_recorded_reports_are_reported_again() -> None:
    recorder, metrics = requests.Recorder(), ServerMetrics()
    pipeline = Pipeline(FakeDetector(), metadata_of("thing"), Settings(), reporter=recorder)
    requests.batch_of(pipeline, [image_bytes(noise(20, 30, 3), "JPEG")] * 2)()
    requests.close([pipeline])
    requests.replay(recorder.calls, Reporter(metrics.sink("shapes")))
    lines = metrics.render().decode().splitlines()
    assert 'd2serve_requests_total{Code="ok",ModelName="shapes",Status="200"} 2.0' in lines
