from pathlib import Path

import pytest

from bench.load.arguments import parse


def test_the_defaults_are_a_sweep_over_everything() -> None:
    plan = parse([]).plan
    assert {each.batch_size for each in plan.settings if each} == {1, 4, 16}
    assert {each.max_delay_ms for each in plan.settings if each} == {5, 20}
    assert plan.clients == [1, 4, 16, 32]
    assert plan.total == len(plan.settings) * 4 + 4


def test_what_is_given_wins_over_the_quick_preset() -> None:
    options = parse(["--quick", "--clients", "9", "3", "3", "--p99-ms", "70.5", "--out", "there"])
    assert options.plan.clients == [3, 9]
    assert len(options.plan.settings) == 1
    assert (options.plan.seconds, options.plan.p99_ms) == (1, 70.5)
    assert options.out == Path("there")


def test_a_running_server_is_taken_with_the_settings_it_has() -> None:
    options = parse(["--url", "http://127.0.0.1:8080/invocations"])
    assert options.plan.settings == [None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clients", "0"], "'0': use a whole number of at least 1"),
        (["--workers", "two"], "'two': use a whole number of at least 1"),
        (["--seconds", "-1"], "'-1': use a number above 0"),
        (["--p99-ms", "inf"], "'inf': use a number above 0"),
        (["--url", "http://x/", "--model", "m.mar"], "not allowed with"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert message in capsys.readouterr().err
