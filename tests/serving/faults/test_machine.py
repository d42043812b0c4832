"""A machine whose clock jumps and whose disk is full."""

import re

import psutil
import pytest

from tests.serving.faults.faulty import GOOD, Faulty, wait_until


def test_a_wall_clock_that_jumps_changes_no_time(faulty: Faulty) -> None:
    """The handler's jumps by more than a year at every look."""
    for _ in range(4):
        answer = faulty.ask(GOOD, {"X-D2serve-Timeout-Ms": "90000"})
        assert answer.status_code == 200
        times = [float(ms) for ms in re.findall(r"dur=([-0-9.]+)", answer.headers["server-timing"])]
        assert all(0 <= elapsed_ms < 60_000 for elapsed_ms in times)


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="limits of others: Linux alone")
def test_logs_that_cannot_grow_fail_no_request(faulty: Faulty) -> None:
    """What a full disk does to a log, a limit on the size of files does too."""
    torchserve = faulty.torchserve
    logs = faulty.server.logs
    _, most = torchserve.rlimit(psutil.RLIMIT_FSIZE)
    torchserve.rlimit(psutil.RLIMIT_FSIZE, (1, most))
    try:
        written = logs.text("access_log.log")
        assert [faulty.ask(side).status_code for side in (GOOD, GOOD, 10)] == [200] * 3
        assert logs.text("access_log.log") == written
    finally:
        torchserve.rlimit(psutil.RLIMIT_FSIZE, (most, most))
    assert faulty.ask(GOOD).status_code == 200
    wait_until(lambda: logs.text("access_log.log") != written)
