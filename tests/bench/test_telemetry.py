"""The command that says what metrics and the request log cost."""

import logging

import pytest

from bench import telemetry


def test_a_line_for_each_batch_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(telemetry, "BATCHES", (1, 2))
    assert telemetry.main(["1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["batch of 1", "batch of 2"]
    assert all(line.endswith("%") for line in lines)


def test_what_is_told_goes_through_the_pipe_and_not_elsewhere(
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with telemetry.worker_output():
        [handler] = root.handlers
        assert isinstance(handler, logging.StreamHandler)
        logging.getLogger("handler").info("told")
    assert (root.handlers, root.level) == (before[0], before[1])
    assert "told" not in capfd.readouterr().err
