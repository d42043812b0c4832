"""Locust itself, in its own process, against a server that answers as it is told."""

from pathlib import Path

import pytest

from bench.load.driver import (
    NO_ANSWER,
    ClosedLoop,
    LoadError,
    OpenLoop,
    Target,
    generate,
    measure,
)
from bench.load.plan import Plan
from bench.load.requests import CLOSED, KEPT, MARK, Group, Request
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.bench.load.fake_server import GOOD, FakeServer, running


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    files = {"a.jpg": b"small", "b.png": b"large" * 1000}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return sorted(tmp_path / name for name in files)


def test_a_closed_loop_sends_every_picture_equally_often_and_counts_good_answers(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("LOCUST_RUN_TIME", "nonsense")
    with running(FakeServer(lag_s=0.02)) as fake:
        load = measure(Target(fake.url, pictures), ClosedLoop(4), 1.0, warm_up_seconds=0.2)
    assert load.statuses == {200: load.requests}
    assert load.failures == 0
    assert abs(load.requests_per_s - load.requests) <= 4  # those under way at begin and end
    assert 0 < load.requests < len(fake.headers)
    assert max(fake.bodies.values()) - min(fake.bodies.values()) <= 4
    assert {headers["Content-Type"] for headers in fake.headers} == {"image/jpeg", "image/png"}
    assert {headers["Accept"] for headers in fake.headers} == {"application/json"}
    assert 20 <= load.latency_ms[50] <= load.latency_ms[90] <= load.latency_ms[99]
    assert not load.generator_saturated


def test_what_is_refused_or_cut_off_is_counted_and_is_no_throughput(pictures: list[Path]) -> None:
    answers = [(200, GOOD), (503, b'{"error": {}}'), (200, GOOD[:-1]), (200, b"")]
    with running(FakeServer(lambda number: answers[number % 4], lag_s=0.01)) as fake:
        load = measure(Target(fake.url, pictures), ClosedLoop(1), 1.0, warm_up_seconds=0.1)
    good = round(load.requests_per_s)
    assert load.requests == sum(load.statuses.values())
    assert abs(load.requests - good - load.failures) <= 1
    assert abs(load.failures - 3 * good) <= 5
    assert abs(load.statuses[503] - good) <= 2


def test_an_answer_that_breaks_off_is_a_failure(pictures: list[Path]) -> None:
    with running(FakeServer(declared_extra=9, lag_s=0.01)) as fake:
        load = measure(Target(fake.url, pictures), ClosedLoop(1), 0.5, warm_up_seconds=0)
    assert load.failures == load.requests > 0
    assert (load.requests_per_s, load.latency_ms) == (0, {})


def test_a_server_that_is_gone_is_no_answer(pictures: list[Path]) -> None:
    url = f"http://127.0.0.1:{Ports.free().inference}/"
    load = measure(Target(url, pictures), ClosedLoop(2), 0.5, warm_up_seconds=0)
    assert load.statuses == {NO_ANSWER: load.requests}
    assert load.failures == load.requests > 0


def test_an_open_loop_does_not_wait_for_answers(pictures: list[Path]) -> None:
    with running(FakeServer(lag_s=0.5)) as fake:
        load = measure(Target(fake.url, pictures), OpenLoop(40), 1.0, warm_up_seconds=0.5)
    # A source that waited for each answer would send one at a time.
    assert fake.most_at_once > 5
    assert load.requests > 20
    assert load.statuses == {200: load.requests}


def test_an_open_loop_gives_up_after_the_timeout(pictures: list[Path]) -> None:
    with running(FakeServer(lag_s=3)) as fake:
        target = Target(fake.url, pictures)
        load = measure(target, OpenLoop(20), 0.5, warm_up_seconds=0, timeout_seconds=0.3)
    assert load.statuses == {NO_ANSWER: load.requests}
    assert load.failures == load.requests > 0


def test_a_generator_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"(?s)locust ended without a result.*absent\.jpg"):
        measure(Target("http://127.0.0.1:1/", [tmp_path / "absent.jpg"]), ClosedLoop(1), 0.1)


def test_a_plan_mixes_groups_and_knows_each_answer_by_its_own_mark(tmp_path: Path) -> None:
    marked, other = b'{"id": "' + MARK + b'"}', b'{"id": "other"}'
    for name, body in {"marked": marked, "other": other}.items():
        (tmp_path / name).write_bytes(body)
    groups = [
        Group(0.75, [Request("kept", str(tmp_path / "marked"), {}, KEPT)]),
        Group(0.25, [Request("closed", str(tmp_path / "other"), {}, CLOSED)]),
    ]
    bodies = tmp_path / "bodies"
    bodies.mkdir()
    with running(FakeServer(echo=True, lag_s=0.005)) as fake:
        notes = str(tmp_path / "notes")
        plan = Plan(fake.url, groups, 0.0, 0.1, 1.0, 10.0, notes, str(bodies))
        noted = generate(plan, ClosedLoop(4))
    kept = [answer for answer in noted.answers if answer.name == "kept"]
    assert len(kept) / len(noted.answers) == pytest.approx(0.75, abs=0.15)
    assert {(answer.status, answer.whole) for answer in noted.answers} == {(200, True)}
    # Each request had a mark of its own, and each answer is as if it had the plan's.
    assert [count for body, count in fake.bodies.items() if body != other] == [1] * len(kept)
    assert {(bodies / answer.digest).read_bytes() for answer in kept} == {marked}
    assert sorted(file.read_bytes() for file in bodies.iterdir()) == sorted([marked, other])
