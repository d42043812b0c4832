from bench.load.points import Point
from bench.load.recommendation import recommend
from bench.load.serving import ServingSettings
from bench.load.traffic import ClosedLoop, OpenLoop
from tests.bench.load.made_up import load, point, setting

QUICK, LARGE, SLOW = setting(1), setting(8), setting(16)


def closed(
    settings: ServingSettings | None, clients: int, rate: float, p99_ms: float, failures: int = 0
) -> Point:
    return point(settings, ClosedLoop(clients), load(rate, p99_ms, failures))


POINTS = [
    closed(QUICK, 1, 10, 100),
    closed(QUICK, 16, 20, 800),
    closed(LARGE, 1, 9, 149),
    closed(LARGE, 16, 40, 500),
    closed(SLOW, 1, 8, 151),
    closed(SLOW, 16, 60, 450),
    point(SLOW, OpenLoop(90), load(90, 50)),
]


def test_the_quickest_of_those_that_are_quick_under_light_load() -> None:
    chosen = recommend(POINTS)
    assert chosen
    assert (chosen.settings, chosen.best) == (LARGE, POINTS[3])
    assert chosen.limit_ms == 150
    assert "p99 with 1 client is at most 1.5 times the best one's, 150 ms" in chosen.rule


def test_a_limit_holds_for_each_point_under_its_own_load() -> None:
    chosen = recommend(POINTS, p99_ms=460)
    assert chosen
    assert chosen.best == POINTS[5]
    assert "at most 460 ms" in chosen.rule
    chosen = recommend(POINTS, p99_ms=110)
    assert chosen
    assert chosen.best == POINTS[0]
    assert recommend(POINTS, p99_ms=10) is None


def test_points_with_failures_are_not_recommended() -> None:
    chosen = recommend([*POINTS[:3], closed(LARGE, 16, 40, 500, failures=1)])
    assert chosen
    assert chosen.best == POINTS[1]


def test_light_load_is_the_fewest_clients_that_were_measured() -> None:
    chosen = recommend([closed(QUICK, 4, 10, 100), closed(LARGE, 4, 30, 151)])
    assert chosen
    assert chosen.settings == QUICK
    assert "with 4 clients" in chosen.rule


def test_a_server_that_ran_already_has_a_best_point_and_no_settings() -> None:
    chosen = recommend([closed(None, 1, 10, 100), closed(None, 8, 30, 300)])
    assert chosen
    assert (chosen.settings, chosen.best.clients) == (None, 8)


def test_without_a_good_point_there_is_no_recommendation() -> None:
    assert recommend([]) is None
    assert recommend([closed(QUICK, 1, 0, 0, failures=9)]) is None
    assert recommend([POINTS[-1]]) is None
