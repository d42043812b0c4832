"""Tables and plots, with what prints and draws and without it."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from bench import report, table
from bench.results import write_run
from tests.bench.test_results import run_with_parts

ROWS = [
    ("requests", "shapes fp32", "d2serve", "160", "135..185", "12.5", ""),
    ("requests", "shapes fp32", "detectron2", "425", "322..528", "4.71", "2.50 (2.25..2.75)"),
    ("requests", "  of it decode", "d2serve", "1.50", "1.25..1.75", "1,333", ""),
    ("requests", "  of it decode", "detectron2", "3.00", "2.50..3.50", "667", "2.00 (2.00..2.00)"),
    ("requests", "  of it forward", "d2serve", "150", "125..175", "13.3", ""),
    ("masks", "640x480", "d2serve", "100", "100..100", "10.0", ""),
    ("masks", "640x480", "quick", "50.0", "50.0..50.0", "20.0", "0.50 (0.50..0.50)"),
    ("masks", "640x480", "slow", "1,000", "1,000..1,000", "1.00", "10.00 (10.00..10.00)"),
]


def test_a_row_for_each_contestant_and_each_part() -> None:
    assert table.rows_of(run_with_parts().results) == ROWS


@pytest.mark.parametrize("missing", ["rich", "matplotlib"])
def test_the_report_does_without(
    missing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in (missing, *(name for name in sys.modules if name.startswith(f"{missing}."))):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(
        report if missing == "matplotlib" else table,
        "find_spec",
        lambda name: None if name == missing else object(),
    )
    write_run(tmp_path / "results.json", run_with_parts())
    assert report.main([str(tmp_path / "results.json")]) == 0
    printed = capsys.readouterr().out
    assert all(cell in printed for row in ROWS for cell in row)
    assert "requests shapes fp32: a note" in printed
    written = sorted(path.name for path in tmp_path.iterdir())
    if missing == "rich":
        assert printed.count("| masks ") == 3
        assert written == ["results.json", "results.md", "results.png"]
    else:
        assert "no plot, as matplotlib is not installed" in printed
        assert written == ["results.json", "results.md"]


def test_the_plot_has_a_row_for_each_bar_and_each_contest(tmp_path: Path) -> None:
    from bench.plots.page import plot_run

    run = run_with_parts()
    plot_run(run, tmp_path / "few.png")
    twice = type(run)(run.machine, (*run.results, *run.results))
    plot_run(twice, tmp_path / "many.png")
    with Image.open(tmp_path / "few.png") as few, Image.open(tmp_path / "many.png") as many:
        assert few.format == "PNG"
        assert len(few.convert("RGB").getcolors(1 << 24) or []) > 10
        assert few.width == many.width
        assert few.height < many.height
