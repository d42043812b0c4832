"""What the benchmarks measure of a server, of the one that is there for all tests."""

from pathlib import Path

import psutil
import pytest

from bench.gpu.http import HTTP, rate_of
from bench.memory.processes import worker_pid, worker_samples
from d2serve.servers.torchserve.launcher.server import Server

pytestmark = pytest.mark.serving


def test_the_workers_memory_is_seen_over_its_requests(server: Server, jpeg: Path) -> None:
    samples = worker_samples(server, jpeg.read_bytes(), requests=20, clients=4)
    assert samples[0].done == 0
    assert samples[-1].done == 20
    assert min(sample.resident for sample in samples) > 100e6
    assert "model_service_worker" in " ".join(psutil.Process(worker_pid(server)).cmdline())


def test_the_rate_of_several_clients(server: Server, jpeg: Path) -> None:
    url = f"{server.url}/predictions/{server.model_name}"
    rate = rate_of(url, jpeg.read_bytes(), clients=4, seconds=1.0, precision="fp32")
    assert (rate.what, rate.precision, rate.together) == (HTTP, "fp32", 4)
    assert len(rate.seconds) >= 4
    assert rate.images_per_s > 0
