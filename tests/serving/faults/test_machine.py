"""A machine with a jumping clock and a full disk."""

import re

import psutil
import pytest

from tests.serving.faults.faulty import Faulty, wait_until
from tests.serving.faults.injection import GOOD


def test_a_jumping_wall_clock_does_not_change_durations(faulty: Faulty) -> None:
    """The clock of the process that runs the model jumps by more than a year at every call."""
    for _ in range(4):
        response = faulty.send(GOOD, {"X-D2serve-Timeout-Ms": "90000"})
        assert response.status_code == 200
        times = [
            float(ms) for ms in re.findall(r"dur=([-0-9.]+)", response.headers["server-timing"])
        ]
        assert all(0 <= elapsed_ms < 60_000 for elapsed_ms in times)


@pytest.mark.skipif(
    not hasattr(psutil.Process, "rlimit"), reason="only Linux limits other processes"
)
def test_requests_succeed_when_logs_cannot_grow(faulty: Faulty) -> None:
    """A limit on the size of files has the effect of a full disk."""
    process = faulty.logging_process
    _, limit = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (1, limit))
    try:
        written = faulty.main_log
        assert [faulty.send(side).status_code for side in (GOOD, GOOD, 10)] == [200] * 3
        assert faulty.main_log == written
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, (limit, limit))
    assert faulty.send(GOOD).status_code == 200
    wait_until(lambda: faulty.main_log != written)
