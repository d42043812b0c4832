"""`d2serve.Client` and `d2serve.AsyncClient` have the results of a model in this process."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import d2serve
from d2serve.detections import Detections
from tests.client.comparison import assert_equal
from tests.serving.served import Served

Results: TypeAlias = Sequence[Detections | d2serve.PredictionError]


@pytest.fixture(scope="package")
def model(shapes_mar: Path) -> Iterator[d2serve.Model]:
    with d2serve.load(shapes_mar) as loaded:
        yield loaded


def run(url: str, images: Sequence[Path | bytes], **options: Any) -> tuple[Results, Sequence[str]]:
    with d2serve.Client(url) as client:
        return list(client.predict_each(images, **options)), client.class_names


def run_async(
    url: str, images: Sequence[Path | bytes], **options: Any
) -> tuple[Results, Sequence[str]]:
    async def awaited() -> tuple[Results, Sequence[str]]:
        async with d2serve.AsyncClient(url) as client:
            results = [result async for result in client.predict_each(images, **options)]
            return results, await client.class_names()

    return asyncio.run(awaited())


@pytest.mark.parametrize("predict", [run, run_async])
def test_clients_have_the_results_of_a_model_in_this_process(
    served: Served,
    model: d2serve.Model,
    samples: list[Path],
    predict: Callable[..., tuple[Results, Sequence[str]]],
) -> None:
    options: dict[str, Any] = {
        "score_threshold": 0.6,
        "classes": ["circle", "star"],
        "max_detections": 2,
    }
    results, names = predict(served.url, [*samples, b"no image"], **options)
    assert names == model.class_names
    *found, failed = results
    in_process = model.predict(samples, **options)
    assert sum(map(len, in_process)) > len(samples)
    for each, expected in zip(found, in_process, strict=True):
        assert isinstance(each, Detections)
        assert_equal(each, expected)
    assert isinstance(failed, d2serve.PredictionError)
    assert (failed.code, failed.position) == ("unsupported_media_type", len(samples))
