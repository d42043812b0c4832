import pytest

from d2serve.aws.containers import MIB, container_environment
from d2serve.aws.deployment import OPTIONS
from d2serve.servers.openmp import OPENMP_SETTINGS

# Megabytes that SageMaker accepts.
LIMITS_MB = {"realtime": 6, "serverless": 4, "async": 1024, "mme": 6, "transform": 100}
ONE_MODEL = {
    "SAGEMAKER_TS_BATCH_SIZE": "8",
    "SAGEMAKER_TS_MAX_BATCH_DELAY": "10",
    "TS_DEFAULT_STARTUP_TIMEOUT": "300",
    "D2SERVE_PUBLIC_ADDRESS": "0.0.0.0:8080",
    "TS_INFERENCE_ADDRESS": "http://127.0.0.1:8081",
    "TS_MANAGEMENT_ADDRESS": "http://127.0.0.1:8081",
}


@pytest.mark.parametrize("mode", LIMITS_MB)
def test_torchserve_accepts_the_sizes_that_sagemaker_does(mode: str) -> None:
    environment = container_environment(mode, {})
    for name in ("TS_MAX_REQUEST_SIZE", "TS_MAX_RESPONSE_SIZE"):
        assert int(environment[name]) >= LIMITS_MB[mode] * MIB
        assert int(environment[name]) < 2**31  # TorchServe reads an int


@pytest.mark.parametrize(
    ("mode", "workers", "timeout_s", "queue"),
    [
        ("realtime", "2", "60", "32"),
        ("serverless", "1", "60", "32"),
        ("async", "2", "900", "100"),
        ("transform", "2", "600", "100"),
    ],
)
def test_environment_of_a_single_model(mode: str, workers: str, timeout_s: str, queue: str) -> None:
    expected = ONE_MODEL | {
        "SAGEMAKER_TS_MIN_WORKERS": workers,
        "SAGEMAKER_TS_MAX_WORKERS": workers,
        "SAGEMAKER_TS_RESPONSE_TIMEOUT": timeout_s,
        "D2SERVE_LONGEST_WAIT_SECONDS": timeout_s,
        "TS_JOB_QUEUE_SIZE": queue,
    }
    assert expected.items() <= container_environment(mode, {}).items()


def test_multi_model_environment_enables_the_management_api() -> None:
    environment = container_environment("mme", {})
    assert environment["TS_ENABLE_MODEL_API"] == "true"
    assert not set(environment) & set(ONE_MODEL)


@pytest.mark.parametrize("mode", LIMITS_MB)
def test_waiting_threads_sleep(mode: str) -> None:
    assert OPENMP_SETTINGS.items() <= container_environment(mode, {}).items()


def test_given_wait_policy_wins() -> None:
    environment = container_environment("realtime", {"OMP_WAIT_POLICY": "ACTIVE"})
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "GOMP_SPINCOUNT" not in environment  # it would take precedence


def test_every_mode_has_an_environment() -> None:
    assert {*OPTIONS, "transform"} == set(LIMITS_MB)


def test_given_variables_win() -> None:
    given = {"SAGEMAKER_TS_BATCH_SIZE": "1", "MINE": "yes"}
    assert given.items() <= container_environment("realtime", given).items()
    assert container_environment("realtime", {})["SAGEMAKER_TS_BATCH_SIZE"] == "8"
