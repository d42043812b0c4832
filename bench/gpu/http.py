"""Rates of a served model: JPEGs in, JSON with RLE out, through TorchServe."""

import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bench.checkpoints import checkpoint_of
from bench.clients import for_seconds, send_all
from bench.gpu.plan import Plan
from bench.gpu.rate import Rate
from bench.scale import picture_of
from bench.stages.decode import encoded
from scripts.archive import SERVING_DEFAULTS, build_archive
from scripts.torchserve import running_server

HTTP = "HTTP, JPEG to RLE"
LOGS = Path("logs", "bench-gpu")
WARM_UPS = 32


def http_rates(plan: Plan, precision: str) -> Iterator[Rate]:
    """Of a server of our own, with the defaults of `make archive` but for the precision."""
    body = encoded(picture_of(plan.picture_wh), "JPEG")
    with served(plan, precision) as url:
        for clients in plan.clients:
            yield rate_of(url, body, clients, plan.http_seconds, precision)


def rate_of(url: str, body: bytes, clients: int, seconds: float, precision: str) -> Rate:
    """Clients that send their next request when they have their answer, for so many seconds."""
    send_all(url, itertools.repeat(body, WARM_UPS), clients)
    start = time.perf_counter()
    latencies = send_all(url, for_seconds(itertools.repeat(body), seconds), clients)
    elapsed = time.perf_counter() - start
    return Rate(HTTP, precision, clients, len(latencies) / elapsed, tuple(latencies), _in_use())


@contextmanager
def served(plan: Plan, precision: str) -> Iterator[str]:
    """Serves the plan's model while the `with` block runs; gives its URL."""
    handler = SERVING_DEFAULTS["handler"] | {"precision": precision}
    with tempfile.TemporaryDirectory(prefix="d2serve-gpu-") as temporary:
        folder = Path(temporary)
        checkpoint = checkpoint_of(plan.model, folder)
        serving = {"handler": handler}
        archive = build_archive(plan.model.config, checkpoint, "bench", folder, serving=serving)
        with running_server(archive, log_dir=LOGS) as server:
            yield f"{server.url}/predictions/{server.model_name}"


def _in_use() -> int:
    """Bytes of the device that all processes hold, this one's few included."""
    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free
