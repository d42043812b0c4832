"""What is counted, and that it is declared."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from d2serve import errors
from d2serve.detector.base import Forward
from d2serve.errors import CODES
from d2serve.serving.metrics import Sample, batch_samples, memory_samples, start_samples
from d2serve.serving.telemetry import Memory
from tests.core.samples import BAD, GOOD, batch_of

DECLARATIONS = Path(errors.__file__).parent / "servers/torchserve/metrics.yaml"
COMMON = {"ModelName", "Level"}
MEMORY = Memory(1000, {"allocated": 5, "reserved": 6, "free": 7})


def values(samples: Iterable[Sample], name: str) -> list[tuple[float, dict[str, str]]]:
    return [(sample.value, dict(sample.labels)) for sample in samples if sample.name == name]


def of_batch(name: str, **changes: Any) -> list[tuple[float, dict[str, str]]]:
    return values(batch_samples(batch_of(GOOD, BAD, GOOD, **changes)), name)


def test_every_metric_is_declared_with_its_labels_and_nothing_else_of_ours() -> None:
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


def test_a_batch_has_a_size_and_a_time_in_seconds() -> None:
    assert of_batch("d2serve_batch_requests") == [(3, {})]
    assert of_batch("d2serve_batch_seconds") == [(0.25, {})]


def test_requests_have_their_own_stages_and_a_forward_has_one_for_all() -> None:
    assert of_batch("d2serve_stage_seconds") == [
        (0.0015, {"Stage": "decode"}),
        (0.0025, {"Stage": "encode"}),
        (0.0005, {"Stage": "decode"}),
        (0.0015, {"Stage": "decode"}),
        (0.0025, {"Stage": "encode"}),
        (0.02025, {"Stage": "forward"}),
    ]


def test_pictures_are_counted_by_code_and_added_up() -> None:
    assert of_batch("d2serve_images_total") == [
        (2, {"Code": "ok"}),
        (2, {"Code": "bad_request"}),
    ]
    assert of_batch("d2serve_pixels_total") == [(2 * 40 * 30, {})]
    assert of_batch("d2serve_instances_total") == [(2 * 3, {})]


def test_a_batch_without_pictures_adds_none() -> None:
    names = {sample.name for sample in batch_samples(batch_of(BAD, forwards=()))}
    assert names == {
        *("d2serve_batch_seconds", "d2serve_batch_requests"),
        *("d2serve_requests_total", "d2serve_stage_seconds"),
    }


def test_forwards_that_ended_well_have_a_size() -> None:
    assert of_batch("d2serve_forward_images") == [(2, {})]


@pytest.mark.parametrize(
    ("forward", "splits"),
    [
        pytest.param(Forward(2, 1.0, failed=True, out_of_memory=True), 1, id="several"),
        pytest.param(Forward(1, 1.0, failed=True, out_of_memory=True), 0, id="one-alone"),
        pytest.param(Forward(2, 1.0, failed=True), 0, id="another-fault"),
        pytest.param(Forward(2, 1.0), 0, id="no-fault"),
    ],
)
def test_a_split_is_several_pictures_that_did_not_fit(forward: Forward, splits: int) -> None:
    found = of_batch("d2serve_out_of_memory_splits_total", forwards=(forward,))
    assert found == [(1, {})] * splits


def test_memory_is_told_for_each_worker() -> None:
    samples = list(memory_samples(MEMORY, "W-9000-m_1.0"))
    worker = {"WorkerName": "W-9000-m_1.0"}
    assert values(samples, "d2serve_worker_memory_bytes") == [(1000, worker)]
    assert values(samples, "d2serve_device_memory_bytes") == [
        (5, {**worker, "Kind": "allocated"}),
        (6, {**worker, "Kind": "reserved"}),
        (7, {**worker, "Kind": "free"}),
    ]
    assert list(memory_samples(Memory(), "W-9000-m_1.0")) == []


def test_a_start_is_counted_and_other_counters_begin_at_zero() -> None:
    samples = list(start_samples())
    assert values(samples, "d2serve_worker_starts_total") == [(1, {})]
    assert values(samples, "d2serve_out_of_memory_splits_total") == [(0, {})]
    answers = values(samples, "d2serve_requests_total")
    assert {count for count, _ in answers} == {0}
    assert {(labels["Status"], labels["Code"]) for _, labels in answers} == {
        ("200", "ok"),
        *((str(status), code) for status, code in CODES),
    }


def test_a_request_that_was_never_decoded_has_no_stage() -> None:
    dropped = replace(BAD, times=replace(BAD.times, decode_ms=0.0))
    assert values(batch_samples(batch_of(dropped, forwards=())), "d2serve_stage_seconds") == []
