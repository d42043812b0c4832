import base64
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.load.report.page import PAGE, RESULTS
from bench.soak.arguments import Options, parse
from bench.soak.growth import growths
from bench.soak.outcomes import WRONG
from bench.soak.report.page import write_report
from bench.soak.report.windows import GOOD, HOSTILE, LEAVING, OTHER, windows
from bench.soak.restarts import NEVER, Restart
from bench.soak.run import Soaked
from bench.soak.verdict import verdict
from tests.bench.load.test_report import Links
from tests.bench.soak.made_up import RESTART, SECONDS, judged, samples, with_one

SOAKED = Soaked(SECONDS, judged(), [RESTART], samples(), generator_cpu_s=30.0)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return parse(["--out", str(tmp_path / "new" / "soak")])


def report(options: Options, soaked: Soaked) -> tuple[str, dict[str, object]]:
    growth = growths(soaked.samples, soaked.restarts)
    criteria = verdict(soaked.judged, soaked.restarts, 1, growth, soaked.seconds)
    page = write_report(options, soaked, criteria)
    assert page == options.out / PAGE
    return page.read_text(), json.loads((options.out / RESULTS).read_text())


def test_the_page_holds_all_that_it_shows(options: Options) -> None:
    page, figures = report(options, SOAKED)
    links = Links(page).found
    assert len(links) == 5
    for link in links:
        kind, picture = link.split(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(picture)).tag.endswith("svg")
    assert "All criteria held" in page
    assert figures["faults"] == []
    assert figures["restarts"] == [{"killed_at": 150.0, "down_s": 4.0}]


def test_a_fault_is_told_with_its_reason(options: Options) -> None:
    page, figures = report(options, replace(SOAKED, judged=with_one(WRONG)))
    assert "Not all criteria held" in page
    assert "&lt;made up&gt;" in page
    assert figures["faults"] == [
        {"second": 0.0, "name": "good", "reason": "<made up>", "id": "id-0.000"}
    ]


def test_what_was_broken_off_or_too_much_for_the_generator_is_said(options: Options) -> None:
    page, figures = report(options, replace(SOAKED, interrupted=True, generator_cpu_s=None))
    assert "Interrupted after 5.0 minutes" in page
    assert figures["interrupted"] is True
    page, _ = report(options, replace(SOAKED, generator_cpu_s=0.95 * SECONDS))
    assert "The load generator used 95 %" in page


def test_a_run_of_which_there_is_next_to_nothing_has_a_page_too(options: Options) -> None:
    never_back = Restart(0.5, NEVER)
    soaked = Soaked(1.0, judged()[:3], [never_back], [], None, interrupted=True)
    page, figures = report(options, soaked)
    assert len(Links(page).found) == 4
    assert figures["restarts"] == [{"killed_at": 0.5, "down_s": None}]


def test_windows_count_requests_where_they_were_sent() -> None:
    parts = windows(judged(), SECONDS)
    assert [part.begin for part in parts] == [10.0 * index for index in range(30)]
    assert parts[2].rates == {GOOD: 10.0, HOSTILE: 0.1, LEAVING: 0.0, OTHER: 0.0}
    assert parts[3].rates == {GOOD: 10.0, HOSTILE: 0.0, LEAVING: 0.1, OTHER: 0.0}
    assert (parts[2].errors, parts[3].errors) == ({"400": 1}, {})
    assert parts[0].p99_ms == pytest.approx(500)
    assert windows([], 6.0)[0].p50_ms is None
