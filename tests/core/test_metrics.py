"""The samples of requests, forward passes and memory, and their declarations."""

from dataclasses import replace

import pytest

from d2serve.detector.base import ForwardPass
from d2serve.errors import CODES
from d2serve.serving.metrics import (
    METRICS,
    NO_METRICS,
    Sample,
    forward_samples,
    memory_samples,
    request_samples,
    start_samples,
)
from d2serve.serving.telemetry import Memory, RequestReport
from tests.core.samples import BAD, FORWARD_PASSES, GOOD, Values, values

# Labels that the sink adds.
ADDED = {"ModelName", "WorkerName"}
MEMORY = Memory(1000, {"allocated": 5, "reserved": 6, "free": 7})


def samples_of(report: RequestReport) -> list[Sample]:
    return list(request_samples(report, lambda: 5))


def of_request(name: str) -> Values:
    return values([*samples_of(GOOD), *samples_of(BAD)], name)


def of_passes(name: str, *passes: ForwardPass) -> Values:
    return values(forward_samples(passes or FORWARD_PASSES, lambda: 7), name)


def test_samples_have_the_declared_names_and_labels() -> None:
    declared = {metric.name: set(metric.labels) - ADDED for metric in METRICS}
    samples = [
        *start_samples(),
        *samples_of(GOOD),
        *forward_samples(FORWARD_PASSES, lambda: 7),
        *memory_samples(MEMORY),
    ]
    assert {sample.name for sample in samples} == set(declared)
    for sample in samples:
        assert set(sample.labels) == declared[sample.name]


def test_only_histograms_have_buckets_which_increase() -> None:
    for metric in METRICS:
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_counters_are_named_as_totals() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name


def test_requests_are_counted_by_status_and_code() -> None:
    assert of_request("d2serve_requests_total") == [
        (1, {"Status": "200", "Code": "ok"}),
        (1, {"Status": "415", "Code": "unsupported_media_type"}),
    ]


def test_request_has_a_duration_in_seconds() -> None:
    assert of_request("d2serve_request_seconds") == [(0.031255, {}), (0.00075, {})]


def test_stages_are_per_request_and_forward_passes_on_their_own() -> None:
    assert of_request("d2serve_stage_seconds") == [
        (0.0015, {"Stage": "decode"}),
        (0.004, {"Stage": "queue"}),
        (0.0025, {"Stage": "encode"}),
        (0.0005, {"Stage": "decode"}),
    ]
    assert of_passes("d2serve_stage_seconds") == [(0.02025, {"Stage": "forward"})]


def test_images_are_counted_by_code() -> None:
    assert of_request("d2serve_images_total") == [
        (1, {"Code": "ok"}),
        (1, {"Code": "bad_request"}),
    ]
    assert of_request("d2serve_pixels_total") == [(40 * 30, {})]
    assert of_request("d2serve_instances_total") == [(3, {})]


def test_request_without_images_has_no_image_samples() -> None:
    names = {sample.name for sample in samples_of(BAD)}
    assert names == {
        "d2serve_queued_images",
        "d2serve_requests_total",
        "d2serve_request_seconds",
        "d2serve_stage_seconds",
    }


def test_request_that_was_not_decoded_has_no_stages() -> None:
    dropped = replace(BAD, times=replace(BAD.times, decode_ms=0.0))
    assert values(samples_of(dropped), "d2serve_stage_seconds") == []


def test_successful_forward_passes_have_a_size() -> None:
    assert of_passes("d2serve_forward_images") == [(2, {})]


def test_queue_is_published_without_forward_passes_too() -> None:
    assert values(forward_samples((), lambda: 7), "d2serve_queued_images") == [(7, {})]
    assert values(samples_of(BAD), "d2serve_queued_images") == [(5, {})]


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
    found = of_passes("d2serve_out_of_memory_splits_total", forward_pass)
    assert found == [(1, {})] * splits


def test_memory_is_published_by_kind() -> None:
    samples = list(memory_samples(MEMORY))
    assert values(samples, "d2serve_worker_memory_bytes") == [(1000, {})]
    assert values(samples, "d2serve_device_memory_bytes") == [
        (5, {"Kind": "allocated"}),
        (6, {"Kind": "reserved"}),
        (7, {"Kind": "free"}),
    ]
    assert list(memory_samples(Memory())) == []


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


def test_no_metrics_reads_no_samples() -> None:
    samples = start_samples()
    NO_METRICS.publish(samples)
    assert next(samples).name == "d2serve_worker_starts_total"
