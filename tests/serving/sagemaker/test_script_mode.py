"""The same batch, answered by d2serve and by the toolkit's own script mode, side by side.

What is asserted of script mode is wrong, and is why d2serve does not use it: docs/sagemaker.md.
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

WITHIN_S = 120
CLIENTS = 8
# What a user of the toolkit writes: it tells what it was given, and refuses text.
INFERENCE = """
import json

def model_fn(model_dir):
    return None

def input_fn(body, content_type):
    if content_type == "text/plain":
        raise ValueError("text is no picture")
    return content_type

def predict_fn(data, model):
    return data

def output_fn(prediction, accept):
    return json.dumps({"content_type": prediction, "accept": accept})
"""
BATCH_DELAY_MS = 2000
DELAY = {"SAGEMAKER_TS_MAX_BATCH_DELAY": str(BATCH_DELAY_MS)}
BATCHED = container_environment("realtime", DELAY | SINGLE_WORKER)
TEXT = Sent(b"no picture", "text/plain")


@pytest.fixture(scope="module")
def script_mode(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The toolkit with a user's script, which waits for batches of eight."""
    folder = tmp_path_factory.mktemp("script-mode")
    script = folder / "inference.py"
    script.write_text(INFERENCE)
    package = folder / "script.tar.gz"
    with tarfile.open(package, "w:gz") as packed:
        packed.add(script, "code/inference.py")
    # The script has no worker of ours that could open a front door.
    environment = {name: value for name, value in BATCHED.items() if "ADDRESS" not in name}
    log_dir = tmp_path_factory.mktemp("logs")
    with running_container(package, environment, log_dir=log_dir) as running:
        running.wait_until_healthy(WITHIN_S)
        yield running


@pytest.fixture(scope="module")
def d2serve(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    log_dir = tmp_path_factory.mktemp("logs")
    with running_container(package, BATCHED, log_dir=log_dir) as running:
        running.wait_until_healthy(WITHIN_S)
        yield running


def mixed(picture: Array) -> list[Sent]:
    """Two content types and two answers, in turn."""
    array = npy_of(picture).body
    kinds = [
        png_of(picture, Accept="application/json"),
        Sent(array, "application/x-npy", {"Accept": "application/json"}),
        png_of(picture, Accept="image/png"),
        Sent(array, "application/x-npy", {"Accept": "application/x-npy"}),
    ]
    return kinds * (CLIENTS // len(kinds))


def ask_together(container: Container, requests: list[Sent]) -> list[httpx.Response]:
    """All requests in one batch, which the first of them begins."""
    url = f"{container.url}/invocations"
    with (
        httpx.Client(timeout=WITHIN_S, trust_env=False) as http,
        ThreadPoolExecutor(len(requests)) as pool,
    ):
        first = pool.submit(requests[0].post, http, url)
        # TorchServe waits for the others for BATCH_DELAY_MS.
        time.sleep(BATCH_DELAY_MS / 4000)
        others = [pool.submit(sent.post, http, url) for sent in requests[1:]]
        return [answer.result() for answer in (first, *others)]


def test_d2serve_answers_each_of_a_mixed_batch(d2serve: Container, picture: Array) -> None:
    requests = [*mixed(picture)[:-1], TEXT]
    responses = ask_together(d2serve, requests)
    types = [response.headers["content-type"] for response in responses]
    asked = [sent.headers.get("Accept", "application/json") for sent in requests]
    assert types == asked
    assert [response.status_code for response in responses] == [200] * (CLIENTS - 1) + [415]
    assert max(images_run_together(response) for response in responses) == CLIENTS - 1


def test_script_mode_takes_all_of_a_batch_for_what_one_request_is(
    script_mode: Container, picture: Array
) -> None:
    for first in mixed(picture)[:4]:
        responses = ask_together(script_mode, [first, *mixed(picture)[1:]])
        assert {response.status_code for response in responses} == {200}
        told = [response.json() for response in responses]
        seen = {"content_type": first.content_type, "accept": first.headers["Accept"]}
        assert told == [seen] * CLIENTS


def test_script_mode_fails_all_of_a_batch_for_one_bad_request(
    script_mode: Container, picture: Array
) -> None:
    responses = ask_together(script_mode, [TEXT, *mixed(picture)[1:]])
    assert [response.status_code for response in responses] == [503] * CLIENTS


def test_script_mode_takes_a_bad_request_for_a_good_one_behind_a_good_one(
    script_mode: Container, picture: Array
) -> None:
    responses = ask_together(script_mode, [*mixed(picture)[:-1], TEXT])
    assert [response.status_code for response in responses] == [200] * CLIENTS
