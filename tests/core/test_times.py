import pytest

from d2serve.serving.telemetry import StageTimes, Stopwatch


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param(
            StageTimes(decode_ms=0.0),
            'decode;dur=0.00, forward;dur=0.00, encode;dur=0.00, batch;desc="0"',
            id="nothing-ran",
        ),
        pytest.param(
            StageTimes(decode_ms=1.234, forward_ms=1234.5, encode_ms=0.006, batch=8),
            'decode;dur=1.23, forward;dur=1234.50, encode;dur=0.01, batch;desc="8"',
            id="all-stages",
        ),
    ],
)
def test_server_timing_lists_the_stages_in_milliseconds(times: StageTimes, expected: str) -> None:
    assert times.server_timing() == expected


def test_a_stopwatch_only_goes_forward() -> None:
    watch = Stopwatch()
    readings = [watch.elapsed_ms() for _ in range(100)]
    assert readings[0] >= 0
    assert readings == sorted(readings)
    assert readings[-1] > readings[0]
