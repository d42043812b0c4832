"""Ray Serve's options of a deployment, derived from the archive's settings."""

from typing import Any

from d2serve.servers.ray.options import AUTO, ApplicationOptions
from d2serve.settings import Settings

DEPLOYMENT = "Model"
# Requests beyond `max_connections` that a replica still takes, to respond with the contract's 503.
SPARE_REQUESTS = 64
# Ray replaces a replica whose process does not respond to three checks.
HEALTH_CHECK_PERIOD_S = 5
HEALTH_CHECK_TIMEOUT_S = 7
# A stopping replica that has finished its requests ends after this interval at most.
DRAIN_POLL_S = 0.5
# Added to the time in which a replica finishes its requests, to free the model.
CLOSING_S = 5


def deployment_options(options: ApplicationOptions, settings: Settings) -> dict[str, Any]:
    """The options of the deployment.

    Ray must not respond for an overloaded replica, because its responses are plain text: it passes
    on more requests than the replica admits, and has no queue limit of its own.
    """
    return {
        "name": DEPLOYMENT,
        **_replicas(options, settings),
        "ray_actor_options": _resources(options),
        "max_ongoing_requests": settings.max_connections + SPARE_REQUESTS,
        "max_queued_requests": -1,
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": HEALTH_CHECK_TIMEOUT_S,
        "graceful_shutdown_wait_loop_s": DRAIN_POLL_S,
        "graceful_shutdown_timeout_s": settings.drain_seconds + CLOSING_S,
        # The replica logs each request itself.
        "logging_config": {"enable_access_log": False},
    }


def _replicas(options: ApplicationOptions, settings: Settings) -> dict[str, Any]:
    if not options.scales:
        return {"num_replicas": options.fewest_replicas}
    # A full batch runs while the next one waits.
    scaling = {"target_ongoing_requests": settings.images_per_forward, **options.autoscaling}
    return {"num_replicas": AUTO, "autoscaling_config": scaling}


def _resources(options: ApplicationOptions) -> dict[str, Any]:
    return {
        "num_cpus": options.num_cpus or 1,
        "num_gpus": options.num_gpus,
        "resources": dict(options.resources),
    }
