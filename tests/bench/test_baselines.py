"""d2serve's servers beside the bare loop and other servers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.baselines import command
from bench.baselines.command import BARE_LOOP, Figures, over_http, results_of
from bench.baselines.servers import Model
from bench.comparison import Result, Series
from d2serve.errors import CommandError
from tests.bench.fake_server import FakeServer, Patch, running
from tests.goldens.cases import SAMPLES

JPEG = next(each for each in SAMPLES if each.suffix == ".jpg")


def test_an_interrupted_run_leaves_its_results(tmp_path: Path, monkeypatch: Patch) -> None:
    def interrupted(*_: object) -> Iterator[Result]:
        series = (Series("d2serve", (40.0,)), Series("naive", (4.0,)))
        yield Result("http", "naive", "shapes fp32", 1, "a note", series, "requests/s", True)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.main(["--output", str(tmp_path)])
    assert "10 (10..10)" in (tmp_path / "baselines.md").read_text()


def test_rates_latencies_and_differences_are_compared_per_round() -> None:
    figures = {
        "d2serve asgi": [Figures(40.0, 26.0, 30.0), Figures(20.0, 52.0, 60.0)],
        BARE_LOOP: [Figures(41.0, 24.0, 29.0), Figures(25.0, 49.0, 59.0)],
    }
    rates, p50, p99, beyond = results_of(1, "shapes fp32", "a note", figures)
    assert rates.ratio_of(rates.series[1]).values == pytest.approx((40 / 41, 20 / 25))
    assert (rates.case, rates.unit, rates.note) == ("1 client", "requests/s", "a note")
    assert p50.ratio_of(p50.series[1]).values == pytest.approx((24 / 26, 49 / 52))
    assert (p99.case, p99.series[0].values) == ("1 client, p99", (30.0, 60.0))
    assert beyond.series == (Series("d2serve asgi", (2.0, 3.0)),)
    assert beyond.case == "1 client, p50 beyond the bare loop"
    del figures[BARE_LOOP]
    assert len(list(results_of(16, "shapes fp32", "", figures))) == 3


def test_a_failed_request_ends_the_comparison(tmp_path: Path) -> None:
    model = Model("shapes", tmp_path, tmp_path, None, (JPEG,))
    with running(FakeServer(lambda number: (503 if number == 5 else 200, b"{}"))) as fake:
        with pytest.raises(CommandError, match=r"1 of .* requests failed; see the logs"):
            over_http(fake.url, model, 1, 0.5, 0.0)
        figures = over_http(fake.url, model, 2, 0.5, 0.1)
    assert 0 < figures.p50_ms <= figures.p99_ms


def test_the_asgi_server_beside_the_bare_loop(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("D2SERVE_WARM_UP_SIZES", "64x48")
    arguments = ["--quick", "--baselines", BARE_LOOP, "--clients", "1", "3"]
    assert command.main([*arguments, "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "baselines.json").read_text())["results"]
    assert [each["case"].split(",")[0] for each in results] == ["1 client"] * 4 + ["3 clients"] * 4
    for each in results:
        names = [series["name"] for series in each["series"]]
        assert names == ["d2serve asgi", BARE_LOOP][: len(names)]
        assert all(series["values"][0] for series in each["series"])
    assert "ready after" in results[0]["note"]
