"""The samples of batches, and their publication as declared metrics."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from d2serve import errors
from d2serve.detector.base import ForwardPass
from d2serve.errors import CODES
from d2serve.serving.metrics import (
    Publisher,
    Sample,
    batch_samples,
    memory_samples,
    start_samples,
)
from d2serve.serving.telemetry import Memory
from tests.core.samples import BAD, GOOD, Metric, batch_of

DECLARATIONS = Path(errors.__file__).parent / "servers/torchserve/metrics.yaml"
COMMON = {"ModelName", "Level"}
MEMORY = Memory(1000, {"allocated": 5, "reserved": 6, "free": 7})
SAMPLE = Sample("responses", 3, {"Code": "ok", "Status": "200"})


def values(samples: Iterable[Sample], name: str) -> list[tuple[float, dict[str, str]]]:
    return [(sample.value, dict(sample.labels)) for sample in samples if sample.name == name]


def of_batch(name: str, **changes: Any) -> list[tuple[float, dict[str, str]]]:
    return values(batch_samples(batch_of(GOOD, BAD, GOOD, **changes)), name)


def test_samples_and_declared_metrics_match() -> None:
    sections = yaml.safe_load(DECLARATIONS.read_text(encoding="utf-8"))["model_metrics"]
    declared = {
        metric["name"]: set(metric["dimensions"]) - COMMON
        for metrics in sections.values()
        for metric in metrics
        if metric["name"].startswith("d2serve_")
    }
    samples = [
        *start_samples(),
        *batch_samples(batch_of(GOOD, BAD)),
        *memory_samples(MEMORY, "W-9000"),
    ]
    assert {sample.name: set(sample.labels) for sample in samples} == declared
    for sample in samples:
        assert set(sample.labels) == declared[sample.name]


def test_requests_are_counted_by_status_and_code() -> None:
    assert of_batch("d2serve_requests_total") == [
        (2, {"Status": "200", "Code": "ok"}),
        (1, {"Status": "415", "Code": "unsupported_media_type"}),
    ]


def test_batch_has_a_size_and_a_duration_in_seconds() -> None:
    assert of_batch("d2serve_batch_requests") == [(3, {})]
    assert of_batch("d2serve_batch_seconds") == [(0.25, {})]


def test_stages_are_per_request_and_forward_passes_per_batch() -> None:
    assert of_batch("d2serve_stage_seconds") == [
        (0.0015, {"Stage": "decode"}),
        (0.0025, {"Stage": "encode"}),
        (0.0005, {"Stage": "decode"}),
        (0.0015, {"Stage": "decode"}),
        (0.0025, {"Stage": "encode"}),
        (0.02025, {"Stage": "forward"}),
    ]


def test_images_are_counted_by_code() -> None:
    assert of_batch("d2serve_images_total") == [
        (2, {"Code": "ok"}),
        (2, {"Code": "bad_request"}),
    ]
    assert of_batch("d2serve_pixels_total") == [(2 * 40 * 30, {})]
    assert of_batch("d2serve_instances_total") == [(2 * 3, {})]


def test_batch_without_images_has_no_image_samples() -> None:
    names = {sample.name for sample in batch_samples(batch_of(BAD, forward_passes=()))}
    assert names == {
        *("d2serve_batch_seconds", "d2serve_batch_requests"),
        *("d2serve_requests_total", "d2serve_stage_seconds"),
    }


def test_successful_forward_passes_have_a_size() -> None:
    assert of_batch("d2serve_forward_images") == [(2, {})]


@pytest.mark.parametrize(
    ("forward_pass", "splits"),
    [
        pytest.param(ForwardPass(2, 1.0, failed=True, out_of_memory=True), 1, id="several images"),
        pytest.param(ForwardPass(1, 1.0, failed=True, out_of_memory=True), 0, id="single image"),
        pytest.param(ForwardPass(2, 1.0, failed=True), 0, id="other error"),
        pytest.param(ForwardPass(2, 1.0), 0, id="success"),
    ],
)
def test_split_is_a_batch_that_exceeded_the_memory(forward_pass: ForwardPass, splits: int) -> None:
    found = of_batch("d2serve_out_of_memory_splits_total", forward_passes=(forward_pass,))
    assert found == [(1, {})] * splits


def test_memory_is_labeled_by_worker() -> None:
    samples = list(memory_samples(MEMORY, "W-9000-m_1.0"))
    worker = {"WorkerName": "W-9000-m_1.0"}
    assert values(samples, "d2serve_worker_memory_bytes") == [(1000, worker)]
    assert values(samples, "d2serve_device_memory_bytes") == [
        (5, {**worker, "Kind": "allocated"}),
        (6, {**worker, "Kind": "reserved"}),
        (7, {**worker, "Kind": "free"}),
    ]
    assert list(memory_samples(Memory(), "W-9000-m_1.0")) == []


def test_start_is_counted_and_other_counters_start_at_zero() -> None:
    samples = list(start_samples())
    assert values(samples, "d2serve_worker_starts_total") == [(1, {})]
    assert values(samples, "d2serve_out_of_memory_splits_total") == [(0, {})]
    responses = values(samples, "d2serve_requests_total")
    assert {count for count, _ in responses} == {0}
    assert {(labels["Status"], labels["Code"]) for _, labels in responses} == {
        ("200", "ok"),
        *((str(status), code) for status, code in CODES),
    }


def test_request_that_was_not_decoded_has_no_stages() -> None:
    dropped = replace(BAD, times=replace(BAD.times, decode_ms=0.0))
    assert (
        values(batch_samples(batch_of(dropped, forward_passes=())), "d2serve_stage_seconds") == []
    )


@pytest.mark.parametrize(
    ("dimensions", "recorded"),
    [
        pytest.param(["ModelName", "Level", "Status"], ["m", "Model", "200"], id="some"),
        pytest.param(["Code", "Status", "ModelName"], ["ok", "200", "m"], id="declared order"),
        pytest.param([], [], id="none"),
    ],
)
def test_sample_has_the_declared_labels(dimensions: list[str], recorded: list[str]) -> None:
    metric = Metric(*dimensions)
    Publisher({"responses": metric}, "m").publish([SAMPLE])
    assert metric.recorded == [(3, recorded)]


def test_undeclared_sample_is_dropped() -> None:
    metric = Metric()
    Publisher({"others": metric}, "m").publish([SAMPLE])
    assert metric.recorded == []


def test_sample_declared_with_other_labels_is_dropped_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mismatched, good = Metric("Colour"), Metric("Code")
    publisher = Publisher({"responses": mismatched, "others": good}, "m")
    publisher.publish([SAMPLE, Sample("others", 1, {"Code": "ok"}), SAMPLE])
    assert mismatched.recorded == []
    assert good.recorded == [(1, ["ok"])]
    [line] = caplog.messages
    assert "responses is not published" in line
    assert "Colour" in line
