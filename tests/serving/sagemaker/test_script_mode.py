"""The same batch with d2serve and with the toolkit's own script mode.

The assertions on script mode document its errors, which are the reason that d2serve does not use
it: see docs/sagemaker.md.
"""

import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from d2serve.aws.containers import SINGLE_WORKER, container_environment
from d2serve.aws.local_container import Container, running_container
from tests.serving.contract.rows import Array, Sent, npy_of, png_of
from tests.serving.traffic import images_run_together

TIMEOUT_S = 300
CLIENTS = 8
# A script as users of the toolkit write it: it returns its inputs, and rejects text.
INFERENCE = """
import json

def model_fn(model_dir):
    return None

def input_fn(body, content_type):
    if content_type == "text/plain":
        raise ValueError("text is not an image")
    return content_type

def predict_fn(data, model):
    return data

def output_fn(prediction, accept):
    return json.dumps({"content_type": prediction, "accept": accept})
"""
BATCH_DELAY_MS, FIRST_ARRIVES_S = 30_000, 0.7
DELAY = {"SAGEMAKER_TS_MAX_BATCH_DELAY": str(BATCH_DELAY_MS)}
BATCHED = container_environment("realtime", DELAY | SINGLE_WORKER)
TEXT = Sent(b"no image", "text/plain")


@pytest.fixture(scope="module")
def script_mode(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The toolkit with a user's script, which forms batches of eight."""
    folder = tmp_path_factory.mktemp("script-mode")
    script = folder / "inference.py"
    script.write_text(INFERENCE)
    package = folder / "script.tar.gz"
    with tarfile.open(package, "w:gz") as packed:
        packed.add(script, "code/inference.py")
    # The script has no handler of d2serve that could start the reverse proxy.
    environment = {name: value for name, value in BATCHED.items() if "ADDRESS" not in name}
    log_dir = tmp_path_factory.mktemp("logs")
    with running_container(package, environment, log_dir=log_dir) as running:
        running.wait_until_healthy(TIMEOUT_S)
        yield running


@pytest.fixture(scope="module")
def d2serve(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    log_dir = tmp_path_factory.mktemp("logs")
    with running_container(package, BATCHED, log_dir=log_dir) as running:
        running.wait_until_healthy(TIMEOUT_S)
        yield running


def mixed(image: Array) -> list[Sent]:
    """Two content types and two response types, alternating."""
    array = npy_of(image).body
    kinds = [
        png_of(image, Accept="application/json"),
        Sent(array, "application/x-npy", {"Accept": "application/json"}),
        png_of(image, Accept="image/png"),
        Sent(array, "application/x-npy", {"Accept": "application/x-npy"}),
    ]
    return kinds * (CLIENTS // len(kinds))


def send_together(container: Container, requests: list[Sent]) -> list[httpx.Response]:
    """Send all requests in one batch, which the first of them opens."""
    url = f"{container.url}/invocations"
    with (
        httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http,
        ThreadPoolExecutor(len(requests)) as pool,
    ):
        first = pool.submit(requests[0].post, http, url)
        # TorchServe waits for the rest of the batch, for BATCH_DELAY_MS at most.
        time.sleep(FIRST_ARRIVES_S)
        remaining = [pool.submit(sent.post, http, url) for sent in requests[1:]]
        return [response.result() for response in (first, *remaining)]


def test_d2serve_handles_each_request_of_a_mixed_batch(d2serve: Container, image: Array) -> None:
    requests = [*mixed(image)[:-1], TEXT]
    responses = send_together(d2serve, requests)
    types = [response.headers["content-type"] for response in responses]
    expected = [sent.headers.get("Accept", "application/json") for sent in requests]
    assert types == expected
    assert [response.status_code for response in responses] == [200] * (CLIENTS - 1) + [415]
    assert max(images_run_together(response) for response in responses) == CLIENTS - 1


def test_script_mode_applies_the_types_of_the_first_request_to_the_batch(
    script_mode: Container, image: Array
) -> None:
    for first in mixed(image)[:4]:
        responses = send_together(script_mode, [first, *mixed(image)[1:]])
        assert {response.status_code for response in responses} == {200}
        bodies = [response.json() for response in responses]
        seen = {"content_type": first.content_type, "accept": first.headers["Accept"]}
        assert bodies == [seen] * CLIENTS


def test_script_mode_fails_the_batch_if_its_first_request_is_bad(
    script_mode: Container, image: Array
) -> None:
    responses = send_together(script_mode, [TEXT, *mixed(image)[1:]])
    assert [response.status_code for response in responses] == [503] * CLIENTS


def test_script_mode_accepts_a_bad_request_after_a_good_one(
    script_mode: Container, image: Array
) -> None:
    responses = send_together(script_mode, [*mixed(image)[:-1], TEXT])
    assert [response.status_code for response in responses] == [200] * CLIENTS
