"""The environment variables that set up TorchServe inside the stock container."""

from collections.abc import Mapping

from handler.lifecycle.front_door import PUBLIC_ADDRESS, SERVER_ADDRESS
from scripts.waiting_threads import waiting_threads

MIB = 1024 * 1024

# AWS's toolkit turns these into the settings of the one model that it serves.
SINGLE_MODEL = {
    "SAGEMAKER_TS_BATCH_SIZE": "8",
    "SAGEMAKER_TS_MAX_BATCH_DELAY": "10",  # milliseconds
    "SAGEMAKER_TS_MIN_WORKERS": "2",
    "SAGEMAKER_TS_MAX_WORKERS": "2",
    "TS_DEFAULT_STARTUP_TIMEOUT": "300",  # seconds
    # SageMaker sends requests as soon as /ping is answered, and TorchServe answers it while the
    # model still loads: so SageMaker's port is opened by the worker, when it has loaded the model.
    PUBLIC_ADDRESS: "0.0.0.0:8080",
    SERVER_ADDRESS: "http://127.0.0.1:8081",
    "TS_MANAGEMENT_ADDRESS": "http://127.0.0.1:8081",
}
# Where memory is short.
SINGLE_WORKER = {"SAGEMAKER_TS_MIN_WORKERS": "1", "SAGEMAKER_TS_MAX_WORKERS": "1"}
# The toolkit's properties for many models lack a line end before the switch of the models' API,
# and without it every model that SageMaker loads is answered with 405.
MANY_MODELS = {"TS_ENABLE_MODEL_API": "true"}

SETTINGS: dict[str, dict[str, str]] = {
    "realtime": SINGLE_MODEL,
    "serverless": SINGLE_MODEL | SINGLE_WORKER,
    "async": SINGLE_MODEL,
    "mme": MANY_MODELS,
    "transform": SINGLE_MODEL,
}
# Seconds that a request may take: what SageMaker itself allows.
RESPONSE_TIMEOUT_S = {"realtime": 60, "serverless": 60, "async": 900, "transform": 600}
# Requests that may wait: SageMaker sends batches of pictures to be answered some time.
QUEUE_SIZE = {"realtime": 32, "serverless": 32, "async": 100, "transform": 100}
# What SageMaker lets through, and TorchServe must not refuse: 6, 4, 1024, 6 and 100 MB, and room
# for headers.
MAX_BODY_BYTES = {
    "realtime": 8 * MIB,
    "serverless": 8 * MIB,
    "async": 1024 * MIB,
    "mme": 8 * MIB,
    "transform": 104 * MIB,
}


def container_environment(mode: str, given: Mapping[str, str]) -> dict[str, str]:
    """The variables for realtime, serverless, async, mme or transform; the user's own win."""
    body = str(MAX_BODY_BYTES[mode])
    sizes = {"TS_MAX_REQUEST_SIZE": body, "TS_MAX_RESPONSE_SIZE": body}
    environment = SETTINGS[mode] | waiting_threads(given) | sizes
    if mode in RESPONSE_TIMEOUT_S:
        seconds = str(RESPONSE_TIMEOUT_S[mode])
        environment["SAGEMAKER_TS_RESPONSE_TIMEOUT"] = seconds
        environment["D2SERVE_LONGEST_WAIT_SECONDS"] = seconds
        environment["TS_JOB_QUEUE_SIZE"] = str(QUEUE_SIZE[mode])
    return {**environment, **given}
