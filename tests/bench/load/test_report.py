import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.load.points import Point
from bench.load.report.drawing import spread
from bench.load.report.page import PAGE, RESULTS, write_report
from bench.load.report.table import row
from bench.load.sweep import Measured, SweepPlan
from bench.load.traffic import ClosedLoop
from tests.bench.load.made_up import BUSY, load, point, setting, sweep_of_points

PLAN = SweepPlan([setting()] * 15, [1, 4, 16, 32], [0.5, 0.8, 0.95, 1.2], 4.0, 1.0)


class Links(HTMLParser):
    """All addresses that a page would load or lead to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def report(
    folder: Path, points: list[Point], plan: SweepPlan = PLAN, *, interrupted: bool = False
) -> tuple[str, str]:
    """What is printed, and the page."""
    measured = Measured(points, {"1 worker, batch <64>": "a worker that died"})
    printed = write_report(folder, "shapes.mar", measured, plan, interrupted=interrupted)
    return printed, (folder / PAGE).read_text()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    folder = tmp_path_factory.mktemp("report") / "new"
    return folder, *report(folder, sweep_of_points())


def test_the_page_holds_all_that_it_shows(full: tuple[Path, str, str]) -> None:
    links = Links(full[2]).found
    assert len(links) == 5
    for link in links:
        kind, picture = link.split(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(picture)).tag.endswith("svg")


def test_the_page_has_a_row_for_each_point_and_the_block_to_paste(
    full: tuple[Path, str, str],
) -> None:
    _, printed, page = full
    assert page.count("<tr") == 1 + len(sweep_of_points())
    assert page.count('<tr class="chosen">') == 4
    for text in (page, printed):
        assert "batchSize: 16\nmaxBatchDelay: 5\nminWorkers: 4\nmaxWorkers: 4\n" in text
        assert "All cores of the machine are busy" in text
    assert "48 x 503" in page
    assert "48 of 9295 requests failed" in page
    assert "1 worker, batch &lt;64&gt;: a worker that died" in page


def test_the_results_are_there_as_json(full: tuple[Path, str, str]) -> None:
    results = json.loads((full[0] / RESULTS).read_text())
    assert results["recommended"]["settings"]["handler"] == {"threads": 1}
    assert len(results["points"]) == len(sweep_of_points())
    last = results["points"][-1]
    assert last["traffic"] == {"loop": "OpenLoop", "requests_per_s": 72.0}
    assert last["load"]["statuses"] == {"200": 240, "503": 48}
    assert last["limit"] == "cores"


def test_an_interrupted_sweep_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    _, page = report(tmp_path, sweep_of_points()[:2], interrupted=True)
    assert "Interrupted: 2 of 64 points were measured." in page
    assert len(Links(page).found) == 3
    assert json.loads((tmp_path / RESULTS).read_text())["interrupted"] is True


def test_a_server_that_ran_already_gets_no_block(tmp_path: Path) -> None:
    points = [point(None, ClosedLoop(clients), load(9, 90), None) for clients in (1, 4)]
    printed, page = report(tmp_path, points)
    assert "model-config.yaml" not in printed + page
    assert "cannot be told" in printed
    assert len(Links(page).found) == 2


def test_where_all_failed_there_is_no_recommendation(tmp_path: Path) -> None:
    broken = point(setting(), ClosedLoop(1), load(0, 0, failures=7))
    printed, page = report(tmp_path, [broken])
    assert "no closed loop was measured without a failed request." in printed
    assert "no closed loop was measured without a failed request." in page


def test_what_limits_the_trust_in_the_figures_is_said(tmp_path: Path) -> None:
    crowded = replace(BUSY, workers=2.0, machine=4.0)
    measured = load(9, 90, generator_cpu_percent=99)
    _, page = report(tmp_path, [point(setting(), ClosedLoop(1), measured, crowded)])
    warnings = re.findall(r'<p class="warning">(.*?)</p>', page)
    assert len(warnings) == 3
    assert "saturated at 1 of 1 points" in warnings[0]
    assert "over 15% of the machine busy at 1 of 1 points" in warnings[1]
    assert "rests on 36 requests" in warnings[2]


def test_a_row_tells_refused_from_cut_off_requests() -> None:
    broken = load(9, 90, failures=5)
    kinds = {0: 1, 200: 38, 503: 2}
    object.__setattr__(broken, "statuses", kinds)
    cells = row(point(setting(), ClosedLoop(1), broken, None), None)
    assert cells["failures"] == "1 x no answer, 2 x 503, 2 x cut off"
    assert cells["cpu"] == ["-", "-", "0.20", "-"]


def test_labels_are_moved_apart_and_stay_in_order() -> None:
    assert spread([], 0.1) == []
    assert spread([0.2, 0.8], 0.1) == [0.2, 0.8]
    moved = spread([0.5, 0.5, 0.5], 0.1)
    assert moved == pytest.approx([0.4, 0.5, 0.6])
