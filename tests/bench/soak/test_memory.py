import subprocess
import sys
import time
from dataclasses import replace

import pytest

from bench.load.cpu import WORKER
from bench.soak.growth import THE_SERVER, growths, lives
from bench.soak.memory import (
    FRONT_DOOR,
    JAVA,
    LAUNCHER,
    kind_of,
    sampling,
)
from bench.soak.restarts import Restart
from d2serve.servers.torchserve.launcher.processes import end_process_group
from tests.bench.soak.made_up import MEGA, RESTART, samples

WORKER_CODE = "import time; print('on', flush=True); time.sleep(60)"
LEADER = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {WORKER_CODE!r}, sys.argv[1] + "worker.py"])
"""


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["/usr/bin/java", "-Xmx1g"], JAVA),
        (["python", "/x/ts/model_service_worker.py", "--sock-type"], WORKER),
        (["python", "-I", "-c", "from handler.lifecycle.relay import run; run()"], FRONT_DOOR),
        (["python", "-I", "-m", "ts.model_server"], LAUNCHER),
        ([], LAUNCHER),
    ],
)
def test_processes_are_told_apart(command: list[str], kind: str) -> None:
    assert kind_of(command) == kind


def test_all_of_a_process_group_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.soak.memory.EVERY_S", 0.01)
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER, "model_service_"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert leader.stdout
    try:
        leader.stdout.readline()
        with sampling(leader.pid) as found:
            while not found:
                time.sleep(0.01)
    finally:
        end_process_group(leader)
        leader.stdout.close()
    [(worker, resident)] = found[0].resident[WORKER].items()
    assert worker != leader.pid
    assert resident > MEGA
    assert found[0].of(LAUNCHER) > MEGA
    assert found[0].total == resident + found[0].of(LAUNCHER)


def test_growth_is_from_the_first_to_the_last_tenth_after_the_warm_up() -> None:
    by_name = {growth.what: growth for growth in growths(samples(0.5), [RESTART])}
    java = by_name[JAVA]
    assert java.first == pytest.approx(400 * MEGA * (1 + 0.5 / 20), rel=0.01)
    assert java.last == pytest.approx(400 * MEGA * (1 + 0.5 * 19 / 20), rel=0.01)
    assert by_name[FRONT_DOOR].share == 0
    assert by_name[WORKER].share == 0


def test_a_process_is_compared_with_itself_alone() -> None:
    assert [len(life) for life in lives(samples(), WORKER)] == [150, 150]
    by_name = {growth.what: growth for growth in growths(samples(0.2, WORKER), [RESTART])}
    # Of the two lives, the later one grew in all of its time.
    assert by_name[WORKER].share == pytest.approx(0.07, abs=0.01)
    assert by_name[THE_SERVER].share == pytest.approx(0.2 * 0.9 * 600 / 1300, rel=0.1)


def test_what_a_restart_takes_away_is_not_missed() -> None:
    late = Restart(272.0, 299.0)
    without = [
        replace(each, resident={**each.resident, WORKER: {}})
        if late.touches(each.moment, each.moment)
        else each
        for each in samples()
    ]
    by_name = {growth.what: growth for growth in growths(without, [RESTART, late])}
    assert by_name[THE_SERVER].share == 0


def test_too_few_samples_tell_nothing() -> None:
    assert growths(samples()[:15], []) == []
