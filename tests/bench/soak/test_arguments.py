import pytest

from bench.soak.arguments import parse


def test_without_arguments_it_is_half_an_hour_as_the_readme_of_the_command_says() -> None:
    options = parse([])
    assert (options.seconds, options.clients, options.hostile) == (1800, 32, 0.1)
    assert options.kills == [300, 600, 900, 1200, 1500]


def test_kills_are_within_the_time() -> None:
    assert parse(["--minutes", "1.5", "--kill-every", "45"]).kills == [45]
    assert parse(["--minutes", "1.5", "--kill-every", "44"]).kills == [44, 88]
    assert parse(["--minutes", "1", "--kill-every", "90"]).kills == []
    assert parse(["--kill-every", "0"]).kills == []


@pytest.mark.parametrize(
    "wrong",
    [("--minutes", "0"), ("--hostile", "1"), ("--hostile", "-0.1"), ("--kill-every", "-1")],
)
def test_what_is_out_of_range_is_named(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(wrong)
    assert f"'{wrong[1]}': use a number" in capsys.readouterr().err
