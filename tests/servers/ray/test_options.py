"""The arguments of `d2serve.servers.ray:build`, and the options of the deployment."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from d2serve.errors import SettingsError
from d2serve.servers.ray.deployment import SPARE_REQUESTS, deployment_options
from d2serve.servers.ray.options import ApplicationOptions
from d2serve.servers.ray.threads import prepare_environment, replica_cpus
from d2serve.settings import Settings

ARCHIVE = {"archive": "/models/shapes.mar"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "argument archive .* is missing; .*args: {archive:"),
        ({"archive": ""}, r"argument archive .* is '', expected a path or an s3:// URI"),
        ({**ARCHIVE, "replicas": 2}, "argument replicas .* does not exist; accepted are archive"),
        ({**ARCHIVE, "name": "a b"}, "argument name .* is 'a b'"),
        ({**ARCHIVE, "settings": ["a"]}, "argument settings .* expected a mapping"),
        ({**ARCHIVE, "num_replicas": 0}, "argument num_replicas .* is 0, expected an integer"),
        ({**ARCHIVE, "num_replicas": True}, "argument num_replicas .* is True"),
        ({**ARCHIVE, "num_replicas": "many"}, "argument num_replicas .* is 'many'"),
        ({**ARCHIVE, "num_replicas": 2, "autoscaling": {"min_replicas": 1}}, "expected auto"),
        ({**ARCHIVE, "num_cpus": 0}, "argument num_cpus .* is 0"),
        ({**ARCHIVE, "num_gpus": 2}, "argument num_gpus .* is 2, expected a number from 0 to 1"),
        ({**ARCHIVE, "cors_origins": "https://a"}, "argument cors_origins .* expected a list"),
        ({**ARCHIVE, "forward_timeout_s": "60"}, "argument forward_timeout_s .* is '60'"),
        ({**ARCHIVE, "check_model": "no"}, "argument check_model .* is 'no'"),
    ],
)
def test_an_error_names_the_argument(args: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ApplicationOptions.from_args(args)


def test_every_argument_is_documented(repo_root: Path) -> None:
    page = (repo_root / "docs" / "ray.md").read_text(encoding="utf-8")
    rows = page.partition("### Arguments")[2].partition("\n### ")[0].splitlines()
    keys = [row.split("`")[1] for row in rows if row.startswith("| `")]
    assert keys == [each.name for each in fields(ApplicationOptions)]


def test_a_replica_gets_more_requests_than_it_admits() -> None:
    """So that its own 503 comes before Ray's, which is plain text."""
    settings = Settings(max_connections=10, drain_seconds=7)
    options = deployment_options(ApplicationOptions.from_args(ARCHIVE), settings)
    assert options["max_ongoing_requests"] == 10 + SPARE_REQUESTS
    assert options["max_queued_requests"] == -1
    assert options["graceful_shutdown_timeout_s"] > 7
    assert options["num_replicas"] == 1


@pytest.mark.parametrize(
    ("args", "several"),
    [
        ({}, False),
        ({"num_replicas": 1}, False),
        ({"num_replicas": 2}, True),
        ({"num_replicas": "auto"}, True),
        ({"autoscaling": {"min_replicas": 1}}, True),
    ],
)
def test_several_replicas_may_run(args: dict[str, Any], several: bool) -> None:
    assert ApplicationOptions.from_args({**ARCHIVE, **args}).has_several_replicas == several


def test_autoscaling_aims_at_full_batches() -> None:
    settings = Settings(images_per_forward=6)
    limits = {"min_replicas": 2, "max_replicas": 4}
    args = {**ARCHIVE, "autoscaling": limits, "num_gpus": 0.5}
    options = deployment_options(ApplicationOptions.from_args(args), settings)
    assert options["num_replicas"] == "auto"
    assert options["autoscaling_config"] == {"target_ongoing_requests": 6, **limits}
    assert options["ray_actor_options"]["num_gpus"] == 0.5
    own = ApplicationOptions.from_args({**ARCHIVE, "autoscaling": {"target_ongoing_requests": 3}})
    scaling = deployment_options(own, settings)["autoscaling_config"]
    assert scaling["target_ongoing_requests"] == 3


@pytest.mark.parametrize(
    ("args", "assigned", "available", "cpus"),
    [
        ({}, 1.0, 8, 8),
        ({"num_replicas": 3}, 1.0, 8, 2),
        ({"num_replicas": 9}, 1.0, 8, 1),
        ({"autoscaling": {"min_replicas": 2}}, 1.0, 8, 4),
        ({"num_cpus": 1}, 1.0, 8, 1),
        ({"num_cpus": 0.5}, 0.5, 8, 1),
        ({"num_cpus": 4}, 4.0, 8, 4),
        ({"num_cpus": 4}, 4.0, 2, 2),
        ({}, 6.0, 8, 6),  # a Serve config can override the reservation
    ],
)
def test_cpus_of_a_replica(
    args: dict[str, Any], assigned: float, available: int, cpus: int
) -> None:
    options = ApplicationOptions.from_args({**ARCHIVE, **args})
    assert replica_cpus(options, assigned, available) == cpus


def test_openmp_does_not_get_the_number_of_threads_from_ray() -> None:
    environment = {"OMP_NUM_THREADS": "1"}
    prepare_environment(environment)
    assert "OMP_NUM_THREADS" not in environment
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
