"""All log lines of a request have its id."""

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from d2serve.detections import RGBImage
from d2serve.detector.base import InferenceResult, PreprocessedImage
from d2serve.messages import HttpRequest
from d2serve.serving import reporter as reporter_module
from d2serve.serving import stages
from d2serve.serving.log_context import install_request_ids
from d2serve.serving.reporter import Reporter
from tests.core.requests import GOOD, pipeline, png_request
from tests.core.samples import RecordingSink
from tests.fakes import FakeDetector


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The text of a server's log."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    install_request_ids(handler)
    logging.getLogger().addHandler(handler)
    yield text
    logging.getLogger().removeHandler(handler)


def lines_of(log: io.StringIO) -> list[str]:
    """The lines, which contain a traceback."""
    lines = log.getvalue().splitlines()
    assert any("Traceback" in line for line in lines)
    assert any("ZeroDivisionError" in line for line in lines)
    return lines


def fails(*_: Any) -> Any:
    raise ZeroDivisionError


class FailsAt(FakeDetector):
    """Fails in one of its functions."""

    def __init__(self, function: str) -> None:
        super().__init__()
        setattr(self, function, fails)


DETECTORS = ["preprocess", "batch_key", "padded_pixels", "run"]


@pytest.mark.parametrize("function", DETECTORS)
def test_error_of_the_detector(log: io.StringIO, function: str) -> None:
    [response] = pipeline(FailsAt(function)).run([png_request(1)])
    assert response.status == 500
    assert all(line.startswith("[request-7] ") for line in lines_of(log))


@pytest.mark.parametrize("stage", ["parse", "decode", "preprocess", "encode"])
def test_error_of_a_stage(log: io.StringIO, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    served = pipeline()
    monkeypatch.setattr(served.stages, stage, fails)
    assert served.run([png_request(1)])[0].status == 500
    assert all(line.startswith("[request-7] ") for line in lines_of(log))


def test_error_of_the_encoder_of_an_image(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "render", fails)
    assert pipeline().run([png_request(1)])[0].status == 500
    assert all(line.startswith("[request-7] ") for line in lines_of(log))


def test_error_of_a_batch_has_the_ids_of_all_its_requests(log: io.StringIO) -> None:
    requests = [replace(png_request(red), request_id=f"id-{red}") for red in (1, 2)]
    responses = pipeline(FailsAt("run")).run(requests)
    assert [response.status for response in responses] == [500, 500]
    assert all(line.startswith("[id-1,id-2] ") for line in lines_of(log))


# Checks of the connection: at the submission, before parsing, decoding, the forward pass and
# encoding.
CHECKS = range(5)


@pytest.mark.parametrize("check", CHECKS)
def test_error_of_the_connection(log: io.StringIO, check: int) -> None:
    checks = iter(CHECKS)

    def is_disconnected() -> bool:
        return bool(next(checks) == check and 1 // 0)

    request = replace(png_request(1), is_disconnected=is_disconnected)
    [response] = pipeline().run([request])
    assert response.status == 500
    assert all(line.startswith("[request-7] ") for line in lines_of(log))


def left_after(checks: int) -> Callable[[], bool]:
    """A client that has left after this number of checks."""
    awaited = iter([False] * checks)
    return lambda: next(awaited, True)


@pytest.mark.parametrize("check", CHECKS)
def test_error_of_the_report(log: io.StringIO, monkeypatch: pytest.MonkeyPatch, check: int) -> None:
    monkeypatch.setattr(reporter_module, "request_report", fails)
    request = replace(png_request(1), is_disconnected=left_after(check))
    [response] = pipeline(reporter=Reporter(RecordingSink())).run([request])
    assert response.status == 499
    assert all(line.startswith("[request-7] ") for line in lines_of(log))


def test_lines_of_other_requests_have_their_own_id(log: io.StringIO) -> None:
    class FailsOnTheFirst(FakeDetector):
        def preprocess(self, image: RGBImage) -> PreprocessedImage:
            return fails() if image[0, 0, 0] == 1 else super().preprocess(image)

        def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
            logging.getLogger("d2serve").warning("running")
            return super().run(images)

    requests = [replace(png_request(red), request_id=f"id-{red}") for red in (1, 2)]
    good: HttpRequest = replace(GOOD["json-of-two"], request_id="id-3")
    pipeline(FailsOnTheFirst()).run([*requests, good])
    *failed, running = lines_of(log)
    assert all(line.startswith("[id-1] ") for line in failed)
    assert running == "[id-2,id-3] running"
