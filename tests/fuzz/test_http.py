"""Mutated requests to a real server: no 500, no restart, no growing memory."""

from statistics import median

import httpx
from hypothesis import event, given, settings

from d2serve.servers.torchserve.launcher.server import Server
from tests.fuzz.conftest import HTTP_EXAMPLES
from tests.fuzz.corpus import SEEDS_BY_NAME, Seed
from tests.fuzz.mutations import mutated_seeds
from tests.serving.served import worker_of

WARM_UP = HTTP_EXAMPLES // 4
MAX_GROWTH = 0.05
STATUSES = {200, 400, 406, 413, 415, 422}
CANARY = b"zqxcanary"


def test_worker_survives_mutated_requests(
    server: Server,
) -> None:
    worker = worker_of(server)
    memory: list[int] = []

    @settings(max_examples=HTTP_EXAMPLES)
    @given(seed=mutated_seeds())
    def send(seed: Seed) -> None:
        response = post(http, server, seed)
        event(f"status {response.status_code}")
        assert response.status_code in STATUSES, response.text
        assert CANARY not in response.content
        assert "Traceback" not in response.text
        memory.append(worker.memory_info().rss)

    with httpx.Client(timeout=120, trust_env=False) as http:
        alone = post(http, server, SEEDS_BY_NAME["instances"]).json()
        send()
        assert post(http, server, SEEDS_BY_NAME["instances"]).json() == alone
    assert worker.is_running()
    settled = median(memory[WARM_UP : 2 * WARM_UP])
    print(f"worker's memory: {settled / 1e6:.0f} MB, in the end {memory[-1] / 1e6:.0f} MB")
    assert median(memory[-WARM_UP:]) <= settled * (1 + MAX_GROWTH)


def post(http: httpx.Client, server: Server, seed: Seed) -> httpx.Response:
    # httpx accepts non-ASCII header values only as bytes.
    headers = [(name.encode(), value.encode("latin-1")) for name, value in seed.headers.items()]
    return http.post(f"{server.url}/invocations", content=seed.body, headers=headers)
