"""The script for machines with a GPU, run on the CPU; its figures there mean nothing."""

import json
from pathlib import Path

import pytest
import torch

from bench.gpu import __main__ as gpu
from bench.gpu.decoding import ON_CPU
from bench.gpu.network import DETECT, FORWARD, PIPELINE, PREDICTOR, quickest_precision
from bench.gpu.plan import Plan, quick_plan
from bench.gpu.rate import Rate, measure
from bench.upstream import installed

CPU = torch.device("cpu")


def rate(what: str, precision: str, images_per_s: float, failure: str = "") -> Rate:
    seconds = () if failure else (0.010, 0.020, 0.030)
    return Rate(what, precision, 8, images_per_s, seconds, 2_000_000, failure)


def test_without_a_gpu_it_says_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == "bench.gpu needs a CUDA GPU, and torch finds none here\n"


# Detectron2's own habits, where it is installed.
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
def test_all_of_it_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--device", "cpu", "--quick", "--without-http", "--output", str(tmp_path)]
    assert gpu.main(arguments) == 0
    content = json.loads((tmp_path / "gpu.json").read_text())
    measured = {(each["what"], each["precision"], each["together"]) for each in content["rates"]}
    assert measured >= {
        *((FORWARD, name, batch) for name in ("fp32", "bf16") for batch in (1, 2)),
        *((what, name, 2) for what in (DETECT, PIPELINE) for name in [quickest(content)]),
        *((ON_CPU.format(size), "", 1) for size in ("160x120", "120x160")),
    }
    assert ((PREDICTOR, "fp32", 1) in measured) is installed()
    assert all(each["images_per_s"] > 0 for each in content["rates"])
    printed = capsys.readouterr().out
    assert "HTTP is left out: it was not asked for" in printed
    assert ("detectron2 is left out" in printed) is not installed()


def quickest(content: dict[str, list[dict[str, str]]]) -> str:
    [name] = {each["precision"] for each in content["rates"] if each["what"] == PIPELINE}
    return name


def test_a_row_says_how_much_of_the_best_forward_is_left() -> None:
    rates = [
        rate(FORWARD, "fp32", 100.0),
        rate(FORWARD, "bf16", 400.0),
        rate(PREDICTOR, "fp32", 20.0),
        rate(FORWARD, "fp16", 0.0, "out of memory"),
    ]
    assert quickest_precision(rates) == "bf16"
    assert gpu.rows_of(rates) == [
        (FORWARD, "fp32", "8", "100.0", "20.0", "15.0..25.0", "2", "0.25"),
        (FORWARD, "bf16", "8", "400.0", "20.0", "15.0..25.0", "2", "1.00"),
        (PREDICTOR, "fp32", "8", "20.0", "20.0", "15.0..25.0", "2", "0.05"),
        (FORWARD, "fp16", "8", "out of memory", "", "", "", ""),
    ]


def test_too_little_memory_is_told() -> None:
    def run() -> None:
        raise torch.OutOfMemoryError("no more")

    assert measure(FORWARD, "fp32", 8, run, quick_plan(CPU)).failure == "out of memory"


def test_what_would_begin_too_late_is_left_out() -> None:
    plan = Plan(CPU, within_s=10.0, clock=lambda: 10.0, started=0.0)
    assert gpu.left_out(plan, without_http=True)[-1].startswith("what would have begun after 10 s")
    assert list(gpu._in_time(iter([rate(FORWARD, "fp32", 1.0)]), plan)) == []
