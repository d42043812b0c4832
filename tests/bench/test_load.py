"""The load test: settings, points, the sweep and the command."""

import json
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.load import sweep as sweep_module
from bench.load.command import PRESETS, main, parse, report, row
from bench.load.points import Point, ServingSettings, grid, notes_of, recommend
from bench.load.sweep import Measured, SweepPlan, configure, sweep, unpacked
from bench.loadgen.client import Request
from bench.loadgen.generator import ClosedLoop, OpenLoop, Traffic
from bench.loadgen.load import PERCENTILES, Load
from d2serve.errors import CommandError
from tests.bench.fake_server import GOOD, Capture, FakeServer, Patch, running
from tests.environment import clean_environment
from tests.polling import WITHIN_S, wait_until

FAST, LARGE, SLOW, BROKEN = (ServingSettings(size, 20, 1, 4) for size in (1, 8, 16, 64))


def load(rate: float, p99_ms: float, failures: int = 0, cpu_percent: float = 20.0) -> Load:
    requests = round(4 * rate) + failures
    latency = {name: p99_ms * (0.4 + 0.6 * (name - 50) / 49) for name in PERCENTILES}
    statuses = {200: requests - failures} | ({503: failures} if failures else {})
    known = latency if rate else {}
    return Load(requests, failures, rate, known, statuses, 4.0, 1000.0, cpu_percent, {})


def closed(settings: ServingSettings | None, clients: int, *figures: Any) -> Point:
    return Point(settings, ClosedLoop(clients), load(*figures))


LIGHT = [closed(FAST, 1, 10, 100), closed(LARGE, 1, 9, 149), closed(SLOW, 1, 8, 151)]
BUSY = [closed(FAST, 16, 20, 800), closed(LARGE, 16, 40, 500), closed(SLOW, 16, 60, 450)]
OPEN = Point(SLOW, OpenLoop(90), load(90, 50))
POINTS = [*LIGHT, *BUSY, OPEN]


def test_a_grid_has_all_combinations_but_delays_of_a_batch_of_one() -> None:
    on_four = partial(grid, cpus=lambda: 4)
    assert on_four([4, 1], [20, 5], [2], None) == [(1, 5, 2, 2), (4, 5, 2, 2), (4, 20, 2, 2)]
    shares = [(each.workers, each.threads) for each in on_four([8], [5], [1, 2, 3, 4, 8], None)]
    assert shares == [(1, 4), (2, 2), (3, 1), (4, 1)]
    assert [each.workers for each in on_four([8], [5], [8], 3)] == [8]


def test_a_copy_of_the_archive_takes_the_settings(tmp_path: Path, monkeypatch: Patch) -> None:
    archive = tmp_path / "model.mar"
    with zipfile.ZipFile(archive, "w") as packed:
        config = "responseTimeout: 9\nhandler: {threads: 7, masks: rle}"
        packed.writestr("model-config.yaml", config)
    with unpacked(archive) as folder:
        assert folder.name == "model"
        configure(folder, ServingSettings(4, 5, 2, 3))
        written = yaml.safe_load((folder / "model-config.yaml").read_text())
    assert (written["responseTimeout"], written["batchSize"], written["minWorkers"]) == (9, 4, 2)
    assert written["handler"] == {"threads": 3, "masks": "rle"}
    assert not folder.exists()
    with pytest.raises(CommandError, match="not an archive; `make archive`"), unpacked(tmp_path):
        pass
    monkeypatch.setenv("D2SERVE_THREADS", "1")
    with pytest.raises(CommandError, match="D2SERVE_THREADS is set"), unpacked(archive):
        pass


def test_the_fastest_setting_that_is_fast_under_light_load_is_recommended() -> None:
    chosen = recommend(POINTS)
    assert chosen
    assert (chosen.best, chosen.limit_ms) == (BUSY[1], 150)
    assert "p99 with 1 client is at most 1.5 times the best one's, 150 ms" in chosen.rule
    chosen = recommend([*LIGHT[:2], BUSY[0], closed(LARGE, 16, 40, 500, 1)])
    assert chosen
    assert chosen.best == BUSY[0]


def test_a_limit_holds_for_each_point_under_its_own_load() -> None:
    best = [found and found.best for found in (recommend(POINTS, ms) for ms in (460, 110, 10))]
    assert best == [BUSY[2], LIGHT[0], None]
    assert recommend([]) is recommend([OPEN]) is recommend([closed(FAST, 1, 0, 0, 9)]) is None
    assert "no recommendation" in next(notes_of([], 10))


def test_one_server_per_setting_and_then_the_recommended_ones_open_loop(monkeypatch: Patch) -> None:
    loads, opened, running_now = list[Any](), list[Any](), list[Any]()

    def measure(_: str, __: Any, traffic: Traffic, seconds: float, warm_up_s: float) -> Load:
        """The more clients, the faster."""
        loads.append((traffic, seconds, warm_up_s))
        return load(2.0 * traffic.clients if isinstance(traffic, ClosedLoop) else 1.0, 100)

    @contextmanager
    def open_server(settings: ServingSettings | None) -> Iterator[str]:
        assert not running_now
        opened.append(settings)
        if settings == BROKEN:
            raise CommandError("has a worker that died; the end of its log:\n\nline")
        running_now.append(settings)
        try:
            yield "http://x/"
        finally:
            running_now.clear()

    monkeypatch.setattr(sweep_module, "measure", measure)
    monkeypatch.setattr(sweep_module, "request_once", lambda *_: (None, 0.1))
    plan, measured = SweepPlan([FAST, BROKEN, LARGE], [1, 8], [0.5, 1.2], 4.0, 1.0), Measured()
    sweep(plan, [Request("a", b"")], open_server, measured)
    assert opened == [FAST, BROKEN, LARGE, FAST]
    closed_loops, open_loops = [ClosedLoop(1), ClosedLoop(8)], [OpenLoop(8.0), OpenLoop(1.2 * 16.0)]
    assert [traffic for traffic, *_ in loads] == [*closed_loops, *closed_loops, *open_loops]
    assert measured.failures == {str(BROKEN): "has a worker that died; the end of its log:"}
    # The first point has 2 responses/s, so each of 8 clients waits 4 seconds.
    assert [each[1:] for each in loads[:2]] == [(4.0, 1.0), (8.0, 4.0)]


