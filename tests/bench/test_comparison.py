"""Alternating rounds, ratios, tables and plots."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bench import comparison, report
from bench.comparison import Comparison, Result, Series, alternate, ratio, time_alternating
from tests.bench.fake_server import Capture, Patch


def test_each_is_called_once_per_round_and_the_first_round_is_not_timed() -> None:
    calls: list[str] = []
    moments: Iterator[float] = iter([0, 1, 10, 12, 20, 23, 30, 34])
    timed = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    series = time_alternating(timed, rounds=2, clock=lambda: next(moments))
    assert calls == ["a", "b"] * 3
    assert series == [Series("a", (1, 3)), Series("b", (2, 4))]
    with pytest.raises(ValueError, match="rounds: received 0, expected at least 1"):
        alternate({}, rounds=0)


@pytest.mark.parametrize(("within_s", "rounds"), [(0.0, 3), (40.0, 4), (41.0, 5), (1e9, 9)])
def test_no_round_starts_after_the_time_but_the_first_three(within_s: float, rounds: int) -> None:
    moments, done = iter(range(0, 1000, 10)), list[int]()
    clock, calls = partial(next, moments), {"a": lambda: None}
    [series] = time_alternating(calls, 9, clock, within_s, done.append)
    assert len(series.values) == rounds
    assert done == list(range(1, rounds + 1))


def test_a_ratio_is_computed_per_round() -> None:
    times = ratio(Series("baseline", (10.0, 60.0, 8.0)), Series("ours", (1.0, 3.0, 1.0)))
    assert times.quartiles == pytest.approx((9, 10, 15))
    for values, message in (
        ((1.0, 2.0), "baseline has 1 and ours has 2; run both in one comparison"),
        ((0.0,), "ours has a round without a result; use longer rounds"),
    ):
        with pytest.raises(ValueError, match=message):
            ratio(Series("baseline", (1.0,)), Series("ours", values))


def test_a_comparison_keeps_its_facts() -> None:
    rounds: list[int] = []
    calls = {"ours": lambda: None, "other": lambda: None}
    timed = Comparison("stage", "case", calls, "model", 4, "note")
    result = comparison.run_comparison(timed, rounds=2, after_round=rounds.append)
    assert (result.title, result.images, result.note) == ("model case", 4, "note")
    assert [each.name for each in result.series] == ["ours", "other"]
    assert rounds == [1, 2]


TIMES = (Series("d2serve", (0.11, 0.21)), Series("detectron2", (0.22, 0.63)))
RATES = (Series("d2serve", (40.0, 20.0)), Series("naive", (4.0, 2.0)))
RESULTS = [
    Result("requests", "fp32", "shapes", 2, "a note", TIMES),
    Result("http", "16 clients", "", 1, "", RATES, "requests/s", True),
]
ROWS = [
    ["requests", "shapes fp32", "d2serve", "160", "135..185", "12.5", ""],
    ["requests", "shapes fp32", "detectron2", "425", "322..528", "4.71", "2.5 (2.25..2.75)"],
    ["http", "16 clients", "d2serve", "30.0 requests/s", "25.0..35.0", "", ""],
    ["http", "16 clients", "naive", "3.00 requests/s", "2.50..3.50", "", "10 (10..10)"],
]


@pytest.mark.parametrize("plotted", [True, False])
def test_a_run_is_one_json_file_one_table_and_one_plot(
    plotted: bool, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda _: object() if plotted else None)
    for name in [] if plotted else [each for each in sys.modules if each.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    comparison.write_results(tmp_path / "new" / "run", RESULTS)
    printed, page = capsys.readouterr().out, (tmp_path / "new" / "run.md").read_text()
    assert page in printed
    lines = [line.strip("| ").split("|") for line in page.splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line] for line in lines[2:]]
    assert [row + [""] * (7 - len(row)) for row in found] == ROWS
    assert "- requests shapes fp32: a note" in page
    content = json.loads((tmp_path / "new" / "run.json").read_text())
    assert content["results"][1]["series"][0]["values"] == [40.0, 20.0]
    assert content["machine"]["versions"]["torch"]
    assert (tmp_path / "new" / "run.png").exists() is plotted
    assert ("no plot: matplotlib is not installed" in printed) is not plotted
