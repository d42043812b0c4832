import io

import numpy as np
import pytest
from PIL import Image

from bench.load.answers import NO_ANSWER, Answer, is_whole
from bench.load.figures import Window, summarise

WARM_UP = Answer(-0.5, -0.1, 200, True)
ACROSS_THE_BEGIN = Answer(-0.2, 0.1, 200, True)
INSIDE = Answer(0.5, 0.9, 200, True)
REFUSED = Answer(1.0, 1.1, 503, True)
BROKEN = Answer(1.2, 1.3, 200, False)
LATE = Answer(1.8, 2.6, 200, True)
UNANSWERED = Answer(1.9, None, NO_ANSWER, False)
AFTER = Answer(2.1, 2.2, 200, True)
ALL = [WARM_UP, ACROSS_THE_BEGIN, INSIDE, REFUSED, BROKEN, LATE, UNANSWERED, AFTER]
WINDOW = Window(2.0, began_at=1000.0, cpu_s=1.9)


def test_throughput_is_of_what_came_in_time_and_the_rest_of_what_was_due_in_time() -> None:
    load = summarise(ALL, WINDOW)
    assert (load.requests, load.failures) == (5, 3)
    assert load.requests_per_s == 1.0  # ACROSS_THE_BEGIN and INSIDE in two seconds
    assert load.latency_ms[50] == pytest.approx(600)  # of INSIDE's 400 and LATE's 800
    assert load.latency_ms[99] == pytest.approx(796)
    assert load.statuses == {0: 1, 200: 3, 503: 1}
    assert load.generator_cpu_percent == 95
    assert load.generator_saturated


def test_without_a_good_answer_there_is_no_latency() -> None:
    load = summarise([REFUSED], WINDOW)
    assert (load.requests_per_s, load.latency_ms, load.failures) == (0, {}, 1)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, np.zeros(3))
    elif kind == "npz":
        np.savez_compressed(buffer, boxes=np.zeros(3))
    else:
        Image.new("RGB", (9, 9)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_pictures_are_whole_unless_cut_off(kind: str) -> None:
    body = encoded(kind)
    assert is_whole(body)
    assert not is_whole(body[:-3])


@pytest.mark.parametrize(
    "body", [b"{}", b"[1, 2]", b'{"a": 1}\n{"a": 2}\n', encoded("npy"), encoded("npz")]
)
def test_json_and_arrays_are_whole(body: bytes) -> None:
    assert is_whole(body)


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": [1, 2', b"[1, 2", b"Internal error"])
def test_half_answers_are_not_whole(body: bytes) -> None:
    assert not is_whole(body)