def test_a_report_has_table_block_json_and_plot(tmp_path: Path, capsys: Capture) -> None:
    opened = Point(LARGE, OpenLoop(72), load(60, 90, 48, 99))
    measured = Measured([*POINTS, opened], {"1 worker, batch 64": "a worker that died"})
    report(tmp_path, measured, SweepPlan([FAST] * 15, [1], [1], 1, 1), interrupted=True)
    printed = capsys.readouterr().out
    assert printed.count("| 1 worker x 4 threads, batch ") == len(measured.points)
    for text in ("batchSize: 8\nmaxBatchDelay: 20\n", "not measured: 1 worker, batch 64: a worker"):
        assert text in printed
    assert "Interrupted after 8 points" in printed
    assert "saturated at 1 of 8" in printed
    assert "48 of 1236 requests failed" in printed
    content = json.loads((tmp_path / "loadtest.json").read_text())
    assert content["recommended"]["handler"] == {"threads": 4}
    traffic = {"loop": "OpenLoop", "requests_per_s": 72, "is_even": False}
    assert content["points"][-1]["traffic"] == traffic
    assert content["points"][-1]["load"]["statuses"] == {"200": 240, "503": 48}
    assert (tmp_path / "loadtest.png").stat().st_size > 10_000
    broken = load(9, 90, 5)._replace(statuses={0: 1, 200: 38, 503: 2})
    assert "1 x no response, 2 x 503, 2 x incomplete" in row(Point(None, ClosedLoop(1), broken))


def test_the_command_line_overrides_the_preset(capsys: Capture) -> None:
    _, plan = parse([])
    assert (plan.clients, plan.fractions) == ([1, 4, 16, 32], [0.5, 0.8, 0.95, 1.2])
    given = ["--quick", "--clients", "9", "3", "3", "--p99-ms", "70.5", "--url", "http://x/"]
    _, plan = parse(given)
    assert (plan.settings, plan.clients, plan.seconds, plan.p99_ms) == ([None], [3, 9], 1, 70.5)
    for option, value in {"--clients": "0", "--seconds": "-1", "--p99-ms": "inf"}.items():
        with pytest.raises(SystemExit):
            parse([option, value])
        assert f"received '{value}', expected a" in capsys.readouterr().err


def points_in(folder: Path) -> Any:
    return json.loads((folder / "loadtest.json").read_text())["points"]


def test_its_own_server_is_swept_over_settings(
    tmp_path: Path, shapes_mar: Path, shapes: Path, monkeypatch: Patch
) -> None:
    """Without open loops, for which the command starts another server."""
    _, _, *option = PRESETS["fractions"]
    monkeypatch.setitem(PRESETS, "fractions", ([], [], *option))
    monkeypatch.chdir(tmp_path)
    image = min((shapes / "samples").iterdir(), key=lambda file: file.stat().st_size)
    arguments = "--quick --clients 1 --batch-sizes 3 --delays-ms 7 --threads 1"
    target = ["--model", str(shapes_mar), "--images", str(image)]
    assert main([*target, *arguments.split(), "--seconds", "2"]) == 0
    [first] = points_in(tmp_path / "out" / "loadtest")
    assert first["settings"] == {"batch_size": 3, "max_delay_ms": 7, "workers": 1, "threads": 1}
    assert first["load"]["failures"] == 0
    assert first["load"]["requests"] > 0


def test_ctrl_c_ends_with_a_report(tmp_path: Path, repo_root: Path, shapes: Path) -> None:
    def respond(_: int) -> tuple[int, bytes]:
        """Two requests at once are the second point's, which lasts until the first has ended."""
        if fake.most_at_once >= 2:
            ended.wait(60)
        return 200, GOOD

    fake, ended = FakeServer(respond, lag_s=0.01), threading.Event()
    with running(fake):
        command = [sys.executable, "-m", "bench", "load", "--url", fake.url, "--out", str(tmp_path)]
        command += ["--images", str(shapes / "samples"), "--seconds", "0.5", "--warm-up", "0.1"]
        command += ["--clients", "1", "16"]
        process = subprocess.Popen(command, cwd=repo_root, env=clean_environment())
        try:
            wait_until(lambda: fake.most_at_once >= 2)
            process.send_signal(signal.SIGINT)
            assert process.wait(WITHIN_S) == 130
        finally:
            process.kill()
            ended.set()
    [point] = points_in(tmp_path)
    assert point["traffic"]["clients"] == 1
    assert "Interrupted after 1 points" in (tmp_path / "loadtest.md").read_text()


def test_nothing_measured_is_an_error(tmp_path: Path, shapes: Path) -> None:
    with running(FakeServer(lambda _: (404, b"no model"))) as fake:
        arguments = ["--url", fake.url, "--images", str(shapes / "samples"), "--out", str(tmp_path)]
        with pytest.raises(CommandError, match=r"the running server: .* received 404"):
            main(arguments)
    assert not list(tmp_path.iterdir())
