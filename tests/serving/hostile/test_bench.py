"""The benchmark of a normal client beside hostile ones."""

import json
from math import inf
from pathlib import Path

import pytest

from bench.hostile import Row, main, notes_of, table_of
from bench.loadgen.load import Load
from tests.serving.hostile.cases import named
from tests.serving.hostile.conftest import Target
from tests.serving.hostile.wire import Outcome

pytestmark = pytest.mark.serving

[CASE] = named(["half-closed"])
CLOSED = Outcome((), True)


def load(p99_ms: float | None, failures: int = 0) -> Load:
    latency = {} if p99_ms is None else {50: p99_ms / 2, 99: p99_ms}
    return Load(100, failures, 10.0, latency, {200: 100}, 10.0, 0.0, 5.0, {})


def test_ratio_is_that_of_the_99th_percentiles() -> None:
    row = Row(CASE, CLOSED, load(20.0), load(50.0, failures=3))
    assert row.cells("asgi") == ("half-closed", "asgi", "closed", "20.0", "50.0", "2.50", "3")
    assert Row(CASE, CLOSED, load(20.0), load(None)).ratio == inf


def test_rows_that_are_slow_or_unexpected_are_noted() -> None:
    good = Row(CASE, CLOSED, load(20.0), load(21.0))
    assert list(notes_of("asgi", [good])) == [
        "asgi, p99 above 2 times the quiet one: none",
        "asgi, unexpected statuses: none",
    ]
    bad = [
        Row(CASE, None, load(20.0), load(50.0)),
        Row(CASE, Outcome((), False), load(20.0), load(20.0)),
    ]
    assert [row.is_expected for row in bad] == [False, False]
    slower, unexpected = notes_of("asgi", bad)
    assert slower.endswith(": half-closed (2.50)")
    assert unexpected.endswith(": half-closed, half-closed")
    assert "none in time (unexpected)" in table_of({"asgi": bad}).rows[0]


@pytest.mark.parametrize("server_name", ["asgi"], indirect=True)
def test_command_measures_a_running_server(target: Target, tmp_path: Path) -> None:
    chosen = ["bare CR in a field", "forged x-d2serve-*", "100-continue"]
    options = ["--url", f"{target.url}/invocations", "--seconds", "0.8", "--output", str(tmp_path)]
    assert main([*options, "--only", *chosen]) == 0
    rows = json.loads((tmp_path / "hostile.json").read_text())[f"{target.url}/invocations"]
    assert [row["name"] for row in rows] == [*chosen[:1], chosen[2], chosen[1]]
    assert [row["status"] for row in rows] == ["400", "100, 200", "200"]
    for row in rows:
        assert row["ratio"] == pytest.approx(
            row["beside"]["latency_ms"]["99"] / row["quiet"]["latency_ms"]["99"]
        )
