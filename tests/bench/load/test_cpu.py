import os
import subprocess
import sys
import time
from collections import deque

import pytest

from bench.load.cpu import FRONTEND, WORKER, Samples, Snapshot, sampling, server_behind
from tests.bench.load.fake_server import FakeServer, running

# A frontend that idles, with a worker, by its name, that does not.
IDLE_PARENT = """
import subprocess, sys, time
busy = "import time; print('up', flush=True)\\nwhile True: pass"
subprocess.Popen([sys.executable, "-c", busy, "model_service_worker.py"])
time.sleep(60)
"""


def test_use_is_what_was_added_within_the_window() -> None:
    snapshots = [
        Snapshot(9.9, 0.0, {1: {11: 0.0}, 2: {21: 0.0, 22: 0.0}, 3: {31: 0.0}}),
        Snapshot(10.1, 100.0, {1: {11: 5.0}, 2: {21: 1.0, 22: 2.0}, 3: {31: 0.0}}),
        Snapshot(11.0, 102.0, {1: {11: 5.0}, 2: {21: 1.0, 22: 2.0}, 3: {31: 0.0}}),
        # A thread of the frontend has come and one of a worker gone.
        Snapshot(12.1, 106.0, {1: {11: 5.2, 12: 0.1}, 2: {21: 2.8}, 3: {31: 1.0}}),
        Snapshot(12.3, 999.0, {1: {11: 99.0}, 2: {21: 99.0}, 3: {31: 99.0}}),
    ]
    samples = Samples({1: FRONTEND, 2: WORKER, 3: WORKER}, deque(snapshots))
    use = samples.use(began_at=10.0, seconds=2.2)
    assert use
    assert use.machine == pytest.approx(3)
    assert use.workers == pytest.approx((1.8 + 1.0) / 2)
    assert use.worker_thread == pytest.approx((0.9 + 0.5) / 2)
    assert use.frontend == pytest.approx(0.15)
    assert use.frontend_thread == pytest.approx(0.1)
    assert samples.use(began_at=20.0, seconds=5) is None


def test_a_busy_worker_is_told_from_an_idle_frontend() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", IDLE_PARENT], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert parent.stdout
        assert parent.stdout.readline() == b"up\n"
        began_at = time.time()
        with sampling(parent.pid) as samples:
            time.sleep(1.2)
        use = samples.use(began_at, seconds=1.2)
    finally:
        os.killpg(parent.pid, 9)
        parent.communicate()
    assert use
    assert use.workers > 10 * use.frontend
    assert 0 < use.worker_thread == use.workers <= 1.1
    assert use.machine > use.workers / 2


def test_the_process_that_listens_is_found_on_this_machine_alone() -> None:
    with running(FakeServer()) as fake:
        assert server_behind(fake.url) == os.getpid()
        assert server_behind(fake.url.replace("127.0.0.1", "example.com")) is None
    assert server_behind(fake.url) is None


def test_without_a_server_the_machine_alone_is_sampled() -> None:
    began_at = time.time()
    with sampling(None) as samples:
        time.sleep(0.7)
    use = samples.use(began_at, seconds=0.7)
    assert use
    assert (use.workers, use.frontend, use.worker_thread) == (0, 0, 0)
