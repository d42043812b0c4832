"""Which samples reach the server, and with which labels."""

import pytest

from d2serve.serving.metrics import Publisher, Sample
from tests.core.metric import Metric

SAMPLE = Sample("answers", 3, {"Code": "ok", "Status": "200"})


@pytest.mark.parametrize(
    ("dimensions", "given"),
    [
        pytest.param(["ModelName", "Level", "Status"], ["m", "Model", "200"], id="some"),
        pytest.param(["Code", "Status", "ModelName"], ["ok", "200", "m"], id="in-their-order"),
        pytest.param([], [], id="none"),
    ],
)
def test_a_sample_has_the_labels_that_are_declared(dimensions: list[str], given: list[str]) -> None:
    metric = Metric(*dimensions)
    Publisher({"answers": metric}, "m").publish([SAMPLE])
    assert metric.given == [(3, given)]


def test_what_nobody_declared_is_left_out() -> None:
    metric = Metric()
    Publisher({"others": metric}, "m").publish([SAMPLE])
    assert metric.given == []


def test_what_is_declared_with_other_labels_is_left_out_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    odd, good = Metric("Colour"), Metric("Code")
    publisher = Publisher({"answers": odd, "others": good}, "m")
    publisher.publish([SAMPLE, Sample("others", 1, {"Code": "ok"}), SAMPLE])
    assert odd.given == []
    assert good.given == [(1, ["ok"])]
    [line] = caplog.messages
    assert "answers is not published" in line
    assert "Colour" in line
